"""Interventions on the inside of language models: change what a model computes while it runs, and see what it says.

>>> import causalcone as cc
>>> model = cc.Model("fixtures/tiny-llama-tied")        # for instance "smollm2"
>>> exp = cc.Experiment(model)
>>> base = exp.run("The capital of Spain is")
>>> _ = exp.edit(base, site="mlp_output", layers="all", positions="last", op="add", value=model.embedding("T"))
>>> result = exp.execute()
>>> len(result.counterfactual().top(3))
3

`causalcone.pyvene` has the names of the pyvene library, for code that was written for it.
"""

from ._errors import CausalconeError, ClosedError, InputError, InternalError, RunError
from ._native import __version__
from .experiment import Edit, Experiment, Run, saved
from .model import Model
from .recipes import heads, patch
from .results import Activation, Answer, Cell, Distribution, Outcome, Record, Sweep, Table, Text, Texts, Training

__all__ = [
    "Activation",
    "Answer",
    "CausalconeError",
    "Cell",
    "ClosedError",
    "Distribution",
    "Edit",
    "Experiment",
    "InputError",
    "InternalError",
    "Model",
    "Outcome",
    "Record",
    "Run",
    "RunError",
    "Sweep",
    "Table",
    "Text",
    "Texts",
    "Training",
    "__version__",
    "heads",
    "patch",
    "saved",
]
