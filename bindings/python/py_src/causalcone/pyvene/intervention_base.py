"""What all interventions are: the base class, and the classes that say of others what they need and how they work."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np

from .._errors import InputError
from . import modules
from .arrays import give, take
from .modules import Module
from .swapping import _do_intervention_by_swap

_MODES = {
    "swap": "interchange",
    "skip": "interchange",
    "zero": "interchange",
    "add": "add",
    "subtract": "subtract",
    "collect": "collect",
}
"""How an intervention of an op changes activations when Python computes it."""


class Parameters(NamedTuple):
    """The engine's op of an intervention: its name, its tensors by the names the engine has for them, settings."""

    op: str
    tensors: dict[str, Any]
    settings: dict[str, Any]


class Intervention(Module):
    """The base of all. `embed_dim` is the width of what is edited, all units together where these are one vector;
    `source_representation` is a constant to put in; `subspace_partition` names parts of the dimensions by number."""

    op: ClassVar[str | None] = None
    """The engine's name for it."""

    trainable = False
    basis_agnostic = False
    shared_weights = False

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.keep_last_dim = options.get("keep_last_dim", False)
        self.use_fast = options.get("use_fast", False)
        self.subspace_partition = _partition(options.get("subspace_partition"))
        width = options.get("embed_dim")
        self.embed_dim = None if width is None else int(width)
        self.interchange_dim: Any = self.embed_dim
        source = options.get("source_representation")
        self.is_source_constant = source is not None or bool(options.get("hidden_source_representation"))
        self._hold("source_representation", None if source is None else source)

    def _hold(self, name: str, value: Any) -> None:
        if modules.torch is not None and value is not None and not isinstance(value, modules.torch.Tensor):
            value = give(np.array(take(value), dtype=np.float32))
        if hasattr(self, name):
            delattr(self, name)
        self.register_buffer(name, value)

    def set_source_representation(self, source_representation: Any) -> None:
        """The constant to put in."""
        self.is_source_constant = True
        self._hold("source_representation", source_representation)

    def set_interchange_dim(self, interchange_dim: Any) -> None:
        """How many of the first dimensions are exchanged, or which."""
        found = take(interchange_dim).tolist()
        self.interchange_dim = [int(one) for one in found] if isinstance(found, list) else int(found)

    def native(self) -> Parameters | None:
        """What the engine does for it; None where Python has to compute it: a `forward` of its own goes before."""
        owner = next(one for one in type(self).__mro__ if "forward" in vars(one))
        is_own = "forward" in vars(self) or not owner.__module__.startswith(f"{__package__}.")
        return None if is_own or self.op is None else Parameters(self.op, self.tensors(), self.settings())

    def exchanged(self, width: int | None) -> list[int] | None:
        """The dimensions that change where no subspace is named, of so many; None for all."""
        wanted = self.interchange_dim
        if wanted is None or isinstance(wanted, list):
            return wanted
        return None if width is None or wanted >= width else list(range(wanted))

    def tensors(self) -> dict[str, Any]:
        """Its tensors, by the engine's names."""
        return {}

    def settings(self) -> dict[str, Any]:
        """What else is set, by the engine's names."""
        return {}

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`, as pyvene computes them; `base` itself does not change."""
        if self.op not in _MODES:
            raise NotImplementedError(f"{type(self).__name__} is computed in an IntervenableModel, not by itself")
        source = 0 if self.op == "zero" else self._source(source)
        return self._swapped(base, source, subspaces, _MODES[self.op])

    def _source(self, source: Any) -> Any:
        """What is put in: the constant if there is one."""
        own = getattr(self, "source_representation", None)
        if source is None and own is None and self.op != "collect":
            raise InputError("there is no source to put in", "give a source, or set source_representation")
        return source if own is None else own

    def _swapped(self, base: Any, source: Any, subspaces: Any, mode: str = "interchange") -> Any:
        return _do_intervention_by_swap(
            base, source, mode, self._chosen(), subspaces, self.subspace_partition, self.use_fast
        )

    def _chosen(self) -> Any:
        """The dimensions that change where no subspace is named: a list, how many of the first, or None for all."""
        return self.interchange_dim

    def __str__(self) -> str:
        return f"{type(self).__name__}()"


class LocalistRepresentationIntervention(Module):
    """Marks interventions on each unit by itself: one that Python computes gets (examples, units, d)."""

    is_repr_distributed = False


class DistributedRepresentationIntervention(Module):
    """Marks interventions in a basis of their own."""

    is_repr_distributed = True


def joins_units(intervention: Any) -> bool:
    """Whether an intervention gets several units as one long vector."""
    return not (intervention.keep_last_dim or isinstance(intervention, LocalistRepresentationIntervention))


class TrainableIntervention(Intervention):
    """Has parameters to fit."""

    trainable = True

    def tie_weight(self, linked_intervention: Any) -> None:
        """Links are shared objects here: there is nothing to tie."""


class ConstantSourceIntervention(Intervention):
    """Needs no source."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.is_source_constant = True


class SourcelessIntervention(ConstantSourceIntervention):
    """Needs no source."""


class BasisAgnosticIntervention(Intervention):
    """Changes activations in no particular basis."""

    basis_agnostic = True


class SharedWeightsTrainableIntervention(TrainableIntervention):
    """Has parameters that others share."""

    shared_weights = True


def _partition(given: Any) -> list[list[int]] | None:
    if given is None:
        return None
    spans = []
    for part in given:
        part = [int(one) for one in take(part).tolist()]
        # Two numbers are a start and an end, any others a list.
        spans.append(list(range(*part)) if len(part) == 2 else part)
        if not spans[-1]:
            raise InputError(f"part {part} of a subspace_partition is empty", "two numbers are a start and an end")
    return spans
