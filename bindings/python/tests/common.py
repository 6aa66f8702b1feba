"""Paths, and `lib`, by which the cases of pyvene's behaviour run on this package."""

from __future__ import annotations

import os
import sys
import tempfile
from functools import cache
from pathlib import Path

import causalcone.pyvene as pv
import numpy as np
from causalcone.pyvene.arrays import give, take

ROOT = Path(__file__).resolve().parents[3]
FIXTURES = ROOT / "fixtures"


def torch():
    """torch, if this run is one with torch."""
    return sys.modules.get("torch")


@cache
def _loaded(create: str, name: str):
    return getattr(pv, create)(str(FIXTURES / name))[2]


class Lib:
    """What a case is given: see cases.py."""

    pv = pv

    def gpt2(self):
        return _loaded("create_gpt2", "tiny-gpt2")

    def gpt2_lm(self):
        return _loaded("create_gpt2_lm", "tiny-gpt2")

    def llama(self):
        return _loaded("create_llama", "tiny-llama-tied")

    def batch(self, rows):
        ids = np.array(rows, dtype=np.int64)
        return {"input_ids": give(ids), "attention_mask": give(np.ones_like(ids))}

    def array(self, nested):
        return give(np.array(nested, dtype=np.float32))

    def wte(self, model, token):
        return model.wte(give(np.array(token)))

    def tmp(self):
        return tempfile.mkdtemp()

    def set_rotation(self, intervention, matrix):
        matrix = np.array(matrix, dtype=np.float32)
        if torch() is None:
            intervention.rotate_layer.weight[...] = matrix
        else:
            with torch().no_grad():
                intervention.rotate_layer.weight = torch().from_numpy(matrix)

    def set_parameter(self, intervention, name, value):
        own = dict(intervention.named_parameters())[name]
        value = np.array(value, dtype=np.float32)
        assert tuple(own.shape) == value.shape
        if torch() is None:
            own[...] = value
        else:
            own.data = torch().from_numpy(value)


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a fixture; numbers by the package's own reader, ids as they stand in the file."""
    import json
    import struct

    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    kinds = {"F32": "<f4", "I64": "<i8", "BOOL": "?"}
    found = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            rows = np.frombuffer(data[8 + length + start : 8 + length + end], dtype=kinds[entry["dtype"]])
            found[name] = rows.reshape(entry["shape"])
    return found


def numbers(x) -> np.ndarray:
    """Whatever a case gave, as a NumPy array."""
    return np.asarray(take(x))


HAS_SMOLLM2 = "CAUSALCONE_NO_DOWNLOAD" not in os.environ
