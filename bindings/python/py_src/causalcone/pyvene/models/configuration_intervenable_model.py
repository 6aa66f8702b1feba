"""The configuration, under pyvene's own path."""

from ..config import *  # noqa: F401, F403
