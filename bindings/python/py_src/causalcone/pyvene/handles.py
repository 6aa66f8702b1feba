"""Models, called as Hugging Face's.

>>> from causalcone.pyvene import create_llama
>>> config, tokenizer, llama = create_llama("fixtures/tiny-llama-tied")
>>> ids = tokenizer("The capital", return_tensors="np")
>>> llama(**ids).logits.shape == (*ids.input_ids.shape, config.vocab_size)
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._arrays import as_ids, imported_torch
from .._errors import InputError
from ..model import KEEP, Model
from .arrays import give, take
from .batches import Batch
from .model_config import Config
from .outputs import Output
from .program import Program, grown
from .tokenizer import Encoding as Encoding
from .tokenizer import Tokenizer
from .weights import FrozenWeight, frozen_weights, refuse_gradients

_GIVE_SCALED = ("gemma3_text",)
"""Families whose embedding gives rows as layer 0 gets them. Those of others scale rows after it, if they do at all."""


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
        if self.core.family not in _GIVE_SCALED:
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
        program = Program(self)
        runs = [program.run(f"b{number}", ids) for number, ids in enumerate(batch.ids)]
        return batch.shaped(batch.padded(program.read([program.reading(run, "final_norm", None) for run in runs])))

    def generate(self, input_ids: Any = None, attention_mask: Any = None, **options: Any) -> Any:
        """Prompts with what the model says after them, (examples, positions); shorter texts end in the pad token. The
        options that have a meaning here: max_new_tokens, max_length, do_sample, temperature, top_k, top_p, seed,
        eos_token_id, pad_token_id."""
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
        refuse_gradients(requires_grad)
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
        return frozen_weights(self.core)

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
