"""Parts of an experiment: its runs and edits by name, and what its document holds in the form that JSON can write."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import is_array
from ._errors import InputError

if TYPE_CHECKING:
    from .experiment import Experiment


class Run:
    """A prompt of an experiment."""

    def __init__(self, experiment: Experiment, name: str) -> None:
        self.experiment = experiment
        self.name = name

    def at(
        self,
        *,
        site: str | None = None,
        layers: Any = None,
        positions: Any = None,
        heads: Any = None,
        align: str | None = None,
    ) -> dict[str, Any]:
        """Its activations as a value, at another site, other layers, positions or heads than the edit's. `align`
        pairs all positions of two prompts of different lengths: "left", "right" or "tokens"."""
        places = {"site": site, "layers": layers, "positions": positions, "heads": heads, "align": align}
        return {"run": self.name} | {key: plain(place) for key, place in places.items() if place is not None}

    def __repr__(self) -> str:
        return f"<Run {self.name!r}>"


class Edit:
    """An edit of an experiment."""

    def __init__(self, experiment: Experiment, name: str) -> None:
        self.experiment = experiment
        self.name = name

    def __repr__(self) -> str:
        return f"<Edit {self.name!r}>"


def plain(x: Any) -> Any:
    """What JSON can write: arrays and ranges as lists, NumPy's numbers as Python's, keys without a value left out."""
    if isinstance(x, Run):
        return {"run": x.name}
    if isinstance(x, Mapping):
        return {key: plain(one) for key, one in x.items() if one is not None}
    if isinstance(x, np.generic):
        x = x.item()
    if isinstance(x, float) and not math.isfinite(x):
        if x == -math.inf:
            return "-inf"
        raise InputError(f"{x} is no number that an experiment can hold")
    if is_array(x):
        return plain(np.asarray(x).tolist())
    if isinstance(x, (list, tuple, range, set, frozenset)):
        return [plain(one) for one in x]
    if x is None or isinstance(x, (str, int, float, bool)):
        return x
    if isinstance(x, Iterable):
        return [plain(one) for one in x]
    if isinstance(x, os.PathLike):
        return os.fspath(x)
    raise InputError(f"{x!r} is of type {type(x).__name__}, which no experiment has a place for")
