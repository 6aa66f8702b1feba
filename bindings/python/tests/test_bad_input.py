"""What cannot be done is refused by name, and the model stays usable."""

import datetime
import json
import os
import signal
import subprocess
import sys
import textwrap

import causalcone as cc
import causalcone.pyvene as pv
import numpy as np
import pytest
from common import FIXTURES, torch

TINY = str(FIXTURES / "tiny-llama-tied")


@pytest.fixture(scope="module")
def model():
    return cc.Model(TINY)


def added(model, value, **more):
    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.edit(site="mlp_output", layers=0, positions="last", op="add", value=value, **more)
    return exp.execute()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ones(31), "31 wide"),
        (np.ones((2, 32)), "has 2 rows"),
        (np.ones((2, 2, 2, 2)), "shape"),
        (np.ones(32, dtype=np.complex64), "complex|c8"),
        (np.array(["a"] * 32), "U1"),
        (np.ones(32, dtype=bool), "b1"),
        (np.array([None] * 32), "object|O"),
        (np.full(32, np.nan), "NaN|finite"),
        ("word", 'there is no run "word"'),
        (float("nan"), "no number"),
        (object(), "type object"),
    ],
)
def test_values_that_do_not_fit(model, value, words):
    with pytest.raises(cc.InputError, match=words):
        added(model, value)
    added(model, np.ones(32))


@pytest.mark.parametrize(
    "value",
    [
        np.ones(64)[::2],
        np.ones((32, 2))[:, 0],
        np.asfortranarray(np.ones((1, 32))),
        np.ones(32, np.float16),
        np.arange(32),
    ],
)
def test_arrays_of_any_layout_and_width_fit(model, value):
    ours = added(model, value).counterfactual().logits
    theirs = added(model, np.ascontiguousarray(value, dtype=np.float32)).counterfactual().logits
    np.testing.assert_array_equal(ours, theirs)


def test_messages_are_the_commands(model):
    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.edit(site="mlp_outptu", layers=0, op="zero")
    with pytest.raises(cc.InputError, match="mlp_outptu") as error:
        exp.execute()
    assert "mlp_output" in str(error.value) and isinstance(error.value, ValueError)
    for wrong, words in [
        ({"layers": 9}, "layer 9"),
        ({"layers": 0, "positions": 5}, "position 5"),
        ({"layers": 0, "op": "swpa"}, "swpa"),
    ]:
        exp = cc.Experiment(model)
        exp.run(ids=[1, 2, 3])
        exp.edit(**({"site": "mlp_output", "op": "zero"} | wrong))
        with pytest.raises(cc.InputError, match=words):
            exp.execute()
    with pytest.raises(cc.InputError, match="colour"):
        exp.edit(site="mlp_output", op="zero", layers=0, colour="red")


@pytest.mark.parametrize("ids", [[], [[1, 2]], [1.5], [-1], [10**9], ["a"], np.ones(3), [True]])
def test_token_ids_that_are_none(model, ids):
    with pytest.raises(cc.InputError):
        exp = cc.Experiment(model)
        exp.run(ids=ids)
        exp.execute()


@pytest.mark.parametrize("id", [-1, 1 << 40])
def test_a_token_id_that_is_none(model, id):
    for use in (model.token, model.embedding):
        with pytest.raises(cc.InputError, match="is no token id"):
            use(id)


TZ = datetime.timezone(datetime.timedelta(hours=2))


@pytest.mark.parametrize(
    "date",
    [
        datetime.datetime(2026, 2, 9, 10, tzinfo=datetime.timezone.utc),
        datetime.datetime(2026, 2, 9, 10, tzinfo=TZ),
        datetime.datetime(999, 2, 9, 10),
        datetime.date(1, 1, 1),
        datetime.time(10),
        20260209,
    ],
)
def test_dates_that_do_not_fit(model, date):
    for use in (lambda: cc.Experiment(model, date=date), lambda: model.chat([], date=date)):
        with pytest.raises(cc.InputError, match="a local date and time without offset, years 1000 to 9999"):
            use()


def test_dates_that_fit(model):
    for date, text in [
        (datetime.date(1000, 1, 1), "1000-01-01"),
        (datetime.date(9999, 12, 31), "9999-12-31"),
        (datetime.datetime(2026, 2, 9, 10, 30, 5, 999999), "2026-02-09T10:30:05"),
        (datetime.datetime(2026, 2, 9), "2026-02-09T00:00:00"),
    ]:
        assert cc.Experiment(model, date=date).document()["date"] == text


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([1], "expected an experiment"),
        ({"model": 5}, "`model` is 5"),
        ({"model": TINY, "weights": 5}, "`weights` is 5"),
        ({"model": TINY, "model_options": [1]}, "`model_options` is"),
        ({"model": TINY, "model_options": {"colour": 1}}, "unknown key `colour` in `model_options`"),
        ({"model": TINY, "date": 5}, "`date` is 5"),
    ],
)
def test_files_that_are_no_experiments(document, words, tmp_path):
    path = tmp_path / "experiment.json"
    path.write_text(json.dumps(document))
    with pytest.raises(cc.InputError, match=words) as error:
        cc.Experiment.from_file(path)
    assert error.value.message.startswith(str(path))


def test_runs_and_edits_of_other_experiments(model):
    one, other = cc.Experiment(model), cc.Experiment(model)
    run = one.run(ids=[1, 2])
    other.run(ids=[1, 2])
    with pytest.raises(cc.InputError, match="another experiment"):
        other.edit(run, site="mlp_output", layers=0, op="zero")
    with pytest.raises(cc.InputError, match="given twice"):
        one.run(ids=[1], name="base")


def test_a_closed_model(tmp_path):
    model = cc.Model(TINY)
    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.execute()
    with model:
        pass
    assert model.closed and "closed" in repr(model)
    for use in (exp.execute, lambda: model.encode("a"), lambda: model.kept, model._native.info):
        with pytest.raises(cc.ClosedError, match="closed"):
            use()
    model.close()


def test_an_exception_in_a_function_comes_through(model):
    class Mine(Exception):
        pass

    def failing(rows):
        raise Mine("from within")

    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.edit(site="mlp_output", layers=0, op=failing)
    for run in (exp.execute, lambda: exp.generate(max_tokens=2)):
        with pytest.raises(Mine, match="from within"):
            run()
    for wrong in (lambda rows: rows[:1], lambda rows: "text", lambda rows: None):
        exp = cc.Experiment(model)
        exp.run(ids=[1, 2, 3])
        exp.edit(site="mlp_output", layers=0, op=wrong)
        with pytest.raises(cc.CausalconeError):
            exp.execute()
    added(model, np.ones(32))


def test_a_function_may_use_the_model(model):
    def nested(rows):
        inner = cc.Experiment(model)
        inner.run(ids=[4, 5])
        inner.collect(site="mlp_output", layers=0, positions="last")
        return rows + inner.activations()[0].array

    exp = cc.Experiment(model)
    exp.run(ids=[1, 2, 3])
    exp.edit(site="mlp_output", layers=0, op=nested)
    exp.collect(site="final_norm")
    assert np.isfinite(exp.activations()[0].array).all()


def test_models_that_are_none(tmp_path):
    with pytest.raises(cc.InputError, match="no-such-model"):
        cc.Model(str(tmp_path / "no-such-model"))
    (tmp_path / "a.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(cc.InputError, match="a.gguf"):
        cc.Model(str(tmp_path / "a.gguf"))
    with pytest.raises(cc.InputError, match="weights"):
        cc.Model(TINY, weights="quarter")
    with pytest.raises(cc.InputError, match="arrays"):
        cc.Model(TINY, arrays="lists")


def test_saved_folders_that_are_none(tmp_path):
    _, _, llama = pv.create_llama(TINY)
    with pytest.raises(cc.InputError, match="config.json"):
        pv.IntervenableModel.load(tmp_path, llama)
    (tmp_path / "config.json").write_text('{"representations": [[0]], "intervention_types": ["os.system"]}')
    with pytest.raises(cc.InputError, match=r"config\.json: os\.system is no intervention") as error:
        pv.IntervenableModel.load(tmp_path, llama)
    assert "InputError" not in str(error.value) and error.value.hint


def test_pyvene_calls_that_do_not_fit():
    _, _, llama = pv.create_llama(TINY)
    base = {"input_ids": np.array([[1, 2, 3], [4, 5, 6]])}
    swap = pv.IntervenableModel({"layer": 0, "component": "mlp_output"}, model=llama)
    wrong = [
        (dict(unit_locations={"base": 1}), "nothing to put in"),
        (dict(sources=base, unit_locations={"sources->base": 7}), "position 7"),
        (dict(sources=base, unit_locations={"sources->base": ([[[0]]], [[[0]]])}), "1 examples"),
        (dict(sources=base, unit_locations={"sources->base": ([], [])}), "0 interventions"),
        (dict(sources=base, unit_locations={"source": 1}), "source"),
        (dict(sources=[base, base], unit_locations={"sources->base": 1}), "2 sources"),
        (dict(sources={"input_ids": np.array([[1]])}, unit_locations={"sources->base": 0}), "1 examples"),
        (dict(source_representations=np.ones(5), unit_locations={"base": 1}), r"\(5,\)"),
        (dict(source_representations={"x": np.ones(32)}, unit_locations={"base": 1}), "'x'"),
        (dict(sources=base, unit_locations={"sources->base": 1}, subspaces=[[0], [1], [2]]), "3 interventions"),
        (dict(sources=base, unit_locations={"sources->base": 1}, subspaces=[99]), "dimension 99.* out of range"),
        (dict(sources=base, unit_locations={"sources->base": 1}, subspaces=[-33]), "dimension -33.* out of range"),
    ]
    for call, words in wrong:
        with pytest.raises(cc.InputError, match=words):
            swap(base, **call)
    collect = pv.IntervenableModel(
        {"layer": 0, "component": "mlp_output", "intervention_type": pv.CollectIntervention}, model=llama
    )
    for subspaces in ([99], [-33], [[[0], [32]]]):
        with pytest.raises(cc.InputError, match="out of range: there are 32"):
            collect(base, unit_locations={"base": 1}, subspaces=subspaces)
    (_, (whole,)), _ = collect(base, unit_locations={"base": 1})
    (_, (last,)), _ = collect(base, unit_locations={"base": 1}, subspaces=[-1])
    np.testing.assert_array_equal(np.asarray(last), np.asarray(whole)[..., -1:])
    with pytest.raises(NotImplementedError, match="holes"):
        swap({"input_ids": np.array([[1, 2, 3]]), "attention_mask": np.array([[1, 0, 1]])})
    for config, words in [({"layer": 9, "component": "mlp_output"}, "layer 9"), ({"component": "nothing"}, "nothing")]:
        with pytest.raises(cc.InputError, match=words):
            pv.IntervenableModel(config, model=llama)
    for make in (pv.create_gru, pv.create_blip, lambda: llama.cuda(), lambda: pv.IntervenableModel({}, model=object())):
        with pytest.raises(NotImplementedError):
            make()
    assert swap(base, sources=base, unit_locations={"sources->base": 1})[1].logits.shape == (2, 3, 300)


def test_functions_that_fail_in_pyvenes_calls():
    _, _, llama = pv.create_llama(TINY)
    base = {"input_ids": np.array([[1, 2, 3]])}
    failing = pv.IntervenableModel(
        {"layer": 0, "component": "mlp_output", "intervention": lambda b, s: 1 / 0}, model=llama
    )
    with pytest.raises(ZeroDivisionError):
        failing(base)
    smaller = pv.IntervenableModel(
        {"layer": 0, "component": "mlp_output", "intervention": lambda b, s: b[:, :1]}, model=llama
    )
    with pytest.raises(cc.InputError, match="same shape"):
        smaller(base)
    assert np.isfinite(np.asarray(llama(**base).logits)).all()


@pytest.mark.skipif(torch() is None, reason="this run is without torch")
def test_tensors_that_do_not_fit(model):
    t = torch()
    with pytest.raises(cc.InputError, match="gradient"):
        added(model, t.ones(32, requires_grad=True))
    with pytest.raises(cc.InputError, match="meta"):
        added(model, t.ones(32, device="meta"))
    with pytest.raises(cc.InputError, match="sparse"):
        added(model, t.ones(32).to_sparse())
    ours = added(model, t.ones(64)[::2]).counterfactual().logits
    np.testing.assert_array_equal(ours, added(model, np.ones(32)).counterfactual().logits)
    np.testing.assert_array_equal(ours, added(model, t.ones(32, dtype=t.bfloat16)).counterfactual().logits)
    with cc.Model(TINY, arrays="torch") as other:
        assert isinstance(other.embedding("T"), t.Tensor)


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on Unix")
def test_ctrl_c_stops_a_sweep():
    script = textwrap.dedent(
        f"""
        import signal
        import causalcone as cc
        # What runs in the background may have been started so that it ignores the signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        exp = cc.Experiment(cc.Model({TINY!r}))
        exp.run(ids=list(range(30)))
        exp.edit(site="embedding", positions="all", op="noise", level=0.1)
        exp.read(tokens=["T"])
        print("ready", flush=True)
        try:
            exp.sweep(positions="each", samples=8000, metrics=["prob"])
        except KeyboardInterrupt:
            print("stopped", exp.execute().counterfactual().prob("T") > 0, flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120)[0] == "stopped True\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on Unix")
def test_a_forked_process_is_told(model):
    added(model, np.ones(32))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            added(model, np.ones(32))
            said = "nothing"
        except cc.InputError as error:
            said = str(error)
        os.write(writer, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"spawn" in os.read(reader, 1000)
