"""Folders of interventions: pyvene's own, and what is saved here, with and without torch."""

import json

import numpy as np
import pytest
from common import FIXTURES, numbers, tensors

import causalcone as cc
import causalcone.pyvene as pv


@pytest.mark.parametrize(("name", "create"), [("tiny-gpt2", pv.create_gpt2_lm), ("tiny-llama", pv.create_llama)])
def test_folders_that_pyvene_saved(name, create, tmp_path):
    said = json.loads((FIXTURES / "pyvene-saved" / f"{name}.json").read_text())
    expected = tensors(FIXTURES / "pyvene-saved" / f"{name}.safetensors")["logits"]
    _, _, model = create(str(FIXTURES / name))
    loaded = pv.IntervenableModel.load(FIXTURES / "pyvene-saved" / name, model)
    assert [edit["key"] for edit in said["edit"]] == loaded.sorted_keys
    ids = {run: {"input_ids": np.array([one["ids"]])} for run, one in said["runs"].items()}
    values = [edit.get("value", {}) for edit in said["edit"]]
    call = {
        "sources": [ids[value["run"]] if "run" in value else None for value in values],
        "unit_locations": {
            "sources->base": (
                [[value["positions"]] if "positions" in value else None for value in values],
                [[edit["positions"]] for edit in said["edit"]],
            )
        },
        "subspaces": [[edit["dims"]] if "dims" in edit else None for edit in said["edit"]],
    }
    for once_more in range(2):
        _, edited = loaded(ids["base"], **call)
        # float32 here, float64 there.
        np.testing.assert_allclose(numbers(edited.logits)[0].reshape(expected.shape), expected, atol=1e-4)
        if not once_more:
            loaded.save(tmp_path / "again")
            loaded = pv.IntervenableModel.load(tmp_path / "again", model)
    assert not list(tmp_path.rglob("*.part"))


def test_what_does_not_belong_is_refused(tmp_path):
    _, _, model = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))
    low_rank = {
        "layer": 0,
        "component": "mlp_output",
        "intervention_type": pv.LowRankRotatedSpaceIntervention,
        "low_rank_dimension": 2,
    }
    saved = pv.IntervenableModel([low_rank], model)
    saved.save(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    described["representations"][0][4] = 3
    (tmp_path / "config.json").write_text(json.dumps(described))
    with pytest.raises(cc.InputError, match="shape"):
        pv.IntervenableModel.load(tmp_path, model)
    mine = pv.IntervenableModel([{"layer": 0, "component": "mlp_output", "intervention": lambda b, s: b}], model)
    with pytest.raises(NotImplementedError, match="code of your own"):
        mine.save(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    collect = pv.IntervenableModel([{"layer": 0, "intervention_type": pv.CollectIntervention}], model)
    collect.save(tmp_path / "collect")
    again = pv.IntervenableModel.load(tmp_path / "collect", model)
    assert numbers(again({"input_ids": np.array([[1, 2]])}, unit_locations={"base": 1})[0][1][0]).shape == (1, 1, 24)


def test_a_folder_is_saved_to_once_more(tmp_path):
    _, _, model = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))
    rotated = {"layer": 0, "component": "mlp_output", "intervention_type": pv.RotatedSpaceIntervention}
    saved = pv.IntervenableModel([rotated], model)
    (key,) = saved.sorted_keys
    for ending in ("bin", "safetensors"):
        # Left by an earlier save, with or without torch.
        (tmp_path / f"intkey_{key}.{ending}").write_bytes(b"old")
    saved.save(tmp_path)
    assert len(list(tmp_path.glob("intkey_*"))) == 1
    (ours,), (theirs,) = (one.interventions.values() for one in (pv.IntervenableModel.load(tmp_path, model), saved))
    np.testing.assert_allclose(numbers(ours.rotate_layer.weight), numbers(theirs.rotate_layer.weight), atol=1e-6)
    pv.IntervenableModel([rotated | {"intervention_type": pv.VanillaIntervention}], model).save(tmp_path)
    assert not list(tmp_path.glob("intkey_*"))
    pv.IntervenableModel.load(tmp_path, model)


def test_what_an_intervention_has_beside_its_tensors(tmp_path):
    _, _, model = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))
    base, source = {"input_ids": np.array([[5, 11, 23]])}, {"input_ids": np.array([[1, 2, 3]])}
    ready = [
        pv.NoiseIntervention(noise_level=1.5, seed=3),
        pv.VanillaIntervention(embed_dim=24, subspace_partition=[[0, 4], [9, 3, 17], [20, 22]]),
        pv.LowRankRotatedSpaceIntervention(embed_dim=24, low_rank_dimension=3, keep_last_dim=True),
        pv.AutoencoderIntervention(embed_dim=24, latent_dim=5),
        pv.BoundlessRotatedSpaceIntervention(embed_dim=24),
    ]
    for number, one in enumerate(ready):
        folder = tmp_path / str(number)
        first = pv.IntervenableModel([{"layer": 1, "component": "mlp_output", "intervention": one}], model)
        first.save(folder)
        again = pv.IntervenableModel.load(folder, model)
        call = {"unit_locations": {"sources->base": 2}, "subspaces": 1 if number == 1 else None}
        ours, theirs = (numbers(each(base, source, **call)[1].logits) for each in (again, first))
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(theirs - numbers(model(**base).logits)).max() > 1e-3
