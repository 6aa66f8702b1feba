"""pyvene's own paths, for code that imports from them."""

from . import (  # noqa: F401
    basic_utils,
    configuration_intervenable_model,
    gpt2,
    intervenable_base,
    intervention_utils,
    interventions,
    llama,
)
