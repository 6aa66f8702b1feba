"""The model, under pyvene's own path."""

from ..intervenable import *  # noqa: F401, F403
