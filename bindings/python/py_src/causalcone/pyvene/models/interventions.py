"""The interventions, under pyvene's own path."""

from ..interventions import *
