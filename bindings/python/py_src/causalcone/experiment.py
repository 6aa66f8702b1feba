"""Experiments: runs, edits, reads, and axes to sweep.

An experiment is a document in the schema of experiment files (docs/experiment-file.md), made call by call; what a
file cannot hold, arrays and functions, is beside it.

>>> import causalcone as cc
>>> model = cc.Model("fixtures/tiny-llama-tied")
>>> exp = cc.Experiment(model)
>>> spain = exp.run("The capital of Spain is")
>>> italy = exp.run("The capital of Italy is")
>>> _ = exp.edit(spain, site="block_output", layers=0, positions="last", op="swap", value=italy)
>>> result = exp.execute()
>>> result.counterfactual(spain).prob("T") != result.original(spain).prob("T")
True
"""

from __future__ import annotations

import copy
import datetime
import itertools
import json
import os
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import _native
from ._arrays import as_float32, as_ids, is_array
from ._errors import InputError
from ._parts import Edit, Run, plain
from ._progress import Progress
from .model import Model, as_date, is_path
from .results import Activation, Outcome, Sweep, Texts, Training

Function = Callable[[Any], Any]
"""An op of one's own: gets the edited rows, (positions, width), (positions, heads, width) on head sites or (heads,
query rows, key columns) on attention matrices, and gives their replacement, of the same shape."""


class Experiment:
    """Runs, the edits made to them, and what is read. Nothing is computed, or checked against the model, until
    something is asked for."""

    def __init__(self, model: Model | str, *, date: str | datetime.date | None = None) -> None:
        """An experiment without runs, on a model or the model of that name. A chat template that asks for the date gets
        `date`, by default the local time."""
        self.model = Model(model) if isinstance(model, str) else model
        self._copied_from: tuple[Experiment, ...] = ()
        self._document: dict[str, Any] = {"runs": {}, "edit": []}
        if date is not None:
            self._document["date"] = as_date(date)
        self._arrays: dict[str, np.ndarray] = {}
        self._functions: dict[str, Function] = {}
        self._examples: list[str] | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], model: Model | None = None) -> Experiment:
        """The experiment of a JSON file, or of a TOML file (Python 3.11 or later), on its own model unless one is
        given. The names of its files and of its model may be relative to the folder of the file. Raises InputError for
        what is no experiment."""
        path = Path(path)
        try:
            # The command ignores a byte order mark, too.
            text = path.read_text(encoding="utf-8-sig")
            document = json.loads(text) if path.suffix.lower() == ".json" else _toml(text)
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: {error}") from None
        if not isinstance(document, dict):
            raise InputError(f"{path}: the file holds {document!r:.40}, expected an experiment: a table of keys")
        name, weights = (_popped(path, document, key, str, "a text") for key in ("model", "weights"))
        options = _popped(path, document, "model_options", dict, "a table") or {}
        unknown = sorted(set(options) - {"ignore_keys", "strict"})
        if unknown:
            raise InputError(f"{path}: unknown key `{unknown[0]}` in `model_options`", "keys are ignore_keys, strict")
        try:
            if "date" in document:
                document["date"] = as_date(document["date"])
            # TOML has infinities and dates, which JSON lacks.
            document = document if path.suffix.lower() == ".json" else plain(document)
        except InputError as error:
            raise InputError(f"{path}: {error.message}", error.hint) from None
        folder = path.parent.absolute()
        if model is None:
            name = name or "smollm2"
            beside = folder / name
            model = Model(str(beside) if is_path(beside) else name, weights=weights, **options)
        experiment = cls.from_document(document, model)
        experiment._beside(folder)
        return experiment

    @classmethod
    def from_document(cls, document: Mapping[str, Any], model: Model | str) -> Experiment:
        """The experiment of a document in the schema of experiment files. The model that it names does not count."""
        experiment = cls(model)
        experiment._document = {"runs": {}, "edit": []} | copy.deepcopy(dict(document))
        experiment._document.pop("model", None)
        if isinstance(experiment._document["edit"], dict):
            experiment._document["edit"] = [experiment._document["edit"]]
        return experiment

    def copy(self) -> Experiment:
        """An experiment of the same runs, edits and reads, which can be changed on its own."""
        other = type(self)(self.model)
        # The runs of this experiment name those of the copy.
        other._copied_from = (*self._copied_from, self)
        other._document = copy.deepcopy(self._document)
        other._arrays, other._functions = dict(self._arrays), dict(self._functions)
        other._examples = None if self._examples is None else list(self._examples)
        return other

    @property
    def edits(self) -> list[Edit]:
        """The edits, in order."""
        return [Edit(self, self._named(number)) for number in range(len(self._document["edit"]))]

    def remove(self, edit: Edit | str) -> None:
        """Removes an edit, by itself or by name."""
        name = edit.name if isinstance(edit, Edit) else edit
        edits = self._document["edit"]
        found = [number for number in range(len(edits)) if self._named(number) == name]
        if not found:
            names = ", ".join(self._named(number) for number in range(len(edits))) or "none"
            raise InputError(f'there is no edit "{name}"; the edits are: {names}')
        del edits[found[0]]

    def clear(self) -> None:
        """Removes all edits. Runs, examples and what is read stay."""
        self._document["edit"].clear()

    def _named(self, number: int) -> str:
        """The name of an edit; those of a file that have none get one."""
        edits = self._document["edit"]
        if "name" not in edits[number]:
            edits[number]["name"] = _free_name("edit", number, {one.get("name") for one in edits})
        return edits[number]["name"]

    def _beside(self, folder: Path) -> None:
        """Names of files are relative to the document's own folder."""

        def found(name: str) -> str:
            beside = folder / name
            return str(beside) if beside.exists() else name

        def walk(node: Any) -> None:
            if isinstance(node, dict):
                for key, value in node.items():
                    if (
                        key in ("file", "examples", "load")
                        and isinstance(value, str)
                        or key in ("parameters", "held_out")
                        and isinstance(value, str)
                    ):
                        node[key] = found(value)
                    else:
                        walk(value)
            elif isinstance(node, list):
                for value in node:
                    walk(value)

        walk(self._document)

    def run(
        self,
        prompt: str | None = None,
        *,
        ids: Iterable[int] | None = None,
        messages: Iterable[Mapping[str, str]] | None = None,
        name: str | None = None,
        bos: bool | None = None,
    ) -> Run:
        """Adds a run of a text, of token ids, or of a conversation; of none of them where examples give it. The
        first is called "base" unless it is named."""
        runs = self._document["runs"]
        if name is None:
            name = _free_name("run", len(runs), runs) if runs else "base"
        if name in runs:
            raise InputError(f'run "{name}" is given twice')
        run: dict[str, Any] = {}
        if prompt is not None:
            run["prompt"] = prompt
        if ids is not None:
            run["ids"] = as_ids(ids, f'run "{name}"')
        if messages is not None:
            run["messages"] = [dict(message) for message in messages]
        if bos is not None:
            run["bos"] = bos
        runs[name] = run
        return Run(self, name)

    def examples(self, examples: Iterable[Mapping[str, Any]] | str | os.PathLike[str]) -> None:
        """The data set: a JSON Lines file, or one mapping an example, such as {"base": text or ids, "positions":
        {"subject": [2, 3]}, "tokens": […], "label": …}."""
        if isinstance(examples, (str, os.PathLike)):
            self._document["examples"] = os.fspath(examples)
            self._examples = None
        else:
            self._document.pop("examples", None)
            self._examples = [json.dumps(plain(dict(example))) for example in examples]

    def edit(
        self,
        run: Run | str | None = None,
        *,
        site: str | None = None,
        op: str | Function | Mapping[str, Any],
        value: Any = None,
        parameters: Mapping[str, Any] | str | None = None,
        name: str | None = None,
        **more: Any,
    ) -> Edit:
        """Adds an edit of one site of a run.

        `op` is a name of the table of ops, a function of one's own, or {"load": FOLDER} of a saved intervention.
        `value` is another run, `run.at(…)`, an array ((d,) for every row, or one row a position), a number, or as in
        experiment files. `more` are the other keys of an edit: layers, positions, heads, dims, scale, level, seed,
        joint, steps, until … Layers and positions take what files take ("all", "last", 3, [0, 3], "0..5") and ranges.

        An edit of a name that another one has takes its place, so that a cell of a notebook can be run again. An edit
        without a name that says the same as an earlier one is added, with a warning.
        """
        if name == "":
            raise InputError("the name of an edit is empty", "leave it out, or give a text")
        edits = self._document["edit"]
        edit: dict[str, Any] = {"name": name or _free_name("edit", len(edits), {one.get("name") for one in edits})}
        if run is not None:
            edit["run"] = self._name_of(run)
        if site is not None:
            edit["site"] = site
        if callable(op):
            function = f"f{len(self._functions)}"
            self._functions[function] = self._wrapped(op, edit["name"])
            edit["op"] = {"given": function}
        else:
            edit["op"] = plain(op)
        if value is not None:
            edit["value"] = self._value(value, edit["name"])
        if isinstance(parameters, Mapping):
            edit["parameters"] = {
                key: {"given": self._given(one, f"{edit['name']}, parameter {key}")} if is_array(one) else plain(one)
                for key, one in parameters.items()
            }
        elif parameters is not None:
            edit["parameters"] = parameters
        for key, one in more.items():
            if one is not None:
                edit[key] = plain(one)
        self._check(edit)
        namesake = next((number for number, one in enumerate(edits) if one.get("name") == edit["name"]), None)
        if namesake is not None:
            edits[namesake] = edit
            return Edit(self, edit["name"])
        same = None if name else next((one for one in edits if self._alike(one, edit)), None)
        edits.append(edit)
        if same is not None:
            _warn([f'edit "{edit["name"]}" says the same as edit "{same.get("name", "")}": both are made. '
                   "Give an edit a name, and the same name replaces it; remove() and clear() take edits out"])
        return Edit(self, edit["name"])

    def _check(self, edit: dict[str, Any]) -> None:
        """Checks the keys of an edit when it is made, not when it is run."""
        try:
            _native.check_edit(json.dumps(edit))
        except InputError as error:
            message = error.message.replace("edit[0]", f'edit "{edit["name"]}"', 1)
            raise InputError(message, error.hint) from None

    def _alike(self, one: Any, other: Any) -> bool:
        """Whether two edits, or parts of them, say the same: arrays by their numbers, functions by themselves."""
        if isinstance(one, dict) and isinstance(other, dict):
            first, second = (self._arrays.get(given) if isinstance(given := part.get("given"), str) else None
                             for part in (one, other))
            if first is not None and second is not None:
                return np.array_equal(first, second)
            keys = set(one) - {"name"}
            return keys == set(other) - {"name"} and all(self._alike(one[key], other[key]) for key in keys)
        return type(one) is type(other) and one == other

    def collect(self, run: Run | str | None = None, *, site: str, **more: Any) -> Edit:
        """Adds a read of activations, as they stand after the edits before it; `collected` of the result has them."""
        return self.edit(run, site=site, op="collect", **more)

    def read(
        self,
        run: Run | str | None = None,
        *,
        top: int | None = None,
        tokens: str | int | Iterable[str | int] | None = None,
        answers: Iterable[Any] | None = None,
    ) -> None:
        """Says what is read: which run (base, or the only one), how many of the likeliest tokens, of which tokens
        and of which answers of several tokens the numbers."""
        read = self._document.setdefault("read", {})
        if run is not None:
            read["run"] = self._name_of(run)
        if top is not None:
            read["top"] = top
        if tokens is not None:
            read["tokens"] = plain(tokens)
        if answers is not None:
            read["answers"] = plain(list(answers))

    def execute(self, *, reference: bool = False) -> Outcome:
        """Runs everything once, without and with the edits. `reference` uses the plain executor that computes all of
        every run."""
        found = self.model._native.run(*self._call(), reference)
        _warn(found["warnings"])
        return Outcome(self.model, self._document, found)

    def activations(self) -> list[Activation]:
        """What the `collect` edits read, in order, a layer each; nothing else is computed. Rows are kept for the
        next experiment on this model (`Model.keep`)."""
        found = self.model._native.collect(*self._call())
        return [Activation(self.model, *one) for one in found]

    def gather(self, *, chunk: int = 64 << 20, progress: bool | None = None) -> list[list[Activation]]:
        """What the `collect` edits read of every example of the data set, in the order of the examples. `chunk`
        bounds the bytes of activations that are computed together."""
        gathered: list[list[Activation]] = []
        self.gather_into(lambda _, found: gathered.append(found), chunk=chunk, progress=progress)
        return gathered

    def gather_into(
        self,
        sink: Callable[[int, list[Activation]], None],
        *,
        chunk: int = 64 << 20,
        progress: bool | None = None,
    ) -> None:
        """`gather` for more than memory holds: `sink(example, activations)` is called for each example in turn."""

        def take(gathered: list[tuple[int, list[Any]]]) -> None:
            for example, found in gathered:
                sink(example, [Activation(self.model, *one) for one in found])

        document, arrays, functions = self._call()
        with Progress(progress) as bar:
            self.model._native.gather(document, take, arrays, functions, self._examples, chunk, bar.listener)

    def sweep(
        self,
        *,
        edit: Edit | str | int | Iterable[Edit | str | int] | None = None,
        layers: str | Mapping[str, int] | None = None,
        positions: str | None = None,
        heads: str | None = None,
        sites: str | Iterable[str] | None = None,
        scales: Iterable[float] | None = None,
        samples: int | None = None,
        metrics: str | Iterable[str] | None = None,
        methods: str | Iterable[str] | None = None,
        steps: int | None = None,
        memory: int | None = None,
        verify: bool | int = False,
        progress: bool | None = None,
    ) -> Sweep:
        """Runs every cell of a sweep.

        `layers` is "each", "cumulative" or {"window": n}; `positions` and `heads` are "each"; an axis left out is
        edited together. `metrics` are "prob" (the default), "logit", "logprob", "logit_diff", "kl" …; `memory` bounds
        the bytes worked in beside the weights. `verify` computes all cells, or so many, again with the reference
        executor. Without any axis named here, those of a file it was made from count.
        """
        axes = self._axes(
            {
                "edit": edit,
                "layers": layers,
                "positions": positions,
                "heads": heads,
                "sites": sites,
                "scales": scales,
                "samples": samples,
                "metrics": metrics,
                "methods": methods,
                "steps": steps,
            }
        )
        document = self._document | ({"sweep": axes} if axes or "sweep" not in self._document else {})
        check = None if verify is False else (0 if verify is True else int(verify))
        text, arrays, functions = self._call(document)
        with Progress(progress) as bar:
            native = self.model._native.sweep(text, arrays, functions, self._examples, memory, check, bar.listener)
        _warn(native.warnings)
        return Sweep(self.model, document, native)

    def explain(self, **axes: Any) -> dict[str, Any]:
        """What it would do, before it does it: cells, rows computed and rows of the naive way, operations, memory.
        `axes` as `sweep` has them."""
        axes = self._axes(axes)
        document = self._document | ({"sweep": axes} if axes else {})
        return json.loads(self.model._native.explain(*self._call(document), self._examples))

    def generate(self, *, progress: bool | None = None, **options: Any) -> Texts:
        """How the read run goes on, without and with the edits. `options`: max_tokens (64), temperature, top_k, top_p,
        seed, stop, eos, samples; greedy unless a temperature is given."""
        document = self._document | {"generate": self._document.get("generate", {}) | plain(options)}
        text, arrays, functions = self._call(document)
        with Progress(progress) as bar:
            made = self.model._native.generate(text, arrays, functions, self._examples, bar.listener)
        return Texts(json.loads(made))

    def train(
        self,
        *,
        folder: str | os.PathLike[str] | None = None,
        out: str | os.PathLike[str] | None = None,
        resume: bool = False,
        progress: bool | None = None,
        **options: Any,
    ) -> Training:
        """Fits the parameters of its edits to the labels of its examples. `options` are the keys of [train]: epochs,
        steps, batch, learning_rate, objective, held_out, seed … What was learned is written to `folder`, from which
        an edit takes it: op={"load": folder}.

        With `out` that folder gets all that `causalcone train --out` writes: what was learned (`out/intervention`),
        tables, figures, and the state of the training. `resume=True` continues a training that was interrupted, and
        gives the same result as if it had not been."""
        if folder is not None and out is not None:
            raise InputError("train: set either folder or out, not both", "what was learned is in out/intervention")
        if resume and out is None:
            raise InputError("train: resume needs out", "set out to the folder of the interrupted training")
        train = self._document.get("train", {}) | plain(options)
        described = {} if out is None else self.model._described()
        text, arrays, functions = self._call(described | self._document | {"train": train})
        if functions:
            raise InputError("train: a function of one's own has no parameters to fit")
        learned = Path(folder) if folder is not None else None
        results = Path(out) if out is not None else None
        with Progress(progress) as bar:
            made = self.model._native.train(text, arrays, self._examples, learned, bar.listener, results, resume)
        return Training(json.loads(made), learned if results is None else results / "intervention")

    def save(self, folder: str | os.PathLike[str], how: str = "made in Python") -> None:
        """Writes its edits to a folder, whole or not at all, with a self-test; `how` says for people how they were
        made. `op={"load": folder}` takes them, and `Experiment.saved` lists them."""
        text, arrays, functions = self._call()
        if functions:
            raise InputError("save: a function of one's own cannot be saved")
        self.model._native.save(text, Path(folder), how, arrays)

    def document(self) -> dict[str, Any]:
        """The experiment in the schema of experiment files; arrays and functions are {"given": name}."""
        return copy.deepcopy(self._document)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes it as a JSON experiment file for the command. Raises InputError where it holds arrays or functions,
        which such a file cannot: give numbers, or a file, or `save` the edits."""
        if self._arrays or self._functions:
            what = "functions" if self._functions else "arrays"
            raise InputError(f"write: it holds {what}", "save the edits, and take them by op={'load': folder}")
        if self._examples is not None:
            raise InputError("write: its examples are not in a file", "write them as JSON lines, and give the name")
        document = self.model._described() | self._document
        part = Path(f"{os.fspath(path)}.part")
        part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        part.replace(path)

    def __repr__(self) -> str:
        runs, edits = len(self._document["runs"]), len(self._document["edit"])
        return f"<Experiment on {self.model.name}: {runs} runs, {edits} edits>"

    def _call(self, document: Mapping[str, Any] | None = None) -> tuple[str, dict[str, Any], dict[str, Any]]:
        text = json.dumps(self._document if document is None else document)
        return text, self._arrays, self._functions

    def _name_of(self, run: Run | str) -> str:
        if isinstance(run, Run):
            if run.experiment is not self and run.experiment not in self._copied_from:
                raise InputError(f'run "{run.name}" is of another experiment')
            return run.name
        return run

    def _axes(self, axes: dict[str, Any]) -> dict[str, Any]:
        """The axes of a sweep as a document has them, without those that are None."""
        named = axes | {"edit": self._edits(axes.get("edit"))}
        return {key: plain(axis) for key, axis in named.items() if axis is not None}

    def _edits(self, edits: Any) -> Any:
        if edits is None:
            return None
        if isinstance(edits, Edit):
            return edits.name
        if isinstance(edits, (str, int)):
            return edits
        return [self._edits(one) for one in edits]

    def _value(self, value: Any, part: str) -> Any:
        if isinstance(value, Run):
            return {"run": self._name_of(value)}
        if isinstance(value, Mapping):
            return plain(dict(value))
        if is_array(value) and not isinstance(value, np.generic):
            name = self._given(value, f"{part}, value")
            if self._arrays[name].ndim == 1:
                # As a row: the engine would make a new tensor of a vector, which is another constant in the next call.
                self._arrays[name] = self._arrays[name][None]
            return {"given": name}
        if isinstance(value, str):
            return {"run": self._run_called(value, part)}
        if isinstance(value, (list, tuple)) or np.isscalar(value):
            return {"values": plain(value)}
        raise InputError(f"{part}: a value of type {type(value).__name__}", "give a run, an array or a number")

    def _run_called(self, name: str, part: str) -> str:
        """The run of that name, or the message of what else a text might have meant."""
        runs = self._document["runs"]
        if name in runs or self._examples is not None or "examples" in self._document:
            return name
        raise InputError(
            f'{part}: there is no run "{name}"; the runs are: {", ".join(runs)}',
            "give a run, {'embedding': token} or {'file': name}",
        )

    def _given(self, array: Any, part: str) -> str:
        name = f"v{len(self._arrays)}"
        # A copy: what the caller does to the array later is not in the experiment.
        self._arrays[name] = np.array(as_float32(array, part))
        return name

    def _wrapped(self, function: Function, part: str) -> Function:
        def wrapped(rows: np.ndarray) -> np.ndarray:
            return as_float32(function(self.model._array(rows)), f"{part}, what its function gives")

        return wrapped


def saved(model: Model, folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder of saved interventions holds, ours or pyvene's: {"edit": [documents], "passed": whether its
    self-test gives the same answers on this model, "how": how it was made}."""
    return json.loads(model._native.saved(Path(folder)))


def _warn(messages: Iterable[str]) -> None:
    """Warns the caller of an experiment's method."""
    for message in messages:
        warnings.warn(message, stacklevel=3)


def _free_name(stem: str, number: int, taken: Container[Any]) -> str:
    """Returns the first of stemN, stemN+1 … that is not taken."""
    names = (f"{stem}{one}" for one in itertools.count(number))
    return next(name for name in names if name not in taken)


def _popped(path: Path, document: dict[str, Any], key: str, kind: type, what: str) -> Any:
    """Removes a key of an experiment file, and returns its value or None."""
    value = document.pop(key, None)
    if value is not None and not isinstance(value, kind):
        raise InputError(f"{path}: `{key}` is {value!r}, expected {what}")
    return value


def _toml(text: str) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:
        raise InputError("reading TOML needs Python 3.11 or later", "write the experiment as JSON") from None
    return tomllib.loads(text)
