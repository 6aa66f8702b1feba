"""torch's autograd through the engine: gradients of what is read with respect to arrays that edits name."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor


def wanted(array: Any) -> bool:
    """Whether a gradient is to flow back to it."""
    torch = imported_torch()
    return is_tensor(array) and torch.is_grad_enabled() and array.requires_grad  # type: ignore[union-attr]


def read(native: Any, document: str, arrays: dict[str, np.ndarray], leaves: dict[str, Any]) -> list[Any]:
    """What a document collects, as torch tensors that carry gradients to the leaves."""
    torch: Any = imported_torch()
    names = list(leaves)

    class Read(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            ctx.trace = native.trace(document, arrays, names)
            ctx.dtypes = [tensor.dtype for tensor in tensors]
            return tuple(torch.from_numpy(one) for one in ctx.trace.outputs())

        @staticmethod
        def backward(ctx: Any, *slopes: Any) -> Any:
            given = [None if one is None else np.ascontiguousarray(one.float().numpy()) for one in slopes]
            found = ctx.trace.backward(given)
            return tuple(torch.from_numpy(found[name]).to(kind) for name, kind in zip(names, ctx.dtypes))

    return list(Read.apply(*leaves.values()))
