"""Interventions in folders, in pyvene's layout: config.json, and a file of tensors for each that has some.

Under torch these are files that pyvene itself reads, autoencoders aside; without it they are safetensors. Reading never
runs a pickle: the engine's own reader takes tensors, and nothing else.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import _native
from .._arrays import as_float32
from .._errors import InputError
from . import interventions, modules
from .arrays import take
from .config import IntervenableConfig, RepresentationConfig
from .interventions import Intervention, LambdaIntervention

if TYPE_CHECKING:
    from .handles import Handle
    from .intervenable import IntervenableModel

_OPTIONS = ("keep_last_dim", "noise_level", "seed")
"""What an intervention has beside its tensors and its representation; pyvene leaves it out."""

_NOTES = {"embed_dim", "interchange_dim", "intervention_population", "noise", "noise_level"}
"""Numbers of pyvene's states that are said elsewhere, or are no parameters."""

_ENDINGS = ("bin", "safetensors")
"""The endings of tensor files, in the order in which `load` looks for them."""


def save(model: IntervenableModel, folder: Path) -> None:
    """Writes the interventions of a model.

    Raises NotImplementedError for functions and classes of one's own: a folder has no place for code."""
    for key, one in model.interventions.items():
        if isinstance(one, LambdaIntervention) or not type(one).__module__.startswith(__package__):
            raise NotImplementedError(
                f"{key} is a {type(one).__name__}, which is code of your own: save its parameters, and keep the code"
            )
    representations = []
    for key, one in model.representations.items():
        fields = (
            one._asdict()
            | _own_fields(key, model.interventions[key])
            | {
                "intervention_type": None,
                "intervention": None,
                "hidden_source_representation": True if one.source_representation is not None else None,
                "source_representation": None,
            }
        )
        representations.append([_plain(fields[name]) for name in RepresentationConfig._fields])
    described: dict[str, Any] = {
        "representations": representations,
        "intervention_types": [
            f"<class 'pyvene.models.interventions.{type(one).__name__}'>" for one in model.interventions.values()
        ],
        "intervention_dimensions": [_plain(one.interchange_dim) for one in model.interventions.values()],
        "intervention_constant_sources": [one.is_source_constant for one in model.interventions.values()],
        "mode": model.mode,
        "sorted_keys": model.sorted_keys,
        "options": [
            {name: getattr(one, name) for name in _OPTIONS if hasattr(one, name)}
            for one in model.interventions.values()
        ],
        "model_type": str(model.config.model_type),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for key, one in model.interventions.items():
        state = {name: tensor for name, tensor in one.state_dict().items() if tensor is not None}
        _write(folder, key, state, one)
    part = folder / "config.json.part"
    part.write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    part.replace(folder / "config.json")


def _own_fields(key: str, intervention: Intervention) -> dict[str, Any]:
    """What a representation has to say for an intervention to be made again, where it was given ready made."""
    fields: dict[str, Any] = {}
    if isinstance(intervention, interventions.PCARotatedSpaceIntervention):
        raise NotImplementedError(f"{key}: principal components are given to the class, and no folder is one of them")
    if isinstance(intervention, interventions.LowRankRotatedSpaceIntervention):
        fields["low_rank_dimension"] = int(intervention.rotate_layer.weight.shape[1])
    if isinstance(intervention, interventions.JumpReLUAutoencoderIntervention):
        fields["low_rank_dimension"] = intervention.latents
    if isinstance(intervention, interventions.AutoencoderIntervention):
        fields["latent_dim"] = intervention.latents
    if intervention.subspace_partition is not None:
        parts = []
        for part in intervention.subspace_partition:
            if part == list(range(part[0], part[0] + len(part))):
                part = [part[0], part[0] + len(part)]
            elif len(part) == 2:
                raise NotImplementedError(f"{key}: part {part} of its partition would be read as a start and an end")
            parts.append(part)
        fields["subspace_partition"] = parts
    return fields


def _write(folder: Path, key: str, state: dict[str, Any], intervention: Intervention) -> None:
    ending = "safetensors" if modules.torch is None else "bin"
    if state:
        _write_tensors(folder, key, state, intervention)
    # An earlier save may have left a file that `load` would read instead.
    for other in _ENDINGS:
        if not state or other != ending:
            (folder / f"intkey_{key}.{other}").unlink(missing_ok=True)


def _write_tensors(folder: Path, key: str, state: dict[str, Any], intervention: Intervention) -> None:
    torch = modules.torch
    if torch is None:
        arrays = {name: as_float32(np.asarray(one), name) for name, one in state.items() if name not in _NOTES}
        _native.write_tensors(folder / f"intkey_{key}.safetensors", arrays)
        return
    for name, width in (("embed_dim", intervention.embed_dim), ("interchange_dim", intervention.interchange_dim)):
        if width is not None:
            state[name] = torch.tensor(width)
    part = folder / f"intkey_{key}.bin.part"
    torch.save(state, part)
    part.replace(folder / f"intkey_{key}.bin")


class Description(NamedTuple):
    """What config.json says: the configuration, and of each intervention its dimension, whether its source is constant,
    and its options."""

    config: IntervenableConfig
    dimensions: list[Any]
    constants: list[Any]
    options: list[Any]


def read(folder: Path) -> Description:
    """What the config.json of a folder says.

    Raises InputError where the folder is none of interventions."""
    path = folder / "config.json"
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        representations = [RepresentationConfig(*fields) for fields in described["representations"]]
        types = [_class(name) for name in described["intervention_types"]]
        dimensions = described.get("intervention_dimensions") or [None] * len(types)
        constants = described.get("intervention_constant_sources") or [False] * len(types)
    except InputError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {error!r}: no folder of interventions") from None
    if not len(representations) == len(types) == len(dimensions) == len(constants):
        raise InputError(f"{path}: lists of different lengths")
    config = IntervenableConfig(representations, types, mode=described.get("mode", "parallel"))
    config.sorted_keys = described.get("sorted_keys")
    return Description(config, dimensions, constants, described.get("options") or [{}] * len(types))


def fill(model: IntervenableModel, described: Description, folder: Path) -> None:
    """Gives the interventions of a new model what was described, and the tensors of the folder.

    Raises InputError where these do not fit the model."""
    _, dimensions, constants, options = described
    if len(options) != len(dimensions):
        raise InputError(f"{folder / 'config.json'}: lists of different lengths")
    rotations = _rotations(folder, model.model) if modules.torch is None else {}
    for key, dimension, constant, own in zip(model.sorted_keys, dimensions, constants, options):
        intervention = model.interventions[key]
        for name in _OPTIONS:
            if name in own and hasattr(intervention, name):
                setattr(intervention, name, own[name])
        if dimension is not None:
            intervention.set_interchange_dim(dimension)
        intervention.is_source_constant = bool(constant)
        state = _read(folder, key)
        source = state.pop("source_representation", None)
        if source is not None:
            intervention.set_source_representation(source)
        state = {name: array for name, array in state.items() if name not in _NOTES}
        if key in rotations and not hasattr(intervention.rotate_layer, "parametrizations"):
            state = {name: one for name, one in state.items() if not name.startswith("rotate_layer.")}
            state["rotate_layer.weight"] = rotations[key]
        _restore(intervention, state, key)


def _restore(intervention: Any, state: dict[str, np.ndarray], key: str) -> None:
    own = {name: one for name, one in intervention.named_parameters() if name not in _NOTES}
    lacking = [name for name in own if name not in state]
    unknown = [name for name in state if name not in own and not name.endswith(".base")]
    if lacking or unknown:
        problem = f"lacks {lacking[0]}" if lacking else f"has {unknown[0]}, which it should not"
        raise InputError(f"the tensors of {key}: {problem}")
    for name, array in state.items():
        wanted = own.get(name)
        if wanted is not None and tuple(wanted.shape) != array.shape:
            raise InputError(f"{name} of {key}: shape {array.shape}, where {tuple(wanted.shape)} fits")
    if modules.torch is not None:
        tensors = {name: modules.torch.from_numpy(np.array(array)) for name, array in state.items()}
        intervention.load_state_dict(tensors, strict=False)
    else:
        intervention.load_state_dict(state)


def _read(folder: Path, key: str) -> dict[str, np.ndarray]:
    for ending in _ENDINGS:
        path = folder / f"intkey_{key}.{ending}"
        if path.exists():
            return _native.read_tensors(path)
    return {}


def _rotations(folder: Path, handle: Handle) -> dict[str, np.ndarray]:
    """Rotations that torch has parametrised, as the engine computes them."""
    if not any(folder.glob("intkey_*.bin")):
        return {}
    edits = json.loads(handle.core._native.saved(folder))["edit"]
    found = {edit["name"]: edit.get("parameters", {}).get("rotation") for edit in edits}
    return {name: np.asarray(one, dtype=np.float32) for name, one in found.items() if one is not None}


def _class(name: str) -> type[Intervention]:
    found = re.fullmatch(r"<class '(?:[\w.]+\.)?(\w+)'>", name)
    kind = getattr(interventions, found[1], None) if found else None
    if kind is None or not (isinstance(kind, type) and issubclass(kind, Intervention)):
        raise InputError(
            f"{name} is no intervention that can be loaded", "make the IntervenableModel, and load its parameters"
        )
    return kind


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return take(value).tolist()
