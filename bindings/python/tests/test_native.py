"""The package's own interface: against the command's documents, NumPy, and itself."""

import csv
import datetime
import io
import json
import os
import shutil
import subprocess
import sys
import threading

import causalcone as cc
import numpy as np
import pytest
from causalcone.model import is_path
from common import FIXTURES

TINY = str(FIXTURES / "tiny-llama-tied")
SPAIN, ITALY = "The capital of Spain is", "The capital of Italy is"


@pytest.fixture(scope="module")
def model():
    return cc.Model(TINY)


def swept(model, **more):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="mlp_output", layers="all", positions="all", op="add", value=model.embedding("T"))
    exp.read(tokens=["T", " is"])
    return exp.sweep(layers="cumulative", positions="each", **more)


def test_a_model_says_what_it_is(model):
    assert (model.layers, model.width, model.family) == (2, 32, "llama")
    assert model.decode(model.encode(SPAIN)) == SPAIN
    assert model.token(model.token_id("T")) == "T"
    assert len(model.sha256) == 64 and model.context > 10
    assert "mlp_output" in model.sites and "layers" in model.info
    np.testing.assert_array_equal(model.embeddings([3, 1])[1], model.embedding(1))


def test_a_chat_template_sees_the_date(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}")
    model = cc.Model(str(folder))
    messages = [{"role": "user", "content": "hi"}]
    assert model.decode(model.chat(messages, date="2026-02-09")) == "09 Feb 2026: hi"
    assert model.chat(messages, date=datetime.date(2026, 2, 9)) == model.chat(messages, date="2026-02-09T10:00:00")
    exp = cc.Experiment(model, date=datetime.datetime(2026, 2, 9, 10, 30, 0, 5))
    exp.run(messages=messages)
    assert exp.execute().date == "2026-02-09T10:30:00"
    assert "2026-02-09T10:30:00" in str(exp.explain())
    exp.write(tmp_path / "exp.json")
    assert cc.Experiment.from_file(tmp_path / "exp.json").execute().date == "2026-02-09T10:30:00"
    today = cc.Experiment(model)
    today.run(messages=messages)
    assert today.execute().date.startswith("20")
    with pytest.raises(cc.InputError, match="YYYY-MM-DD"):
        model.chat(messages, date="9 Feb 2026")


def test_info_says_whether_the_tokenizers_end_ends_texts(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    before = cc.Model(str(folder)).info
    assert before["eos_ends_texts"] and before["eos"] in before["ends"]
    (folder / "generation_config.json").write_text('{"eos_token_id": [7]}')
    info = cc.Model(str(folder)).info
    assert info["ends"] == [7] and info["eos"] == before["eos"] and not info["eos_ends_texts"]


def test_unknown_keys_are_an_error_a_warning_or_ignored(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(FIXTURES / "corpus" / "llama-2", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"qk_layernorm": True, "comment": "mine"}))
    with pytest.raises(cc.InputError, match="qk_layernorm = true"):
        cc.Model(str(folder))
    with pytest.warns(UserWarning, match="comment"):
        model = cc.Model(str(folder), ignore_keys=["qk_layernorm"])
    assert model.keys["ignored"] == ["qk_layernorm = true"]
    assert {"key": "rope_theta", "value": 10000.0, "source": "transformers' LlamaConfig"} in model.keys["defaulted"]
    assert model.problems == [] and model.weights == "full"
    with pytest.raises(cc.InputError, match="comment"):
        cc.Model(str(folder), ignore_keys="qk_layernorm", strict=True)
    with pytest.raises(cc.InputError, match="hidden_size"):
        cc.Model(str(folder), ignore_keys=["qk_layernorm", "hidden_size"])


def test_an_outcome_is_the_sum_of_its_parts(model):
    exp = cc.Experiment(model)
    base = exp.run(SPAIN)
    italy = exp.run(ITALY)
    exp.edit(base, site="block_output", layers=0, positions="last", op="swap", value=italy)
    exp.collect(base, site="final_norm", positions="last")
    exp.read(base, tokens=["T"])
    outcome = exp.execute()
    edited = outcome.counterfactual(base)
    # The unembedding of what leaves the last norm.
    np.testing.assert_allclose(model.unembed(outcome.collected[0].array)[0], edited.logits, atol=1e-5)
    assert abs(edited.probs.sum() - 1) < 1e-9
    top = edited.top(5)
    assert [one.prob for one in top] == sorted((one.prob for one in top), reverse=True)
    assert top[0].id == int(np.argmax(edited.logits))
    said = outcome.to_dict()["counterfactual"]["tokens"][0]
    assert said["prob"] == edited.prob("T") and said["id"] == model.token_id("T")
    reference = exp.execute(reference=True)
    np.testing.assert_allclose(reference.counterfactual(base).logits, edited.logits, atol=1e-5)
    assert "<table>" in outcome._repr_html_() and "original" in repr(outcome)


def test_values_come_in_every_form(model):
    vector = model.embedding("T")

    def answer(value, **more):
        exp = cc.Experiment(model)
        exp.run(SPAIN)
        exp.edit(site="mlp_output", layers=1, positions=range(1, 3), op="add", value=value, **more)
        return exp.execute().counterfactual().logits

    plain = answer(vector)
    for same in (vector.tolist(), vector.astype(np.float64), np.stack([vector, vector]), {"embedding": "T"}):
        np.testing.assert_allclose(answer(same), plain, atol=1e-6)
    twice = np.repeat(vector, 2)
    np.testing.assert_array_equal(answer(twice[::2]), plain)
    np.testing.assert_allclose(answer(vector, scale=2), answer(2 * vector), atol=1e-6)
    assert np.abs(answer(0.5) - answer(np.full(32, 0.5))).max() < 1e-6


def test_an_experiment_has_its_own_arrays(model):
    vector = np.ones(32, dtype=np.float32)
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="mlp_output", layers=1, op="add", value=vector)
    before = exp.execute().counterfactual().logits
    vector *= 5
    np.testing.assert_array_equal(exp.execute().counterfactual().logits, before)


def test_a_sweep_is_a_table_and_a_picture(model):
    sweep = swept(model, verify=True)
    assert len(sweep) == 2 * len(model.encode(SPAIN))
    assert sweep.verification["cells"] == len(sweep) and not sweep.verification["wrong"]
    rows = list(csv.DictReader(io.StringIO(sweep.table.to_csv())))
    assert len(rows) == len(sweep.table) == 2 * len(sweep)
    for row, theirs in zip(sweep.table, rows):
        assert float(theirs["value"]) == row["value"] and theirs["token"] == row["token"]
    assert sweep.to_svg().startswith("<svg") and sweep._repr_svg_() == sweep.to_svg()
    assert sweep.to_png()[1:4] == b"PNG" and "mlp_output" in repr(sweep)
    assert sweep.means is None and "<th>value</th>" in sweep.table._repr_html_()


def test_a_sweep_is_written_whole(model, tmp_path):
    sweep = swept(model)
    sweep.save(tmp_path / "new")
    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == ["cells.csv", "heatmap.svg"]
    sweep.table.write(tmp_path / "cells.parquet")
    assert (tmp_path / "cells.parquet").read_bytes()[:4] == b"PAR1"
    with pytest.raises(cc.InputError, match="cells.xlsx"):
        sweep.table.write(tmp_path / "cells.xlsx")


def test_tables_go_to_pandas_and_arrow(model):
    table = swept(model).table
    capsule = table.__arrow_c_stream__()
    assert "arrow_array_stream" in repr(capsule)
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = table.to_pandas()
    assert list(frame.columns) == table.columns and frame["value"].dtype == "float64"
    assert frame["position"].dtype == "int64" and frame["head"].dtype == "Int64"
    assert frame["value"].tolist() == table["value"] and isinstance(frame, pandas.DataFrame)
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    arrow = pyarrow.table(table)
    assert arrow.column("token").to_pylist() == table["token"] and arrow.num_rows == len(table)


def test_samples_have_means(model):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="embedding", op="noise", level=0.1)
    exp.read(tokens=["T"])
    means = exp.sweep(samples=4).means
    assert means["n"] == [4] and means["standard_error"][0] > 0


def test_a_function_is_an_op(model):
    exp = cc.Experiment(model)
    base = exp.run(SPAIN)
    seen = []

    def doubled(rows):
        seen.append(rows.shape)
        return rows * 2

    exp.edit(base, site="mlp_output", layers=0, positions=[1, 2], op=doubled)
    scaled = cc.Experiment(model)
    scaled.run(SPAIN)
    scaled.edit(site="mlp_output", layers=0, positions=[1, 2], op="scale", scale=2)
    ours, theirs = exp.execute().counterfactual().logits, scaled.execute().counterfactual().logits
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert seen and set(seen) == {(2, 32)}


def test_activations_are_kept_between_experiments(model):
    model.keep = 64 << 20

    def read():
        exp = cc.Experiment(model)
        exp.run(SPAIN)
        exp.edit(site="mlp_output", layers=0, positions="last", op="add", value=model.embedding("T"))
        exp.collect(site="final_norm")
        (found,) = exp.activations()
        return found

    first = read()
    kept = model.kept
    assert kept > 0
    np.testing.assert_array_equal(first.array, read().array)
    assert model.kept == kept, "the second call has left nothing new"
    model.keep = 0
    np.testing.assert_allclose(first.array, read().array, atol=1e-6)
    assert model.kept == 0
    model.keep = 64 << 20
    assert first.array.shape == (7, 32) and np.asarray(first).shape == (7, 32)
    np.testing.assert_array_equal(np.from_dlpack(first), first.array)


def test_a_data_set_is_gathered(model):
    exp = cc.Experiment(model)
    exp.run()
    exp.examples([{"base": SPAIN}, {"base": ITALY}, {"base": [3, 1, 4]}])
    exp.collect("base", site="block_output", layers="all", positions="last")
    gathered = exp.gather(chunk=1)
    assert [len(one) for one in gathered] == [2, 2, 2]
    alone = cc.Experiment(model)
    alone.run(ids=[3, 1, 4])
    alone.collect(site="block_output", layers=1, positions="last")
    np.testing.assert_allclose(gathered[2][1].array, alone.activations()[0].array, atol=1e-6)
    with pytest.raises(ZeroDivisionError):
        exp.gather_into(lambda example, found: 1 // 0)


def test_texts_grow(model):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="block_output", layers=0, op="add", value=model.embedding("T"), scale=3.0)
    texts = exp.generate(max_tokens=5, eos=False)
    assert len(texts.original.ids) == len(texts.counterfactual.ids) == 5
    assert texts.original.ids != texts.counterfactual.ids
    assert model.decode(texts.original.ids) == texts.original.text
    drawn = [exp.generate(max_tokens=5, eos=False, temperature=1.0, seed=seed).original.ids for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_training_fits_and_saves(model, tmp_path):
    exp = cc.Experiment(model)
    exp.run(name="base")
    exp.run(name="source")
    exp.examples(
        [
            {"base": [3, 1, 4], "source": [2, 7, 1], "label": 5},
            {"base": [1, 6, 2], "source": [1, 8, 2], "label": 9},
        ]
    )
    exp.edit("base", site="block_output", layers=0, positions="last", op="low_rank_swap", value={"run": "source"},
             parameters={"random": 0, "rank": 2}, name="das")  # fmt: skip
    folder = tmp_path / "das"
    training = exp.train(steps=20, learning_rate=0.05, folder=folder)
    assert training.losses[-1] < training.losses[0] and training.examples == 2
    assert cc.saved(model, folder)["passed"] is True
    again = cc.Experiment(model)
    again.run(ids=[3, 1, 4])
    again.run(ids=[2, 7, 1], name="source")
    again.edit("base", op={"load": str(folder), "name": "das"}, positions="last", value={"run": "source"})
    assert again.execute().counterfactual("base").logprob(5) > again.execute().original("base").logprob(5)


def test_a_training_in_a_folder_is_resumed(model, tmp_path):
    exp = cc.Experiment(model)
    exp.run(name="base")
    exp.run(name="source")
    examples = [
        {"base": [3, 1, 4], "source": [2, 7, 1], "label": 5},
        {"base": [1, 6, 2], "source": [1, 8, 2], "label": 9},
    ]
    exp.examples(examples)
    exp.edit("base", site="block_output", layers=0, positions="last", op="low_rank_swap", value={"run": "source"},
             parameters={"random": 0, "rank": 2}, name="das")  # fmt: skip
    options = {"steps": 12, "learning_rate": 0.05, "checkpoint": 4}
    in_memory = exp.train(**options)
    assert in_memory.folder is None
    out = tmp_path / "out"

    # Stopped after some steps, as Ctrl-C stops it.
    def stop(what, done, total, unit):
        if done == 7:
            raise KeyboardInterrupt

    text, arrays, _ = exp._call(exp._document | {"train": options})
    with pytest.raises(KeyboardInterrupt):
        model._native.train(text, arrays, exp._examples, None, stop, out)
    assert (out / "checkpoint.safetensors").exists() and not (out / "train.json").exists()
    with pytest.raises(cc.InputError, match="already holds results") as refused:
        exp.train(out=out, **options)
    assert "resume=True" in refused.value.hint
    with pytest.raises(cc.InputError, match="cannot resume"):
        exp.train(out=out, resume=True, **options | {"learning_rate": 0.1})

    training = exp.train(out=out, resume=True, **options)
    assert training.fits == in_memory.fits and training.folder == out / "intervention"
    assert cc.saved(model, training.folder)["passed"] is True
    assert {"log.csv", "cells.csv", "means.csv", "loss.svg", "train.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "train.json").read_text())["experiment"]["model"] == TINY
    # Other examples are another training, also where they are not in a file.
    exp.examples([examples[0] | {"base": [3, 1, 5]}, examples[1]])
    with pytest.raises(cc.InputError, match="cannot resume"):
        exp.train(out=out, resume=True, **options)
    for wrong in ({"resume": True}, {"out": out, "folder": tmp_path / "das"}):
        with pytest.raises(cc.InputError, match="train: "):
            exp.train(**options, **wrong)


def test_experiments_are_files(model, tmp_path):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="mlp_output", layers=range(2), op="add", value={"embedding": "T"})
    exp.read(tokens=["T"])
    path = tmp_path / "experiment.json"
    exp.write(path)
    again = cc.Experiment.from_file(path)
    assert again.execute().to_dict() == exp.execute().to_dict()
    assert json.loads(path.read_text())["model"] == TINY
    explained = exp.explain(layers="cumulative", positions="each")
    assert explained["cells"] == 14 and explained["rows_computed"] < explained["rows_naive"]


def test_a_file_names_its_model_as_the_command_finds_it(tmp_path):
    shutil.copytree(TINY, tmp_path / "models" / "tiny")
    # A folder of results is not the model of that name.
    (tmp_path / "models" / "tiny" / "smollm2").mkdir()
    (tmp_path / "examples.jsonl").write_text('{"base": [1, 2]}\n')
    document = {"model": "models/tiny", "examples": "examples.jsonl", "runs": {"base": {}}}
    # Some editors write a byte order mark.
    (tmp_path / "experiment.json").write_text(json.dumps(document), encoding="utf-8-sig")
    os.chdir(tmp_path.parent)
    exp = cc.Experiment.from_file(f"{tmp_path.name}/experiment.json")
    assert exp.model.name == str(tmp_path / "models" / "tiny")
    exp.collect("base", site="final_norm")
    os.chdir("/")
    assert len(exp.gather()) == 1
    assert not is_path(tmp_path / "models" / "tiny" / "smollm2") and not is_path("smollm2")


def test_toml_has_infinities(tmp_path):
    pytest.importorskip("tomllib", reason="reading TOML needs Python 3.11 or later")
    text = """
        date = 2026-02-09
        [runs.base]
        ids = [1, 2]
        [[edit]]
        site = "attention_score"
        layers = 0
        positions = "last"
        op = "swap"
        value = {values = -inf}
    """
    (tmp_path / "experiment.toml").write_text(f"model = {json.dumps(TINY)}\n{text}")
    with pytest.raises(cc.InputError, match="every score is -inf"):
        cc.Experiment.from_file(tmp_path / "experiment.toml").execute()


def test_a_file_says_how_its_model_is_loaded(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(TINY, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"qk_layernorm": True}))
    exp = cc.Experiment(cc.Model(str(folder), ignore_keys=["qk_layernorm"], strict=True, weights="full"))
    exp.run(ids=[1, 2])
    exp.write(tmp_path / "experiment.json")
    again = cc.Experiment.from_file(tmp_path / "experiment.json")
    assert again.model.keys["ignored"] == ["qk_layernorm = true"]
    said = json.loads((tmp_path / "experiment.json").read_text())
    assert said["weights"] == "full" and said["model_options"] == {"ignore_keys": ["qk_layernorm"], "strict": True}


def test_names_that_are_not_given_are_free(model):
    exp = cc.Experiment(model)
    exp.run(ids=[1], name="run1")
    assert exp.run(ids=[1]).name == "run2"
    exp.edit("run1", site="mlp_output", layers=0, op="zero", name="edit1")
    assert exp.edit("run1", site="mlp_output", layers=1, op="zero").name == "edit2"
    exp.read("run2")
    exp.execute()


def test_a_sweep_is_explained_by_its_own_axes(model):
    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    first = exp.edit(site="mlp_output", layers="all", op="zero", name="first")
    exp.edit(site="attention_output", layers="all", op="zero", name="second")
    exp.read(tokens=["T"])
    axes = {"edit": first, "layers": "each", "positions": None, "steps": None}
    assert exp.explain(**axes)["cells"] == len(exp.sweep(**axes)) == 2


def test_a_relative_name_is_resolved_once(tmp_path):
    model = cc.Model(os.path.relpath(TINY))
    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.edit(site="mlp_output", layers="all", op="zero", name="zero")
    exp.read(tokens=["T"])
    os.chdir(tmp_path)
    assert model.name == TINY and len(model.sha256) == 64
    exp.save("saved")
    assert cc.saved(model, "saved")["passed"]
    exp.write("experiment.json")
    assert cc.Experiment.from_file("experiment.json").execute().to_dict() == exp.execute().to_dict()
    # A figure keeps the name that was given.
    svg = exp.sweep(layers="each").to_svg()
    assert "fixtures/tiny-llama-tied" in svg and TINY not in svg


def test_an_edit_is_saved_and_loaded(model, tmp_path):
    exp = cc.Experiment(model)
    exp.run(SPAIN)
    exp.edit(site="block_output", layers=1, positions="last", op="add", value=model.embedding("T"), name="steer")
    exp.save(tmp_path / "steer", how="for a test")
    assert cc.saved(model, tmp_path / "steer")["how"] == "for a test"
    again = cc.Experiment(model)
    again.run(SPAIN)
    again.edit(op={"load": str(tmp_path / "steer")})
    np.testing.assert_allclose(
        again.execute().counterfactual().logits, exp.execute().counterfactual().logits, atol=1e-6
    )


def test_one_model_serves_many_threads():
    model = cc.Model(TINY)
    vectors = [model.embedding(token) for token in range(40, 48)]

    def answer(vector):
        exp = cc.Experiment(model)
        exp.run(SPAIN)
        exp.edit(site="mlp_output", layers="all", positions="last", op="add", value=vector)
        exp.collect(site="final_norm", positions="last")
        return exp.activations()[0].array

    expected = [answer(vector) for vector in vectors]
    found = {}

    def work(number):
        for _ in range(20):
            found[number] = answer(vectors[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for number, theirs in enumerate(expected):
        np.testing.assert_allclose(found[number], theirs, atol=1e-6)


def test_a_large_array_is_copied_once():
    resource = pytest.importorskip("resource", reason="this system does not tell what a process has held")
    assert resource
    script = f"""
import resource, numpy as np, causalcone as cc
model = cc.Model({TINY!r})
rows = np.zeros((400_000, model.width), dtype=np.float32)
model.unembed(rows[:1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
array = model.unembed(rows)
rise = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
assert array.nbytes > 450e6
# What is computed, and the copy that is returned.
assert rise < 2.1 * array.nbytes, (rise, array.nbytes)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_progress_bar_is_drawn(model, capsys):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    swept(model, progress=True)
    assert "sweeping" in capsys.readouterr().err


def test_prompts_of_different_lengths_need_an_align(model):
    exp = cc.Experiment(model)
    base, other = exp.run(SPAIN), exp.run("The capital of Rome is")
    exp.edit(base, site="block_output", layers=0, op="swap", value=other)
    with pytest.raises(cc.InputError, match='positions "all" do not say which positions pair'):
        exp.execute()
    exp = cc.Experiment(model)
    base, other = exp.run(SPAIN), exp.run("The capital of Rome is")
    exp.edit(base, site="block_output", layers=0, op="swap", value=other.at(align="tokens"))
    (alignment,) = exp.explain()["alignments"]
    ours, theirs = model.encode(SPAIN), model.encode("The capital of Rome is")
    assert [0, 0] in alignment["pairs"] and all(ours[a] == theirs[b] for a, b in alignment["pairs"])


def test_a_space_that_was_probably_forgotten_is_a_warning(model):
    exp = cc.Experiment(model)
    exp.run("the")
    exp.edit(site="mlp_output", layers="all", positions="all", op="zero")
    exp.read(tokens=["Ma", " Ma"])
    with pytest.warns(UserWarning, match='did you mean " Ma"?') as seen:
        exp.execute()
    assert [one.filename for one in seen] == [__file__]
    with pytest.warns(UserWarning, match='did you mean " Ma"?') as seen:
        exp.sweep(layers="each")
    assert [one.filename for one in seen] == [__file__]
