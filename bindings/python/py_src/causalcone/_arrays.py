"""Arrays in and out: NumPy's, and torch's where the caller has torch. torch is never imported here.

>>> import numpy as np
>>> from causalcone._arrays import as_float32
>>> as_float32(np.arange(6.0).reshape(2, 3)[:, ::2], "value").flags.c_contiguous
True
>>> as_float32(np.array(["a"]), "value")
Traceback (most recent call last):
    ...
causalcone._errors.InputError: value: an array of <U1, where real numbers fit
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np

from ._errors import InputError


def imported_torch() -> ModuleType | None:
    """torch, if somebody has imported it."""
    return sys.modules.get("torch")


def is_tensor(x: Any) -> bool:
    """Whether it is a torch tensor."""
    torch = imported_torch()
    return torch is not None and isinstance(x, torch.Tensor)


def is_array(x: Any) -> bool:
    """Whether it is an array of any kind: NumPy's, torch's, or one that offers DLPack or NumPy's protocols."""
    return isinstance(x, np.ndarray) or is_tensor(x) or hasattr(x, "__dlpack__") or hasattr(x, "__array_interface__")


def to_numpy(x: Any, what: str) -> np.ndarray:
    """The same numbers as a NumPy array, without a copy where that is possible.

    Raises InputError for a tensor on another device, and for one that requires a gradient: it would be lost.
    """
    if is_tensor(x):
        if x.requires_grad:
            raise InputError(f"{what}: a tensor that requires a gradient, which would be lost here", "give x.detach()")
        if x.device.type != "cpu":
            raise InputError(f"{what}: a tensor on device {x.device}, where cpu fits", "give x.cpu()")
        if x.layout is not imported_torch().strided:  # type: ignore[union-attr]
            raise InputError(f"{what}: a sparse tensor", "give x.to_dense()")
        if x.is_floating_point() and x.element_size() != 8:
            # NumPy has no bfloat16.
            x = x.float()
        return x.resolve_conj().resolve_neg().numpy()
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__") and not isinstance(x, np.generic):
        device = x.__dlpack_device__()[0]
        if int(device) != 1:
            raise InputError(f"{what}: an array on another device than the cpu", None)
        return np.from_dlpack(x)
    try:
        return np.asarray(x)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what}: no array of numbers ({error})") from None


def as_float32(x: Any, what: str) -> np.ndarray:
    """The same numbers as float32 in C order; the array itself if it is that already.

    Integers and wider floats are rounded to float32, in which everything is computed. Raises InputError for what is
    no array of real numbers, and as `to_numpy`.
    """
    array = to_numpy(x, what)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what}: an array of {array.dtype.str.lstrip('|=')}, where real numbers fit")
    return np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)


def as_ids(x: Any, what: str) -> list[int]:
    """Token ids as a list of ints. Raises InputError for what is no flat list of whole numbers from 0 on."""
    if isinstance(x, (list, tuple, range)):
        x = list(x)
        if all(isinstance(one, int) and not isinstance(one, bool) for one in x):
            array = np.asarray(x, dtype=object)
        else:
            array = to_numpy(np.asarray(x), what)
    else:
        array = to_numpy(x, what)
    if array.dtype != object and array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{what}: token ids of {array.dtype}, where whole numbers fit")
    if array.ndim != 1:
        raise InputError(f"{what}: token ids of shape {array.shape}, where one row fits")
    ids = [int(one) for one in array.tolist()]
    bad = next((one for one in ids if not 0 <= one < 1 << 32), None)
    if bad is not None:
        raise InputError(f"{what}: {bad} is no token id")
    return ids


def like(kind: str, array: np.ndarray) -> Any:
    """The array as "numpy", or as a torch tensor over the same memory for "torch"."""
    if kind != "torch":
        return array
    torch = imported_torch()
    if torch is None:
        raise InputError("arrays are wanted as torch tensors, and torch is not imported", "import torch first")
    return torch.from_numpy(array)
