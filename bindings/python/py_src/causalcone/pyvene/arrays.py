"""NumPy arrays with the few methods of torch tensors that tutorials use, for where torch is not installed.

What NumPy has under the same name stays NumPy's: `size` is a number.

>>> from causalcone.pyvene import arrays as torch
>>> torch.zeros(3).clone().unsqueeze(0).unsqueeze(0).shape
(1, 1, 3)
>>> torch.tensor([[1.0, 3.0]]).mean(dim=-1).item()
2.0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor


class Array(np.ndarray):
    """A NumPy array that answers to the names of a torch tensor's methods."""

    def clone(self) -> Any:
        """A copy."""
        return self.copy()

    def detach(self) -> Array:
        """Itself: nothing here carries a gradient."""
        return self

    def cpu(self) -> Array:
        """Itself."""
        return self

    def to(self, *_: Any, **__: Any) -> Array:
        """Itself, for any device or dtype asked for: it is float32 on the CPU."""
        return self

    def float(self) -> Array:
        """As float32."""
        return self.astype(np.float32).view(Array)

    def double(self) -> Array:
        """As float64."""
        return self.astype(np.float64).view(Array)

    def numpy(self) -> np.ndarray:
        """As a plain NumPy array over the same memory."""
        return self.view(np.ndarray)

    def unsqueeze(self, dim: int) -> Array:
        """With an axis of length 1 more."""
        return np.expand_dims(self, dim).view(Array)

    def squeeze(self, dim: Any = None, axis: Any = None) -> Any:  # type: ignore[override]
        """Without an axis of length 1, or without any; an axis that is longer stays."""
        if dim is not None and self.shape[dim] != 1:
            return self
        return super().squeeze(axis=axis if dim is None else dim)

    def t(self) -> Any:
        """The transpose of a matrix."""
        return self.T

    def dim(self) -> int:
        """How many axes there are."""
        return self.ndim

    def numel(self) -> int:
        """How many numbers there are."""
        return int(np.prod(self.shape))

    def softmax(self, dim: int = -1) -> Array:
        """Its softmax along an axis."""
        shifted = np.exp(self - self.max(axis=dim, keepdims=True))
        return (shifted / shifted.sum(axis=dim, keepdims=True)).view(Array)

    def mean(self, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:  # type: ignore[override]
        """The mean, of all or along an axis."""
        return super().mean(**_reduced(dim, keepdim, options))

    def sum(self, dim: Any = None, keepdim: bool = False, **options: Any) -> Any:  # type: ignore[override]
        """The sum, of all or along an axis."""
        return super().sum(**_reduced(dim, keepdim, options))

    @property
    def device(self) -> str:  # type: ignore[override]
        """Where it is."""
        return "cpu"


def give(array: np.ndarray) -> Any:
    """A NumPy array as callers get it: a torch tensor over the same memory if torch was imported, else an `Array`."""
    torch = imported_torch()
    return array.view(Array) if torch is None else torch.from_numpy(np.ascontiguousarray(array))


def take(x: Any) -> np.ndarray:
    """What a caller gives as a NumPy array; gradients are let go."""
    if is_tensor(x):
        x = x.detach().cpu()
        if x.is_floating_point() and x.element_size() != 8:
            x = x.float()
        return x.numpy()
    return np.asarray(x)


def tensor(data: Any, dtype: Any = None) -> Array:
    """An array of numbers; floats are float32."""
    array = np.asarray(data, dtype=dtype)
    if dtype is None and array.dtype == np.float64:
        array = array.astype(np.float32)
    return array.view(Array)


def zeros(*shape: int | Sequence[int]) -> Array:
    """Zeros, float32."""
    return np.zeros(_shape(shape), dtype=np.float32).view(Array)


def ones(*shape: int | Sequence[int]) -> Array:
    """Ones, float32."""
    return np.ones(_shape(shape), dtype=np.float32).view(Array)


def rand(*shape: int | Sequence[int]) -> Array:
    """Uniform numbers from 0 to 1, float32, by NumPy's global generator (`numpy.random.seed`)."""
    return np.random.random_sample(_shape(shape)).astype(np.float32).view(Array)


def randn(*shape: int | Sequence[int]) -> Array:
    """Standard normal numbers, float32, by NumPy's global generator (`numpy.random.seed`)."""
    return np.random.standard_normal(_shape(shape)).astype(np.float32).view(Array)


def softmax(x: Any, dim: int = -1) -> Array:
    """The softmax along an axis."""
    return tensor(x).softmax(dim)


def sigmoid(x: Any) -> Any:
    """1/(1 + e⁻ˣ)."""
    if is_tensor(x):
        return imported_torch().sigmoid(x)  # type: ignore[union-attr]
    # Without the overflow that e⁻ˣ has.
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


def sigmoid_boundary(_input: Any, boundary_x: Any, boundary_y: Any, temperature: Any) -> Any:
    """σ((x − left)/t)·σ((right − x)/t)."""
    return sigmoid((_input - boundary_x) / temperature) * sigmoid((boundary_y - _input) / temperature)


def _reduced(dim: Any, keepdim: bool, options: dict[str, Any]) -> dict[str, Any]:
    """torch's names of what NumPy calls axis and keepdims, which may be there as well."""
    options.setdefault("axis", dim)
    options.setdefault("keepdims", keepdim)
    return options


def _shape(shape: tuple[Any, ...]) -> Any:
    return shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
