"""What a model is called with, as prompts of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._arrays import as_ids
from .._errors import InputError
from ..model import Model
from .arrays import take


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
