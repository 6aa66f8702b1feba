"""A model's tokenizer, called as Hugging Face's.

>>> from causalcone.pyvene import create_llama
>>> _, tokenizer, _ = create_llama("fixtures/tiny-llama-tied")
>>> tokenizer.decode(tokenizer("The capital").input_ids)
'The capital'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .._errors import InputError
from ..model import Model
from .arrays import give, take


class Encoding(dict):
    """What a tokenizer gives: input_ids and attention_mask, by key or attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, *_: Any, **__: Any) -> Encoding:
        """Itself."""
        return self


class Tokenizer:
    """A model's tokenizer, called as Hugging Face's."""

    def __init__(self, model: Model) -> None:
        self._model = model
        info = model.info
        self.bos_token_id = info["bos"]
        self.eos_token_id = info["eos"] if info["eos"] is not None else next(iter(info["ends"]), None)
        self.pad_token_id = self.eos_token_id
        self.padding_side = "right"
        self.vocab_size = info["vocab"]
        self.model_max_length = info["context"]

    @property
    def bos_token(self) -> str | None:
        """The start-of-text token's text."""
        return None if self.bos_token_id is None else self._model.token(self.bos_token_id)

    @property
    def eos_token(self) -> str | None:
        """The end-of-text token's text."""
        return None if self.eos_token_id is None else self._model.token(self.eos_token_id)

    @property
    def pad_token(self) -> str | None:
        """The text of the token that pads."""
        return None if self.pad_token_id is None else self._model.token(self.pad_token_id)

    @pad_token.setter
    def pad_token(self, token: str) -> None:
        self.pad_token_id = self._model.token_id(token)

    def encode(self, text: str, add_special_tokens: bool = True, return_tensors: str | None = None, **more: Any) -> Any:
        """The ids of a text."""
        if more:
            return self(text, return_tensors=return_tensors, add_special_tokens=add_special_tokens, **more).input_ids
        ids = self._model.encode(text, bos=None if add_special_tokens else False)
        return ids if return_tensors is None else _tensors([ids], return_tensors)

    def __call__(
        self,
        text: Any,
        return_tensors: str | None = None,
        padding: Any = False,
        truncation: Any = False,
        max_length: int | None = None,
        add_special_tokens: bool = True,
        padding_side: str | None = None,
        **more: Any,
    ) -> Encoding:
        """The ids of a text, or of several: lists, or with return_tensors "np" or "pt" arrays (examples, positions),
        padded where `padding` says so."""
        _nothing_else("a tokenizer", more, {"return_attention_mask": True, "verbose": True})
        is_one = isinstance(text, str)
        texts = [text] if is_one else list(text)
        if not texts or not all(isinstance(one, str) for one in texts):
            raise InputError(f"a tokenizer was given {text!r}, where a text or a list of texts fits")
        padding = False if padding == "do_not_pad" else padding
        truncation = False if truncation == "do_not_truncate" else truncation
        rows = [self.encode(one, add_special_tokens) for one in texts]
        if truncation:
            rows = [row[: max_length or self.model_max_length] for row in rows]
        longest = max(map(len, rows))
        if padding == "max_length":
            longest = max_length or self.model_max_length
        masks = [[1] * len(row) for row in rows]
        if padding:
            if self.pad_token_id is None:
                raise InputError("padding needs a pad token, and this model has none", "set tokenizer.pad_token")
            fill = [[self.pad_token_id] * (longest - len(row)) for row in rows]
            blank = [[0] * len(one) for one in fill]
            is_left = (padding_side or self.padding_side) == "left"
            rows = [f + r if is_left else r + f for f, r in zip(fill, rows)]
            masks = [b + m if is_left else m + b for b, m in zip(blank, masks)]
        if return_tensors is None:
            ids, mask = (rows[0], masks[0]) if is_one else (rows, masks)
            return Encoding(input_ids=ids, attention_mask=mask)
        return Encoding(input_ids=_tensors(rows, return_tensors), attention_mask=_tensors(masks, return_tensors))

    def decode(self, ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: Any = None) -> str:
        """The text of tokens in a row, or of one."""
        ids = np.atleast_1d(take(ids))
        return self._model.decode(ids, skip_special=skip_special_tokens)

    def batch_decode(
        self, rows: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: Any = None
    ) -> list[str]:
        """The texts of several rows."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        # The vocabulary comes with the model.
        return {name: value for name, value in vars(self).items() if name not in ("_pieces", "_ids")}

    @cached_property
    def _pieces(self) -> dict[int, str]:
        pieces = enumerate(self._model._native.pieces())
        return {number: piece for number, piece in pieces if piece is not None}

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {piece: number for number, piece in self._pieces.items()}

    def get_vocab(self) -> dict[str, int]:
        """The ids of the pieces of the vocabulary, as its file spells them."""
        return dict(self._ids)

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """The pieces of the vocabulary, as its file spells them: " The" is "ĠThe" or "▁The". None for an id that is
        none."""
        if np.ndim(take(ids)) == 0:
            return self._pieces.get(int(ids))
        return [self._pieces.get(int(one)) for one in ids]

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The ids of pieces of the vocabulary. What is no piece is a text with plain spaces, of one token; raises
        InputError if it is none."""
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(one) for one in tokens]
        number = self._ids.get(tokens)
        return self._model.token_id(tokens) if number is None else number

    def tokenize(self, text: str) -> list[str]:
        """The pieces of a text, as the vocabulary spells them."""
        return self.convert_ids_to_tokens(self.encode(text, add_special_tokens=False))

    def apply_chat_template(
        self,
        messages: Sequence[dict[str, str]],
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        return_tensors: str | None = None,
        return_dict: bool = False,
        **more: Any,
    ) -> Any:
        """The ids of a conversation, or its text."""
        _nothing_else("apply_chat_template", more, {})
        ids = self._model.chat(messages, generation_prompt=add_generation_prompt)
        if not tokenize:
            return self._model.decode(ids)
        if return_dict:
            mask = [1] * len(ids)
            if return_tensors is None:
                return Encoding(input_ids=ids, attention_mask=mask)
            return Encoding(input_ids=_tensors([ids], return_tensors), attention_mask=_tensors([mask], return_tensors))
        return ids if return_tensors is None else _tensors([ids], return_tensors)

    def __len__(self) -> int:
        return self.vocab_size


def _nothing_else(what: str, options: dict[str, Any], harmless: dict[str, Any]) -> None:
    """Refuses options that would have to change something."""
    for name, value in options.items():
        if value not in (None, False) and value != harmless.get(name):
            raise NotImplementedError(f"{what}: {name}={value!r}")


def _tensors(rows: list[list[int]], kind: str) -> Any:
    if kind not in ("np", "pt"):
        raise InputError(f"return_tensors={kind!r}, where 'np' or 'pt' fits")
    if len({len(row) for row in rows}) > 1:
        raise InputError("texts of different lengths make no array", "padding=True pads them")
    array = np.array(rows, dtype=np.int64)
    return give(array) if kind == "pt" else array
