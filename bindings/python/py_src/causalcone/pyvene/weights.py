"""A model's weights as its users see them: names and shapes, frozen.

>>> from causalcone.pyvene import create_llama
>>> _, _, llama = create_llama("fixtures/tiny-llama-tied")
>>> sum(weight.numel() for weight in llama.parameters()) == llama.num_parameters()
True
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arrays import imported_torch
from ..model import Model

# What rotary embeddings are computed from is in GGUF files, and is no parameter.
_FACTORS = ("rope_freqs.", "rope_factors_")
_UNEMBEDDING = ("lm_head.weight", "embed_out.weight", "output.weight")


class FrozenWeight:
    """A weight of a model: its shape, and that it is frozen. Its numbers stay in the engine."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        torch = imported_torch()
        self.name = name
        self.shape = shape if torch is None else torch.Size(shape)
        self.dtype = np.dtype(np.float32) if torch is None else torch.float32
        self.device = "cpu" if torch is None else torch.device("cpu")
        self.grad = None

    @property
    def requires_grad(self) -> bool:
        """False. Setting it to True raises NotImplementedError."""
        return False

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> FrozenWeight:
        """Itself. True raises NotImplementedError."""
        refuse_gradients(requires_grad)
        return self

    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    nelement = numel

    def size(self, dim: int | None = None) -> Any:
        """Its shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a frozen weight has no {name} here: its numbers stay in the engine")

    def __repr__(self) -> str:
        return f"<FrozenWeight {self.name}: {' × '.join(map(str, self.shape))}>"


def refuse_gradients(requires_grad: bool) -> None:
    """A model's own weights have none: raises NotImplementedError where they are wanted."""
    if requires_grad:
        raise NotImplementedError("gradients of a model's own weights: only interventions are trained here")


def frozen_weights(model: Model) -> Iterator[tuple[str, FrozenWeight]]:
    """The weights of a model, with the names that its files give them."""
    info = model.info
    shapes = {name: tuple(shape) for name, shape in model._native.tensors() if not name.startswith(_FACTORS)}
    # Some files hold a tied embedding a second time.
    if info["tied"] and sum(map(math.prod, shapes.values())) != info["parameters"]:
        shapes = {name: shape for name, shape in shapes.items() if name not in _UNEMBEDDING}
    return ((name, FrozenWeight(name, shape)) for name, shape in shapes.items())
