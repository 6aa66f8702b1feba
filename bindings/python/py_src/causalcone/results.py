"""What comes back: distributions, activations, tables, figures, texts.

>>> import causalcone as cc
>>> exp = cc.Experiment(cc.Model("fixtures/tiny-llama-tied"))
>>> base = exp.run("The capital of Spain is")
>>> _ = exp.edit(base, site="mlp_output", layers="all", op="zero")
>>> exp.read(tokens=["T"])
>>> sweep = exp.sweep(layers="cumulative", positions="each")
>>> len(sweep) == exp.model.layers * len(exp.model.encode("The capital of Spain is"))
True
>>> sweep.table.columns[:3]
['example', 'site', 'layer']
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import _native
from ._errors import InputError

if TYPE_CHECKING:
    from .experiment import Run
    from .model import Model


@dataclass(frozen=True)
class Record:
    """A token with its probability and logit."""

    token: str
    id: int
    prob: float
    logit: float


class Top(list["Record"]):
    """Tokens with their probabilities, likeliest first; a table in a notebook."""

    def _labels(self) -> list[str]:
        """The texts, with the id where two tokens have the same text."""
        texts = [_visible(one.token) for one in self]
        return [f"{text} #{one.id}" if texts.count(text) > 1 else text for text, one in zip(texts, self)]

    def __repr__(self) -> str:
        return "\n".join(f"{label:<20} {one.prob:.6f}" for label, one in zip(self._labels(), self))

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td><code>{html.escape(label)}</code></td><td>{one.prob:.6f}</td>"
            f"<td>{one.logit:.4f}</td></tr>"
            for label, one in zip(self._labels(), self)
        )
        return f"<table><tr><th>token</th><th>prob</th><th>logit</th></tr>{rows}</table>"


class Distribution:
    """What a run says next: logits (vocab,), float32, at its last position."""

    def __init__(self, model: Model, logits: np.ndarray) -> None:
        self._model = model
        self._logits = logits

    @property
    def logits(self) -> Any:
        """The logits, (vocab,)."""
        return self._model._array(self._logits)

    @cached_property
    def _logprobs(self) -> np.ndarray:
        # In float64: the sum of so many exponentials loses digits otherwise.
        shifted = self._logits.astype(np.float64) - float(self._logits.max())
        return shifted - np.log(np.exp(shifted).sum())

    @property
    def probs(self) -> Any:
        """The probabilities, (vocab,), float64."""
        return self._model._array(np.exp(self._logprobs))

    def prob(self, token: str | int) -> float:
        """The probability of a token."""
        return float(np.exp(self.logprob(token)))

    def logprob(self, token: str | int) -> float:
        """The natural logarithm of it."""
        return float(self._logprobs[self._id(token)])

    def logit(self, token: str | int) -> float:
        """The logit of a token."""
        return float(self._logits[self._id(token)])

    def top(self, n: int = 10) -> Top:
        """The likeliest tokens; of equal ones the smaller id first."""
        ids = np.lexsort((np.arange(len(self._logits)), -self._logits))[:n]
        return Top(self.record(int(one)) for one in ids)

    def record(self, token: str | int) -> Record:
        """A token with its numbers."""
        one = self._id(token)
        return Record(self._model.token(one), one, self.prob(one), self.logit(one))

    def _id(self, token: str | int) -> int:
        one = self._model.token_id(token)
        if not 0 <= one < len(self._logits):
            raise InputError(f"{one} is no token id: there are {len(self._logits)}")
        return one

    def __repr__(self) -> str:
        return repr(self.top())

    def _repr_html_(self) -> str:
        return self.top()._repr_html_()


class Activation:
    """Numbers read of a run: (positions, width); (positions, heads, width) on head sites; (heads, query rows, key
    columns) on attention matrices; float32."""

    def __init__(
        self, model: Model, run: str, site: str, layer: int | None, positions: list[int], numbers: np.ndarray
    ) -> None:
        self._model = model
        self.run = run
        self.site = site
        self.layer = layer
        self.positions = positions
        self.numpy = numbers

    @property
    def array(self) -> Any:
        """The numbers, as the model gives arrays."""
        return self._model._array(self.numpy)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy or dtype not in (None, self.numpy.dtype):
            return np.array(self.numpy, dtype=dtype)
        return self.numpy

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.numpy.__dlpack_device__()

    def __repr__(self) -> str:
        where = self.site if self.layer is None else f"{self.site} of layer {self.layer}"
        return f"<Activation {where} of {self.run}, positions {self.positions}: {self.numpy.shape}>"


@dataclass(frozen=True)
class Answer:
    """How likely an answer of one token or more is, as natural logarithms of its probability."""

    ids: list[int]
    text: str
    original: float
    counterfactual: float


class Outcome:
    """What a single experiment gave: of every run what it says, without and with the edits."""

    def __init__(self, model: Model, document: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        self._model = model
        self._document = document
        self._names: list[str] = found["runs"]
        self._originals: list[np.ndarray] = found["originals"]
        self._counterfactuals: list[np.ndarray] = found["counterfactuals"]
        self.collected = [Activation(model, *one) for one in found["collected"]]
        #: The date that the chat template wrote into a prompt; None where no template asked for it.
        self.date: str | None = found["date"]
        self.answers = [Answer(ids, model.decode(ids), before, after) for ids, before, after in found["answers"]]

    def original(self, run: Run | str | None = None) -> Distribution:
        """What a run says with none of the edits; the run that is read, unless one is named."""
        return Distribution(self._model, self._originals[self._index(run)])

    def counterfactual(self, run: Run | str | None = None) -> Distribution:
        """What a run says with its edits."""
        return Distribution(self._model, self._counterfactuals[self._index(run)])

    def _index(self, run: Run | str | None) -> int:
        if run is None:
            named = self._document.get("read", {}).get("run")
            name = named or ("base" if "base" in self._names or len(self._names) > 1 else self._names[0])
        else:
            name = run if isinstance(run, str) else run.name
        if name not in self._names:
            raise InputError(f'there is no run "{name}"; the runs are: {", ".join(self._names)}')
        return self._names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """What `causalcone run --json` prints of it: `original` and `counterfactual`, each with `top` and `tokens`."""
        read = self._document.get("read", {})

        def side(distribution: Distribution) -> dict[str, Any]:
            return {
                "top": [vars(one) for one in distribution.top(read.get("top", 10))],
                "tokens": [vars(distribution.record(one)) for one in read.get("tokens", [])],
            }

        return {"original": side(self.original()), "counterfactual": side(self.counterfactual())}

    def __repr__(self) -> str:
        return f"original\n{self.original()!r}\n\nwith the edits\n{self.counterfactual()!r}"

    def _repr_html_(self) -> str:
        sides = [("original", self.original()), ("with the edits", self.counterfactual())]
        cells = "".join(
            f"<td style='vertical-align:top'><b>{title}</b>{one._repr_html_()}</td>" for title, one in sides
        )
        return f"<table><tr>{cells}</tr></table>"


class Table:
    """A tidy table. pandas, polars, pyarrow and DuckDB take it as it is, through Arrow's PyCapsule protocol."""

    def __init__(self, native: _native.Table) -> None:
        self._native = native

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return self._native.columns

    def __len__(self) -> int:
        return len(self._native)

    def __getitem__(self, column: str) -> list[Any]:
        """The cells of a column, None where one is empty."""
        return self._native.column(column)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Its rows, each as a dict."""
        columns = self.columns
        for row in zip(*(self[column] for column in columns)):
            yield dict(zip(columns, row))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self._native.__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> Any:
        """A pandas.DataFrame: float64, int64 (Int64 where cells are empty) and text columns. Needs pandas."""
        try:
            import pandas
        except ImportError:
            raise ImportError("to_pandas needs pandas: pip install pandas") from None
        frame = {}
        for name, kind in zip(self.columns, self._native.kinds):
            cells = self[name]
            if kind == "number":
                frame[name] = pandas.Series(cells, dtype="float64")
            elif kind == "integer":
                frame[name] = pandas.Series(cells, dtype="Int64" if None in cells else "int64")
            else:
                frame[name] = pandas.Series(cells, dtype="object")
        return pandas.DataFrame(frame)

    def to_csv(self) -> str:
        """The table as the command writes it."""
        return self._native.to_csv()

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes .csv, .jsonl or .parquet, whole or not at all."""
        self._native.write(Path(path))

    def __repr__(self) -> str:
        return f"<Table of {len(self)} rows: {', '.join(self.columns)}>"

    def _repr_html_(self, most: int = 20) -> str:
        columns = self.columns
        head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
        rows = []
        for number, row in enumerate(self):
            if number == most:
                rows.append(f"<tr><td colspan='{len(columns)}'>… {len(self)} rows</td></tr>")
                break
            cells = ("" if cell is None else str(cell) for cell in row.values())
            rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
        return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


@dataclass(frozen=True)
class Cell:
    """One cell of a sweep, or the mean of the cells of all examples: where it is, its first number, and how much that
    changed. `token` is the token at the position, where all prompts have the same."""

    value: float
    change: float
    site: str | None = None
    layer: int | None = None
    layers: str | None = None
    head: int | None = None
    position: int | None = None
    token: str | None = None
    scale: float | None = None

    def __repr__(self) -> str:
        token = "" if self.token is None else f" {_visible(self.token)}"
        places = [
            f"{name} {place}{token if name == 'position' else ''}"
            for name, place in (
                ("layers", self.layers),
                ("layer", None if self.layers else self.layer),
                ("head", self.head),
                ("position", self.position),
            )
            if place is not None
        ]
        return f"<Cell {'  '.join(places)}: {self.value:+.4f}, change {self.change:+.4f}>"


class Sweep:
    """What a sweep recorded: a tidy table, and a heat map that shows itself in notebooks."""

    def __init__(self, model: Model, document: Mapping[str, Any], native: _native.SweepResult) -> None:
        self._native = native
        self.model = model
        self.document = document

    def __len__(self) -> int:
        """How many cells there are."""
        return len(self._native)

    @property
    def rows(self) -> int:
        """Rows (one position through one block) that were computed."""
        return self._native.rows

    @cached_property
    def table(self) -> Table:
        """One row a cell, metric and token, as the command's cells.csv."""
        return Table(self._native.table())

    @cached_property
    def means(self) -> Table | None:
        """Means over examples and samples, with standard errors; None where there are neither."""
        native = self._native.means()
        return None if native is None else Table(native)

    def best(self, n: int = 5) -> list[Cell]:
        """The cells whose first number changes most, the largest change first."""
        return [Cell(**cell) for cell in json.loads(self._native.best(max(n, 0)))]

    @property
    def verification(self) -> dict[str, Any] | None:
        """What comparing with the reference executor showed, if that was asked for: `cells`, `numbers`, the `worst`
        difference as a part of what is allowed, and those that are `wrong`."""
        found = self._native.verification
        return None if found is None else json.loads(found)

    def to_pandas(self) -> Any:
        """The table as a pandas.DataFrame."""
        return self.table.to_pandas()

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)

    def to_svg(self, title: str | None = None) -> str:
        """The heat map of the first metric, as SVG."""
        return self._native.to_svg(self._title() if title is None else title, self.model._given)

    def to_png(self, title: str | None = None, *, scale: float = 2.0) -> bytes:
        """The heat map as PNG; `scale` in pixels a point."""
        return self._native.to_png(self._title() if title is None else title, self.model._given, scale)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes cells.csv, heatmap.svg and, of several examples or samples, means.csv, into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.table.write(folder / "cells.csv")
        if self.means is not None:
            self.means.write(folder / "means.csv")
        part = folder / "heatmap.svg.part"
        part.write_text(self.to_svg(), encoding="utf-8")
        part.replace(folder / "heatmap.svg")

    def _title(self) -> str:
        edits = self.document["edit"]
        named = self.document.get("sweep", {}).get("edit", 0)
        first = named[0] if isinstance(named, list) else named
        edit = edits[first] if isinstance(first, int) else next(e for e in edits if e.get("name") == first)
        op = edit["op"] if isinstance(edit["op"], str) else "edit"
        sites = self.document.get("sweep", {}).get("sites") or [edit.get("site", "")]
        sites = [sites] if isinstance(sites, str) else sites
        return f"{op} at {', '.join(sites)}"

    def __repr__(self) -> str:
        return f"<Sweep of {len(self)} cells>\n{self._native.to_text(self._title())}"

    def _repr_svg_(self) -> str:
        return self.to_svg()


@dataclass(frozen=True)
class Text:
    """What a run went on with: the new tokens only."""

    text: str
    ids: list[int]
    logprobs: list[float]
    end: str
    example: int | None
    scale: float | None
    sample: int


class Texts:
    """The texts of an experiment, without and with the edits, in the order of examples, scales and samples."""

    def __init__(self, made: Mapping[str, Any]) -> None:
        self.originals = [Text(**one) for one in made["original"]]
        self.counterfactuals = [Text(**one) for one in made["counterfactual"]]

    @property
    def original(self) -> Text:
        """The first text without edits."""
        return self.originals[0]

    @property
    def counterfactual(self) -> Text:
        """The first text with them."""
        return self.counterfactuals[0]

    def __repr__(self) -> str:
        return f"original:       {self.original.text!r}\nwith the edits: {self.counterfactual.text!r}"


@dataclass(frozen=True)
class Fitted:
    """One fit: its steps (loss, accuracy, learning rate …), and the scores it ended with."""

    steps: list[dict[str, Any]]
    accuracy: float
    loss: float


class Training:
    """What a training gave: a fit for each choice of the sweep's axes, and which is best."""

    def __init__(self, made: Mapping[str, Any], folder: Path | None) -> None:
        self.fits = [Fitted(**fit) for fit in made["fits"]]
        self.best: int = made["best"]
        self.original = made["original"]
        self.examples: int = made["examples"]
        self.held_out: int = made["held_out"]
        self.folder = folder

    @property
    def losses(self) -> list[float]:
        """The loss before each update of the best fit."""
        return [step["loss"] for step in self.fits[self.best].steps]

    @property
    def accuracy(self) -> float:
        """The accuracy of the best fit: on the examples held out, where there are some."""
        return self.fits[self.best].accuracy

    def __repr__(self) -> str:
        fit = self.fits[self.best]
        before = self.original["accuracy"]
        return f"<Training: accuracy {fit.accuracy:.3f} (without edits {before:.3f}), loss {fit.loss:.4f}>"


def _visible(token: str) -> str:
    return token.replace(" ", "_").replace("\n", "\\n")
