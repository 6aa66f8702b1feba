"""What pyvene's components and the paths of transformers' modules are called here.

>>> from causalcone.pyvene.components import site_of
>>> info = {"family": "gpt2", "normed_after": False, "embedding_scale": 1.0}
>>> site_of(info, "h[3].mlp.output", 0)
('mlp_output', 3)
>>> site_of(info, "mlp_output", 7)
('mlp_output', 7)
"""

from __future__ import annotations

import re
from typing import Any

from .._errors import InputError

OUTSIDE = {"embedding", "final_norm", "logits"}
"""Sites that are of no layer."""

ATTENTION_MATRICES = ("attention_weight", "attention_score")
"""Sites whose rows are as long as the prompt: one a query and head, with a number for every key."""

# Paths within a block, each with the site it is; what is not here has no site.
_BLOCK = {".input": "block_input", ".output": "block_output"}
_GPT2 = _BLOCK | {
    ".ln_1.input": "block_input",
    ".ln_1.output": "attention_input",
    ".attn.input": "attention_input",
    ".attn.output": "attention_output",
    ".attn.attn_dropout.input": "attention_weight",
    ".attn.attn_dropout.output": "attention_weight",
    ".attn.c_attn.input": "attention_input",
    ".attn.c_proj.input": "attention_value_output",
    ".attn.c_proj.output": "attention_output",
    ".attn.resid_dropout.input": "attention_output",
    ".attn.resid_dropout.output": "attention_output",
    ".ln_2.input": "block_middle",
    ".ln_2.output": "mlp_input",
    ".mlp.input": "mlp_input",
    ".mlp.c_fc.input": "mlp_input",
    ".mlp.act.output": "mlp_activation",
    ".mlp.c_proj.input": "mlp_hidden",
    ".mlp.c_proj.output": "mlp_output",
    ".mlp.dropout.input": "mlp_output",
    ".mlp.dropout.output": "mlp_output",
    ".mlp.output": "mlp_output",
}
_NEOX = _BLOCK | {
    ".input_layernorm.input": "block_input",
    ".input_layernorm.output": "attention_input",
    ".attention.input": "attention_input",
    ".attention.dense.input": "attention_value_output",
    ".attention.dense.output": "attention_output",
    ".attention.output": "attention_output",
    ".post_attention_layernorm.output": "mlp_input",
    ".mlp.input": "mlp_input",
    ".mlp.act.output": "mlp_activation",
    ".mlp.dense_4h_to_h.input": "mlp_hidden",
    ".mlp.dense_4h_to_h.output": "mlp_output",
    ".mlp.output": "mlp_output",
}
_LLAMA = _BLOCK | {
    ".self_attn.output": "attention_output",
    ".self_attn.q_proj.output": "query_output",
    ".self_attn.k_proj.output": "key_output",
    ".self_attn.v_proj.output": "value_output",
    ".self_attn.o_proj.input": "attention_value_output",
    ".self_attn.o_proj.output": "attention_output",
    ".mlp.input": "mlp_input",
    ".mlp.gate_proj.input": "mlp_input",
    ".mlp.act_fn.output": "mlp_activation",
    ".mlp.down_proj.input": "mlp_hidden",
    ".mlp.down_proj.output": "mlp_output",
    ".mlp.output": "mlp_output",
}
# Where norms stand before what they are named after.
_PRE_NORM = {
    ".input_layernorm.input": "block_input",
    ".input_layernorm.output": "attention_input",
    ".self_attn.input": "attention_input",
    ".self_attn.q_proj.input": "attention_input",
    ".post_attention_layernorm.input": "block_middle",
    ".post_attention_layernorm.output": "mlp_input",
}
_AFTER = {
    "gpt2": {"ln_f.output": "final_norm", "drop.output": "embedding"},
    "gpt_neox": {"final_layer_norm.output": "final_norm", "emb_dropout.output": "embedding"},
    "llama": {"norm.output": "final_norm", "embed_tokens.output": "embedding"},
}
_HEADS = {"lm_head.input": "final_norm", "lm_head.output": "logits", "embed_out.output": "logits"}
_FUSED = {"gpt2": ".attn.c_attn.output", "gpt_neox": ".attention.query_key_value.output"}


def _style(family: str) -> str:
    return {"gpt2": "gpt2", "neox": "gpt_neox", "gpt_neox": "gpt_neox"}.get(family, "llama")


def _within(info: dict[str, Any]) -> dict[str, str]:
    style = _style(info["family"])
    if style != "llama":
        return _GPT2 if style == "gpt2" else _NEOX
    return _LLAMA if info["normed_after"] else _LLAMA | _PRE_NORM


def site_of(info: dict[str, Any], component: str, layer: Any) -> tuple[str, int | None]:
    """The site and layer of a component: an abstract name ("mlp_output") of that layer, or a module's path that says
    its own ("h[3].mlp.output"). Raises NotImplementedError for a path that has no site of its own."""
    if "." not in component:
        return component, None if component in OUTSIDE else int(layer)
    path = re.sub(r"^(transformer|model|gpt_neox)\.", "", component)
    block = re.fullmatch(r"(?:h|layers)(?:\[(\d+)\]|\.(\d+))(\..+)", path)
    if block:
        layer, within = int(block[1] or block[2]), block[3]
        site = _within(info).get(within)
        if site is not None:
            return site, layer
        if within == _FUSED.get(_style(info["family"])):
            raise NotImplementedError(
                f"component {component!r}: queries, keys and values in one; use the components query_output, "
                "key_output and value_output"
            )
    else:
        site = (_AFTER[_style(info["family"])] | _HEADS).get(path)
        # What the module gives is scaled afterwards.
        if site == "embedding" and info["embedding_scale"] != 1:
            site = None
        if site is not None:
            return site, None
    known = ", ".join(sorted(set(_within(info).values())))
    raise NotImplementedError(
        f"component {component!r} is no activation that has a site here; those of a layer: {known}"
    )


def width_of(info: dict[str, Any], site: str) -> int | None:
    """How wide a site is; None for attention's matrices."""
    head = info["head_dim"]
    kv = info["kv_heads"] * head
    widths: dict[str, int | None] = {
        "query_output": info["heads"] * head,
        "key_output": kv,
        "value_output": kv,
        "attention_value_output": info["heads"] * head,
        "mlp_activation": info["mlp_width"],
        "mlp_hidden": info["mlp_width"],
        "logits": info["vocab"],
        **dict.fromkeys(ATTENTION_MATRICES, None),
    }
    if site.startswith("head_"):
        return head
    if site not in info["sites"]:
        raise InputError(f"there is no site {site!r} in this model; there are {', '.join(info['sites'])}")
    return widths.get(site, info["width"])


def heads_of(info: dict[str, Any], site: str) -> int | None:
    """How many heads a site has; None for a site without."""
    if site in ("head_key_output", "head_value_output"):
        return info["kv_heads"]
    return info["heads"] if site.startswith("head_") or site in ATTENTION_MATRICES else None
