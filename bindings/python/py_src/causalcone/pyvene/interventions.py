"""The interventions, under pyvene's names.

Those with an op of their own run in the engine; whatever else is given, a subclass with a `forward` of its own or a
function, gets the activations as arrays and gives new ones.

>>> import numpy as np
>>> from causalcone.pyvene import AdditionIntervention
>>> AdditionIntervention(source_representation=np.ones(4)).is_source_constant
True
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._errors import InputError
from . import modules
from .arrays import sigmoid, sigmoid_boundary, take
from .intervention_base import (
    BasisAgnosticIntervention,
    ConstantSourceIntervention,
    DistributedRepresentationIntervention,
    Intervention,
    LocalistRepresentationIntervention,
    TrainableIntervention,
)
from .intervention_base import Parameters as Parameters
from .intervention_base import SharedWeightsTrainableIntervention as SharedWeightsTrainableIntervention
from .intervention_base import SourcelessIntervention as SourcelessIntervention
from .intervention_base import joins_units as joins_units
from .modules import Module


class InterventionOutput(dict):
    """What an intervention may give in place of plain activations: `output`, and `latent` beside it."""

    def __init__(self, output: Any = None, latent: Any = None) -> None:
        super().__init__(output=output, latent=latent)
        self.output = output
        self.latent = latent


class VanillaIntervention(Intervention, LocalistRepresentationIntervention):
    """b ← v."""

    op = "swap"


class AdditionIntervention(BasisAgnosticIntervention, LocalistRepresentationIntervention):
    """b ← b + v."""

    op = "add"


class SubtractionIntervention(BasisAgnosticIntervention, LocalistRepresentationIntervention):
    """b ← b − v."""

    op = "subtract"


class ZeroIntervention(ConstantSourceIntervention, LocalistRepresentationIntervention):
    """b ← 0."""

    op = "zero"


class CollectIntervention(ConstantSourceIntervention):
    """Reads activations and leaves them as they are."""

    op = "collect"


class SkipIntervention(BasisAgnosticIntervention, LocalistRepresentationIntervention):
    """b ← the input of the module whose output it is, as the source run has it."""

    op = "skip"


class NoiseIntervention(ConstantSourceIntervention, LocalistRepresentationIntervention):
    """b ← b + level·ε, ε standard normal, drawn by `seed` and the unit's position alone."""

    op = "noise"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        level = options.get("noise_level", options.get("noise_leve", 0.13462981581687927))
        self.noise_level = float(level)
        self.seed = int(options.get("seed", 1))

    def settings(self) -> dict[str, Any]:
        return {"level": self.noise_level, "seed": self.seed}


class _Rotated(TrainableIntervention, DistributedRepresentationIntervention):
    """Interchange in the basis of a learned rotation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rotate_layer = modules.rotation(_width(self), self._rank(options))

    def _rank(self, options: dict[str, Any]) -> int:
        return _width(self)

    def tensors(self) -> dict[str, Any]:
        return {"rotation": self.rotate_layer.weight}

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`."""
        rotation = self.rotate_layer.weight
        own, other = (modules.own(one) @ rotation for one in (base, self._source(source)))
        return modules.as_type_of(base, self._coordinates(own, other, subspaces) @ rotation.T)

    def _coordinates(self, own: Any, other: Any, subspaces: Any) -> Any:
        """The new coordinates, of those that base and source have."""
        return self._swapped(own, other, subspaces)


class RotatedSpaceIntervention(_Rotated):
    """b ← (b·R with coordinates of v·R)·Rᵀ, R square."""

    op = "rotated_swap"


class LowRankRotatedSpaceIntervention(_Rotated):
    """b ← b + (v·R − b·R)·Rᵀ, R of `low_rank_dimension` columns."""

    op = "low_rank_swap"

    def exchanged(self, width: int | None) -> list[int] | None:
        """All directions, unless some are listed: a number of dimensions says nothing about them."""
        return self._chosen()

    def _chosen(self) -> list[int] | None:
        return self.interchange_dim if isinstance(self.interchange_dim, list) else None

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`."""
        rotation, whole = self.rotate_layer.weight, modules.own(base)
        own, other = whole @ rotation, modules.own(self._source(source)) @ rotation
        change = self._coordinates(own, other, subspaces) - own
        return modules.as_type_of(base, whole + change @ rotation.T)

    def _rank(self, options: dict[str, Any]) -> int:
        rank = options.get("low_rank_dimension")
        if rank is None:
            raise InputError(f"{type(self).__name__} needs low_rank_dimension")
        return int(rank)


class _Tempered:
    """Has a temperature."""

    temperature: Any

    def get_temperature(self) -> Any:
        """The temperature."""
        return self.temperature

    def set_temperature(self, temp: Any) -> None:
        """Sets the temperature."""
        if modules.torch is None:
            self.temperature[...] = take(temp)
        else:
            self.temperature.data = modules.torch.as_tensor(temp, dtype=modules.torch.float32)


class _Masked(_Tempered, TrainableIntervention):
    """Mixes base and source by a mask, which says itself how much of what changes."""

    def _mixed(self, mask: Any, own: Any, other: Any, subspaces: Any) -> Any:
        if subspaces is not None:
            raise InputError(f"{type(self).__name__}: `subspaces` is not supported: the mask selects the dimensions")
        return (1.0 - mask) * own + mask * other


class BoundlessRotatedSpaceIntervention(_Masked, _Rotated):
    """b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ with a learned boundary of the mask m."""

    op = "boundless_swap"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.intervention_boundaries = modules.parameter([0.5])
        self.temperature = modules.parameter(50.0)
        # The numbers of the dimensions. pyvene lists them among the parameters.
        self.intervention_population = modules.parameter(np.arange(_width(self)), requires_grad=False)

    def get_boundary_parameters(self) -> Any:
        """The boundary, as a part of the width."""
        return self.intervention_boundaries

    def set_intervention_boundaries(self, intervention_boundaries: float) -> None:
        """Sets the boundary."""
        self.intervention_boundaries = modules.parameter([intervention_boundaries])

    def _coordinates(self, own: Any, other: Any, subspaces: Any) -> Any:
        end = self.intervention_boundaries.clip(1e-3, 1) * _width(self)
        mask = sigmoid_boundary(self.intervention_population, 0.0, end, self.temperature)
        return self._mixed(mask, own, other, subspaces)

    def tensors(self) -> dict[str, Any]:
        boundary = self.intervention_boundaries.reshape(())
        return super().tensors() | {"boundary": boundary, "temperature": self.temperature}


class SigmoidMaskRotatedSpaceIntervention(_Masked, _Rotated):
    """b ← ((1 − m)·(b·R) + m·(v·R))·Rᵀ, m = σ(masks/temperature)."""

    op = "sigmoid_mask_rotated"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.masks = modules.parameter([100.0] * _width(self))
        self.temperature = modules.parameter(50.0)

    def _coordinates(self, own: Any, other: Any, subspaces: Any) -> Any:
        return self._mixed(sigmoid(self.masks / self.temperature), own, other, subspaces)

    def tensors(self) -> dict[str, Any]:
        return super().tensors() | {"mask": self.masks, "temperature": self.temperature}


class SigmoidMaskIntervention(_Masked, LocalistRepresentationIntervention):
    """b ← (1 − m)·b + m·v, m = σ(mask/temperature). No gradient flows to the temperature, which therefore does not
    train, as in pyvene."""

    op = "sigmoid_mask"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.mask = modules.parameter([0.0] * _width(self))
        self.temperature = modules.parameter(0.01)

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`."""
        mask = sigmoid(self.mask / self.temperature.detach())
        # Integers become floats, which stay as precise as they are.
        own = 1.0 * modules.array(base)
        return modules.as_type_of(own, self._mixed(mask, own, modules.array(self._source(source)), subspaces))

    def tensors(self) -> dict[str, Any]:
        return {"mask": self.mask, "temperature": self.temperature.detach()}


class PCARotatedSpaceIntervention(BasisAgnosticIntervention, DistributedRepresentationIntervention):
    """Interchange of principal components: `pca` has components_ (k × d), beside `pca_mean` and `pca_std`."""

    op = "pca_swap"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("pca", "pca_mean", "pca_std"):
            if name not in options:
                raise InputError(f"{type(self).__name__} needs {name}")
        self.pca_components = modules.parameter(options["pca"].components_, requires_grad=False)
        self.pca_mean = modules.parameter(options["pca_mean"], requires_grad=False)
        self.pca_std = modules.parameter(options["pca_std"], requires_grad=False)

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`."""
        scaled = [(modules.own(one) - self.pca_mean) / self.pca_std for one in (base, self._source(source))]
        own, other = (one @ self.pca_components.T for one in scaled)
        back = self._swapped(own, other, subspaces) @ self.pca_components * self.pca_std + self.pca_mean
        return modules.as_type_of(own, back)

    def tensors(self) -> dict[str, Any]:
        return {"components": self.pca_components, "mean": self.pca_mean, "std": self.pca_std}


class _Autoencoder(TrainableIntervention):
    """Interchange of latents, which `_encoded` computes."""

    def _encoded(self, x: Any) -> Any:
        raise NotImplementedError

    def forward(self, base: Any, source: Any = None, subspaces: Any = None, **options: Any) -> Any:
        """New activations for `base`."""
        tensors = self.tensors()
        latents = self._swapped(self._encoded(base), self._encoded(self._source(source)), subspaces)
        return modules.as_type_of(base, latents @ tensors["W_dec"] + tensors["b_dec"])


class AutoencoderIntervention(_Autoencoder):
    """Interchange of an autoencoder's latents."""

    op = "autoencoder_swap"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if "latent_dim" not in options or options["latent_dim"] is None:
            raise InputError(f"{type(self).__name__} needs latent_dim")
        self.autoencoder = modules.autoencoder(_width(self), int(options["latent_dim"]))
        # All latents, unless some are chosen: the width says nothing about them.
        self.interchange_dim = None
        self.latents = int(options["latent_dim"])

    def exchanged(self, width: int | None) -> list[int] | None:
        """The first so many latents, or those listed."""
        return super().exchanged(self.latents)

    def tensors(self) -> dict[str, Any]:
        encoder, decoder = self.autoencoder["encoder"][0], self.autoencoder["decoder"][0]
        return {
            "W_enc": encoder.weight.T,
            "b_enc": encoder.bias,
            "W_dec": decoder.weight.T,
            "b_dec": decoder.bias,
        }

    def settings(self) -> dict[str, Any]:
        return {"centre": True}

    def _encoded(self, x: Any) -> Any:
        tensors = self.tensors()
        latents = (modules.own(x) - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]
        return latents * (latents > 0)


class JumpReLUAutoencoderIntervention(_Autoencoder):
    """Interchange of a JumpReLU autoencoder's `low_rank_dimension` latents."""

    op = "jumprelu_autoencoder"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"keep_last_dim": True})
        width, latents = _width(self), options.get("low_rank_dimension")
        if latents is None:
            raise InputError(f"{type(self).__name__} needs low_rank_dimension")
        self.W_enc = modules.parameter(np.zeros((width, latents)))
        self.W_dec = modules.parameter(np.zeros((latents, width)))
        self.threshold = modules.parameter(np.zeros(latents))
        self.b_enc = modules.parameter(np.zeros(latents))
        self.b_dec = modules.parameter(np.zeros(width))
        self.interchange_dim = None
        self.latents = int(latents)

    def exchanged(self, width: int | None) -> list[int] | None:
        """The first so many latents, or those listed."""
        return super().exchanged(self.latents)

    def tensors(self) -> dict[str, Any]:
        names = ("W_enc", "W_dec", "b_enc", "b_dec")
        # No gradient flows to a threshold: latents jump there.
        return {name: getattr(self, name) for name in names} | {"threshold": self.threshold.detach()}

    def settings(self) -> dict[str, Any]:
        return {"centre": False}

    def _encoded(self, x: Any) -> Any:
        latents = modules.own(x) @ self.W_enc + self.b_enc
        return latents * (latents > 0) * (latents > self.threshold)


class LambdaIntervention(Module):
    """A function as an intervention: (base, source), and the subspaces where they are given."""

    is_source_constant = False
    trainable = False
    keep_last_dim = True
    subspace_partition = None
    interchange_dim = None
    source_representation = None

    def exchanged(self, width: int | None) -> None:
        """The function says itself."""
        return None

    def __init__(self, func: Callable[..., Any]) -> None:
        super().__init__()
        self.func = func

    def native(self) -> None:
        """The engine does nothing for it."""
        return

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Calls the function."""
        return self.func(*arguments, **options)


def _width(intervention: Intervention) -> int:
    if intervention.embed_dim is None:
        raise InputError(f"{type(intervention).__name__} needs embed_dim, the width of what it edits")
    return intervention.embed_dim
