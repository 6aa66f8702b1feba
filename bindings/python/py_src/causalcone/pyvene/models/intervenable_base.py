"""The model, under pyvene's own path."""

from ..intervenable import *
