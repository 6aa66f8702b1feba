"""The units that an intervention is made on: which positions and heads of an example these are, and their rows as
pyvene lays them out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from .arrays import give
from .batches import Batch
from .components import ATTENTION_MATRICES, heads_of, width_of
from .program import Program


class Place(NamedTuple):
    """Where one intervention is made."""

    key: str
    group: int
    unit: str
    site: str
    layer: int | None
    order: tuple[float, int]
    intervention: Any
    units: int


def units_of(
    info: dict[str, Any], place: Place, batch: Batch, example: int, units: Any
) -> tuple[list[int] | None, list[int] | None]:
    """Positions and heads of one example; None for all."""
    if units is None or units[example] is None:
        return None, None
    own = units[example]
    if place.site in ATTENTION_MATRICES and place.unit in ("pos", "h"):
        # The axis behind the examples is that of heads.
        return None, list(own)
    if place.unit == "pos":
        return batch.positions(example, own), None
    if heads_of(info, place.site) is None:
        raise InputError(f"{place.key}: unit {place.unit!r} of {place.site}, which has no heads")
    if place.unit == "h":
        return None, list(own)
    if place.unit == "h.pos":
        heads, positions = own
        return None if positions is None else batch.positions(example, positions), list(heads)
    raise NotImplementedError(f"unit {place.unit!r}: there are pos, h and h.pos")


def shape_of(
    info: dict[str, Any],
    place: Place,
    batch: Batch,
    example: int,
    positions: list[int] | None,
    heads: list[int] | None,
) -> tuple[int, ...]:
    """The shape of the rows of one example's units, as pyvene has them."""
    count = len(batch.ids[example]) if positions is None else len(positions)
    width = width_of(info, place.site)
    has = heads_of(info, place.site)
    if width is None:
        return (len(heads) if heads else has or 1, count, len(batch.ids[example]))
    return (count, width) if has is None else (len(heads) if heads else has, count, width)


def read_rows(
    info: dict[str, Any], program: Program, place: Place, edited: tuple[list[str], Batch], units: Any
) -> list[Any]:
    """The activations of all examples as they now stand, as pyvene lays them out: units first, heads before
    positions."""
    runs, batch = edited
    readings, picked = [], []
    for example, run in enumerate(runs):
        positions, heads = units_of(info, place, batch, example, units)
        # A position may be named twice; it is read once.
        once = list(dict.fromkeys(positions or []))
        picked.append(None if once == (positions or []) else [once.index(one) for one in positions or []])
        readings.append(program.reading(run, place.site, place.layer, once or None, heads))
    is_matrix = place.site in ATTENTION_MATRICES
    rows = [
        one if which is None else one[:, which] if is_matrix else one[which]
        for one, which in zip(program.read(readings), picked)
    ]
    return [one.swapaxes(0, 1) for one in rows] if place.site.startswith("head_") else rows


def stacked_rows(rows: list[Any], batch: Batch, units: Any) -> Any:
    """One array for all examples; whole examples of different lengths are padded."""
    if rows and is_tensor(rows[0]):
        return imported_torch().stack(rows)  # type: ignore[union-attr]
    if units is None and len({one.shape for one in rows}) > 1:
        if rows[0].ndim != 2:
            raise NotImplementedError("heads of examples of different lengths: name the positions that are meant")
        return give(batch.padded(rows))
    if len({one.shape for one in rows}) > 1:
        raise InputError("examples name different numbers of units, which make no array", "name as many in each")
    return give(np.stack(rows))


def joined(x: Any) -> Any:
    """Units as one long vector: (b, n, d) to (b, n·d), (b, h, n, d) to (b, n, h·d)."""
    if x.ndim == 3:
        return x.reshape(x.shape[0], -1)
    b, h, n, d = x.shape
    return x.swapaxes(1, 2).reshape(b, n, h * d)


def parted(x: Any, shape: tuple[int, ...], key: str) -> Any:
    """Units of one long vector as they were before it was joined."""
    if x.shape[-1] % shape[1]:
        raise InputError(
            f"{key}: a width of {x.shape[-1]} cannot be divided among {shape[1]} units",
            "set keep_last_dim=True to get the units one by one",
        )
    if len(shape) == 3:
        return x.reshape(*shape[:2], -1)
    b, h, n, _ = shape
    return x.reshape(b, n, h, -1).swapaxes(1, 2)
