"""Models, tokenizers and helpers under the names tutorials use, on every family."""

import json
import os
import shutil

import numpy as np
import pytest
from common import FIXTURES, numbers

import causalcone as cc
import causalcone.pyvene as pv

FAMILIES = sorted(name for name in json.loads((FIXTURES / "families" / "cases.json").read_text()))
FOLDERS = [f"families/{name}" for name in FAMILIES if (FIXTURES / "families" / name).is_dir()]


@pytest.mark.parametrize("name", [*FOLDERS, "tiny-gpt2", "tiny-llama", "tiny-llama-tied"])
def test_every_family_answers_to_every_name(name):
    config, _, model = pv.create_causal_lm(str(FIXTURES / name))
    ids = np.array([[1, 2, 3]])
    output = model(input_ids=ids)
    hidden, logits = numbers(output.last_hidden_state), numbers(output.logits)
    assert hidden.shape == (1, 3, config.hidden_size) and logits.shape == (1, 3, config.vocab_size)
    assert numbers(output[0]).shape == logits.shape and output.keys() == ["logits"]
    assert config.n_layer == config.num_hidden_layers == len(model.model.layers) and config.n_embd == config.hidden_size
    matrix = numbers(model.model.embed_tokens.weight)
    scale = model.core.info["embedding_scale"] if model.core.family.startswith("gemma3") else 1
    np.testing.assert_allclose(scale * matrix[1:3], numbers(model.transformer.wte(np.array([1, 2]))), rtol=1e-6)
    np.testing.assert_allclose(numbers(model.lm_head(hidden)), logits, atol=1e-5)
    if model.core.info["logit_softcap"] is None:
        np.testing.assert_allclose(hidden @ numbers(model.lm_head.weight).T, logits, atol=1e-4)
    probs = numbers(pv.embed_to_distrib(model, output.last_hidden_state))
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)
    logs = numbers(pv.embed_to_distrib(model, output.last_hidden_state, log=True))
    np.testing.assert_allclose(np.exp(logs), probs, atol=1e-5)
    for component in ("mlp_output", "block_output", "attention_output"):
        zero = pv.IntervenableModel(
            {"layer": 0, "component": component, "intervention_type": pv.ZeroIntervention}, model=model
        )
        original, edited = zero({"input_ids": ids}, unit_locations={"base": 1})
        np.testing.assert_array_equal(numbers(original.logits), logits)
        before, after = numbers(original.logits), numbers(edited.logits)
        np.testing.assert_allclose(before[0, 0], after[0, 0], atol=1e-5)
        assert np.abs(before[0, 1] - after[0, 1]).max() > 1e-4, "the edit shows from its position on"


def test_padding_changes_no_answer():
    _, tokenizer, llama = pv.create_llama(str(FIXTURES / "tiny-llama-tied"))
    texts = ["The capital of Spain is", "T"]
    alone = [numbers(llama(**tokenizer(text, return_tensors="np")).logits)[0] for text in texts]
    tokenizer.pad_token = "T"
    for side in ("left", "right"):
        tokenizer.padding_side = side
        batch = tokenizer(texts, return_tensors="np", padding=True)
        together = numbers(llama(**batch).logits)
        for row, mask, theirs in zip(together, batch.attention_mask, alone):
            np.testing.assert_allclose(row[np.asarray(mask, dtype=bool)], theirs, atol=1e-5)
        model = pv.IntervenableModel({"layer": 0, "component": "mlp_output"}, model=llama)
        last = [int(np.flatnonzero(mask)[-1]) for mask in batch.attention_mask]
        where = {"base": [[[one] for one in last]]}
        edited = numbers(model(batch, unit_locations=where, source_representations=np.ones(32))[1].logits)
        for row, place, text in zip(edited, last, texts):
            single = tokenizer(text, return_tensors="np")
            count = single.input_ids.shape[1] - 1
            own = model(single, unit_locations={"base": count}, source_representations=np.ones(32))[1]
            np.testing.assert_allclose(row[place], numbers(own.logits)[0, -1], atol=1e-5)
        with pytest.raises(cc.InputError, match="stand at"):
            pad = int(np.flatnonzero(np.asarray(batch.attention_mask)[1] == 0)[0])
            model(batch, unit_locations={"base": [[[last[0]], [pad]]]}, source_representations=np.ones(32))


def test_the_tokenizer_is_called_as_hugging_faces():
    _, tokenizer, _ = pv.create_llama(str(FIXTURES / "tiny-llama-tied"))
    one = tokenizer("The capital")
    assert one["input_ids"] == one.input_ids == tokenizer.encode("The capital") and set(one["attention_mask"]) == {1}
    assert tokenizer.decode(one.input_ids) == "The capital"
    assert tokenizer.batch_decode([one.input_ids]) == ["The capital"]
    assert tokenizer(["The", "capital"])["input_ids"][0] == tokenizer.encode("The")
    assert tokenizer("The", return_tensors="np").input_ids.ndim == 2
    token = tokenizer.convert_tokens_to_ids("T")
    assert tokenizer.convert_ids_to_tokens(token) == "T" and len(tokenizer) == 300
    for wrong in (
        lambda: tokenizer("T", return_tensors="tf"),
        lambda: tokenizer(["T", "The capital"], return_tensors="np"),
    ):
        with pytest.raises(cc.InputError):
            wrong()
    with pytest.raises(AttributeError):
        one.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["tiny-llama-tied", "tiny-llama-tied.gguf"])
def test_tokens_are_spelled_as_in_the_vocabulary(name):
    _, tokenizer, _ = pv.create_llama(str(FIXTURES / name))
    # By transformers 4.46.
    pieces = ["The", "Ġcapital", "Ġof", "Ġ", "Z", "Ã", "¼", "r", "i", "c", "h", "Ġis", "Ċ"]
    assert tokenizer.tokenize("The capital of Zürich is\n") == pieces
    ids = tokenizer.encode("The capital of Zürich is\n", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == pieces and tokenizer.convert_tokens_to_ids(pieces) == ids
    assert tokenizer.convert_tokens_to_ids("ĠThe") == tokenizer.convert_tokens_to_ids(" The") == 283
    assert tokenizer.convert_ids_to_tokens([0, 299, 300]) == ["<|endoftext|>", "Ġha", None]
    assert len(tokenizer.get_vocab()) == 300 and tokenizer.get_vocab()["Ã"] == ids[5]
    with pytest.raises(cc.InputError):
        tokenizer.convert_tokens_to_ids("Ġnothing")


def test_a_vocabulary_beside_merges(tmp_path):
    # The older layout: vocab.json and merges.txt, and a token that only added_tokens.json defines.
    for path in (FIXTURES / "tiny-llama-tied").iterdir():
        if path.name != "tokenizer.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    described = json.loads((FIXTURES / "tiny-llama-tied" / "tokenizer.json").read_text())["model"]
    vocab = {piece: number for piece, number in described["vocab"].items() if number < 299}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    merges = [one if isinstance(one, str) else " ".join(one) for one in described["merges"]]
    merges = [one for one in merges if one.replace(" ", "") in vocab]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<|new|>": 299}))
    _, tokenizer, _ = pv.create_llama(str(tmp_path))
    assert tokenizer.get_vocab() == vocab | {"<|new|>": 299}
    assert tokenizer.tokenize("The capital<|new|>") == ["The", "Ġcapital", "<|new|>"]


@pytest.mark.parametrize("name", [*FOLDERS, "tiny-gpt2", "tiny-llama", "tiny-llama-tied", "families/phi3.gguf"])
def test_parameters_are_listed_and_frozen(name):
    _, _, model = pv.create_causal_lm(str(FIXTURES / name))
    count = model.num_parameters()
    assert count == sum(one.numel() for one in model.parameters()) > 0 == model.num_parameters(only_trainable=True)
    named = dict(model.named_parameters())
    assert (model.config.vocab_size, model.config.hidden_size) in {tuple(one.shape) for one in named.values()}
    assert pv.count_parameters(model) == 0
    for one in model.parameters():
        one.requires_grad = False
        assert one.size(-1) == one.shape[-1] and one.dim() == one.ndim == len(one.size()) and one.grad is None
    with pytest.raises(NotImplementedError, match="only interventions"):
        one.requires_grad = True
    with pytest.raises(AttributeError, match="stay in the engine"):
        one.data  # noqa: B018


@pytest.mark.parametrize(
    "name", ["llama-only-lm-head", "gpt2-medium", "phi3.5", "gguf-llama-merged.gguf", "gemma3-vision"]
)
def test_parameters_of_files_as_people_have_them(name):
    # The last one also holds what looks at images.
    _, _, model = pv.create_causal_lm(str(FIXTURES / "corpus" / name))
    assert sum(one.numel() for one in model.parameters()) == model.num_parameters()


@pytest.mark.parametrize("name", ["tiny-llama-tied", "tiny-llama-tied.gguf"])
def test_files_are_found_from_another_folder(name, tmp_path):
    (shutil.copytree if (FIXTURES / name).is_dir() else shutil.copy)(FIXTURES / name, tmp_path / name)
    os.chdir(tmp_path)
    _, tokenizer, model = pv.create_llama(name)
    os.chdir("/")
    assert all(map(os.path.isabs, model.core.info["files"])) and model.core.name == str(tmp_path / name)
    assert tokenizer.tokenize("The capital") == ["The", "Ġcapital"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(["The"])) == ["The"]
    assert sum(one.numel() for one in model.parameters()) == model.num_parameters()


def test_labels_have_a_loss():
    _, _, gpt2 = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))
    ids = np.array([[5, 11, 23, 42]])
    output = gpt2(input_ids=ids, labels=np.array([[5, 11, -100, 42]]))
    logits = numbers(output.logits)[0].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    np.testing.assert_allclose(float(output.loss), -(logs[0, 11] + logs[2, 42]) / 2, atol=1e-5)
    assert output.keys() == ["loss", "logits"] and gpt2(input_ids=ids).loss is None


def test_top_values_are_printed(capsys):
    _, tokenizer, llama = pv.create_llama(str(FIXTURES / "tiny-llama-tied"))
    distribution = pv.embed_to_distrib(llama, llama(**tokenizer("The", return_tensors="np")).last_hidden_state)[0][-1]
    pv.top_vals(tokenizer, distribution, n=3)
    found = pv.top_vals(tokenizer, distribution, n=3, return_results=True)
    assert capsys.readouterr().out == "".join(f"{token:<20} {value}\n" for token, value in found)
    assert found[0][1] == float(numbers(distribution).max())


def test_a_swap_for_interventions_of_ones_own():
    swap = pv._do_intervention_by_swap
    base, source = np.zeros((2, 1, 4), np.float32), np.arange(8, dtype=np.float32).reshape(2, 1, 4)
    np.testing.assert_array_equal(numbers(swap(base, source, "interchange", 2))[1, 0], [4, 5, 0, 0])
    found = numbers(swap(base, source, "add", None, [[0], [3]]))
    np.testing.assert_array_equal(found[:, 0], [[0, 0, 0, 0], [0, 0, 0, 7]])
    np.testing.assert_array_equal(numbers(swap(source, None, "collect", None, [[1], [2]]))[:, 0, 0], [1, 6])
    assert not base.any()
    three = np.zeros((2, 3, 4), np.float32)
    for target, subspaces in [
        (three, [[0], [1]]),  # for two rows, where there are three
        (three, [[0], [1], [2], [3]]),
        (three, [[0, 1], [2], [3]]),  # for three examples, where there are two
        (base, [[0], [1], [2]]),
        (three, [[0, None], [1, 2]]),
        (three, "0"),
    ]:
        with pytest.raises(cc.InputError, match="subspace"):
            swap(target, target + 1, "interchange", None, subspaces)
    for subspaces, partition in [([4], None), ([[0], [-5], [1]], None), ([[0, 1], [9]], None), ([1], [[0, 1], [3, 4]])]:
        for mode in ("interchange", "add", "collect"):
            with pytest.raises(cc.InputError, match="of a subspace is out of range: there are 4, numbered 0 to 3"):
                swap(three, three + 1, mode, None, subspaces, partition)
    with pytest.raises(cc.InputError, match="out of range"):
        swap(three, three + 1, "interchange", [0, 4])
    with pytest.raises(cc.InputError, match="single number"):
        swap(np.zeros(()), np.ones(()))
    # Of coordinates there may be fewer than dimensions.
    low_rank = pv.LowRankRotatedSpaceIntervention(embed_dim=4, low_rank_dimension=2)
    with pytest.raises(cc.InputError, match="out of range: there are 2, numbered 0 to 1"):
        low_rank(three, three, subspaces=[[2]])
    # As in pyvene, negative numbers count from the end.
    for subspaces in ([-1, -4], [[-1, 0]] * 3, [[3, 0], [-1, -4], [0, -1]]):
        found = numbers(swap(three, three + 1, "interchange", None, subspaces))
        np.testing.assert_array_equal(found, np.broadcast_to([1, 0, 0, 1], three.shape))
    with pytest.raises(cc.InputError, match="does not fit"):
        swap(three, np.ones((3, 4), np.float32)[:2])
    with pytest.raises(cc.InputError, match="no source"):
        pv.VanillaIntervention()(three)
    with pytest.raises(cc.InputError, match="`subspaces` is not supported: the mask selects the dimensions"):
        pv.SigmoidMaskIntervention(embed_dim=4)(three, three, subspaces=[[0]])
    attention = np.full((1, 2, 2), -np.inf, np.float32)
    assert numbers(swap(attention, np.ones((1, 2, 2), np.float32), "interchange", 1))[0, :, 0].tolist() == [1, 1]


def test_texts_of_a_batch_are_those_of_each_alone():
    _, _, gpt2 = pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))
    rows = [[5, 11, 23, 42], [9, 31, 2, 58]]
    both = numbers(gpt2.generate(np.array(rows), max_new_tokens=6, eos_token_id=-1, pad_token_id=0))
    for row, ours in zip(rows, both):
        alone = numbers(gpt2.generate(np.array([row]), max_new_tokens=6, eos_token_id=-1, pad_token_id=0))[0]
        np.testing.assert_array_equal(ours, alone)
        assert ours[:4].tolist() == row and len(ours) == 10
    assert numbers(gpt2.generate(np.array(rows), max_length=6, eos_token_id=-1)).shape == (2, 6)
    drawn = [
        numbers(gpt2.generate(np.array(rows), max_new_tokens=6, do_sample=True, seed=seed, eos_token_id=-1)).tolist()
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(NotImplementedError, match="num_beams"):
        gpt2.generate(np.array(rows), num_beams=4)
