"""What a model gives, as Hugging Face's models have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._arrays import imported_torch
from .arrays import give, take


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
