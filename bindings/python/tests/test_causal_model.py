"""High-level causal models: values by hand, and pyvene's bugs that must not be here."""

import random

import numpy as np
import pytest
from causalcone import InputError
from causalcone.pyvene import CausalModel


def equality(**more):
    """Whether two pairs are both equal or both not: hierarchical equality."""
    pairs = {"WX": ["W", "X"], "YZ": ["Y", "Z"], "O": ["WX", "YZ"]}
    variables = ["O", "WX", "YZ", "W", "X", "Y", "Z"]
    inputs = {name: [0, 1, 2] for name in "WXYZ"}
    return CausalModel(
        variables,
        inputs | {name: [False, True] for name in pairs},
        {name: [] for name in "WXYZ"} | pairs,
        {name: lambda: 0 for name in "WXYZ"} | {name: lambda a, b: a == b for name in pairs},
        **more,
    )


def test_forward_and_interchange():
    model = equality()
    assert (model.inputs, model.outputs, model.end_time) == (["W", "X", "Y", "Z"], ["O"], 2)
    assert model.timesteps["WX"] == 1 and model.variables[-1] == "O"
    base, source = {"W": 0, "X": 0, "Y": 1, "Z": 2}, {"W": 0, "X": 1, "Y": 1, "Z": 1}
    assert model.run_forward(base)["O"] is False
    assert model.run_forward(base | {"WX": False})["O"] is True
    assert model.run_interchange(base, {"WX": source})["O"] is True
    assert model.run_interchange(base, {"WX": source, "YZ": source})["O"] is False


def test_live_paths():
    paths = equality().find_live_paths({"W": 0, "X": 0, "Y": 1, "Z": 1})
    assert ["W", "WX", "O"] in paths[3] and set(paths) == {2, 3}
    blind = CausalModel(["A", "B"], {"A": [0, 1], "B": [0]}, {"A": [], "B": ["A"]}, {"A": lambda: 0, "B": lambda a: 0})
    assert blind.find_live_paths({"A": 0}) == {}
    assert not blind.get_path_maxlen_filter([2])({"A": 0, "B": 0})


def test_equivalence_classes_and_balance():
    model = equality()
    model.generate_equiv_classes()
    assert len(model.equiv_classes["WX"][True]) == 3 and len(model.equiv_classes["WX"][False]) == 6
    random.seed(0)
    for _ in range(50):
        drawn = model.sample_input_tree_balanced("WX", True)
        assert drawn["W"] == drawn["X"] and set(drawn) == set("WXYZ")
    drawn = [model.run_forward(model.sample_input_tree_balanced())["O"] for _ in range(400)]
    assert 150 < sum(drawn) < 250


def test_calls_share_nothing():
    one = CausalModel(["A", "B"], {"A": [0, 1], "B": [0, 1]}, {"A": [], "B": ["A"]}, {"A": lambda: 0, "B": lambda a: a})
    two = CausalModel(["A", "C"], {"A": [0, 1], "C": [0, 1]}, {"A": [], "C": ["A"]}, {"A": lambda: 0, "C": lambda a: a})
    assert set(one.pos) == {"A", "B"} and set(two.pos) == {"A", "C"}
    # Inputs that an earlier draw has chosen are drawn anew.
    model = equality()
    random.seed(1)
    assert len({model.sample_input_tree_balanced("WX", True)["Y"] for _ in range(60)}) == 3


def test_data():
    model = equality()
    random.seed(0)
    factual = model.generate_factual_dataset(20, sampler=model.sample_input_tree_balanced)
    for example in factual:
        w, x, y, z = np.asarray(example["input_ids"])
        assert example["labels"][0] == float((w == x) == (y == z))
    data = model.generate_counterfactual_dataset(6, lambda one: 10 * ("WX" in one) + ("YZ" in one), 3)
    assert len(data) == 6
    for example in data:
        assert tuple(example["source_input_ids"].shape) == (2, 4) and tuple(example["input_ids"].shape) == (4,)
        base = np.asarray(example["input_ids"])
        first = np.asarray(example["source_input_ids"])[0]
        wx, yz = base[0] == base[1], base[2] == base[3]
        if example["intervention_id"][0] == 10:
            assert example["labels"][0] == float((first[0] == first[1]) == yz)
        if example["intervention_id"][0] == 1:
            assert example["labels"][0] == float(wx == (first[2] == first[3]))
    plain = model.generate_counterfactual_dataset(2, lambda one: 7, 2, return_tensors=False)
    assert plain[0]["intervention_id"] == [7] and isinstance(plain[0]["input_ids"], dict)
    assert len(plain[0]["source_input_ids"]) == 2
    shouted = model.generate_factual_dataset(1, input_function=lambda setting: "!")
    assert shouted[0]["input_ids"] == "!"


def test_filters():
    model = equality()
    setting = model.run_forward({"W": 0, "X": 0, "Y": 1, "Z": 1})
    assert model.get_partial_filter({"WX": True})(setting) and not model.get_partial_filter({"WX": False})(setting)
    assert model.get_specific_path_filter("W", "O")(setting) and model.get_path_maxlen_filter([3])(setting)
    random.seed(0)
    assert model.run_forward(model.sample_input(model.get_partial_filter({"O": False})))["O"] is False


def test_a_variable_is_added():
    model = equality()
    model.add_variable("P", [0, 1], ["O"], [], lambda o: int(o))
    assert model.outputs == ["P"] and model.run_forward({"W": 1})["P"] == 0 and model.timesteps["P"] == 3


def test_what_does_not_fit():
    two = {"A": [0, 1], "B": [0, 1]}
    one, follow = {"A": lambda: 0, "B": lambda a: a}, {"A": [], "B": ["A"]}
    wrong = [
        (lambda: CausalModel(["A", "B"], {"A": [0]}, follow, one), "'B'.*values"),
        (lambda: CausalModel(["A", "B"], two, {"A": []}, one), "'B'.*parents"),
        (lambda: CausalModel(["A", "B"], two, follow, {"A": one["A"]}), "'B'.*function"),
        (lambda: CausalModel(["A", "B"], two, {"A": [], "B": ["C"]}, one), "'C'"),
        (lambda: CausalModel(["A", "B"], two, {"A": ["B"], "B": ["A"]}, one), "each other"),
        (lambda: CausalModel(["A", "B"], two, follow, one, timesteps={"A": 1, "B": 1}), "no later"),
        (lambda: equality().run_forward({"Q": 1}), "'Q'"),
        (lambda: equality().sample_input_tree_balanced("WX", "maybe"), "maybe"),
    ]
    for call, words in wrong:
        with pytest.raises(InputError, match=words):
            call()
    with pytest.raises(NotImplementedError, match="CausalModel"):
        equality().marginalize("W")
