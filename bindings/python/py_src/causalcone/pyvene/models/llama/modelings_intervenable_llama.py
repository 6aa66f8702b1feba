"""The loaders, under pyvene's own path."""

from ...loading import create_llama  # noqa: F401
