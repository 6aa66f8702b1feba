"""Reads from a model's files what the engine does not pass on: the pieces of the vocabulary and the shapes of tensors.

The engine has checked and loaded these files. Of weight files only headers are read.

>>> from causalcone import Model
>>> from causalcone.pyvene.files import pieces_of, shapes_of
>>> model = Model("fixtures/tiny-llama-tied")
>>> pieces_of(model)[model.token_id(" The")]
'ĠThe'
>>> shapes_of(model)["model.norm.weight"]
(32,)
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from .._errors import RunError
from ..model import Model

T = TypeVar("T")

# The layouts of GGUF's numbers, by type; 8 is a string, 9 an array.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_PIECES = "tokenizer.ggml.tokens"
# Tensors of files that are no parameters: masks and what rotary embeddings are computed from.
_BUFFERS = (
    ".attn.bias", ".attn.masked_bias", ".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq",
    ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", "rope_freqs.weight", "rope_factors_long.weight",
    "rope_factors_short.weight",
)  # fmt: skip
_UNEMBEDDING = ("lm_head.weight", "embed_out.weight", "output.weight")


def pieces_of(model: Model) -> dict[int, str]:
    """Returns the tokens of the vocabulary by id, as its file spells them: " The" is "ĠThe" or "▁The".

    Raises NotImplementedError where no file is a tokenizer that this module reads, and RunError where a file cannot be
    read any more."""
    for path in map(Path, model.info["files"]):
        if path.suffix == ".gguf":
            return dict(enumerate(_read(_gguf, path)[0]))
        if path.name in _VOCABULARIES:
            found = _read(_VOCABULARIES[path.name], path)
            for number in range(model.vocab):
                # Other files may add tokens, whose pieces are their texts. The model writes an unknown id as [number].
                if number not in found and (text := model.token(number)) != f"[{number}]":
                    found[number] = text
            return found
    raise NotImplementedError(
        f"cannot list the vocabulary of {model.name}: none of its files is a supported tokenizer file; use `decode`"
    )


def shapes_of(model: Model) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the parameters, by the names that the files give them.

    Raises NotImplementedError where the files list other numbers than the model has, and RunError where a file cannot be
    read any more."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in map(Path, model.info["files"]):
        if path.suffix == ".gguf":
            shapes |= _read(_gguf, path)[1]
        elif path.suffix == ".safetensors":
            shapes |= _read(_safetensors, path)
    shapes = {name: shape for name, shape in shapes.items() if not name.endswith(_BUFFERS)}
    count = sum(map(math.prod, shapes.values()))
    if count != model.info["parameters"] and model.info["tied"]:
        # The embedding a second time.
        shapes = {name: shape for name, shape in shapes.items() if name not in _UNEMBEDDING}
        count = sum(map(math.prod, shapes.values()))
    if count != model.info["parameters"]:
        raise NotImplementedError(
            f"cannot list the weights of {model.name}: its files hold {count} numbers, the model has "
            f"{model.info['parameters']}; use `num_parameters()`"
        )
    return shapes


def _read(reader: Callable[[Path], T], path: Path) -> T:
    """Calls the reader. Raises RunError where the file cannot be read, or has other content than the engine loaded."""
    try:
        return reader(path)
    except (OSError, ValueError, LookupError, struct.error) as error:
        problem = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RunError(
            f"cannot read {path}: {problem}",
            "the file has changed since the model was loaded: restore the file, or load the model again",
        ) from error


def _safetensors(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors by name."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    return {name: tuple(one["shape"]) for name, one in header.items() if name != "__metadata__"}


def _gguf(path: Path) -> tuple[list[str], dict[str, tuple[int, ...]]]:
    """The pieces of the vocabulary, and the shapes of the tensors by name."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 8

        def number(layout: str) -> Any:
            nonlocal at
            (value,) = struct.unpack_from("<" + layout, data, at)
            at += struct.calcsize("<" + layout)
            return value

        def string() -> bytes:
            nonlocal at
            length = number("Q")
            at += length
            return data[at - length : at]

        def value(kind: int) -> Any:
            nonlocal at
            if kind == _STRING:
                return string()
            if kind != _ARRAY:
                return number(_NUMBERS[kind])
            of, count = number("I"), number("Q")
            if of in _NUMBERS:
                at += count * struct.calcsize("<" + _NUMBERS[of])
                return None
            return [value(of) for _ in range(count)]

        pieces: list[str] = []
        shapes: dict[str, tuple[int, ...]] = {}
        tensors, entries = number("Q"), number("Q")
        for _ in range(entries):
            name, found = string().decode(), value(number("I"))
            if name == _PIECES:
                pieces = [one.decode() for one in found]
        for _ in range(tensors):
            name = string().decode()
            # The axis that changes fastest comes first.
            shapes[name] = tuple(reversed([number("Q") for _ in range(number("I"))]))
            number("I"), number("Q")
        return pieces, shapes


def _tokenizer_json(path: Path) -> dict[int, str]:
    described = json.loads(path.read_text(encoding="utf-8"))
    found = {number: piece for piece, number in described["model"]["vocab"].items()}
    return found | {one["id"]: one["content"] for one in described.get("added_tokens") or []}


def _vocab_json(path: Path) -> dict[int, str]:
    return {number: piece for piece, number in json.loads(path.read_text(encoding="utf-8")).items()}


def _sentencepiece(path: Path) -> dict[int, str]:
    # The pieces are field 1 of the model, and field 1 of each piece is its text.
    pieces = (body for field, body in _fields(path.read_bytes()) if field == 1)
    return {
        number: next(body for field, body in _fields(piece) if field == 1).decode()
        for number, piece in enumerate(pieces)
    }


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protocol buffer that have a length, with their numbers."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while at < len(data):
        tag = varint()
        kind = tag & 7
        if kind == 2:
            length = varint()
            yield tag >> 3, data[at : at + length]
            at += length
        elif kind == 0:
            varint()
        else:
            at += {1: 8, 5: 4}[kind]


_VOCABULARIES = {"tokenizer.json": _tokenizer_json, "tokenizer.model": _sentencepiece, "vocab.json": _vocab_json}
