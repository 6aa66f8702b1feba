"""Gradients through torch: against finite differences, and what trains by them."""

import json

import causalcone.pyvene as pv
import numpy as np
import pytest
from common import FIXTURES, Lib, torch

if torch() is None:
    pytest.skip("this run is without torch", allow_module_level=True)

import torch as t
import training_cases

WIDTH = 24
BASE = {"input_ids": t.tensor([[5, 11, 23, 42, 7], [9, 31, 2, 58, 17]])}
SOURCE = {"input_ids": t.tensor([[44, 3, 29, 12, 36], [1, 2, 3, 4, 5]])}


@pytest.fixture(scope="module")
def gpt2():
    return pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))[2]


def weights(shape):
    generator = t.Generator().manual_seed(0)
    return t.randn(shape, generator=generator)


def check(run, tensor, places=6, atol=2e-3):
    """The gradient of Σ w·run() against central differences, at some places; float32 answers leave 1e-3 of noise."""
    output = run()
    w = weights(output.shape)
    (gradient,) = t.autograd.grad((output * w).sum(), tensor)
    assert gradient.abs().max() > 1e-4
    flat, step = tensor.detach().reshape(-1), 1e-2
    generator = np.random.default_rng(0)
    for place in generator.choice(len(flat), size=min(places, len(flat)), replace=False):
        found = []
        for sign in (1, -1):
            with t.no_grad():
                old = float(tensor.view(-1)[place])
                tensor.view(-1)[place] = old + sign * step
                found.append(float((run() * w).sum()))
                tensor.view(-1)[place] = old
        slope = (found[0] - found[1]) / (2 * step)
        ours = float(gradient.reshape(-1)[place])
        scale = max(1.0, float(gradient.abs().max()))
        assert abs(slope - ours) < atol * scale + 1e-2 * abs(slope), (slope, ours)


@pytest.mark.parametrize("read", ["last_hidden_state", "logits"])
def test_a_constant(gpt2, read):
    vector = t.ones(WIDTH, requires_grad=True)
    model = pv.IntervenableModel(
        [{"layer": 0, "component": "mlp_output", "intervention_type": pv.AdditionIntervention}], gpt2
    )
    run = lambda: getattr(model(BASE, unit_locations={"base": 2}, source_representations=vector)[1], read)[:, -1]
    check(run, vector)


def test_a_constant_of_each_example(gpt2):
    vectors = weights((2, 2, WIDTH)).requires_grad_()
    model = pv.IntervenableModel([{"layer": 0, "component": "mlp_output"}], gpt2)
    where = {"base": [[[1, 2], [0, 3]]]}
    run = lambda: model(BASE, unit_locations=where, source_representations=vectors)[1].logits[:, -1]
    with t.no_grad():
        plain = run()
    assert t.allclose(run(), plain, atol=1e-5)
    check(run, vectors, places=10)
    rows = weights((2, WIDTH)).requires_grad_()
    run = lambda: model(BASE, unit_locations=where, source_representations=rows)[1].logits[:, -1]
    check(run, rows, places=10)


@pytest.mark.parametrize(
    ("kind", "name", "more"),
    [
        (
            pv.LowRankRotatedSpaceIntervention,
            "rotate_layer.parametrizations.weight.original",
            {"low_rank_dimension": 3},
        ),
        (pv.BoundlessRotatedSpaceIntervention, "intervention_boundaries", {}),
        (pv.SigmoidMaskIntervention, "mask", {}),
        (pv.SigmoidMaskRotatedSpaceIntervention, "masks", {}),
    ],
)
def test_a_parameter(gpt2, kind, name, more):
    t.manual_seed(0)
    model = pv.IntervenableModel([{"layer": 1, "component": "block_output", "intervention_type": kind} | more], gpt2)
    (intervention,) = model.interventions.values()
    if hasattr(intervention, "set_temperature"):
        intervention.set_temperature(t.tensor(2.0))
    if name == "masks":
        with t.no_grad():
            intervention.masks.fill_(0.3)
    tensor = dict(intervention.named_parameters())[name]
    check(lambda: model(BASE, SOURCE, {"sources->base": 3})[1].logits[:, -1], tensor)


class Turned(pv.TrainableIntervention):
    def __init__(self, **options):
        super().__init__(**options, keep_last_dim=True)
        self.layer = t.nn.Linear(WIDTH, WIDTH)

    def forward(self, base, source=None, subspaces=None):
        return base + t.tanh(self.layer(source - base))


def test_classes_of_ones_own_one_after_another(gpt2):
    t.manual_seed(0)
    model = pv.IntervenableModel(
        [{"layer": layer, "component": "block_output", "intervention_type": Turned} for layer in (0, 1)], gpt2
    )
    first, second = model.interventions.values()
    run = lambda: model(BASE, SOURCE, {"sources->base": 3})[1].last_hidden_state[:, -1]
    check(run, first.layer.bias)
    check(run, second.layer.weight)
    assert len(model.get_trainable_parameters()) == 4
    assert model.count_parameters() == 2 * (WIDTH * WIDTH + WIDTH)


TRAINED = json.loads((FIXTURES / "python-training.json").read_text())


@pytest.mark.parametrize("name", sorted(training_cases.CASES))
def test_what_pyvene_trains_trains_as_there(name):
    case, which = training_cases.CASES[name]
    ours, theirs = case(Lib(), which), TRAINED[name]
    assert ours["shapes"] == theirs["shapes"] and ours["still"] == theirs["still"]
    assert ours.get("count") == theirs.get("count")
    # float32 here, float64 there.
    np.testing.assert_allclose(ours["losses"], theirs["losses"], atol=1e-4)
    np.testing.assert_allclose(ours.get("temperature", 0), theirs.get("temperature", 0), atol=1e-4)


def test_every_training_has_a_case():
    assert set(TRAINED) == set(training_cases.CASES)


def test_collected_activations_carry_gradients(gpt2):
    vector = t.ones(WIDTH, requires_grad=True)
    config = pv.IntervenableConfig([{"layer": 0, "component": "mlp_output"}], pv.AdditionIntervention)
    config.add_intervention({"layer": 2, "component": "block_output", "intervention_type": pv.CollectIntervention})
    model = pv.IntervenableModel(config, gpt2)
    run = lambda: model(BASE, unit_locations={"base": 2}, source_representations=[vector, None])[0][1][0]
    check(run, vector)


def test_no_gradients_where_none_are_wanted(gpt2):
    vector = t.ones(WIDTH, requires_grad=True)
    model = pv.IntervenableModel([{"layer": 0, "component": "mlp_output"}], gpt2)
    with t.no_grad():
        edited = model(BASE, unit_locations={"base": 2}, source_representations=vector)[1]
        assert not edited.logits.requires_grad
    assert not model(BASE)[0].logits.requires_grad


def test_an_alignment_trains(gpt2):
    t.manual_seed(0)
    model = pv.IntervenableModel(
        [{"layer": 1, "component": "block_output", "intervention_type": pv.LowRankRotatedSpaceIntervention, "low_rank_dimension": 4}],
        gpt2,
    )  # fmt: skip
    batch = {
        "input_ids": BASE["input_ids"],
        "source_input_ids": SOURCE["input_ids"],
        "labels": t.tensor([3, 8]),
        "source_0->base.0.pos": [[4], [4]],
        "source_0->base.1.pos": [[4], [4]],
    }
    losses = []

    def loss(logits, labels):
        losses.append(t.nn.functional.cross_entropy(logits[:, -1], labels))
        return losses[-1]

    model.train_alignment([batch] * 4, loss, lambda *_: {}, None, epochs=5, lr=0.05, progress=False)
    assert losses[-1] < losses[0] - 0.05
    right = lambda logits, labels: float((logits[0][:, -1].argmax(-1) == labels[0]).float().mean())
    assert 0.0 <= model.eval_alignment([batch], right, None) <= 1.0


def test_the_tours_training_step():
    _, _, gpt2 = pv.create_gpt2(str(FIXTURES / "tiny-gpt2"))
    das = pv.IntervenableModel(
        pv.IntervenableConfig(
            {"layer": 1, "component": "block_output", "low_rank_dimension": 1}, pv.LowRankRotatedSpaceIntervention
        ),
        model=gpt2,
    )
    last = das(base=BASE, sources=SOURCE, unit_locations={"sources->base": 3})[-1].last_hidden_state[:, -1]
    loss = t.nn.CrossEntropyLoss()(last @ gpt2.wte.weight.t(), t.tensor([3, 8]))
    loss.backward()
    assert all(one.grad.abs().max() > 0 for one in das.get_trainable_parameters())
    das.set_zero_grad()


def test_folders_are_pyvenes(gpt2, tmp_path):
    model = pv.IntervenableModel(
        [{"layer": 1, "component": "block_output", "intervention_type": pv.LowRankRotatedSpaceIntervention, "low_rank_dimension": 4}],
        gpt2,
    )  # fmt: skip
    model.save(tmp_path)
    (state,) = tmp_path.glob("intkey_*.bin")
    assert {"embed_dim", "interchange_dim"} < set(t.load(state))
    again = pv.IntervenableModel.load(tmp_path, gpt2)
    with t.no_grad():
        ours, theirs = (one(BASE, SOURCE, {"sources->base": 3})[1].logits for one in (again, model))
    assert t.allclose(ours, theirs, atol=1e-5)
