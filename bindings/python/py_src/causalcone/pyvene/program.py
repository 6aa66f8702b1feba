"""One call as an experiment of the engine: its runs, its edits, and what is read of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from . import gradients
from .arrays import give, take

if TYPE_CHECKING:
    from .handles import Batch, Handle


class Reading(NamedTuple):
    """Activations to be read of a run."""

    run: str
    site: str
    layer: int | None
    positions: list[int] | None
    heads: list[int] | None


class Program:
    """Runs and edits, and the arrays these name. An array that is a torch tensor with a gradient stays one: what is
    read then carries gradients to it."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._runs: dict[str, Any] = {}
        self._edits: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}
        self._leaves: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._held: list[Any] = []
        self._vectors: dict[int, np.ndarray] = {}
        self._functions: dict[str, Callable[[np.ndarray], np.ndarray]] = {}

    def run(self, name: str, ids: list[int]) -> str:
        """Adds a run."""
        self._runs[name] = {"ids": ids}
        return name

    def edit(self, run: str, site: str, layer: int | None, **more: Any) -> None:
        """Adds an edit, with the keys of the schema."""
        edit = {"run": run, "site": site} | {key: value for key, value in more.items() if value is not None}
        if layer is not None:
            edit["layers"] = [layer]
        self._edits.append(edit)

    def given(self, array: Any) -> dict[str, str]:
        """An array as a value or parameter; the same object is the same array."""
        name = self._names.get(id(array))
        if name is None:
            name = self._names[id(array)] = f"v{len(self._arrays)}"
            self._held.append(array)
            self._arrays[name] = np.ascontiguousarray(take(array), dtype=np.float32)
            if np.ndim(array) == 0:
                self._arrays[name] = self._arrays[name].reshape(())
            if gradients.wanted(array):
                self._leaves[name] = array
        return {"given": name}

    def vector(self, constant: Any, rows: np.ndarray) -> np.ndarray:
        """Rows of a constant; where this is one vector, the same object whoever asks, so that edits share it."""
        if rows.ndim == 1:
            # As a row: the engine would make a new tensor of a vector, which is another constant in the next call.
            rows = rows[None]
        if rows.size != int(np.prod(tuple(np.shape(constant)))) or len(rows) > 1:
            return rows
        self._held.append(constant)
        return self._vectors.setdefault(id(constant), rows)

    def function(self, function: Callable[[np.ndarray], np.ndarray]) -> dict[str, str]:
        """A function as an op, for runs that grow."""
        name = f"f{len(self._functions)}"
        self._functions[name] = function
        return {"given": name}

    @staticmethod
    def reading(
        run: str, site: str, layer: int | None, positions: list[int] | None = None, heads: list[int] | None = None
    ) -> Reading:
        """What to read."""
        return Reading(run, site, layer, positions, heads)

    def carries_gradients(self) -> bool:
        """Whether what is read will."""
        return bool(self._leaves)

    def read(self, readings: list[Reading]) -> list[Any]:
        """Activations, in order, as the runs have them after all edits so far: (positions, width), (positions, heads,
        width) on head sites, (heads, query rows, key columns) on attention matrices. NumPy arrays, or torch tensors
        where a gradient is to flow."""
        collects = []
        for one in readings:
            collect: dict[str, Any] = {"run": one.run, "site": one.site, "op": "collect"}
            if one.layer is not None:
                collect["layers"] = [one.layer]
            if one.positions is not None:
                collect["positions"] = one.positions
            if one.heads is not None:
                collect["heads"] = one.heads
            collects.append(collect)
        needed = self._needed([one.run for one in readings])
        runs, edits = self._of(needed)
        # Which run is read matters to nothing that is collected.
        document = json.dumps({"runs": runs, "edit": edits + collects, "read": {"run": readings[0].run}})
        if self._leaves:
            return gradients.read(self._handle.core._native, document, self._arrays, self._leaves)
        found = self._handle.core._native.collect(document, self._arrays, self._functions)
        return [array for *_, array in found]

    def grow(self, run: str, options: dict[str, Any]) -> dict[str, Any]:
        """How a run goes on, without and with its edits."""
        runs, edits = self._of(self._needed([run]))
        document = json.dumps({"runs": runs, "edit": edits, "read": {"run": run}, "generate": options})
        made = json.loads(self._handle.core._native.generate(document, self._arrays, self._functions))
        return {side: texts[0] for side, texts in made.items()}

    def _needed(self, runs: list[str]) -> set[str]:
        """These runs, and those that their values come from, directly or not."""
        needed: set[str] = set()
        open_runs = list(runs)
        while open_runs:
            one = open_runs.pop()
            if one not in needed:
                needed.add(one)
                values = (edit.get("value", {}) for edit in self._edits if edit["run"] == one)
                open_runs += [value["run"] for value in values if "run" in value]
        return needed

    def _of(self, needed: set[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """These runs and their edits."""
        runs = {name: one for name, one in self._runs.items() if name in needed}
        return runs, [edit for edit in self._edits if edit["run"] in needed]


def grown(program: Program, batch: Batch, runs: list[str], options: dict[str, Any]) -> tuple[Any, Any]:
    """Ids of prompts with what comes after them, without and with the edits, by transformers' options."""
    known = {
        "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p", "seed", "eos_token_id",
        "pad_token_id", "use_cache",
    }  # fmt: skip
    # What changes nothing may be said.
    harmless = {
        "num_beams": 1, "num_return_sequences": 1, "length_penalty": 1.0, "repetition_penalty": 1.0, "min_length": 0,
        "min_new_tokens": 0, "return_dict_in_generate": False, "early_stopping": False, "num_beam_groups": 1,
    }  # fmt: skip
    for name, value in options.items():
        if name not in known and value is not None and (name not in harmless or harmless[name] != value):
            raise NotImplementedError(f"generate: {name}={value!r}; there are {', '.join(sorted(known))}")
    if len(batch.shape) > 2:
        raise InputError(f"generate: input_ids have shape {batch.shape}, expected (examples, positions)")
    count = options.get("max_new_tokens")
    if count is None:
        most = options.get("max_length")
        count = 20 if most is None else most - batch.width
        if count < 1:
            raise InputError(f"generate: max_length {most} leaves nothing after prompts of {batch.width}")
    if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
        raise InputError(f"generate: max_new_tokens {count!r}, where a number from 1 on fits")
    context = program._handle.core.context
    if max(map(len, batch.ids)) + int(count) > context:
        raise InputError(f"generate: {count} tokens after these prompts are more than the context of {context} holds")
    growth: dict[str, Any] = {"max_tokens": int(count)}
    seed = 0
    if options.get("do_sample"):
        temperature = 1.0 if options.get("temperature") is None else float(options["temperature"])
        if not temperature > 0:
            raise InputError(f"generate: temperature {temperature}, where a number above 0 fits", "do_sample=False")
        growth["temperature"] = temperature
        growth |= {key: options[key] for key in ("top_k", "top_p") if options.get(key)}
        seed = int(_drawn_seed() if options.get("seed") is None else options["seed"])
    ends = options.get("eos_token_id")
    own = program._handle.config.eos_token_id
    if ends is not None and _listed(ends) != _listed(own):
        # Other ends than the model's own: it goes on, and is cut at the first of them.
        growth["eos"] = False
    made = []
    for number, run in enumerate(runs):
        # Each row draws its own, equal prompts too.
        drawn = {"seed": _mixed(seed, number)} if "temperature" in growth else {}
        made.append(program.grow(run, growth | drawn))
    pad = options.get("pad_token_id")
    fills = ([] if pad is None else [int(pad)]) + [one for one in _listed(ends) + _listed(own) if one >= 0]
    sides = []
    for side in ("original", "counterfactual"):
        rows = [_cut(text[side]["ids"], _listed(ends) if "eos" in growth else []) for text in made]
        # New tokens stand behind the padded prompts, as transformers has them.
        whole = [list(prompt) + row for prompt, row in zip(batch.rows.tolist(), rows)]
        length = max(map(len, whole))
        fill = next(iter(fills), 0)
        sides.append(give(np.array([row + [fill] * (length - len(row)) for row in whole], dtype=np.int64)))
    return sides[0], sides[1]


def _mixed(seed: int, number: int) -> int:
    """The seed of one row: the seed itself for the first, others far from it."""
    if number == 0:
        return seed
    return int.from_bytes(hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=4).digest(), "little")


def _listed(ends: Any) -> list[int]:
    return [] if ends is None else [int(one) for one in np.atleast_1d(take(ends))]


def _cut(ids: list[int], ends: list[int]) -> list[int]:
    found = [number for number, one in enumerate(ids) if one in ends]
    return ids[: found[0] + 1] if found else ids


def _drawn_seed() -> int:
    """A seed from the generator that the caller may have seeded."""
    torch = imported_torch()
    if torch is not None:
        return int(torch.randint(0, 2**31 - 1, ()).item())
    return int(np.random.randint(0, 2**31 - 1))


def is_missing(x: Any) -> bool:
    """Whether a caller gave nothing."""
    return x is None or (not is_tensor(x) and isinstance(x, (list, tuple)) and all(one is None for one in x))
