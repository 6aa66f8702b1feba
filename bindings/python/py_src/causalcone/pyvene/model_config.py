"""A model's shape under the names that transformers has for it."""

from __future__ import annotations

from typing import Any

from ..model import Model


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
