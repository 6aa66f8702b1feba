"""Models: loading, tokens, embeddings.

>>> import causalcone as cc
>>> model = cc.Model("fixtures/tiny-llama-tied")
>>> model.decode(model.encode("The capital"))
'The capital'
>>> model.embedding("T").shape
(32,)
"""

from __future__ import annotations

import datetime
import json
import os
import warnings
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import _native
from ._arrays import as_float32, as_ids, like
from ._errors import InputError
from ._progress import Progress

Token = "str | int"
"""A token: a text that is exactly one, or its id."""

KEEP = 256 << 20
"""Bytes of earlier experiments' rows that a model keeps, unless said otherwise."""


def as_date(date: str | datetime.date | None) -> str | None:
    """Returns a date in the format of experiment files. The engine checks texts.

    Raises InputError for a date with an offset from UTC, for a year outside 1000 to 9999, and for other types."""
    if date is None or isinstance(date, str):
        return date
    fits = "expected a local date and time without offset, years 1000 to 9999"
    if not isinstance(date, datetime.date):
        raise InputError(f"`date` is {date!r}, {fits}")
    if not 1000 <= date.year <= 9999:
        raise InputError(f"`date` has the year {date.year}, {fits}")
    if not isinstance(date, datetime.datetime):
        return date.isoformat()
    if date.utcoffset() is not None:
        raise InputError(f"`date` is {date}, {fits}", "remove the offset: date.replace(tzinfo=None)")
    return date.isoformat(timespec="seconds")


def is_path(name: str | os.PathLike[str]) -> bool:
    """Whether `name` is the path of a model, and not an alias or owner/name."""
    # As in the engine, a folder without config.json does not hide an alias of the same name.
    return os.path.exists(os.path.join(name, "config.json")) if os.path.isdir(name) else os.path.exists(name)


def absolute(name: str | os.PathLike[str]) -> str:
    """Returns an absolute path where `name` is a path, so that the name is valid in every working directory."""
    return str(Path(name).absolute()) if is_path(name) else str(name)


class Model:
    """A loaded language model, shared freely between experiments and threads.

    `name` is an alias ("smollm2" is fetched once), a Hugging Face directory, a .gguf file, or owner/name in the
    Hugging Face cache. A relative path is resolved when the model is loaded. `weights` is "full" (float32), "half" or
    "packed" (as the file has them), or "auto": full where that fits in the memory that is free, else packed for quantised
    files and half for 16-bit ones. `arrays` says what arrays come back as: "numpy", or "torch" (tensors over the same
    memory).

    `keep` bounds the bytes of earlier experiments' rows that are kept for later ones: a loop over edits that have
    much in common then computes only what is new. 0 keeps nothing.

    A configuration key that this version does not know, and whose name speaks of computation, is an error;
    `ignore_keys` names those that you know to change nothing. Other unknown keys are a warning, or with `strict` an
    error too. `keys` says what was concluded.

    A copy shares the weights. A pickle holds how to load the model, not its weights: unpickling loads it again, unless
    the process has a model that was loaded the same way by `shared`.

    Raises InputError when there is no such model, or one that could not be computed exactly, or whose weights do not fit
    in memory.
    """

    def __init__(
        self,
        name: str = "smollm2",
        *,
        weights: str | None = "auto",
        ignore_keys: Sequence[str] = (),
        strict: bool = False,
        keep: int = KEEP,
        arrays: str = "numpy",
        progress: bool | None = None,
    ) -> None:
        if arrays not in ("numpy", "torch"):
            raise InputError(f"arrays: {arrays!r}, where 'numpy' or 'torch' fits")
        if keep < 0:
            raise InputError(f"keep: {keep}, where a number of bytes fits", "0 keeps nothing")
        self.arrays = arrays
        ignored = [ignore_keys] if isinstance(ignore_keys, str) else list(ignore_keys)
        self._options = {"weights": weights, "ignore_keys": ignored, "strict": strict, "keep": keep}
        with Progress(progress) as bar:
            options = json.dumps({"ignore_keys": ignored, "strict": strict})
            self._native = _native.Model.load(absolute(name), weights, keep, bar.listener, options)
        self._given = str(name)
        self._info: dict[str, Any] = json.loads(self._native.info())
        # The path of the download cache may be relative.
        self._info["files"] = [str(Path(file).absolute()) for file in self._info["files"]]
        if self._info["warning"]:
            warnings.warn(f"{name}: {self._info['warning']}", stacklevel=2)

    @classmethod
    def load(cls, name: str = "smollm2", **options: Any) -> Model:
        """The same as the constructor."""
        return cls(name, **options)

    @classmethod
    def shared(
        cls,
        name: str = "smollm2",
        *,
        weights: str | None = "auto",
        ignore_keys: Sequence[str] = (),
        strict: bool = False,
        keep: int = KEEP,
    ) -> Model:
        """The model that was loaded by the same name and options, if it is still in use; else it is loaded. `keep` only
        applies when it is loaded."""
        key = (cls, absolute(name), weights or "auto", tuple(ignore_keys), strict)
        model = _SHARED.get(key)
        if model is None or model.closed:
            model = cls(name, weights=weights, ignore_keys=ignore_keys, strict=strict, keep=keep)
            _SHARED[key] = model
        return model

    def __copy__(self) -> Model:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.name, self._options | {"keep": self.keep}, self.arrays)

    def _described(self) -> dict[str, Any]:
        """Returns how to load the model, in the keys of experiment files."""
        options = {key: self._options[key] for key in ("ignore_keys", "strict") if self._options[key]}
        weights = self._options["weights"] or "auto"
        return (
            {"model": self.name}
            | ({} if weights == "auto" else {"weights": weights})
            | ({"model_options": options} if options else {})
        )

    def close(self) -> None:
        """Frees the weights once nothing runs on them any more; any later use raises ClosedError."""
        self._native.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._native.closed

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = ", closed" if self.closed else ""
        return f"<Model {self.name}: {self.family}, {self.layers} layers, width {self.width}{state}>"

    @property
    def name(self) -> str:
        """What it was loaded by. A path is absolute."""
        return self._info["name"]

    @property
    def family(self) -> str:
        """The family: "gpt2", "llama" …"""
        return self._info["family"]

    @property
    def keys(self) -> dict[str, Any]:
        """What was concluded about the keys of its configuration: those that are missing with the `defaulted` value
        that stands in, those that were `ignored` as you asked, and those that are `unknown`."""
        return dict(self._info["keys"])

    @property
    def problems(self) -> list[str]:
        """What is wrong with its tokenizer, chat template or end-of-text tokens. All that does not need them works."""
        return list(self._info["problems"])

    @property
    def weights(self) -> str:
        """How the weights are kept: "full", "half" or "packed"."""
        return self._info["weights"]

    @property
    def memory(self) -> dict[str, Any]:
        """Bytes that the weights take as "full", "half" and "packed" (None where the file has nothing to keep so), the
        form that was "chosen", and what was "free" when the model was opened."""
        return dict(self._info["memory"])

    @property
    def layers(self) -> int:
        """How many blocks."""
        return self._info["layers"]

    @property
    def width(self) -> int:
        """The width of the residual stream, d."""
        return self._info["width"]

    @property
    def heads(self) -> int:
        """How many query heads, H."""
        return self._info["heads"]

    @property
    def vocab(self) -> int:
        """How many tokens, and logits."""
        return self._info["vocab"]

    @property
    def context(self) -> int:
        """The longest prompt, in tokens."""
        return self._info["context"]

    @property
    def sites(self) -> list[str]:
        """The names of the activations that can be edited and read, in order of execution."""
        return self._info["sites"]

    @property
    def info(self) -> dict[str, Any]:
        """Everything about its shape."""
        return dict(self._info)

    @property
    def sha256(self) -> str:
        """A hash of its files."""
        return self._native.sha256()

    @property
    def kept(self) -> int:
        """Bytes of earlier experiments' rows that are kept now."""
        return self._native.kept()[0]

    @property
    def keep(self) -> int:
        """The most bytes of earlier experiments' rows that are kept. Setting it forgets what there is."""
        return self._native.kept()[1]

    @keep.setter
    def keep(self, size: int) -> None:
        if size < 0:
            raise InputError(f"keep: {size}, where a number of bytes fits", "0 keeps nothing")
        self._native.keep(size)

    def encode(self, text: str, *, bos: bool | None = None, inside: bool = False) -> list[int]:
        """The ids of a prompt; `bos` says whether a start-of-text token comes first, by default as the model was
        trained. `inside`: of a text as it stands within another one."""
        return self._native.encode(text, not inside, bos)

    def chat(
        self,
        messages: Sequence[dict[str, str]],
        *,
        generation_prompt: bool = True,
        bos: bool | None = None,
        date: str | datetime.date | None = None,
    ) -> list[int]:
        """The ids of a conversation, [{"role": "user", "content": …}, …], as the model's own template writes it. A
        template that asks for the date gets `date`, by default the local time."""
        return self._native.chat(json.dumps(list(messages)), generation_prompt, bos, as_date(date))

    def decode(self, ids: Iterable[int], *, skip_special: bool = False) -> str:
        """The text of tokens in a row."""
        return self._native.decode(as_ids(ids, "decode"), skip_special)

    def token(self, id: int) -> str:
        """The text of one token as it stands in running text, leading space and all."""
        return self._native.token(as_ids([id], "token")[0])

    def token_id(self, token: str | int) -> int:
        """The id of a text that is exactly one token; an id is itself. Raises InputError if it is several."""
        if isinstance(token, str):
            return self._native.token_id(token)
        if isinstance(token, bool) or not isinstance(token, (int, np.integer)):
            raise InputError(f"{token!r} is no token", "give a text that is one token, or an id")
        return int(token)

    def embedding(self, token: str | int) -> Any:
        """The word embedding of a token, (d,), as the embedding matrix has it."""
        return self._array(self._native.embeddings(as_ids([self.token_id(token)], "embedding"))[0])

    def embeddings(self, ids: Iterable[int]) -> Any:
        """The word embeddings of tokens, (n, d)."""
        return self._array(self._native.embeddings(as_ids(ids, "embeddings")))

    def unembed(self, rows: Any) -> Any:
        """The logits, (n, vocab), of rows of site "final_norm", (n, d)."""
        return self._array(self._native.unembed(as_float32(rows, "unembed")))

    def _array(self, array: np.ndarray) -> Any:
        return like(self.arrays, array)


# Those in use: one that nobody holds any more is freed.
_SHARED: weakref.WeakValueDictionary[tuple[Any, ...], Model] = weakref.WeakValueDictionary()


def _unpickled(kind: type[Model], name: str, options: dict[str, Any], arrays: str) -> Model:
    model = kind.shared(name, **options)
    if model.arrays != arrays:
        model = model.__copy__()
        model.arrays = arrays
    return model
