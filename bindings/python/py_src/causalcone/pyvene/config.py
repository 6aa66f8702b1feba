"""What is intervened on, and how.

>>> from causalcone.pyvene import IntervenableConfig, RepresentationConfig, AdditionIntervention
>>> config = IntervenableConfig(
...     [RepresentationConfig(layer, "mlp_output", "pos", 1) for layer in range(2)], AdditionIntervention
... )
>>> [(one.layer, one.component) for one in config.representations]
[(0, 'mlp_output'), (1, 'mlp_output')]
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from .._errors import InputError
from .interventions import VanillaIntervention


class RepresentationConfig(NamedTuple):
    """One place: a component of a layer, in units ("pos": positions, "h": heads, "h.pos": heads at positions)."""

    layer: Any = 0
    component: str = "block_output"
    unit: str = "pos"
    max_number_of_units: int = 1
    low_rank_dimension: int | None = None
    intervention_type: Any = None
    intervention: Any = None
    subspace_partition: Any = None
    group_key: Any = None
    intervention_link_key: Any = None
    moe_key: Any = None
    source_representation: Any = None
    hidden_source_representation: Any = None
    latent_dim: int | None = None


class IntervenableConfig:
    """Places, and the interventions there: one class for all, a list with one for each place, or said by the places.

    Raises InputError for a place that is none, and where only some places say their intervention.
    """

    def __init__(
        self,
        representations: Any = None,
        intervention_types: Any = VanillaIntervention,
        mode: str = "parallel",
        sorted_keys: Any = None,
        model_type: Any = None,
        intervention_dimensions: Any = None,
        intervention_constant_sources: Any = None,
        **more: Any,
    ) -> None:
        if mode not in ("parallel", "serial"):
            raise InputError(f"mode {mode!r}, where 'parallel' or 'serial' fits")
        if representations is None:
            representations = RepresentationConfig()
        self.representations = [_place(one) for one in _listed(representations)]
        self.intervention_types = intervention_types
        says = [one.intervention_type or one.intervention for one in self.representations]
        if any(one is not None for one in says):
            if any(one is None for one in says):
                raise InputError("some representations say their intervention, and others do not", "say it for all")
            self.intervention_types = [one.intervention_type or type(one.intervention) for one in self.representations]
        elif isinstance(intervention_types, (list, tuple)) and len(intervention_types) != len(self.representations):
            raise InputError(
                f"{len(intervention_types)} intervention types for {len(self.representations)} representations"
            )
        self.mode = mode
        self.sorted_keys = sorted_keys
        self.model_type = model_type
        self.intervention_dimensions = intervention_dimensions
        self.intervention_constant_sources = intervention_constant_sources
        for key, value in more.items():
            setattr(self, key, value)

    def add_intervention(self, representations: Any) -> None:
        """Adds places, each of which says its intervention."""
        for one in map(_place, _listed(representations)):
            kind = one.intervention_type or (None if one.intervention is None else type(one.intervention))
            if kind is None:
                raise InputError("a representation that is added says no intervention", "give intervention_type")
            if not isinstance(self.intervention_types, list):
                self.intervention_types = [self.intervention_types] * len(self.representations)
            self.representations.append(one)
            self.intervention_types.append(kind)

    def __repr__(self) -> str:
        def shown(one: RepresentationConfig) -> dict[str, Any]:
            plain = (str, int, float, list, tuple, dict, type(None))
            return {key: value if isinstance(value, plain) else "PLACEHOLDER" for key, value in one._asdict().items()}

        described = {
            "model_type": str(self.model_type),
            "representations": [shown(one) for one in self.representations],
            "intervention_types": str(self.intervention_types),
            "mode": self.mode,
            "sorted_keys": self.sorted_keys,
        }
        return "IntervenableConfig\n" + json.dumps(described, indent=4, default=str)


def _listed(representations: Any) -> list[Any]:
    # A RepresentationConfig is a tuple itself.
    return list(representations) if isinstance(representations, list) else [representations]


def _place(one: Any) -> RepresentationConfig:
    if isinstance(one, RepresentationConfig):
        place = one
    elif isinstance(one, dict):
        unknown = set(one) - set(RepresentationConfig._fields)
        if unknown:
            fields = ", ".join(RepresentationConfig._fields)
            raise InputError(f"a representation has no {', '.join(sorted(unknown))}", f"it has {fields}")
        place = RepresentationConfig(**one)
    elif isinstance(one, (list, tuple)):
        place = RepresentationConfig(*one)
    else:
        raise InputError(f"{one!r} is no representation", "give a RepresentationConfig, a dict or a list of its fields")
    if place.intervention_type is not None and place.intervention is not None:
        raise InputError("a representation has intervention_type and intervention, of which one fits")
    return place
