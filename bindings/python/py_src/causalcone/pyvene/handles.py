"""Models, tokenizers and outputs, called as Hugging Face's.

>>> from causalcone.pyvene import create_llama
>>> config, tokenizer, llama = create_llama("fixtures/tiny-llama-tied")
>>> ids = tokenizer("The capital", return_tensors="np")
>>> llama(**ids).logits.shape == (*ids.input_ids.shape, config.vocab_size)
True
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .._arrays import as_ids, imported_torch
from .._errors import InputError
from ..model import KEEP, Model
from .arrays import give, take

# What rotary embeddings are computed from is in GGUF files, and is no parameter.
_FACTORS = ("rope_freqs.", "rope_factors_")
_UNEMBEDDING = ("lm_head.weight", "embed_out.weight", "output.weight")


class Batch:
    """Prompts of a batch. Padding is taken off: every example runs by itself, as long as it is. All axes before the
    last count examples; outputs have the same axes."""

    def __init__(self, inputs: Any, model: Model) -> None:
        if hasattr(inputs, "keys"):
            named = {key: inputs[key] for key in inputs.keys()}
        else:
            named = {"input_ids": inputs}
        ids = named.pop("input_ids", None)
        mask = named.pop("attention_mask", None)
        self.labels = named.pop("labels", None)
        named.pop("token_type_ids", None)
        if ids is None:
            raise InputError("an input without input_ids", "call the tokenizer, or give {'input_ids': ids}")
        unknown = [key for key, value in named.items() if value is not None]
        if unknown:
            raise NotImplementedError(f"an input with {unknown[0]}: prompts are token ids here, at positions from 0 on")
        rows = take(ids)
        if rows.dtype.kind not in "iu":
            raise InputError(f"input_ids of {rows.dtype}, where whole numbers fit")
        if not rows.ndim or not rows.size:
            raise InputError(f"input_ids have shape {rows.shape}, expected (examples, positions)")
        rows = rows[None] if rows.ndim == 1 else rows
        self.shape = rows.shape
        rows = rows.reshape(-1, rows.shape[-1])
        kept = np.ones(rows.shape, dtype=bool) if mask is None else take(mask).astype(bool)
        kept = kept[None] if kept.ndim == 1 else kept
        if kept.shape not in (rows.shape, self.shape):
            raise InputError(f"an attention_mask of shape {kept.shape} for input_ids of {self.shape}")
        kept = kept.reshape(rows.shape)
        self.width = rows.shape[1]
        self.rows = rows
        self.ids: list[list[int]] = []
        self.starts: list[int] = []
        for row, keep in zip(rows, kept):
            places = np.flatnonzero(keep)
            if not len(places) or places[-1] - places[0] + 1 != len(places):
                raise NotImplementedError("an attention_mask with holes, or of nothing: padding stands at one end")
            self.starts.append(int(places[0]))
            self.ids.append(as_ids(row[places], "input_ids"))

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, example: int, given: Sequence[int]) -> list[int]:
        """Positions of the padded row as those of the example."""
        count, start = len(self.ids[example]), self.starts[example]
        made = []
        for position in given:
            own = position - start if position >= 0 else position + self.width - start
            if not 0 <= own < count:
                raise InputError(
                    f"position {position} of example {example}, whose tokens stand at {start} to {start + count - 1}"
                )
            made.append(own)
        return made

    def scored(self, labels: Any) -> np.ndarray | None:
        """Labels of the padded rows; none where there is no token before, or padding."""
        if labels is None:
            return None
        made = np.array(take(labels))
        if made.shape != self.shape:
            raise InputError(f"labels of shape {made.shape} for input_ids of {self.shape}")
        made = made.reshape(self.rows.shape)
        for row, ids, start in zip(made, self.ids, self.starts):
            row[: start + 1] = -100
            row[start + len(ids) :] = -100
        return made.reshape(self.shape)

    def shaped(self, rows: Any) -> Any:
        """An array (examples, positions, …) with the axes that the ids have."""
        return rows.reshape(*self.shape, *rows.shape[2:])

    def padded(self, rows: list[np.ndarray]) -> np.ndarray:
        """Rows by example, (positions, …), as one array (examples, padded positions, …), 0 where padding is."""
        if all(len(one) == self.width for one in rows):
            return np.stack(rows) if len(rows) > 1 else rows[0][None]
        made = np.zeros((len(rows), self.width, *rows[0].shape[1:]), dtype=rows[0].dtype)
        for number, (one, start) in enumerate(zip(rows, self.starts)):
            made[number, start : start + len(one)] = one
        return made


class Output:
    """What a model gives: `last_hidden_state` (examples, positions, d), `logits` (examples, positions, vocab), `loss`
    where labels were given. Each is computed when it is first asked for."""

    def __init__(
        self, hidden: Callable[[], Any], logits: Callable[[Any], Any], has_head: bool, labels: Any = None
    ) -> None:
        # Callers get a copy: what they do to one is not in the other.
        self._make = {
            "hidden": hidden,
            "last_hidden_state": lambda: self._get("hidden").clone(),
            "logits": lambda: logits(self._get("hidden")),
        }
        self._has_head = has_head
        self._labels = labels
        self._made: dict[str, Any] = {}
        self.past_key_values = None

    def _get(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._make[name]()
        return self._made[name]

    @property
    def last_hidden_state(self) -> Any:
        """What leaves the last norm."""
        return self._get("last_hidden_state")

    @property
    def logits(self) -> Any:
        """Of every position."""
        return self._get("logits")

    @property
    def loss(self) -> Any:
        """The mean cross entropy of the labels, each predicted from the position before it; −100 is none."""
        if self._labels is None:
            return None
        if "loss" not in self._made:
            self._made["loss"] = _cross_entropy(self.logits, self._labels)
        return self._made["loss"]

    def keys(self) -> list[str]:
        """The names of what is there."""
        names = ["logits"] if self._has_head else ["last_hidden_state"]
        return names if self._labels is None else ["loss", *names]

    def to_tuple(self) -> tuple[Any, ...]:
        """All of it."""
        return tuple(getattr(self, name) for name in self.keys())

    def __getitem__(self, key: Any) -> Any:
        return getattr(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.to_tuple())

    def __len__(self) -> int:
        return len(self.keys())

    def __repr__(self) -> str:
        return f"<Output: {', '.join(self.keys())}>"


def _cross_entropy(logits: Any, labels: Any) -> Any:
    torch = imported_torch()
    if torch is not None and isinstance(logits, torch.Tensor):
        wanted = torch.as_tensor(take(labels)).long()
        return torch.nn.functional.cross_entropy(
            logits[..., :-1, :].reshape(-1, logits.shape[-1]), wanted[..., 1:].reshape(-1), ignore_index=-100
        )
    rows, wanted = np.asarray(logits)[..., :-1, :].astype(np.float64), take(labels)[..., 1:]
    rows = rows - rows.max(axis=-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    there = wanted != -100
    picked = np.take_along_axis(rows, np.where(there, wanted, 0)[..., None], axis=-1)[..., 0]
    return give(np.float32(-picked[there].mean()).reshape(()))


class _Matrix:
    """An embedding, or an unembedding: called with ids or rows; `weight` is a copy of the matrix, (vocab, d)."""

    def __init__(self, call: Callable[[Any], Any], weight: Callable[[], Any]) -> None:
        self._call = call
        self._weight = weight

    def __call__(self, x: Any) -> Any:
        return self._call(x)

    @property
    def weight(self) -> Any:
        """A copy of the matrix."""
        return self._weight()


class Config:
    """A model's shape, by the names of the configurations of transformers' families."""

    def __init__(self, model: Model, architecture: str) -> None:
        info = model.info
        eos = info["ends"] or ([info["eos"]] if info["eos"] is not None else [])
        self._named = {
            "architectures": [architecture],
            "model_type": info["family"],
            "vocab_size": info["vocab"],
            "tie_word_embeddings": info["tied"],
            "head_dim": info["head_dim"],
            "num_key_value_heads": info["kv_heads"],
            "bos_token_id": info["bos"],
            "eos_token_id": eos[0] if len(eos) == 1 else eos or None,
            "torch_dtype": "float32",
            "use_cache": True,
            "output_attentions": False,
            "_attn_implementation": "eager",
        }
        same = {
            "n_layer": "layers",
            "num_hidden_layers": "layers",
            "num_layers": "layers",
            "n_embd": "width",
            "hidden_size": "width",
            "n_head": "heads",
            "num_attention_heads": "heads",
            "n_inner": "mlp_width",
            "intermediate_size": "mlp_width",
            "n_positions": "context",
            "n_ctx": "context",
            "max_position_embeddings": "context",
        }
        self._named |= {name: info[own] for name, own in same.items()}

    def __getattr__(self, name: str) -> Any:
        named = self.__dict__.get("_named", {})
        if name not in named:
            raise AttributeError(f"a configuration has no {name} here; it has {', '.join(named)}")
        return named[name]

    def to_dict(self) -> dict[str, Any]:
        """All of it."""
        return dict(self._named)

    def __repr__(self) -> str:
        return f"Config {self._named}"


class FrozenWeight:
    """A weight of a model: its shape, and that it is frozen. Its numbers stay in the engine."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        torch = imported_torch()
        self.name = name
        self.shape = shape if torch is None else torch.Size(shape)
        self.dtype = np.dtype(np.float32) if torch is None else torch.float32
        self.device = "cpu" if torch is None else torch.device("cpu")
        self.grad = None

    @property
    def requires_grad(self) -> bool:
        """False. Setting it to True raises NotImplementedError."""
        return False

    @requires_grad.setter
    def requires_grad(self, requires_grad: bool) -> None:
        self.requires_grad_(requires_grad)

    def requires_grad_(self, requires_grad: bool = True) -> FrozenWeight:
        """Itself. True raises NotImplementedError."""
        _refuse_gradients(requires_grad)
        return self

    def numel(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    nelement = numel

    def size(self, dim: int | None = None) -> Any:
        """Its shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a frozen weight has no {name} here: its numbers stay in the engine")

    def __repr__(self) -> str:
        return f"<FrozenWeight {self.name}: {' × '.join(map(str, self.shape))}>"


def _refuse_gradients(requires_grad: bool) -> None:
    if requires_grad:
        raise NotImplementedError("gradients of a model's own weights: only interventions are trained here")


class _Blocks:
    """Stands for the list of a model's blocks: it has a length, and they are named by components."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"block {index} as a module: name its activations as components, such as mlp_output")


class Handle:
    """A model, called as transformers' are. `model` is the causalcone.Model behind it."""

    has_head = False

    def __init__(self, model: Model, architecture: str) -> None:
        self.core = model
        self.config = Config(model, architecture)
        self.name_or_path = model.name
        self._matrix: Any = None
        self.wte = self.embed_tokens = self.embed_in = _Matrix(self._embed, self._embedding_matrix)
        self.h = self.layers = _Blocks(model.layers)

    @property
    def model(self) -> Any:
        """Itself: what transformers keeps under this name is asked for here."""
        return self

    transformer = gpt_neox = model

    @property
    def lm_head(self) -> Any:
        """The unembedding, called with rows behind the last norm."""
        return _Matrix(self.unembed, self._unembedding_matrix)

    embed_out = lm_head

    def get_input_embeddings(self) -> Any:
        """The embedding."""
        return self.wte

    def get_output_embeddings(self) -> Any:
        """The unembedding."""
        return self.lm_head

    def _embed(self, ids: Any) -> Any:
        ids = take(ids)
        if ids.dtype.kind not in "iu":
            raise InputError(f"token ids of {ids.dtype}, where whole numbers fit")
        rows = self.core._native.embeddings(as_ids(ids.reshape(-1), "token ids"))
        # As transformers has it: Gemma 1 and 2 scale what their embedding gives, Gemma 3's gives it scaled.
        if not self.core.family.startswith("gemma3"):
            rows = self._unscaled(rows)
        return give(rows.reshape(*ids.shape, rows.shape[-1]))

    def _unscaled(self, rows: np.ndarray) -> np.ndarray:
        scale = self.core.info["embedding_scale"]
        return rows if scale == 1 else rows / np.float32(scale)

    def _embedding_matrix(self) -> Any:
        if self._matrix is None:
            self._matrix = self._unscaled(self.core._native.embeddings(list(range(self.config.vocab_size))))
        return give(self._matrix.copy())

    def _unembedding_matrix(self) -> Any:
        if self.config.tie_word_embeddings:
            return self._embedding_matrix()
        if self.core.info["logit_softcap"] is not None:
            raise NotImplementedError("lm_head.weight of a model whose logits are capped: call lm_head with rows")
        # Unit vectors have the matrix's columns as their logits.
        columns = self.core._native.unembed(np.eye(self.config.hidden_size, dtype=np.float32))
        return give(np.ascontiguousarray(columns.T))

    def unembed(self, hidden: Any) -> Any:
        """Logits of rows behind the last norm, (…, d) to (…, vocab)."""
        rows = np.ascontiguousarray(take(hidden), dtype=np.float32)
        logits = self.core._native.unembed(rows.reshape(-1, rows.shape[-1]))
        return give(logits.reshape(*rows.shape[:-1], logits.shape[-1]))

    def __call__(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **more: Any) -> Output:
        more = {key: value for key, value in more.items() if key not in ("use_cache", "return_dict")}
        batch = Batch({"input_ids": input_ids, "attention_mask": attention_mask} | more, self.core)
        return self._output(batch, labels)

    def _output(self, batch: Batch, labels: Any = None) -> Output:
        return Output(lambda: give(self._hidden(batch)), self.unembed, self.has_head, batch.scored(labels))

    def _hidden(self, batch: Batch) -> np.ndarray:
        from .program import Program

        program = Program(self)
        runs = [program.run(f"b{number}", ids) for number, ids in enumerate(batch.ids)]
        return batch.shaped(batch.padded(program.read([program.reading(run, "final_norm", None) for run in runs])))

    def generate(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        """Prompts with what the model says after them, (examples, positions); shorter texts end in the pad token. The
        options that have a meaning here: max_new_tokens, max_length, do_sample, temperature, top_k, top_p, seed,
        eos_token_id, pad_token_id."""
        from .program import Program, grown

        batch = Batch({"input_ids": input_ids, "attention_mask": attention_mask}, self.core)
        program = Program(self)
        runs = [program.run(f"b{number}", ids) for number, ids in enumerate(batch.ids)]
        return grown(program, batch, runs, options)[0]

    def eval(self) -> Any:
        """Itself: nothing here drops out."""
        return self

    def train(self, mode: bool = True) -> Any:
        """Itself: weights are frozen, and nothing drops out."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Weights are frozen: True raises NotImplementedError."""
        _refuse_gradients(requires_grad)
        return self

    def to(self, device: Any = None, *_: Any, **__: Any) -> Any:
        """Itself, for the CPU; another device raises NotImplementedError."""
        if device is not None and not str(device).startswith("cpu") and not str(device).startswith("torch."):
            raise NotImplementedError(f"device {device}: models run on the CPU here")
        return self

    def cpu(self) -> Any:
        """Itself."""
        return self

    def cuda(self, *_: Any) -> Any:
        """Models run on the CPU here: raises NotImplementedError."""
        return self.to("cuda")

    @property
    def device(self) -> Any:
        """The CPU."""
        torch = imported_torch()
        return "cpu" if torch is None else torch.device("cpu")

    def parameters(self, recurse: bool = True) -> Iterator[FrozenWeight]:
        """The weights, without their numbers."""
        return (weight for _, weight in self.named_parameters())

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, FrozenWeight]]:
        """The same with the names that the model's files give them."""
        info = self.core.info
        shapes = {name: tuple(shape) for name, shape in self.core._native.tensors() if not name.startswith(_FACTORS)}
        # Some files hold a tied embedding a second time.
        if info["tied"] and sum(map(math.prod, shapes.values())) != info["parameters"]:
            shapes = {name: shape for name, shape in shapes.items() if name not in _UNEMBEDDING}
        return ((name, FrozenWeight(name, shape)) for name, shape in shapes.items())

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the weights have. None of them trains."""
        return 0 if only_trainable else self.core.info["parameters"]

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy shares the weights, and a pickle holds how to load them: see causalcone.Model. All else is made anew,
        # but for what was set on it.
        made = ("core", "_matrix", "wte", "embed_tokens", "embed_in", "h", "layers")
        state = {name: value for name, value in vars(self).items() if name not in made}
        return type(self), (self.core, self.config.architectures[0]), state

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.core!r}>"


class BaseModel(Handle):
    """A model without its head: gives last_hidden_state first."""


class CausalLM(Handle):
    """A model with its head: gives logits first."""

    has_head = True


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


def load(
    name: str, architecture: str, kind: type[Handle], *, weights: str | None = None, keep: int | None = None
) -> tuple[Config, Tokenizer | None, Handle]:
    """Config, tokenizer and model of an alias, a directory or a file of any family. A model that is loaded already is
    shared; `keep` is then its new bound."""
    model = Model.shared(str(name), weights=weights, keep=KEEP if keep is None else keep)
    if keep is not None and keep != model.keep:
        model.keep = keep
    handle = kind(model, architecture)
    return handle.config, Tokenizer(model) if model.info["has_tokenizer"] else None, handle
