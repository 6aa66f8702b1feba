"""IntervenableModel: pyvene's way of running interventions, on the engine.

>>> import numpy as np
>>> import causalcone.pyvene as pv
>>> _, _, llama = pv.create_llama("fixtures/tiny-llama-tied")
>>> model = pv.IntervenableModel({"layer": 0, "component": "mlp_output"}, model=llama)
>>> original, edited = model(
...     {"input_ids": np.array([[1, 2, 3]])}, unit_locations={"base": 1}, source_representations=np.zeros(32)
... )
>>> bool((original.logits[0, 0] == edited.logits[0, 0]).all()), bool((original.logits[0, 1] == edited.logits[0, 1]).all())
(True, False)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from . import modules, saving
from .arrays import give
from .calls import Caller, Place
from .components import site_of, width_of
from .config import IntervenableConfig, RepresentationConfig
from .handles import Batch, Handle, Output
from .interventions import CollectIntervention, LambdaIntervention, TrainableIntervention
from .program import Program, grown


class IntervenableModelOutput(dict):
    """original_outputs, intervened_outputs and collected_activations, by key, attribute or number."""

    def __init__(self, original_outputs: Any, intervened_outputs: Any, collected_activations: Any = None) -> None:
        super().__init__(
            original_outputs=original_outputs,
            intervened_outputs=intervened_outputs,
            collected_activations=collected_activations,
        )
        self.original_outputs = original_outputs
        self.intervened_outputs = intervened_outputs
        self.collected_activations = collected_activations

    def __getitem__(self, key: Any) -> Any:
        return (
            [one for one in self.values() if one is not None][key] if isinstance(key, int) else super().__getitem__(key)
        )


class IntervenableModel(modules.Module):  # type: ignore[misc]
    """Interventions on a model.

    `config` is an IntervenableConfig, a dict, or a list of dicts; `model` a handle that create_gpt2 and its like gave.
    Called with a base, it gives the model's output without and with the interventions.
    """

    BACKEND = "native"

    def __init__(self, config: Any, model: Handle, **options: Any) -> None:
        super().__init__()
        if not isinstance(model, Handle):
            raise NotImplementedError(
                f"a model of type {type(model).__name__}: give one that create_gpt2, create_llama … have loaded"
            )
        if isinstance(config, (dict, list)):
            config = IntervenableConfig(config)
        unknown = set(options) - {"use_fast", "as_adaptor", "intervenables_sort_fn"}
        if unknown:
            raise InputError(f"an IntervenableModel has no option {', '.join(sorted(unknown))}")
        if options.get("as_adaptor"):
            raise NotImplementedError("as_adaptor: collect the module's input, and give it to a function as its source")
        if "intervenables_sort_fn" in options:
            raise NotImplementedError("intervenables_sort_fn: list representations in the order they belong")
        self.config = config
        self.mode = config.mode
        self.use_fast = options.get("use_fast", False)
        config.model_type = str(type(model))
        # Not a submodule: it has no parameters.
        object.__setattr__(self, "_handle", model)
        self.model_config = model.config
        self.model_type = type(model)
        self.representations: dict[str, RepresentationConfig] = {}
        self.interventions = modules.ModuleDict({})
        self.full_intervention_outputs: list[Any] = []
        self._intervention_group: dict[int, list[str]] = {}
        self._places: list[Place] = []
        self._make()
        groups = list(self._intervention_group.values())
        self._caller = Caller(
            model, self._places, self.interventions, groups, self.mode, self.full_intervention_outputs
        )
        self.return_collect_activations = any(
            isinstance(one, CollectIntervention) for one in self.interventions.values()
        )

    @property
    def model(self) -> Handle:
        """The handle."""
        return self._handle

    @property
    def sorted_keys(self) -> list[str]:
        """The keys of the interventions, in order."""
        return list(self.representations)

    def _make(self) -> None:
        info = self._handle.core.info
        # A head's view is the same activation: edits of one are made in the order they are listed.
        order = {site.removeprefix("head_"): number for number, site in enumerate(info["sites"])}
        linked: dict[Any, Any] = {}
        counts: dict[str, int] = {}
        kinds = self.config.intervention_types
        has_groups = any(one.group_key is not None for one in self.config.representations)
        groups: list[Any] = []
        for number, one in enumerate(self.config.representations):
            if one.unit not in ("pos", "h", "h.pos"):
                raise NotImplementedError(f"unit {one.unit!r}: there are pos, h and h.pos")
            if one.moe_key is not None:
                raise NotImplementedError(f"moe_key {one.moe_key!r}: mixtures of experts are not run here")
            site, layer = site_of(info, one.component, one.layer)
            if site == "logits" and "." in one.component and info["logit_softcap"] is not None:
                raise NotImplementedError(
                    f"{one.component}: before the logits are capped; the component logits is after"
                )
            width = width_of(info, site)
            units = int(one.max_number_of_units or 1)
            key = _key_of(one, counts)
            if one.intervention is not None:
                intervention = one.intervention
            else:
                kind = kinds[number] if isinstance(kinds, (list, tuple)) else kinds
                intervention = kind(
                    **one._asdict() | {"embed_dim": None if width is None else width * units, "use_fast": self.use_fast}
                )
            if (
                modules.torch is None
                and imported_torch() is not None
                and isinstance(intervention, TrainableIntervention)
            ):
                raise NotImplementedError(
                    f"{key} trains, and torch was imported after causalcone.pyvene: import torch first"
                )
            if one.intervention_link_key is not None:
                intervention = linked.setdefault(one.intervention_link_key, intervention)
            if callable(intervention) and not hasattr(intervention, "forward"):
                intervention = LambdaIntervention(intervention)
            if has_groups and one.group_key is None:
                raise InputError("some representations have a group_key, and others none", "give one to all")
            group = one.group_key if has_groups else number
            if groups and group < groups[-1]:
                raise InputError(f"group_key {group} comes after {groups[-1]}", "list representations group by group")
            groups.append(group)
            self._intervention_group.setdefault(group, []).append(key)
            self.representations[key] = one
            self.interventions[key] = intervention
            # Layers in order, what is outside them first or last.
            depth = (-1.0 if site == "embedding" else float("inf")) if layer is None else float(layer)
            if layer is not None and not 0 <= layer < info["layers"]:
                raise InputError(f"layer {layer} of {key}", f"layers are 0 to {info['layers'] - 1}")
            of_groups = list(self._intervention_group).index(group)
            moment = (depth, order.get(site.removeprefix("head_"), 0))
            self._places.append(Place(key, of_groups, one.unit, site, layer, moment, intervention, units))

    def forward(
        self,
        base: Any,
        sources: Any = None,
        unit_locations: dict[str, Any] | None = None,
        source_representations: Any = None,
        subspaces: Any = None,
        labels: Any = None,
        output_original_output: bool = False,
        return_dict: bool | None = None,
        use_cache: bool | None = None,
        intervention_additional_kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Runs the base with the interventions.

        Gives (original, intervened), each with `last_hidden_state` and `logits`; with CollectInterventions
        ((original, collected), intervened), collected a list with one array (examples, units, width) for each. The
        original is always there: it is computed when it is looked at, and its rows are shared.

        Raises InputError for locations, subspaces or sources that do not fit, and where an intervention is told its
        units and has nothing to put in.
        """
        self.full_intervention_outputs.clear()
        call = self._caller.call(
            base, sources, unit_locations, source_representations, subspaces, intervention_additional_kwargs
        )
        labels = call.base.labels if labels is None else labels
        original = self._handle._output(call.base, labels)
        program, runs, collected = self._caller.program(call)
        edited = self._output(program, runs, call.base, labels)
        # Now, so that what cannot be done is refused here and not when the result is looked at.
        edited.last_hidden_state  # noqa: B018
        if return_dict:
            return IntervenableModelOutput(original, edited, collected if self.return_collect_activations else None)
        if self.return_collect_activations:
            return (original, collected), edited
        return original, edited

    __call__ = forward

    def generate(
        self,
        base: Any,
        sources: Any = None,
        unit_locations: dict[str, Any] | None = None,
        source_representations: Any = None,
        intervene_on_prompt: bool = False,
        subspaces: Any = None,
        output_original_output: bool = False,
        intervention_additional_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Lets the base go on, without and with the interventions: ids, prompts included.

        With `intervene_on_prompt` they are made in the prompt's pass alone, at their units; without it in every later
        pass, which sees one position. `unit_locations=None` with `intervene_on_prompt` is every position of every
        pass. `options` are those of a handle's `generate`; sampling draws from this library's own generator (`seed`).
        """
        if any(isinstance(one, CollectIntervention) for one in self.interventions.values()):
            raise NotImplementedError("collecting from texts that grow: collect from the whole text with a call")
        steps = None
        if not intervene_on_prompt:
            steps = "decode"
        elif unit_locations is not None:
            steps = "prompt"
        call = self._caller.call(
            base,
            sources,
            unit_locations,
            source_representations,
            subspaces,
            intervention_additional_kwargs,
            is_generation=True,
            steps=steps,
        )
        program, runs, _ = self._caller.program(call)
        return grown(program, call.base, runs, options)

    def _output(self, program: Program, runs: list[str], batch: Batch, labels: Any) -> Output:
        def read(site: str) -> Any:
            rows = program.read([program.reading(run, site, None) for run in runs])
            if rows and is_tensor(rows[0]):
                if len({one.shape for one in rows}) > 1:
                    raise NotImplementedError("gradients of padded batches: give examples of one length")
                return batch.shaped(imported_torch().stack(rows))  # type: ignore[union-attr]
            return give(batch.shaped(batch.padded(rows)))

        def logits(hidden: Any) -> Any:
            # Of edited logits, or with a gradient, the engine reads them; else they come from the last norm.
            if program.carries_gradients() or any(place.site == "logits" for place in self._places):
                return read("logits")
            return self._handle.unembed(hidden)

        return Output(lambda: read("final_norm"), logits, self._handle.has_head, batch.scored(labels))

    # What people do with the interventions.

    def get_trainable_parameters(self) -> list[Any]:
        """The parameters of the trainable interventions, each once. As in pyvene these include the few that stay as
        they are: `requires_grad` is False, or no gradient flows to them."""
        return [one for _, one in self._named()]

    def named_parameters(self, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        """The same with their names."""
        return self._named()

    def _named(self) -> list[tuple[str, Any]]:
        seen: set[int] = set()
        found = []
        for key, one in self.interventions.items():
            if isinstance(one, TrainableIntervention):
                for name, tensor in one.named_parameters():
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        found.append((f"{key}.{name}", tensor))
        return found

    def count_parameters(self, include_model: bool = False) -> int:
        """How many numbers train."""
        return sum(int(np.prod(tuple(one.shape))) for one in self.get_trainable_parameters() if one.requires_grad)

    def set_temperature(self, temp: Any) -> None:
        """Sets the temperature of those that have one."""
        for one in self.interventions.values():
            if hasattr(one, "set_temperature"):
                one.set_temperature(temp)

    def set_zero_grad(self) -> None:
        """Forgets gradients."""
        for one in self.interventions.values():
            if isinstance(one, TrainableIntervention):
                one.zero_grad()

    zero_grad = set_zero_grad

    def set_device(self, device: Any, set_model: bool = True) -> None:
        """The CPU; another device raises NotImplementedError."""
        self._handle.to(device)

    def get_device(self) -> Any:
        """The CPU."""
        return self._handle.device

    def enable_model_gradients(self) -> None:
        """A model's own weights are frozen: raises NotImplementedError."""
        self._handle.requires_grad_(True)

    def disable_model_gradients(self) -> None:
        """They are."""

    def train(self, mode: bool = True) -> Any:
        """Itself: nothing here drops out."""
        return self

    def eval(self) -> Any:
        """Itself."""
        return self

    def save(
        self, save_directory: Any, save_to_hf_hub: bool = False, hf_repo_name: Any = None, include_model: bool = False
    ) -> None:
        """Writes the interventions to a folder that `load`, `causalcone` and `op={"load": …}` read."""
        if save_to_hf_hub or include_model:
            raise NotImplementedError("save_to_hf_hub, include_model: the interventions are saved, to a folder")
        saving.save(self, Path(save_directory))

    @staticmethod
    def load(
        load_directory: Any, model: Handle, local_directory: Any = None, from_huggingface_hub: bool = False, **_: Any
    ) -> IntervenableModel:
        """Interventions of a folder: ours, or one that pyvene has saved."""
        if from_huggingface_hub:
            raise NotImplementedError("from_huggingface_hub: download the folder, and load that")
        folder = Path(load_directory)
        described = saving.read(folder)
        made = IntervenableModel(described.config, model)
        saving.fill(made, described, folder)
        return made

    def train_alignment(
        self, train_dataloader: Any, compute_loss: Any, compute_metrics: Any, inputs_collator: Any, **options: Any
    ) -> None:
        """Fits the interventions by Adam with a linear schedule; needs torch. Options: lr, epochs,
        gradient_accumulation_steps, optimizer, scheduler."""
        from .training import train_alignment

        train_alignment(self, train_dataloader, compute_loss, compute_metrics, inputs_collator, **options)

    def eval_alignment(self, eval_dataloader: Any, compute_metrics: Any, inputs_collator: Any, **_: Any) -> float:
        """The mean of a metric over batches, weighted by their sizes."""
        from .training import eval_alignment

        return eval_alignment(self, eval_dataloader, compute_metrics, inputs_collator)

    def __str__(self) -> str:
        described = {
            "model_type": str(self.model_type),
            "intervention_types": str(self.config.intervention_types),
            "alignables": self.sorted_keys,
            "mode": self.mode,
        }
        return json.dumps(described, indent=4)

    __repr__ = __str__


def build_intervenable_model(config: Any, model: Handle, **options: Any) -> IntervenableModel:
    """An IntervenableModel."""
    if options.pop("remote", False):
        raise NotImplementedError("remote=True: models run on this machine")
    return IntervenableModel(config, model, **options)


def _key_of(one: RepresentationConfig, counts: dict[str, int]) -> str:
    unit = one.unit.replace(".", "_")
    if "." in one.component:
        key = f"comp_{one.component.replace('.', '_')}_unit_{unit}_nunit_{one.max_number_of_units}"
    else:
        key = f"layer_{one.layer}_comp_{one.component}_unit_{unit}_nunit_{one.max_number_of_units}"
    counts[key] = counts.get(key, -1) + 1
    return f"{key}#{counts[key]}"
