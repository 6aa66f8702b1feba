"""Experiments that everybody runs, in one line each.

>>> import causalcone as cc
>>> model = cc.Model("fixtures/tiny-llama-tied")
>>> sweep = cc.patch(model, "The capital of Spain is", "The capital of Italy is", ("T", "is"))
>>> len(sweep) == model.layers * len(model.encode("The capital of Spain is"))
True
>>> best = sweep.best(2)
>>> abs(best[0].change) >= abs(best[1].change)
True
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from . import _native
from ._arrays import as_ids
from ._errors import InputError
from ._parts import plain
from .experiment import Experiment
from .model import Model
from .results import Sweep


def patch(
    model: Model | str,
    prompt: str | Iterable[int],
    source: str | Iterable[int],
    answers: Iterable[str | int],
    *,
    site: str = "resid_pre",
    layers: str | int | Iterable[int] | Mapping[str, int] = "each",
    positions: str | int | Iterable[int] = "each",
    heads: str | int | Iterable[int] | None = None,
    align: str | None = None,
    metrics: str | Iterable[str] = "logit_diff",
    memory: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Activation patching: copies one activation at a time from the run of `source` into the run of `prompt`, and records
    what the model then answers.

    Prompts are texts or token ids. `answers` are tokens, as texts (mind the leading space) or ids; "logit_diff" is the first
    minus the second. `layers` is "each", "cumulative", "window=3", "all" (together) or some layers; `positions` is "each",
    "all" (together), "last" or some; `heads`, for sites that have heads, is "each" or some. `align` says how prompts of
    different lengths pair: "tokens", "left" or "right". Site names are those of experiment files, short ones too.
    """
    document = json.loads(_native.patch(False, site, _text(layers), _text(positions), _text(heads)))
    return _run(model, document, (prompt, source, answers), align, metrics, memory, progress)


def heads(
    model: Model | str,
    prompt: str | Iterable[int],
    source: str | Iterable[int],
    answers: Iterable[str | int],
    *,
    layers: str | int | Iterable[int] | Mapping[str, int] = "each",
    metrics: str | Iterable[str] = "logit_diff",
    memory: int | None = None,
    progress: bool | None = None,
) -> Sweep:
    """Patches the output of each head at the last position: which heads move the answer. As `patch` otherwise."""
    document = json.loads(_native.patch(True, None, _text(layers), None, None))
    return _run(model, document, (prompt, source, answers), None, metrics, memory, progress)


def _run(
    model: Model | str,
    document: dict[str, Any],
    asked: tuple[str | Iterable[int], str | Iterable[int], Iterable[str | int]],
    align: str | None,
    metrics: str | Iterable[str],
    memory: int | None,
    progress: bool | None,
) -> Sweep:
    prompt, source, answers = asked
    if isinstance(prompt, str) and prompt == source:
        raise InputError("both prompts are the same text: patching changes nothing")
    document["runs"] = {"base": _prompt(prompt, "prompt"), "source": _prompt(source, "source")}
    document["read"]["tokens"] = plain(answers)
    document["sweep"]["metrics"] = plain(metrics)
    if align is not None:
        document["edit"][0]["value"]["align"] = align
    return Experiment.from_document(document, model).sweep(memory=memory, progress=progress)


def _prompt(prompt: str | Iterable[int], part: str) -> dict[str, Any]:
    return {"prompt": prompt} if isinstance(prompt, str) else {"ids": as_ids(prompt, part)}


def _text(choice: str | int | Iterable[int] | Mapping[str, int] | None) -> str | None:
    """A choice of layers, positions or heads as the command takes it."""
    if choice is None or isinstance(choice, str):
        return choice
    if isinstance(choice, Mapping) and set(choice) == {"window"}:
        return f"window={choice['window']}"
    numbers = plain(choice)
    numbers = numbers if isinstance(numbers, list) else [numbers]
    if not all(isinstance(one, int) for one in numbers) or not numbers:
        raise InputError(f"{choice!r} names no layers, positions or heads", 'give "each", a number or a list of numbers')
    return ",".join(map(str, numbers))
