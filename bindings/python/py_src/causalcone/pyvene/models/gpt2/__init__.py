"""pyvene's own paths."""

from . import modelings_intervenable_gpt2  # noqa: F401
