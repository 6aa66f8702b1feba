"""High-level causal models: values by hand, and pyvene's bugs that must not be here."""

import builtins
import random
import sys

import numpy as np
import pytest
from causalcone import InputError
from causalcone.pyvene import CausalModel

PAIRS = {"WX": ["W", "X"], "YZ": ["Y", "Z"], "O": ["WX", "YZ"]}
ALIKE = {"W": 0, "X": 0, "Y": 1, "Z": 1}


def equality(inputs=(0, 1, 2), equal=lambda a, b: a == b, **more):
    """Whether two pairs are both equal or both not: hierarchical equality."""
    return CausalModel(
        ["O", "WX", "YZ", "W", "X", "Y", "Z"],
        {name: list(inputs) for name in "WXYZ"} | {name: [False, True] for name in PAIRS},
        {name: [] for name in "WXYZ"} | PAIRS,
        {name: lambda: inputs[0] for name in "WXYZ"} | {name: equal for name in PAIRS},
        **more,
    )


def graph(parents, functions, values=None, **more):
    """A model whose variables are 0 or 1, and whose inputs are 0 unless set."""
    return CausalModel(
        list(parents),
        {name: [0, 1] for name in parents} | (values or {}),
        parents,
        {name: lambda: 0 for name in parents} | functions,
        **more,
    )


def chain(**more):
    return graph({"A": [], "B": ["A"]}, {"B": lambda a: a}, **more)


def diamond(d, values=None):
    """A decides B and C, which are as A is, and these decide D."""
    parents = {"A": [], "B": ["A"], "C": ["A"], "D": ["B", "C"]}
    return graph(parents, {"B": lambda a: a, "C": lambda a: a, "D": d}, values)


def test_graph():
    model = equality()
    assert (model.inputs, model.outputs, model.end_time) == (["W", "X", "Y", "Z"], ["O"], 2)
    assert model.variables == ["W", "X", "Y", "Z", "WX", "YZ", "O"]
    assert model.timesteps == {"W": 0, "X": 0, "Y": 0, "Z": 0, "WX": 1, "YZ": 1, "O": 2}
    assert model.children["W"] == ["WX"] and model.children["O"] == [] and model.start_variables == model.inputs
    assert model.pos["X"] == (1, 0) and model.pos["YZ"] == (1, 1) and model.pos["O"] == (0, 2)
    # A short way to an output ends as late as a long one, and a variable comes after its latest parent.
    parents = {"A": [], "B": ["A"], "C": ["A", "B"], "D": ["C"], "E": ["A"]}
    model = graph(parents, {"B": lambda a: a, "C": lambda a, b: a, "D": lambda c: c, "E": lambda a: a})
    assert model.timesteps == {"A": 0, "B": 1, "C": 2, "D": 3, "E": 3} and model.generate_timesteps()[0]["E"] == 1
    timed = chain(timesteps={"A": 2, "B": 7})
    assert timed.timesteps == {"A": 2, "B": 7} and timed.end_time == 7 and timed.pos["B"] == (0, 7)


def test_forward_and_interchange():
    model = equality()
    base, source = {"W": 0, "X": 0, "Y": 1, "Z": 2}, {"W": 0, "X": 1, "Y": 1, "Z": 1}
    assert model.run_forward() == {"W": 0, "X": 0, "Y": 0, "Z": 0, "WX": True, "YZ": True, "O": True}
    assert model.run_forward(base)["O"] is False
    assert model.run_forward(base | {"WX": False})["O"] is True
    assert model.run_interchange(base, {"WX": source})["O"] is True
    assert model.run_interchange(base, {"WX": source, "YZ": source})["O"] is False
    assert base == {"W": 0, "X": 0, "Y": 1, "Z": 2}
    # What is set need not be among the values that are drawn.
    assert model.run_forward({"W": 9})["WX"] is False


def test_parents_come_first():
    order = []

    def note(name):
        return lambda *parents: order.append(name) or len(parents)

    # By name, children come before their parents.
    model = CausalModel(
        ["A", "B", "C"],
        {name: [0, 1] for name in "ABC"},
        {"A": ["B", "C"], "B": ["C"], "C": []},
        {name: note(name) for name in "ABC"},
    )
    assert order == ["C", "B", "A"] and model.run_forward() == {"C": 0, "B": 1, "A": 2}


def test_live_paths():
    paths = equality().find_live_paths(ALIKE)
    short = [["W", "WX"], ["X", "WX"], ["Y", "YZ"], ["Z", "YZ"], ["WX", "O"], ["YZ", "O"]]
    long = [["W", "WX", "O"], ["X", "WX", "O"], ["Y", "YZ", "O"], ["Z", "YZ", "O"]]
    assert paths == {2: short, 3: long, 4: []}
    # With one pair set, its inputs change nothing.
    assert equality().find_live_paths(ALIKE | {"WX": False})[3] == long[2:]
    blind = graph({"A": [], "B": ["A"]}, {"B": lambda a: 0})
    assert blind.find_live_paths({"A": 0}) == {2: []}
    assert not blind.get_path_maxlen_filter([2])({"A": 0, "B": 0})


def test_equivalence_classes():
    model = equality()
    model.generate_equiv_classes()
    assert model.equiv_classes["WX"][True] == [{"W": n, "X": n} for n in range(3)]
    assert len(model.equiv_classes["WX"][False]) == 6 and set(model.equiv_classes) == {"WX", "YZ", "O"}
    assert model.equiv_classes["O"][False] == [{"WX": False, "YZ": True}, {"WX": True, "YZ": False}]
    given = {"WX": {True: [{"W": 2, "X": 2}], False: [{"W": 2, "X": 0}]}}
    model = equality(equiv_classes=given)
    assert model.sample_input_tree_balanced("WX", True)["W"] == 2 and set(given) == {"WX"}


def test_balanced_inputs():
    model = equality()
    random.seed(0)
    for _ in range(50):
        drawn = model.sample_input_tree_balanced("WX", True)
        assert drawn["W"] == drawn["X"] and set(drawn) == set("WXYZ")
    drawn = [model.run_forward(model.sample_input_tree_balanced())["O"] for _ in range(400)]
    # Half of 400 are expected; chance alone is within 50 of that but once in a million times.
    assert 150 < sum(drawn) < 250
    assert model.sample_input_tree_balanced("W", 1)["W"] == 1
    assert len({model.sample_input_tree_balanced("WX", True)["Y"] for _ in range(60)}) == 3


def test_balanced_inputs_where_variables_share_one():
    model = diamond(lambda b, c: b and c)
    random.seed(0)
    for wanted in [0, 1] * 20:
        assert model.run_forward(model.sample_input_tree_balanced("D", wanted))["D"] == wanted
    drawn = [model.run_forward(model.sample_input_tree_balanced())["D"] for _ in range(400)]
    assert 150 < sum(drawn) < 250
    never = diamond(lambda b, c: b ^ c)
    with pytest.raises(InputError, match="no input was found that makes 'D' 1"):
        never.sample_input_tree_balanced("D", 1)
    assert all(never.run_forward(never.sample_input_tree_balanced())["D"] == 0 for _ in range(10))
    # B is never 2, so that is no way to make C 1.
    parents = {"A": [], "B": ["A"], "C": ["B"]}
    model = graph(parents, {"B": lambda a: a, "C": lambda b: int(b > 0)}, {"B": [0, 1, 2]})
    assert all(model.sample_input_tree_balanced("C", 1) == {"A": 1} for _ in range(20))


def test_what_is_handed_in_stays_as_it_is():
    variables, pos = ["B", "A"], {"A": (5, 5)}
    classes, parents = {}, {"A": [], "B": ["A"]}
    functions = {"A": lambda: 0, "B": lambda a: a}
    model = CausalModel(variables, {"A": [0, 1], "B": [0, 1]}, parents, functions, None, classes, pos)
    model.generate_equiv_classes()
    model.add_variable("C", [0, 1], ["A"], [], lambda a: a)
    assert (variables, pos, classes, parents) == (["B", "A"], {"A": (5, 5)}, {}, {"A": [], "B": ["A"]})
    assert set(functions) == {"A", "B"} and model.pos["A"] == (5, 5)


def test_models_share_nothing():
    one, two = chain(), graph({"A": [], "C": ["A"]}, {"C": lambda a: a})
    assert set(one.pos) == {"A", "B"} and set(two.pos) == {"A", "C"}
    assert chain(pos=None).pos == {"A": (0, 0), "B": (0, 1)}
    one.generate_equiv_classes()
    assert chain().equiv_classes == {} and two.equiv_classes == {}


def test_interventions():
    model = equality()
    random.seed(0)
    drawn = [model.sample_intervention() for _ in range(200)]
    assert {tuple(one) for one in drawn} == {("WX",), ("YZ",), ("WX", "YZ")}
    assert {one["WX"] for one in drawn if "WX" in one} == {False, True}
    assert all(len(model.sample_intervention(lambda one: len(one) == 2)) == 2 for _ in range(10))
    with pytest.raises(InputError, match="no variable between"):
        chain().sample_intervention()


def test_the_seed_decides():
    def draw():
        random.seed(3)
        return equality().generate_counterfactual_dataset(8, len, 2, return_tensors=False)

    assert draw() == draw()


def test_rows_of_numbers():
    model = equality([(0.5, -1.0), (2.0, 3.0)])
    row = model.input_to_tensor({name: (0.5, -1.0) for name in "WXY"} | {"Z": np.array([7.0, 8.0])})
    assert np.array_equal(np.asarray(row), [0.5, -1, 0.5, -1, 0.5, -1, 7, 8]) and "float32" in str(row.dtype)
    label = model.output_to_tensor({"O": True})
    assert tuple(label.shape) == (1,) and float(label[0]) == 1.0 and "float32" in str(label.dtype)
    assert np.asarray(equality().input_to_tensor(ALIKE)).tolist() == [0, 0, 1, 1]


def test_factual_data():
    model = equality()
    random.seed(0)
    factual = model.generate_factual_dataset(20, sampler=model.sample_input_tree_balanced)
    for example in factual:
        w, x, y, z = np.asarray(example["input_ids"])
        assert np.asarray(example["labels"]).tolist() == [float((w == x) == (y == z))]
    assert len(factual) == 20 and model.generate_factual_dataset(0) == []
    some = model.generate_factual_dataset(5, filter=lambda one: one["W"] == 2, return_tensors=False)
    assert all(one["input_ids"]["W"] == 2 and one["labels"] == model.run_forward(one["input_ids"]) for one in some)
    own = model.generate_factual_dataset(1, input_function=lambda one: "!", output_function=lambda one: one["O"])
    assert own[0]["input_ids"] == "!" and own[0]["labels"] in (False, True)


@pytest.mark.parametrize("name", [None, "sample_input", "sample_input_tree_balanced"])
def test_counterfactual_data(name):
    model = equality()
    random.seed(0)
    sampler = None if name is None else getattr(model, name)
    data = model.generate_counterfactual_dataset(40, lambda one: 10 * ("WX" in one) + ("YZ" in one), 4, sampler=sampler)
    assert len(data) == 40 and {int(example["intervention_id"][0]) for example in data} == {1, 10, 11}
    for example in data:
        assert tuple(example["source_input_ids"].shape) == (2, 4) and tuple(example["input_ids"].shape) == (4,)
        assert tuple(example["labels"].shape) == tuple(example["base_labels"].shape) == (1,)
        assert "float32" in str(example["source_input_ids"].dtype) and "int64" in str(example["intervention_id"].dtype)
        base, (first, second) = np.asarray(example["input_ids"]), np.asarray(example["source_input_ids"])
        wx, yz = base[0] == base[1], base[2] == base[3]
        assert example["base_labels"][0] == float(wx == yz)
        which = int(example["intervention_id"][0])
        if which >= 10:
            wx = first[0] == first[1]
        if which == 1:
            yz = first[2] == first[3]
        elif which == 11:
            yz = second[2] == second[3]
        else:
            assert not second.any()
        assert which == 11 or not second.any()
        assert example["labels"][0] == float(wx == yz)


def test_counterfactual_data_as_settings():
    model = equality()
    data = model.generate_counterfactual_dataset(
        3, lambda one: "both", 2, intervention_sampler=lambda: {"YZ": True}, return_tensors=False
    )
    # A batch is never cut.
    assert len(data) == 4
    for example in data:
        source, unused = example["source_input_ids"]
        assert source["Y"] == source["Z"] and unused == {} and example["intervention_id"] == ["both"]
        assert example["labels"] == model.run_forward(example["input_ids"] | {"YZ": True})
        assert example["base_labels"] == model.run_forward(example["input_ids"])
    some = model.generate_counterfactual_dataset(4, len, 2, filter=lambda one: "WX" not in one)
    assert all(not np.asarray(example["source_input_ids"])[1].any() for example in some)


def test_functions_make_all_parts_of_counterfactual_data():
    model = equality()
    data = model.generate_counterfactual_dataset(
        4,
        len,
        4,
        input_function=lambda one: np.array([one[name] + 1 for name in "WXYZ"]),
        output_function=lambda one: np.array([7]),
        intervention_sampler=lambda: {"WX": True},
    )
    for example in data:
        assert example["input_ids"].min() >= 1 and example["labels"].tolist() == example["base_labels"].tolist() == [7]
        first, second = example["source_input_ids"]
        assert first.min() >= 1 and first[0] == first[1] and not second.any()


def test_filters():
    model = equality()
    setting = model.run_forward(ALIKE)
    assert model.get_partial_filter({"WX": True})(setting) and not model.get_partial_filter({"WX": False})(setting)
    assert model.get_specific_path_filter("W", "O")(setting) and not model.get_specific_path_filter("W", "YZ")(setting)
    assert model.get_path_maxlen_filter([3])(setting) and not model.get_path_maxlen_filter([2, 4])(setting)
    random.seed(0)
    assert model.run_forward(model.sample_input(model.get_partial_filter({"O": False})))["O"] is False


def test_a_variable_is_added():
    model = equality()
    model.generate_equiv_classes()
    model.add_variable("P", [0, 1], ["O"], [], lambda o: int(o))
    assert model.outputs == ["P"] and model.run_forward({"W": 1})["P"] == 0 and model.timesteps["P"] == 3
    assert model.children["O"] == ["P"] and model.sample_input_tree_balanced("P", 1).keys() == set("WXYZ")
    model = graph({"A": [], "B": ["A"]}, {"B": lambda *values: sum(values) % 2})
    model.generate_equiv_classes()
    model.add_variable("N", [0, 1], [], ["B"], lambda: 1)
    assert model.inputs == ["A", "N"] and model.parents["B"] == ["A", "N"] and model.run_forward({"A": 1})["B"] == 0
    model.generate_equiv_classes()
    assert model.equiv_classes["B"][0] == [{"A": 0, "N": 0}, {"A": 1, "N": 1}]
    assert len(set(model.pos.values())) == 3
    model.add_variable("L", [0, 1], ["B"], [], lambda b: b, timestep=9)
    assert model.timesteps["L"] == model.end_time == 9 and model.variables[-1] == "L"


def test_a_variable_that_does_not_fit_changes_nothing():
    model = chain()
    before = {name: repr(value) for name, value in vars(model).items()}
    for more in [("B", [0], [], [], int), ("C", [0], ["Q"], [], int), ("C", [0], ["B"], ["A"], int)]:
        with pytest.raises(InputError):
            model.add_variable(*more)
    # B's function takes one value.
    with pytest.raises(TypeError):
        model.add_variable("C", [0], [], ["B"], int)
    assert before == {name: repr(value) for name, value in vars(model).items()}


def test_what_does_not_fit():
    two = {"A": [0, 1], "B": [0, 1]}
    one, follow = {"A": lambda: 0, "B": lambda a: a}, {"A": [], "B": ["A"]}
    circle = {"A": [], "B": ["A", "C"], "C": ["B"]}
    wrong = [
        (lambda: CausalModel(["A", "B", "A"], two, follow, one), "twice"),
        (lambda: CausalModel(["A", "B"], {"A": [0]}, follow, one), "'B'.*values"),
        (lambda: CausalModel(["A", "B"], two, {"A": []}, one), "'B'.*parents"),
        (lambda: CausalModel(["A", "B"], two, follow, {"A": one["A"]}), "'B'.*function"),
        (lambda: CausalModel(["A", "B"], two, {"A": [], "B": ["C"]}, one), "'C'\n.*A, B"),
        (lambda: CausalModel(["A", "B"], two, {"A": ["B"], "B": ["A"]}, one), "A, B is computed from one of these"),
        (lambda: graph(circle, {"B": lambda a, c: 0, "C": lambda b: 0}), "B, C is computed from one of these"),
        (lambda: chain(timesteps={"A": 1}), "'B'.*timestep"),
        (lambda: chain(timesteps={"A": 1, "B": 1}), "no later"),
        (
            lambda: graph({"A": [], "B": ["A"]}, {"B": lambda a: 7 * a}).generate_equiv_classes(),
            r"'B' is 7 for.*\n.*0, 1",
        ),
        (lambda: chain(values={"B": [[0], [1]]}).generate_equiv_classes(), "'B'.*hash"),
        (lambda: chain(values={"A": []}).sample_input(), "'A' has no values"),
        (lambda: equality().run_forward({"Q": 1}), "'Q'"),
        (lambda: equality().run_interchange(ALIKE, {"Q": ALIKE}), "'Q'"),
        (lambda: equality().run_interchange(ALIKE, {"WX": {"Q": 1}}), "'Q'"),
        (lambda: equality().find_live_paths({"Q": 1}), "'Q'"),
        (lambda: equality().get_partial_filter({"Q": 1}), "'Q'"),
        (lambda: equality().get_specific_path_filter("W", "Q"), "'Q'"),
        (lambda: equality().sample_input_tree_balanced("Q"), "'Q'"),
        (lambda: equality().sample_input_tree_balanced("WX", "maybe"), "maybe.*\n.*True"),
        (lambda: graph({"A": [], "B": []}, {}).sample_input_tree_balanced(), "A, B\n.*output_var"),
        (lambda: equality().input_to_tensor({"W": 0}), "lacks 'X'"),
        (lambda: equality().input_to_tensor(ALIKE | {"Z": "z"}), "'Z' is 'z'"),
        (lambda: equality().generate_counterfactual_dataset(1, len, 0), "batch_size is 0"),
        (lambda: equality().generate_counterfactual_dataset(1, len, 1, intervention_sampler=lambda: {"Q": 1}), "'Q'"),
    ]
    for call, words in wrong:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert isinstance(caught.value, ValueError)
    with pytest.raises(NotImplementedError, match="CausalModel"):
        equality().marginalize("W")


def test_drawing_says_what_to_install(monkeypatch):
    found = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] in ("networkx", "matplotlib"):
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    for draw in (equality().print_structure, lambda: equality().print_setting(equality().run_forward())):
        with pytest.raises(ImportError, match="pip install networkx matplotlib"):
            draw()


def test_arrays_without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    model = equality()
    example = model.generate_counterfactual_dataset(1, len, 1)[0]
    assert all(isinstance(part, np.ndarray) for part in example.values())
    with pytest.raises(InputError, match="cuda"):
        model.generate_factual_dataset(1, device="cuda")


def test_tensors_with_torch():
    # It is imported first or not at all: an import here would change what other tests run with.
    torch = sys.modules.get("torch") or pytest.skip("torch was not imported")
    model = equality()
    example = model.generate_counterfactual_dataset(1, len, 1, device="meta")[0]
    assert all(isinstance(part, torch.Tensor) and part.device.type == "meta" for part in example.values())
    assert example["labels"].dtype == example["source_input_ids"].dtype == torch.float32
    assert example["intervention_id"].dtype == torch.int64
    row = model.input_to_tensor({name: torch.tensor([1.0, 2.0]) for name in "WXYZ"})
    assert torch.equal(row, torch.tensor([1.0, 2.0] * 4))
