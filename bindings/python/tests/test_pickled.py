"""Copies and pickles: how to load a model, and what is set on what it makes; never weights, never code."""

import copy
import os
import pickle
import shutil
import subprocess
import sys

import causalcone as cc
import causalcone.pyvene as pv
import numpy as np
import pytest
from cases import LEARNED, set_parameters
from common import FIXTURES, Lib, numbers

BASE, SOURCE = {"input_ids": np.array([[5, 11, 23]])}, {"input_ids": np.array([[9, 31, 2]])}
WAYS = {"pickle": lambda one: pickle.loads(pickle.dumps(one)), "deepcopy": copy.deepcopy}


class Halved(pv.VanillaIntervention):
    def forward(self, base, source, subspaces=None, **options):
        return base + 0.5 * (source - base)


@pytest.fixture(params=sorted(WAYS))
def again(request):
    return WAYS[request.param]


def test_configurations_and_tokenizers(again):
    config, tokenizer, llama = pv.create_llama(str(FIXTURES / "tiny-llama-tied"))
    tokenizer.padding_side, tokenizer.pad_token = "left", "T"
    llama.note = config.note = "mine"
    made_config, made_tokenizer, made = again((config, tokenizer, llama))
    assert made_config.to_dict() == config.to_dict() and made_config is made.config
    assert made_config.note == made.note == "mine"
    texts = ["The capital of Spain is", "T"]
    ours, theirs = (one(texts, padding=True) for one in (made_tokenizer, tokenizer))
    assert ours == theirs and ours.input_ids[1][0] == tokenizer.pad_token_id
    ids = np.array([tokenizer.encode(texts[0])])
    np.testing.assert_array_equal(numbers(made(ids).logits), numbers(llama(ids).logits))
    assert made.has_head and type(made) is type(llama)


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_interventions_that_have_learned(again, name):
    gpt2 = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))[2]
    kind, settings, parameters, dims = LEARNED[name]
    place = {"layer": 1, "component": "block_output", "intervention_type": getattr(pv, kind), **settings}
    model = pv.IntervenableModel([place], gpt2)
    (intervention,) = model.interventions.values()
    set_parameters(Lib(), intervention, parameters)
    made = again(model)
    answers = [numbers(one(BASE, SOURCE, {"sources->base": 2}, subspaces=dims)[1].logits) for one in (made, model)]
    np.testing.assert_allclose(*answers, atol=1e-6)
    assert made.sorted_keys == model.sorted_keys and made.count_parameters() == model.count_parameters()
    # What is set on one of them is not set on the other.
    (own,) = made.interventions.values()
    own.set_interchange_dim(1)
    assert own is not intervention and own.interchange_dim != intervention.interchange_dim


def test_classes_of_ones_own_are_named_and_functions_are_not(again):
    gpt2 = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))[2]
    model = pv.IntervenableModel([{"layer": 1, "intervention_type": Halved}], gpt2)
    answers = [numbers(one(BASE, SOURCE, {"sources->base": 2})[1].logits) for one in (again(model), model)]
    np.testing.assert_array_equal(*answers)
    function = pv.IntervenableModel([{"layer": 1, "intervention": lambda b, s: b}], gpt2)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(function)


def test_a_copy_shares_the_weights_and_nothing_else():
    model = cc.Model(str(FIXTURES / "tiny-gpt2"), keep=0, strict=True)
    for made in (copy.copy(model), copy.deepcopy(model)):
        assert made._native is model._native
        made.arrays = "torch"
        assert model.arrays == "numpy"
    assert len(pickle.dumps(model)) < 1000
    made = pickle.loads(pickle.dumps(model))
    assert made is pickle.loads(pickle.dumps(model)) and made.keep == 0 and made.name.endswith("tiny-gpt2")


def test_another_process_in_another_folder(tmp_path):
    shutil.copytree(FIXTURES / "tiny-gpt2", tmp_path / "models" / "tiny")
    os.chdir(tmp_path / "models")
    gpt2 = pv.create_gpt2_lm("tiny")[2]
    # The name is relative to where the model was loaded, not to where it is pickled.
    os.chdir(tmp_path)
    (tmp_path / "pickled").write_bytes(pickle.dumps(gpt2))
    script = "import pickle; m = pickle.load(open('pickled', 'rb')); print(float(m([[5, 11, 23]]).logits.sum()))"
    made = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(float(made.stdout), float(numbers(gpt2([[5, 11, 23]]).logits).sum()), rtol=1e-5)
