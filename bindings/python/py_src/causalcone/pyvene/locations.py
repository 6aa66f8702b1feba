"""What a call names, in all the forms pyvene takes, made into one: for each intervention and example, which units.

`unit_locations` forms (n interventions, b examples):

| given | base units | source units |
|---|---|---|
| {"sources->base": 3} | 3 everywhere | the same |
| {"sources->base": (2, 3)} | 3 | 2 |
| {"sources->base": [0, 1, 2]} | 0, 1, 2 | the same |
| {"sources->base": (S, B)} | B: n lists of b lists of units | S, or None |
| {"base": …} | any of these | none |
| None | everything | everything |

Units "h.pos" have a pair (heads, positions) where others have a list: n pairs of b lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .._arrays import is_array, is_tensor
from .._errors import InputError
from . import gradients
from .arrays import take

Units = "list[int] | tuple[list[int], list[int]] | None"
"""Of one intervention in one example: positions or heads, heads and positions, or all there is."""


class Located(NamedTuple):
    """By intervention, by example: the units of the source and of the base."""

    sources: list[list[Any] | None]
    bases: list[list[Any] | None]


def located(key: str, value: Any, units: Sequence[str], examples: int) -> Located:
    """What `unit_locations[key]` means for interventions of these units.

    Raises InputError where lists do not fit the interventions or the examples."""
    count = len(units)
    value = _plain(value)
    is_base_only = key == "base"

    def everywhere(one: list[int]) -> list[list[Any] | None]:
        nested = next((unit for unit in units if "." in unit), None)
        if nested is not None:
            raise InputError(
                f"unit_locations[{key!r}] is {value!r}, for units {nested!r}",
                "give heads and positions: pv.GET_LOC((head, position))",
            )
        return [[one] * examples for _ in units]

    if isinstance(value, int):
        base = everywhere([value])
        return Located([None] * count if is_base_only else base, base)
    if value is None:
        return Located([None] * count, [None] * count)
    if _is_pair(value, is_base_only):
        source, base = value
        sides = [None if one is None else one if isinstance(one, list) else everywhere([one]) for one in (source, base)]
        source_list, base_list = (_nested(one, key, units, examples) for one in sides)
        return Located([None] * count if is_base_only else source_list, base_list)
    if isinstance(value, (list, tuple)) and value and all(isinstance(one, int) for one in value):
        base = everywhere(list(value))
        return Located([None] * count if is_base_only else base, base)
    if is_base_only:
        return Located([None] * count, _nested(value, key, units, examples))
    raise InputError(
        f"unit_locations[{key!r}] is {value!r}",
        "give a number, (source, base), or (source lists, base lists): a list an intervention, in it a list an example",
    )


def _is_pair(value: Any, is_base_only: bool) -> bool:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return False
    numbers = all(one is None or isinstance(one, int) for one in value)
    if numbers:
        # Under "base" a list of two numbers is two units.
        return isinstance(value, tuple) or not is_base_only
    return not is_base_only


def _nested(lists: Any, key: str, units: Sequence[str], examples: int) -> list[list[Any] | None]:
    if lists is None:
        return [None] * len(units)
    if not isinstance(lists, (list, tuple)) or len(lists) != len(units):
        has = len(lists) if isinstance(lists, (list, tuple)) else lists
        raise InputError(f"unit_locations[{key!r}] has lists for {has} interventions, where there are {len(units)}")
    return [_of_examples(one, key, number, unit, examples) for number, (one, unit) in enumerate(zip(lists, units))]


def _of_examples(one: Any, key: str, number: int, unit: str, examples: int) -> list[Any] | None:
    part = f"unit_locations[{key!r}], intervention {number}"
    if one is None:
        return None
    if "." in unit:
        if not isinstance(one, (list, tuple)) or len(one) != 2:
            raise InputError(f"{part}: {one!r}, where a pair of heads and positions fits, for units {unit!r}")
        heads, positions = (_rows(side, part, examples) for side in one)
        return list(zip(heads, positions))
    return list(_rows(one, part, examples))


def _rows(rows: Any, part: str, examples: int) -> list[list[int]]:
    if not isinstance(rows, (list, tuple)) or len(rows) != examples:
        has = len(rows) if isinstance(rows, (list, tuple)) else rows
        raise InputError(f"{part}: lists for {has} examples, where there are {examples}")
    made = []
    for row in rows:
        row = [row] if isinstance(row, int) else row
        if not isinstance(row, (list, tuple)) or not row or not all(isinstance(unit, int) for unit in row):
            raise InputError(f"{part}: {row!r}, where a list of units fits")
        made.append(list(row))
    return made


def subspaces_of(subspaces: Any, count: int, examples: int) -> list[Any]:
    """By intervention: None, or what belongs to it; lists of numbers by example where these are what is given."""
    subspaces = _plain(subspaces)
    if subspaces is None:
        return [None] * count
    if is_array(subspaces):
        subspaces = take(subspaces).tolist()
    if isinstance(subspaces, int):
        subspaces = [subspaces]
    if isinstance(subspaces, (list, tuple)) and subspaces and isinstance(subspaces[0], int):
        return [[list(subspaces)] * examples for _ in range(count)]
    if not isinstance(subspaces, (list, tuple)) or len(subspaces) != count:
        has = len(subspaces) if isinstance(subspaces, (list, tuple)) else subspaces
        raise InputError(f"subspaces are for {has} interventions, where there are {count}")
    return list(subspaces)


def dims_of(subspaces: Any, example: int, partition: list[list[int]] | None, width: Any) -> list[int] | None:
    """The dimensions of one example: those of its subspace, by number or as parts of the partition; without one the
    first `width` (or those listed), None for all."""
    if subspaces is None:
        return width if isinstance(width, list) else None if width is None else list(range(width))
    if not isinstance(subspaces, (list, tuple)) or example >= len(subspaces):
        raise InputError(f"subspaces {subspaces!r} have none for example {example}", "a list an example")
    own = subspaces[example]
    own = [own] if isinstance(own, int) else own
    if own is None:
        return None
    if not isinstance(own, (list, tuple)) or not all(isinstance(one, int) for one in own):
        raise InputError(f"a subspace is {own!r}, where a list of dimensions fits")
    if partition is None:
        return list(own)
    bad = [one for one in own if not 0 <= one < len(partition)]
    if bad:
        raise InputError(f"a subspace names part {bad[0]} of a partition of {len(partition)}")
    return [dim for part in own for dim in partition[part]]


def representations_of(given: Any, keys: Sequence[str]) -> dict[str, Any]:
    """By key, the constants that a call puts in."""
    if given is None:
        return {}
    if isinstance(given, dict):
        unknown = [key for key in given if key not in keys]
        if unknown:
            raise InputError(f"source_representations has {unknown[0]!r}, which is no intervention", ", ".join(keys))
        return given
    if isinstance(given, (list, tuple)):
        if len(given) != len(keys):
            raise InputError(f"{len(given)} source_representations for {len(keys)} interventions")
        return dict(zip(keys, given))
    if is_array(given):
        return {key: given for key in keys}
    raise InputError(
        f"source_representations of type {type(given).__name__}", "give an array, a list of arrays, or a dict by key"
    )


def rows_of(constant: Any, example: int, examples: int, shape: tuple[int, ...], what: str) -> Any:
    """The part of a constant that is one example's: one vector, or rows of `shape` (units…, width). A tensor that
    carries a gradient stays one."""
    rows: Any = constant if gradients.wanted(constant) else take(constant)
    if rows.ndim == len(shape) + 1 and rows.shape[0] in (1, examples):
        rows = rows[example if rows.shape[0] == examples else 0]
    while rows.ndim > 1 and rows.shape[0] == 1:
        rows = rows[0]
    fits = all(own in (1, wanted) for own, wanted in zip(reversed(rows.shape), reversed(shape)))
    if not fits or rows.ndim > len(shape):
        raise InputError(
            f"{what}: a source of shape {tuple(constant.shape)}, where {shape} fits, or one vector of {shape[-1]}"
        )
    if rows.ndim <= 1:
        return rows.expand(shape[-1:]) if is_tensor(rows) else np.broadcast_to(rows, shape[-1:])
    return rows.expand(shape) if is_tensor(rows) else np.broadcast_to(rows, shape)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if isinstance(value, np.integer):
        return int(value)
    if is_array(value):
        return take(value).tolist()
    if isinstance(value, range):
        return list(value)
    if isinstance(value, tuple):
        return tuple(_plain(one) for one in value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
