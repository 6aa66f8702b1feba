"""pyvene's names on this engine: change `import pyvene` to `import causalcone.pyvene as pyvene`.

Arrays are torch tensors where torch was imported first, else NumPy's. What differs from pyvene on purpose is in
docs/pyvene-differences.md.

>>> import numpy as np
>>> import causalcone.pyvene as pv
>>> config, _, llama = pv.create_llama("fixtures/tiny-llama-tied")
>>> model = pv.IntervenableModel(
...     {"layer": 0, "component": "mlp_output", "intervention_type": pv.ZeroIntervention}, model=llama
... )
>>> original, edited = model({"input_ids": np.array([[1, 2, 3]])}, unit_locations={"base": 2})
>>> edited.logits.shape == (1, 3, config.vocab_size)
True
"""

from .causal_model import CausalModel
from .config import IntervenableConfig, RepresentationConfig
from .handles import Handle, Output, Tokenizer
from .intervenable import IntervenableModel, IntervenableModelOutput, build_intervenable_model
from .interventions import (
    AdditionIntervention,
    AutoencoderIntervention,
    BasisAgnosticIntervention,
    BoundlessRotatedSpaceIntervention,
    CollectIntervention,
    ConstantSourceIntervention,
    DistributedRepresentationIntervention,
    Intervention,
    InterventionOutput,
    JumpReLUAutoencoderIntervention,
    LambdaIntervention,
    LocalistRepresentationIntervention,
    LowRankRotatedSpaceIntervention,
    NoiseIntervention,
    PCARotatedSpaceIntervention,
    RotatedSpaceIntervention,
    SharedWeightsTrainableIntervention,
    SigmoidMaskIntervention,
    SigmoidMaskRotatedSpaceIntervention,
    SkipIntervention,
    SourcelessIntervention,
    SubtractionIntervention,
    TrainableIntervention,
    VanillaIntervention,
    ZeroIntervention,
)
from .loading import (
    GRUConfig,
    IntervenableNdifModel,
    create_backpack_gpt2,
    create_blip,
    create_blip_itm,
    create_causal_lm,
    create_gemma,
    create_gemma2,
    create_gpt2,
    create_gpt2_lm,
    create_gpt_neo,
    create_gpt_neox,
    create_gpt_oss,
    create_gru,
    create_gru_classifier,
    create_gru_lm,
    create_llama,
    create_llava,
    create_mistral,
    create_mlp_classifier,
    create_olmo,
    create_olmo2,
    create_qwen2,
    create_qwen3,
)
from .utils import (
    GET_LOC,
    closeness_to_permutation_loss,
    count_parameters,
    create_directory,
    embed_to_distrib,
    format_token,
    get_batch_size,
    get_list_depth,
    lsm,
    random_permutation_matrix,
    set_seed,
    sigmoid_boundary,
    sm,
    top_vals,
)

__all__ = [name for name in dir() if not name.startswith("_") and name not in {
    "arrays", "causal_model", "components", "config", "gradients", "handles", "intervenable", "interventions",
    "loading", "locations", "modules", "program", "utils",
}]  # fmt: skip
