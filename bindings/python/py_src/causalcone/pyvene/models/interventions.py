"""The interventions, under pyvene's own path."""

from ..interventions import *  # noqa: F401, F403
