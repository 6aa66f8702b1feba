"""What interventions are made of: torch's modules where torch was imported first, else plain ones over NumPy.

Plain ones hold numbers and cannot be trained by torch; `causalcone.Experiment.train` fits parameters without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .._arrays import imported_torch
from .arrays import Array, give, take

torch: Any = imported_torch()


class _Module:
    """The part of torch.nn.Module's interface that interventions and their users need."""

    training = False

    def __init__(self) -> None:
        self._buffers_named: list[str] = []

    def register_buffer(self, name: str, value: Any) -> None:
        setattr(self, name, value)
        self._buffers_named.append(name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.forward(*arguments, **options)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def named_parameters(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if isinstance(value, Parameter):
                yield prefix + name, value
            elif isinstance(value, _Module) and recurse:
                yield from value.named_parameters(f"{prefix}{name}.")

    def parameters(self, recurse: bool = True) -> Iterator[Any]:
        return (value for _, value in self.named_parameters(recurse=recurse))

    def state_dict(self) -> dict[str, Any]:
        buffers = {name: getattr(self, name) for name in self._buffers_named if getattr(self, name) is not None}
        return dict(self.named_parameters()) | buffers

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        own = dict(self.named_parameters())
        for name, value in state.items():
            if name in own:
                own[name][...] = take(value)
            elif name in self._buffers_named or not strict:
                setattr(self, name, value)
            else:
                raise KeyError(f"{type(self).__name__} has no {name}")

    def zero_grad(self) -> None:
        pass

    def train(self, mode: bool = True) -> Any:
        return self

    def eval(self) -> Any:
        return self

    def to(self, *_: Any, **__: Any) -> Any:
        return self


class Parameter(Array):
    """Numbers that belong to an intervention, where there is no torch."""

    requires_grad = True


class Frozen(Parameter):
    """A parameter that does not train."""

    requires_grad = False


def parameter(numbers: Any, requires_grad: bool = True) -> Any:
    """A parameter with these numbers, as float32, or as they are where they are integers and constant."""
    array = np.array(take(numbers))
    if requires_grad or array.dtype.kind != "i":
        array = array.astype(np.float32)
    if torch is not None:
        return torch.nn.Parameter(torch.from_numpy(array), requires_grad=requires_grad)
    return array.view(Parameter if requires_grad else Frozen)


def array(x: Any) -> Any:
    """What a caller gives, as an array of the kind that parameters are."""
    return take(x) if torch is None else torch.as_tensor(x)


def own(x: Any) -> Any:
    """What a caller gives, as an array that computes with parameters: of their kind, in float32."""
    return array(x).astype(np.float32) if torch is None else array(x).to(torch.float32)


def as_type_of(example: Any, x: Any) -> Any:
    """Numbers as callers get them, of the type that the numbers of `example` have."""
    if torch is not None:
        return x.to(array(example).dtype)
    return give(np.asarray(x).astype(take(example).dtype))


class _PlainRotation(_Module):
    """A matrix of orthonormal columns, d × k: x ↦ x·R."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        columns, _ = np.linalg.qr(np.random.standard_normal((width, rank)))
        self.weight = parameter(columns)

    def forward(self, x: Any) -> Any:
        return take(x) @ self.weight


def rotation(width: int, rank: int) -> Any:
    """A learned rotation: a module with `weight`, d × k of orthonormal columns. Under torch it is parametrised as
    pyvene's, so that saved parameters carry over."""
    if torch is None:
        return _PlainRotation(width, rank)

    class RotateLayer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weight = torch.empty(width, rank)
            torch.nn.init.orthogonal_(weight)
            self.weight = torch.nn.Parameter(weight)

        def forward(self, x: Any) -> Any:
            return x.to(self.weight.dtype) @ self.weight

        def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
            # torch does not pickle parametrised modules.
            trains = all(one.requires_grad for one in self.parameters())
            return _unpickled_rotation, (width, rank, self.state_dict(), trains)

    return torch.nn.utils.parametrizations.orthogonal(RotateLayer())


def _unpickled_rotation(width: int, rank: int, state: dict[str, Any], trains: bool) -> Any:
    made = rotation(width, rank)
    made.load_state_dict(state)
    return made.requires_grad_(trains)


def autoencoder(width: int, latents: int) -> Any:
    """An encoder and a decoder: `encoder[0]` and `decoder[0]` have `weight` and `bias`."""
    if torch is not None:
        return torch.nn.ModuleDict(
            {
                "encoder": torch.nn.Sequential(torch.nn.Linear(width, latents), torch.nn.ReLU()),
                "decoder": torch.nn.Sequential(torch.nn.Linear(latents, width)),
            }
        )
    return _PlainAutoencoder(width, latents)


class _PlainLinear(_Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        bound = 1 / np.sqrt(into)
        self.weight = parameter(np.random.uniform(-bound, bound, (out, into)))
        self.bias = parameter(np.random.uniform(-bound, bound, out))


class _PlainStack(_Module):
    def __init__(self, first: _Module) -> None:
        super().__init__()
        setattr(self, "0", first)

    def __getitem__(self, index: int) -> Any:
        return getattr(self, str(index))


class _PlainAutoencoder(_Module):
    def __init__(self, width: int, latents: int) -> None:
        super().__init__()
        self.encoder = _PlainStack(_PlainLinear(width, latents))
        self.decoder = _PlainStack(_PlainLinear(latents, width))

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


Module: Any = _Module if torch is None else torch.nn.Module
ModuleDict: Any = dict if torch is None else torch.nn.ModuleDict
