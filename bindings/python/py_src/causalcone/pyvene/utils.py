"""Small helpers under pyvene's names.

>>> from causalcone.pyvene import GET_LOC, get_list_depth
>>> GET_LOC((3, 2))
[[[[3]], [[2]]]]
>>> get_list_depth([[1], [2]])
2
"""

from __future__ import annotations

import os
import random
from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from .arrays import give, take
from .arrays import sigmoid_boundary as sigmoid_boundary
from .handles import Handle, Tokenizer
from .swapping import _do_intervention_by_swap as _do_intervention_by_swap


def embed_to_distrib(model: Handle, embed: Any, log: bool = False, logits: bool = False) -> Any:
    """What rows behind the last norm say next, (…, d) to (…, vocab): probabilities, or their logarithms with `log`, or
    logits. Of every family, whose own unembedding is used."""
    if not isinstance(model, Handle):
        raise InputError(
            f"embed_to_distrib: a model of type {type(model).__name__}", "give one that create_gpt2 … gave"
        )
    found = take(model.unembed(embed))
    if logits:
        return give(found)
    shifted = found - found.max(axis=-1, keepdims=True)
    # In float64, as a sum over a vocabulary.
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    if log:
        return give((shifted - np.log(total)).astype(np.float32))
    return give((np.exp(shifted) / total).astype(np.float32))


def lsm(x: Any) -> Any:
    """The logarithm of the softmax along the last axis."""
    shifted = take(x).astype(np.float64)
    shifted = shifted - shifted.max(axis=-1, keepdims=True)
    return give((shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))).astype(np.float32))


def sm(x: Any) -> Any:
    """The softmax along the last axis."""
    return give(np.exp(take(lsm(x))))


def format_token(tokenizer: Tokenizer, tok: Any) -> str:
    """The text of a token with spaces and line ends that can be seen."""
    return tokenizer.decode(tok).replace(" ", "_").replace("\n", "\\n")


def top_vals(tokenizer: Tokenizer, res: Any, n: int = 10, return_results: bool = False) -> Any:
    """Prints the n largest entries of a distribution over the vocabulary, or gives them as (token, value) pairs."""
    values = take(res)
    # Of equal values the smaller id first.
    ids = np.lexsort((np.arange(len(values)), -values))[:n]
    found = [(format_token(tokenizer, int(one)), float(values[one])) for one in ids]
    if return_results:
        return found
    for token, value in found:
        print(f"{token:<20} {value}")
    return None


def set_seed(seed: int) -> None:
    """Seeds Python's, NumPy's and, where it was imported, torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch = imported_torch()
    if torch is not None:
        torch.manual_seed(seed)


def create_directory(path: str) -> None:
    """Makes a folder, unless it is there."""
    os.makedirs(path, exist_ok=True)


def count_parameters(model: Any) -> int:
    """How many numbers of a module train."""
    return sum(int(np.prod(tuple(one.shape))) for one in model.parameters() if getattr(one, "requires_grad", True))


def get_list_depth(lst: Any) -> int:
    """How deep lists are nested; 0 for what is no list."""
    return 1 + max(map(get_list_depth, lst), default=0) if isinstance(lst, list) else 0


def get_batch_size(model_input: Any) -> int:
    """How many examples an input has."""
    if is_tensor(model_input) or isinstance(model_input, np.ndarray):
        return int(model_input.shape[0])
    return int(next(iter(model_input.values())).shape[0])


def GET_LOC(LOC: tuple[int, int], unit: str = "h.pos", batch_size: int = 1) -> list[Any]:
    """A head and a position, for one intervention and every example."""
    if unit != "h.pos":
        raise NotImplementedError(f"unit {unit!r}: write the lists, which for heads and positions this helps with")
    return [[[[LOC[0]]] * batch_size, [[LOC[1]]] * batch_size]]


def random_permutation_matrix(n: int) -> Any:
    """A permutation of n things as a matrix."""
    return give(np.eye(n, dtype=np.float32)[np.random.permutation(n)])


def closeness_to_permutation_loss(rotation: Any) -> Any:
    """0 for a permutation matrix, more the further a matrix is from one."""
    rows = abs(rotation.sum(1) - 1.0).mean()
    columns = abs(rotation.sum(0) - 1.0).mean()
    return 0.5 * (rows + columns) + (rotation * (1 - rotation)).mean()
