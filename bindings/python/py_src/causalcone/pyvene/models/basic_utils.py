"""The helpers, under pyvene's own path."""

from ..utils import *  # noqa: F401, F403
