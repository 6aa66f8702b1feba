"""pyvene's own paths."""

from . import modelings_intervenable_llama  # noqa: F401
