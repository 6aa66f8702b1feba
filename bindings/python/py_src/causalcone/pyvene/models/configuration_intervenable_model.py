"""The configuration, under pyvene's own path."""

from ..config import *
