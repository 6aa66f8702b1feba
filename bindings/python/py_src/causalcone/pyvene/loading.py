"""create_gpt2 and its like: each takes an alias, a directory, a file, or owner/name, of any family.

>>> import causalcone.pyvene as pv
>>> config, tokenizer, gpt = pv.create_gpt2("fixtures/tiny-llama-tied")
>>> config.n_layer
2
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .handles import BaseModel, CausalLM, Config, Handle, Tokenizer, load

Loaded = "tuple[Config, Tokenizer | None, Handle]"


def create_gpt2(name: str = "gpt2", cache_dir: Any = None, **options: Any) -> tuple[Config, Tokenizer | None, Handle]:
    """Config, tokenizer and model; its outputs have last_hidden_state first."""
    return load(name, "GPT2Model", BaseModel, **options)


def _with_head(architecture: str, default: str | None) -> Callable[..., tuple[Config, Tokenizer | None, Handle]]:
    def create(
        name: str | None = default,
        cache_dir: Any = None,
        config: Any = None,
        dtype: Any = None,
        torch_dtype: Any = None,
        **options: Any,
    ) -> tuple[Config, Tokenizer | None, Handle]:
        if config is not None:
            raise NotImplementedError(
                "a model of random weights by its config: save one with transformers, and load that"
            )
        if name is None:
            raise NotImplementedError("a model without a name: give a directory, a file or an alias")
        return load(name, architecture, CausalLM, **options)

    create.__doc__ = f"""Config, tokenizer and model ({architecture}); its outputs have logits first. Weights are float32
    whatever `dtype` says."""
    return create


create_gpt2_lm = _with_head("GPT2LMHeadModel", "gpt2")
create_llama = _with_head("LlamaForCausalLM", "smollm2")
create_gpt_neox = _with_head("GPTNeoXForCausalLM", "EleutherAI/pythia-70m")
create_mistral = _with_head("MistralForCausalLM", "mistralai/Mistral-7B-v0.1")
create_gemma = _with_head("GemmaForCausalLM", "google/gemma-2b-it")
create_gemma2 = _with_head("Gemma2ForCausalLM", "google/gemma-2-2b-it")
create_qwen2 = _with_head("Qwen2ForCausalLM", "Qwen/Qwen2-0.5B")
create_qwen3 = _with_head("Qwen3ForCausalLM", "Qwen/Qwen3-0.6B")
create_olmo = _with_head("OlmoForCausalLM", "allenai/OLMo-1B-hf")
create_olmo2 = _with_head("Olmo2ForCausalLM", "allenai/OLMo-2-0425-1B")
create_causal_lm = _with_head("AutoModelForCausalLM", "smollm2")


def _lacking(name: str, what: str) -> Callable[..., Any]:
    def create(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"{name}: {what} are not run here; the families are GPT-2, GPT-NeoX, Llama, Mistral, Qwen, Gemma, OLMo and "
            "Phi-3, by create_gpt2, create_llama …"
        )

    create.__doc__ = f"Raises NotImplementedError: {what} are not run here."
    return create


create_gpt_neo = _lacking("create_gpt_neo", "GPT-Neo models")
create_gpt_oss = _lacking("create_gpt_oss", "mixtures of experts")
create_gru = _lacking("create_gru", "recurrent networks")
create_gru_lm = _lacking("create_gru_lm", "recurrent networks")
create_gru_classifier = _lacking("create_gru_classifier", "recurrent networks")
create_mlp_classifier = _lacking("create_mlp_classifier", "classifiers")
create_blip = _lacking("create_blip", "models of images")
create_blip_itm = _lacking("create_blip_itm", "models of images")
create_llava = _lacking("create_llava", "models of images")
create_backpack_gpt2 = _lacking("create_backpack_gpt2", "backpack models")
GRUConfig = _lacking("GRUConfig", "recurrent networks")
IntervenableNdifModel = _lacking("IntervenableNdifModel", "models on other machines")


class _Mapping(dict[Any, Any]):
    """Stands for pyvene's tables of modules: components are found without them here."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError(
            f"a new type of model, {key}: load it by create_causal_lm, if it is of a family there is"
        )

    def __missing__(self, key: Any) -> Any:
        raise NotImplementedError("components are the names of sites here: see causalcone.Model.sites")


type_to_module_mapping = _Mapping()
type_to_dimension_mapping = _Mapping()
