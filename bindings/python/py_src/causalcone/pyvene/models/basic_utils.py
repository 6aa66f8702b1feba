"""The helpers, under pyvene's own path."""

from ..utils import *
