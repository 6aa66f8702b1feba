"""The loaders, under pyvene's own path."""

from ...loading import create_gpt2, create_gpt2_lm  # noqa: F401
