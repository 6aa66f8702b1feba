"""The swap that interventions of one's own are made of.

>>> import numpy as np
>>> from causalcone.pyvene import _do_intervention_by_swap
>>> _do_intervention_by_swap(np.zeros((1, 1, 3)), np.ones((1, 1, 3)), "add", interchange_dim=2).tolist()
[[[1.0, 1.0, 0.0]]]
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from .arrays import give, take
from .locations import dims_of


def _do_intervention_by_swap(
    base: Any,
    source: Any,
    mode: str = "interchange",
    interchange_dim: Any = None,
    subspaces: Any = None,
    subspace_partition: Any = None,
    use_fast: bool = False,
) -> Any:
    """For interventions of one's own: `base` (examples, …, d) with dimensions of `source` exchanged, added ("add") or
    taken off ("subtract"), or these dimensions by themselves ("collect"): the first `interchange_dim`, or of each
    example those of its subspace. `base` stays as it is."""
    changes = {
        "interchange": lambda own, other: other,
        "add": lambda own, other: own + other,
        "subtract": lambda own, other: own - other,
    }
    if mode != "collect" and mode not in changes:
        raise InputError(f"mode {mode!r}, where interchange, add, subtract or collect fits")
    width = None if interchange_dim is None else take(interchange_dim).tolist()
    by_example = [dims_of(subspaces, example, subspace_partition, width) for example in range(len(base))]
    where = [range(base.shape[-1]) if dims is None else dims for dims in by_example]
    if mode == "collect":
        parts = [base[example][..., list(dims)] for example, dims in enumerate(where)]
        return imported_torch().stack(parts) if is_tensor(base) else give(np.stack(parts))  # type: ignore[union-attr]
    new = base.clone() if is_tensor(base) else np.array(base)
    whole = source + 0 * base
    for example, dims in enumerate(where):
        at = (example, ..., list(dims))
        new[at] = changes[mode](base[at], whole[at])
    return new if is_tensor(new) else give(new)
