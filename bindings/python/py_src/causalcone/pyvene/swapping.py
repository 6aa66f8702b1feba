"""The swap that interventions are made of when Python computes them.

>>> import numpy as np
>>> from causalcone.pyvene import _do_intervention_by_swap
>>> _do_intervention_by_swap(np.zeros((1, 1, 3)), np.ones((1, 1, 3)), "add", interchange_dim=2).tolist()
[[[1.0, 1.0, 0.0]]]
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import imported_torch, is_array, is_tensor
from .._errors import InputError
from .arrays import give, take

_CHANGES = {
    "interchange": lambda own, other: other,
    "add": lambda own, other: own + other,
    "subtract": lambda own, other: own - other,
}


def _do_intervention_by_swap(
    base: Any,
    source: Any,
    mode: str = "interchange",
    interchange_dim: Any = None,
    subspaces: Any = None,
    subspace_partition: Any = None,
    use_fast: bool = False,
) -> Any:
    """Returns a copy of `base` (examples, …, rows, d) with dimensions of `source` exchanged, added ("add") or
    subtracted ("subtract"). With "collect" it returns these dimensions of `base` only.

    `subspaces` choose the dimensions, by number or as parts of `subspace_partition`. One list, or lists that are all
    the same, apply to every row. Other lists apply one by one:

    - lists of one length to the rows, the axis before the last;
    - lists of several lengths to the examples, the first axis;
    - where each example has one row, lists for the examples always apply to these.

    `use_fast` promises that all lists are the same: the first is used. Without subspaces the first `interchange_dim`
    dimensions change, those it lists, or all.

    A negative dimension counts from the end. Raises InputError for dimensions that `base` does not have, and for lists
    that do not fit the rows or the examples.
    """
    if mode != "collect" and mode not in _CHANGES:
        raise InputError(f"mode is {mode!r}, expected interchange, add, subtract or collect")
    if not is_tensor(base):
        base = np.asarray(base)
    if not base.ndim:
        raise InputError("base is a single number, expected an array (examples, …, rows, d)")
    selection = _selection(base, interchange_dim, subspaces, subspace_partition, use_fast)
    if mode == "collect":
        found = [_part(base, one) for one in selection.indices]
        if selection.axis is None:
            return found[0].clone() if is_tensor(base) else give(np.array(found[0]))
        if len({one.shape for one in found}) > 1:
            raise InputError("subspaces of different sizes do not form one array", "collect each of them by itself")
        if is_tensor(base):
            return imported_torch().stack(found, dim=selection.axis)  # type: ignore[union-attr]
        return give(np.stack(found, axis=selection.axis))
    source = _broadcast(source, base)
    new = base.clone() if is_tensor(base) else np.array(base)
    for at in selection.indices:
        changed = _CHANGES[mode](base[at], source[at])
        new[at] = changed.to(new.dtype) if is_tensor(new) else changed
    return new if is_tensor(new) else give(new)


class _Selection(NamedTuple):
    """Indices of the parts that change, and the axis along which these parts make one array: None for a single part."""

    indices: list[Any]
    axis: int | None


def _part(base: Any, index: Any) -> Any:
    """The part at an index. NumPy moves the axis of a list to the front if a number and `...` come before it."""
    return base[index[0]][index[1:]] if isinstance(index[0], int) else base[index]


def _selection(base: Any, interchange_dim: Any, subspaces: Any, partition: Any, use_fast: bool) -> _Selection:
    width = base.shape[-1]
    if subspaces is None:
        dims = None if interchange_dim is None else take(interchange_dim).tolist()
        if dims is None or isinstance(dims, int):
            return _Selection([(..., slice(dims))], None)
        return _Selection([(..., checked_dims(dims, width))], None)
    numbers = _lists(subspaces)
    lists = [checked_dims(_dims(one, partition), width) for one in numbers]
    if use_fast or all(one == lists[0] for one in lists):
        return _Selection([(..., lists[0])], None)
    if base.ndim < 2:
        raise InputError(f"there are {len(lists)} different subspaces for one row", "give one list")
    examples, rows = base.shape[0], base.shape[-2]
    # As pyvene counts: numbers of parts, where there is a partition.
    is_ragged = len({len(one) for one in numbers}) > 1
    if (is_ragged or rows == 1) and len(lists) == examples:
        return _Selection([(example, ..., one) for example, one in enumerate(lists)], 0)
    if not is_ragged and len(lists) == rows:
        return _Selection([(..., row, one) for row, one in enumerate(lists)], -2)
    wanted = f"{examples} examples" if is_ragged or rows == 1 else f"{rows} rows"
    raise InputError(f"there are {len(lists)} different subspaces for {wanted}", "give one list each, or one for all")


def _lists(subspaces: Any) -> list[list[int]]:
    """The lists of a call; numbers by themselves are one list."""
    subspaces = take(subspaces).tolist() if is_array(subspaces) else subspaces
    subspaces = [subspaces] if isinstance(subspaces, int) else subspaces
    if not isinstance(subspaces, (list, tuple)) or not subspaces:
        raise InputError(f"subspaces are {subspaces!r}, expected a list of dimensions, or one for each row")
    if all(isinstance(one, (int, np.integer)) for one in subspaces):
        subspaces = [subspaces]
    lists = [take(one).tolist() if is_array(one) else one for one in subspaces]
    for one in lists:
        if not isinstance(one, (list, tuple)) or not all(isinstance(dim, (int, np.integer)) for dim in one):
            raise InputError(f"a subspace is {one!r}, expected a list of dimensions")
    return [[int(dim) for dim in one] for one in lists]


def _dims(numbers: list[int], partition: Any) -> list[int]:
    if partition is None:
        return numbers
    bad = [one for one in numbers if not 0 <= one < len(partition)]
    if bad:
        raise InputError(f"a subspace names part {bad[0]} of a partition with {len(partition)} parts")
    return [int(dim) for part in numbers for dim in partition[part]]


def checked_dims(dims: list[int], width: int) -> list[int]:
    """Returns `dims`. Raises InputError for a dimension outside -`width` to `width` - 1."""
    for dim in dims:
        if not -width <= dim < width:
            raise InputError(
                f"dimension {dim} of a subspace is out of range: there are {width}, numbered 0 to {width - 1}",
                "a negative number counts from the end: -1 is the last dimension",
            )
    return dims


def _broadcast(source: Any, base: Any) -> Any:
    """The source in the shape of the base: of the same shape, one vector, or anything that repeats to that shape."""
    if source is None:
        raise InputError("there is no source to put in", "give a source")
    source = _as_kind(source, base)
    if source.shape == base.shape:
        return source
    # One vector, whatever axes of length 1 come with it.
    if source.ndim and source.shape[-1] == base.shape[-1] and int(np.prod(tuple(source.shape))) == source.shape[-1]:
        source = source.reshape(-1)
    try:
        expand = imported_torch().broadcast_to if is_tensor(base) else np.broadcast_to  # type: ignore[union-attr]
        return expand(source, tuple(base.shape))
    except (ValueError, RuntimeError):
        raise InputError(
            f"a source of shape {tuple(source.shape)} does not fit a base of shape {tuple(base.shape)}"
        ) from None


def _as_kind(x: Any, example: Any) -> Any:
    """An array of the same kind as `example`: a torch tensor, or a NumPy array."""
    if is_tensor(example):
        return x if is_tensor(x) else imported_torch().as_tensor(np.asarray(x))  # type: ignore[union-attr]
    return take(x)
