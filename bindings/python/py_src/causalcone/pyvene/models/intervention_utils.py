"""The swap, under pyvene's own path."""

from ..swapping import _do_intervention_by_swap  # noqa: F401
