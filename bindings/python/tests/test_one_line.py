"""One-line experiments, and notebooks whose cells are run again."""

import warnings

import causalcone as cc
import numpy as np
import pytest
from common import FIXTURES

SPAIN, ITALY = "The capital of Spain is", "The capital of Italy is"


@pytest.fixture(scope="module")
def model():
    return cc.Model(str(FIXTURES / "tiny-llama-tied"))


def values(sweep):
    return sweep.table["value"]


def test_patch_is_the_experiment_written_out(model):
    exp = cc.Experiment(model)
    base = exp.run(SPAIN)
    source = exp.run(ITALY)
    exp.edit(base, site="block_input", layers="all", op="swap", value=source)
    exp.read(base, tokens=["T", "is"])
    written = exp.sweep(layers="each", positions="each", metrics="logit_diff")
    assert values(cc.patch(model, SPAIN, ITALY, ("T", "is"))) == values(written)
    ids = [model.encode(text) for text in (SPAIN, ITALY)]
    answers = [model.token_id("T"), model.token_id("is")]
    assert values(cc.patch(model, *ids, answers, site="resid_pre")) == values(written)

    by_head = cc.heads(model, SPAIN, ITALY, ("T", "is"), metrics=["prob", "kl"])
    assert len(by_head) == model.layers * model.heads
    assert set(by_head.table["metric"]) == {"prob", "kl"}
    one = cc.patch(model, SPAIN, ITALY, "T", site="z", heads=[1], layers=range(1, 2), positions="last", metrics="prob")
    assert len(one) == 1 and one.table["head"] == [1] and one.table["layer"] == [1]
    assert len(cc.patch(model, SPAIN, ITALY, ("T", "is"), layers="cumulative", positions="all")) == model.layers
    assert len(cc.patch(model, SPAIN, "The capital of Italy Italy is", ("T", "is"), align="left", layers=0)) > 1


def test_the_best_cells_are_those_that_change_most(model):
    sweep = cc.patch(model, SPAIN, ITALY, ("T", "is"))
    base = sweep.table["base_value"][0]
    changes = sorted((value - base for value in values(sweep)), key=abs, reverse=True)
    best = sweep.best(4)
    assert [cell.change for cell in best] == pytest.approx(changes[:4], abs=0)
    for cell in best:
        assert cell.value - base == cell.change and cell.site == "block_input"
        assert cell.token == model.token(model.encode(SPAIN)[cell.position])
    assert f"layer {best[0].layer}" in repr(best[0]) and "change" in repr(best[0])


@pytest.mark.parametrize(
    ("options", "said", "hint"),
    [
        ({"site": "resid_pree"}, "is not a site", "resid_pre"),
        ({"layers": "x"}, "layers: give numbers or a range", None),
        ({"heads": [1.5], "site": "z"}, "names no layers, positions or heads", "each"),
        ({"metrics": "logitdiff"}, "logitdiff", "logit_diff"),
        ({"align": "middle"}, "middle", None),
    ],
)
def test_what_does_not_fit_is_refused(model, options, said, hint):
    with pytest.raises(cc.InputError) as refused:
        cc.patch(model, SPAIN, ITALY, ("T", "is"), **options)
    assert said in refused.value.message and (hint is None or hint in refused.value.hint)


def test_layers_that_are_patched_together_are_named(model):
    sweep = cc.patch(model, SPAIN, ITALY, ("T", "is"), layers="window=2", positions="last")
    assert [cell.layers for cell in sweep.best(3)] == ["0..=1"] and "layers 0..=1" in repr(sweep.best(1)[0])
    assert sweep.best(-1) == []
    assert values(cc.patch(model, SPAIN, ITALY, ("T", "is"), layers={"window": 2}, positions="last")) == values(sweep)
    together = cc.patch(model, SPAIN, ITALY, ("T", "is"), site="z", heads="all", layers=0, positions="last")
    assert len(together) == 1
    for options, said in [
        ({"site": "blocks.1.attn.hook_z", "layers": 0}, "names layer 1"),
        ({"source": SPAIN}, "the same text"),
    ]:
        with pytest.raises(cc.InputError, match=said):
            cc.patch(model, SPAIN, **({"source": ITALY, "answers": ("T", "is")} | options))


def test_prompts_of_other_lengths_are_shown(model):
    with pytest.raises(cc.InputError, match="do not say which positions pair") as refused:
        cc.patch(model, SPAIN, "The capital of Italy Italy is", ("T", "is"))
    assert "base" in refused.value.message and "align" in refused.value.hint


def test_a_cell_of_a_notebook_can_be_run_again(model):
    exp = cc.Experiment(model)
    base = exp.run(SPAIN)
    exp.read(tokens="T")
    vector = np.ones(model.width, np.float32)

    def probability():
        return exp.execute().counterfactual().prob("T")

    exp.edit(base, name="steer", site="resid_post", layers=1, op="steer", value=vector)
    once = probability()
    exp.edit(base, name="steer", site="resid_post", layers=1, op="steer", value=vector.copy())
    assert [edit.name for edit in exp.edits] == ["steer"] and probability() == once

    exp.remove("steer")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exp.edit(base, site="resid_post", layers=1, op="steer", value=vector)
        exp.edit(base, site="resid_post", layers=1, op="steer", value=2 * vector)
        exp.edit(base, site="resid_post", layers=0, op="steer", value=vector)
    with pytest.warns(UserWarning, match='says the same as edit "edit0"') as caught:
        exp.edit(base, site="resid_post", layers=1, op="steer", value=vector.copy())
    assert caught[0].filename == __file__
    assert len(exp.edits) == 4 and probability() != once

    other = exp.copy()
    # The runs of an experiment name those of its copies.
    other.edit(base, name="more", site="mlp_out", layers=0, op="ablate")
    other.remove("more")
    exp.clear()
    assert exp.edits == [] and len(other.edits) == 4
    assert probability() == exp.execute().original().prob("T")
    with pytest.raises(cc.InputError, match='there is no edit "steer"; the edits are: none'):
        exp.remove("steer")


def test_a_misspelt_key_leaves_the_experiment_as_it_was(model):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    for key, value, said in [
        ("layer", 1, "did you mean `layers`?"),
        ("layers", "0-1", 'write "0..=1" for 0 to 1'),
        ("positions", "end", "write -1"),
    ]:
        with pytest.raises(cc.InputError) as refused:
            exp.edit(site="resid_post", op="zero", **{key: value})
        assert said in f"{refused.value.message} {refused.value.hint}" and "column" not in refused.value.message
        assert 'edit "edit0"' in refused.value.message
    assert exp.edits == []
    exp.edit(site="resid_post", layers=1, op="ablate")
    with pytest.raises(cc.InputError, match="each") as refused:
        exp.sweep(positions="last")
    assert "column" not in refused.value.message
    exp.sweep(layers="window=1", metrics="entropy")
    exp.execute()
    with pytest.raises(cc.InputError, match='there is no run "italy"; the runs are: base'):
        exp.edit(site="resid_post", layers=1, op="patch", value="italy")


def test_rank_and_entropy_are_numpys(model):
    exp = cc.Experiment(model)
    base = exp.run(SPAIN)
    exp.edit(base, name="it", site="mlp_out", layers="all", op="add", value=model.embedding("T"))
    exp.read(base, tokens=["T", "is"])
    sweep = exp.sweep(layers="each", metrics=["rank", "entropy"], verify=True)
    assert sweep.verification["wrong"] == []
    for layer in range(model.layers):
        exp.edit(base, name="it", site="mlp_out", layers=layer, op="add", value=model.embedding("T"))
        logits = exp.execute().counterfactual().logits.astype(np.float64)
        logprobs = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
        order = np.lexsort((np.arange(len(logits)), -logits)).tolist()
        ranks = [1 + order.index(model.token_id(token)) for token in ("T", "is")]
        entropy = -(np.exp(logprobs) * logprobs).sum()
        rows = [value for value, own in zip(values(sweep), sweep.table["layer"]) if own == layer]
        # Logits of the same sums in products of other shapes.
        assert rows[:2] == ranks and rows[2] == pytest.approx(entropy, abs=1e-5)
