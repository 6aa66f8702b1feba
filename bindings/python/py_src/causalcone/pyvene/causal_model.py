"""High-level causal models: variables, what each is computed from, and data drawn from them.

A model says what a network might compute; interchange interventions on it say what the network should then answer.
Chance comes from Python's `random`, so `random.seed` decides. Here, whether two pairs are alike in being equal or not:

>>> import random
>>> from causalcone.pyvene import CausalModel
>>> pairs = {"WX": ["W", "X"], "YZ": ["Y", "Z"], "O": ["WX", "YZ"]}
>>> model = CausalModel(
...     variables=[*"WXYZ", *pairs],
...     values={name: [0, 1, 2] for name in "WXYZ"} | {name: [False, True] for name in pairs},
...     parents={name: [] for name in "WXYZ"} | pairs,
...     functions={name: lambda: 0 for name in "WXYZ"} | {name: lambda a, b: a == b for name in pairs},
... )
>>> base, source = {"W": 0, "X": 0, "Y": 1, "Z": 2}, {"W": 0, "X": 1, "Y": 1, "Z": 1}
>>> model.run_forward(base)["O"], model.run_forward({**base, "WX": False})["O"]
(False, True)
>>> model.run_interchange(base, {"WX": source})["O"]
True
>>> random.seed(0)
>>> data = model.generate_counterfactual_dataset(8, lambda intervention: int("YZ" in intervention), batch_size=4)
>>> len(data), tuple(data[0]["input_ids"].shape), tuple(data[0]["source_input_ids"].shape)
(8, (4,), (2, 4))
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import imported_torch, is_tensor, to_numpy
from .._errors import InputError

Setting = dict[str, Any]

_TRIES = 1000


class CausalModel:
    """Variables in a graph without cycles, each a function of its parents.

    `values` lists what each variable can be when values are drawn or tried; what is set or computed may be something
    else. `parents` lists what it is computed from. `functions` says how: each is called with the parents' values in
    the order they are listed, for an input, which has no parents, with nothing, and gives the same for the same values.
    `timesteps` say when each is computed, if not as soon as can be, outputs last. `equiv_classes` are as
    `generate_equiv_classes` makes them, `pos` where variables are drawn; what they lack is filled in.

    `variables` are then in order of time, `inputs` those without parents, `outputs` those without children. What is
    handed in is not changed. Raises InputError, a ValueError, for a variable that is there twice or lacks values,
    parents or a function, for unknown parents, cycles, and timesteps that do not come after the parents'.
    """

    def __init__(
        self,
        variables: Sequence[str],
        values: Mapping[str, Sequence[Any]],
        parents: Mapping[str, Sequence[str]],
        functions: Mapping[str, Callable[..., Any]],
        timesteps: Mapping[str, int] | None = None,
        equiv_classes: Mapping[str, Any] | None = None,
        pos: Mapping[str, Any] | None = None,
    ) -> None:
        self.variables = sorted(variables)
        self.children: dict[str, list[str]] = {variable: [] for variable in self.variables}
        if len(self.children) < len(self.variables):
            raise InputError(f"variables are there twice in {', '.join(self.variables)}")
        steps: Mapping[str, Any] = self.children if timesteps is None else timesteps
        for what, given in (("values", values), ("parents", parents), ("a function", functions), ("a timestep", steps)):
            lacking = [variable for variable in self.variables if variable not in given]
            if lacking:
                raise InputError(f"variable {lacking[0]!r} has not been given {what}")
        self.values = dict(values)
        self.parents = {variable: list(parents[variable]) for variable in self.variables}
        self.functions = dict(functions)
        for variable, own in self.parents.items():
            self._known(own, f"{variable!r} has the parent")
            for parent in own:
                self.children[parent].append(variable)
        self.inputs = [variable for variable in self.variables if not self.parents[variable]]
        self.start_variables = list(self.inputs)
        self.outputs = [variable for variable in self.variables if not self.children[variable]]
        found, self.end_time = self.generate_timesteps()
        if timesteps is None:
            self.timesteps = found | {output: self.end_time for output in self.outputs}
        else:
            self.timesteps = {variable: timesteps[variable] for variable in self.variables}
            for variable, own in self.parents.items():
                late = [parent for parent in own if self.timesteps[parent] >= self.timesteps[variable]]
                if late:
                    raise InputError(f"{variable!r} is computed no later than {late[0]!r}, from which it comes")
            self.end_time = max(self.timesteps.values(), default=0)
        self.variables.sort(key=lambda variable: self.timesteps[variable])
        self.equiv_classes: dict[str, dict[Any, list[Setting]]] = dict(equiv_classes or {})
        self.pos: dict[str, Any] = dict(pos or {})
        for variable in self.variables:
            if variable not in self.pos:
                taken = [tuple(place) for place in self.pos.values()]
                row = ((column, self.timesteps[variable]) for column in itertools.count())
                self.pos[variable] = next(place for place in row if place not in taken)
        self.run_forward()

    def generate_timesteps(self) -> tuple[dict[str, int], int]:
        """When each variable can first be computed, inputs at 0, and the last of these times. Raises InputError where
        variables are computed from each other."""
        steps: dict[str, int] = {}
        waiting = list(self.variables)
        while waiting:
            ready = [one for one in waiting if all(parent in steps for parent in self.parents[one])]
            if not ready:
                names = ", ".join(waiting)
                raise InputError(f"each of {names} is computed from one of these", "a graph without cycles fits")
            for one in ready:
                steps[one] = max((steps[parent] + 1 for parent in self.parents[one]), default=0)
            waiting = [one for one in waiting if one not in steps]
        return steps, max(steps.values(), default=0)

    def generate_equiv_classes(self) -> None:
        """Fills `equiv_classes`: for each computed variable and each of its values, the parents' values that give it.
        Raises InputError where a function gives what is not among the variable's values."""
        for variable in self.variables:
            if variable in self.inputs or variable in self.equiv_classes:
                continue
            odd = [value for value in self.values[variable] if not isinstance(value, Hashable)]
            if odd:
                raise InputError(f"{variable!r} has a value {odd[0]!r}, which has no hash", "numbers and tuples fit")
            classes: dict[Any, list[Setting]] = {value: [] for value in self.values[variable]}
            for values in itertools.product(*(self.values[parent] for parent in self.parents[variable])):
                value, given = self.functions[variable](*values), dict(zip(self.parents[variable], values))
                if not isinstance(value, Hashable) or value not in classes:
                    raise InputError(
                        f"{variable!r} is {value!r} for {given}, which is not among its values",
                        f"values are {list(classes)}",
                    )
                classes[value].append(given)
            self.equiv_classes[variable] = classes

    def marginalize(self, target: str) -> None:
        """Not here: make a model without the variable. Raises NotImplementedError."""
        raise NotImplementedError(
            "marginalize: make a CausalModel without the variable, its function in its children's"
        )

    def run_forward(self, intervention: Mapping[str, Any] | None = None) -> Setting:
        """The value of every variable, where those in `intervention` are what it says, inputs or others. Raises
        InputError for a variable that is not there."""
        fixed = {} if intervention is None else intervention
        self._known(fixed)
        setting: Setting = {}
        for variable in self.variables:
            if variable in fixed:
                setting[variable] = fixed[variable]
            else:
                setting[variable] = self.functions[variable](*(setting[parent] for parent in self.parents[variable]))
        return setting

    def run_interchange(
        self, input: Mapping[str, Any], source_interventions: Mapping[str, Mapping[str, Any]]
    ) -> Setting:
        """The value of every variable for `input`, where each variable in `source_interventions` is set to what it is
        for its own source input. Raises InputError for a variable that is not there."""
        self._known(source_interventions)
        taken = {variable: self.run_forward(source)[variable] for variable, source in source_interventions.items()}
        return self.run_forward({**input, **taken})

    def find_live_paths(self, intervention: Mapping[str, Any]) -> dict[int, list[list[str]]]:
        """Paths along which some value of each variable changes the next, by how many variables they have, from 2 on.
        The greatest length has none. Raises InputError for a variable that is not there."""
        actual = self.run_forward(intervention)
        live: dict[str, list[str]] = {variable: [] for variable in self.variables}
        for variable in self.variables:
            if self.children[variable]:
                others = [self.run_forward({**intervention, variable: value}) for value in self.values[variable]]
                live[variable] = [
                    child for child in self.children[variable] if any(one[child] != actual[child] for one in others)
                ]
        paths: dict[int, list[list[str]]] = {}
        latest = [[variable] for variable in self.variables]
        while latest:
            latest = [[*path, child] for path in latest for child in live[path[-1]]]
            paths[len(paths) + 2] = latest
        return paths

    def add_variable(
        self,
        variable: str,
        values: Sequence[Any],
        parents: Sequence[str],
        children: Sequence[str],
        function: Callable[..., Any],
        timestep: int | None = None,
    ) -> None:
        """Adds a variable. Functions of `children` are called with its value as well, behind their other parents'.

        With a `timestep` the others keep theirs, without one all are found again. Raises InputError as the constructor
        does, and for a variable that is there already; the model is then as it was.
        """
        self._known([*parents, *children])
        if variable in self.variables:
            raise InputError(f"there is a variable {variable!r} already")
        model = CausalModel(
            [*self.variables, variable],
            {**self.values, variable: values},
            {one: own + [variable] * (one in children) for one, own in self.parents.items()} | {variable: parents},
            {**self.functions, variable: function},
            None if timestep is None else {**self.timesteps, variable: timestep},
            {one: classes for one, classes in self.equiv_classes.items() if one not in children},
            self.pos,
        )
        vars(self).update(vars(model))

    def sample_intervention(self, mandatory: Callable[[Setting], bool] | None = None) -> Setting:
        """Values for one or more of the variables between inputs and outputs, drawn until they are `mandatory`, if that
        is given. Raises InputError if there are no such variables."""
        between = self._between()
        if not between:
            raise InputError("there is no variable between inputs and outputs to intervene on")
        while True:
            drawn = {variable: self._choose(variable) for variable in between if random.choice([0, 1]) == 0}
            if drawn and (mandatory is None or mandatory(drawn)):
                return drawn

    def sample_input(self, mandatory: Callable[[Setting], bool] | None = None) -> Setting:
        """A value for every input, drawn until the setting of all variables is `mandatory`, if that is given. Raises
        InputError for an input that has no values."""
        while True:
            drawn = {variable: self._choose(variable) for variable in self.inputs}
            if mandatory is None or mandatory(self.run_forward(drawn)):
                return drawn

    def sample_input_tree_balanced(self, output_var: str | None = None, output_var_value: Any = None) -> Setting:
        """An input for which a variable has a value: the only output unless given, and each of its values as likely.

        Raises InputError if the output is not given and there are several, if the value is not among the variable's,
        and if no input is found that gives it.
        """
        if output_var is None:
            if len(self.outputs) != 1:
                raise InputError(f"the outputs are {', '.join(self.outputs)}", "say which: output_var")
            output_var = self.outputs[0]
        self._known([output_var])
        self.generate_equiv_classes()
        drawn: Setting = {}

        def choose(variable: str, value: Any) -> bool:
            if variable in self.inputs:
                drawn[variable] = value
                return True
            ways = self.equiv_classes[variable].get(value, [])
            return bool(ways) and all(choose(parent, own) for parent, own in random.choice(ways).items())

        values = list(self.values[output_var])
        if output_var_value is not None:
            if output_var not in self.inputs and output_var_value not in list(self.equiv_classes[output_var]):
                raise InputError(f"{output_var!r} cannot be {output_var_value!r}", f"values are {values}")
            values = [output_var_value]
        while values:
            wanted = random.choice(values) if output_var_value is None else output_var_value
            for _ in range(_TRIES):
                drawn.clear()
                if not choose(output_var, wanted):
                    continue
                drawn.update({one: self._choose(one) for one in self.inputs if one not in drawn})
                # Where variables share an input, what was chosen for one may have been overwritten for another.
                if output_var in self.inputs or self.run_forward(drawn)[output_var] == wanted:
                    return drawn
            values.remove(wanted)
        what = "any of its values" if output_var_value is None else repr(output_var_value)
        raise InputError(f"no input was found that makes {output_var!r} {what}")

    def get_path_maxlen_filter(self, lengths: Iterable[int]) -> Callable[[Setting], bool]:
        """A function of a setting: whether its inputs' longest live path has one of these numbers of variables;
        False without a live path."""
        wanted = set(lengths)

        def check(setting: Setting) -> bool:
            paths = self.find_live_paths(_pick(setting, self.inputs))
            return max((length for length, some in paths.items() if some), default=None) in wanted

        return check

    def get_partial_filter(self, partial_setting: Mapping[str, Any]) -> Callable[[Setting], bool]:
        """A function of a setting: whether these variables have these values. Raises InputError for one not there."""
        wanted = dict(partial_setting)
        self._known(wanted)
        return lambda setting: all(setting[variable] == value for variable, value in wanted.items())

    def get_specific_path_filter(self, start: str, end: str) -> Callable[[Setting], bool]:
        """A function of a setting: whether a live path for its inputs leads from one variable to another. Raises
        InputError for a variable that is not there."""
        self._known([start, end])

        def check(setting: Setting) -> bool:
            paths = self.find_live_paths(_pick(setting, self.inputs)).values()
            return any(path[0] == start and path[-1] == end for some in paths for path in some)

        return check

    def input_to_tensor(self, setting: Mapping[str, Any]) -> Any:
        """The inputs' values one behind another, float32 of shape (inputs,), or longer where values are lists of
        numbers: a torch tensor if torch was imported, else a NumPy array. Raises InputError for an input that is
        missing, or is no number."""
        return _row(setting, self.inputs)

    def output_to_tensor(self, setting: Mapping[str, Any]) -> Any:
        """The outputs' values, float32 of shape (outputs,); the rest is as in `input_to_tensor`."""
        return _row(setting, self.outputs)

    def generate_factual_dataset(
        self,
        size: int,
        sampler: Callable[..., Setting] | None = None,
        filter: Callable[[Setting], bool] | None = None,
        device: str = "cpu",
        input_function: Callable[[Setting], Any] | None = None,
        output_function: Callable[[Setting], Any] | None = None,
        return_tensors: bool = True,
    ) -> list[dict[str, Any]]:
        """`size` examples: "input_ids", an input that `sampler` drew and `filter` passed, and "labels", what it gives.

        They are what `input_to_tensor` and `output_to_tensor` make of them, or the functions given instead, on
        `device`; with `return_tensors=False` the settings. Raises InputError as those do, and without torch for a
        device other than the CPU.
        """
        into, out = self._converters(input_function, output_function, device, return_tensors)
        sampler = sampler or self.sample_input
        examples: list[dict[str, Any]] = []
        while len(examples) < size:
            drawn = sampler()
            if filter is None or filter(drawn):
                examples.append({"input_ids": into(drawn), "labels": out(self.run_forward(drawn))})
        return examples

    def generate_counterfactual_dataset(
        self,
        size: int,
        intervention_id: Callable[[Setting], Any],
        batch_size: int,
        sampler: Callable[..., Setting] | None = None,
        intervention_sampler: Callable[[], Setting] | None = None,
        filter: Callable[[Setting], bool] | None = None,
        device: str = "cpu",
        input_function: Callable[[Setting], Any] | None = None,
        output_function: Callable[[Setting], Any] | None = None,
        return_tensors: bool = True,
    ) -> list[dict[str, Any]]:
        """Examples, `batch_size` of each intervention that `filter` lets pass, until there are `size` or more.

        Each has "input_ids" of a base (inputs,), "source_input_ids" (variables between inputs and outputs, inputs):
        for each variable of the intervention, in order of time, an input that makes it what the intervention says,
        then zeros; "labels" of the interchange and "base_labels" (outputs,); "intervention_id" (1,). `sampler` is
        called with nothing for a base, with output_var and output_var_value for a source; without one, a base comes
        from `sample_input` and a source from `sample_input_tree_balanced`. The rest is as in
        `generate_factual_dataset`; with `return_tensors=False` unused sources are empty. Raises InputError for a
        `batch_size` below 1, too.
        """
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}, where 1 or more fits")
        into, out = self._converters(input_function, output_function, device, return_tensors)
        draw_base: Callable[..., Setting] = sampler or self.sample_input
        # It cannot draw what makes a variable something, and is what pyvene takes if no sampler is given.
        draw_source = self.sample_input_tree_balanced if draw_base == self.sample_input else draw_base
        examples: list[dict[str, Any]] = []
        while len(examples) < size:
            intervention = (intervention_sampler or self.sample_intervention)()
            self._known(intervention)
            if filter is not None and not filter(intervention):
                continue
            for _ in range(batch_size):
                base = draw_base()
                by_variable = {
                    variable: draw_source(output_var=variable, output_var_value=intervention[variable])
                    for variable in self.variables
                    if variable in intervention
                }
                sources = [into(source) for source in by_variable.values()]
                unused = len(self._between()) - len(sources)
                own, which = into(base), [intervention_id(intervention)]
                examples.append(
                    {
                        "labels": out(self.run_interchange(base, by_variable)),
                        "base_labels": out(self.run_forward(base)),
                        "input_ids": own,
                        "source_input_ids": (
                            _stack(sources, unused, own) if return_tensors else sources + [{} for _ in range(unused)]
                        ),
                        "intervention_id": _place(_tensor(np.asarray(which)), device) if return_tensors else which,
                    }
                )
        return examples

    def print_structure(self, pos: Mapping[str, Any] | None = None, font: int = 12, node_size: int = 1000) -> None:
        """Draws the graph, at `pos` if given. Raises ImportError without networkx and matplotlib."""
        self._draw({variable: variable for variable in self.variables}, pos, font, node_size)

    def print_setting(self, total_setting: Mapping[str, Any], font: int = 12, node_size: int = 1000) -> None:
        """Draws the graph with the value of each variable. Raises ImportError without networkx and matplotlib."""
        values = _pick(total_setting, self.variables)
        self._draw({variable: f"{variable}: {value}" for variable, value in values.items()}, None, font, node_size)

    def _draw(self, labels: Mapping[str, str], pos: Mapping[str, Any] | None, font: int, node_size: int) -> None:
        try:
            import matplotlib.pyplot as plt
            import networkx as nx
        except ImportError as error:
            raise ImportError(
                "drawing a causal model needs networkx and matplotlib: pip install networkx matplotlib"
            ) from error
        graph = nx.DiGraph()
        graph.add_nodes_from(self.variables)
        graph.add_edges_from((parent, child) for child in self.variables for parent in self.parents[child])
        plt.figure(figsize=(10, 10))
        nx.draw_networkx(
            graph, pos or self.pos, labels=dict(labels), node_color="lightgreen", node_size=node_size, font_size=font
        )
        plt.show()

    def _converters(
        self, into: Any, out: Any, device: str, return_tensors: bool
    ) -> tuple[Callable[[Setting], Any], Callable[[Setting], Any]]:
        if not return_tensors:
            return (lambda setting: setting), (lambda setting: setting)
        into, out = into or self.input_to_tensor, out or self.output_to_tensor
        return (lambda setting: _place(into(setting), device)), (lambda setting: _place(out(setting), device))

    def _between(self) -> list[str]:
        return [one for one in self.variables if one not in self.inputs and one not in self.outputs]

    def _choose(self, variable: str) -> Any:
        if len(self.values[variable]) == 0:
            raise InputError(f"{variable!r} has no values to draw from")
        return random.choice(self.values[variable])

    def _known(self, given: Iterable[str], what: str = "there is no variable") -> None:
        for one in given:
            if one not in self.children:
                raise InputError(f"{what} {one!r}", f"variables are {', '.join(self.variables)}")


def _pick(setting: Mapping[str, Any], variables: list[str]) -> Setting:
    for variable in variables:
        if variable not in setting:
            raise InputError(f"the setting lacks {variable!r}", f"needed are {', '.join(variables)}")
    return {variable: setting[variable] for variable in variables}


def _row(setting: Mapping[str, Any], variables: list[str]) -> Any:
    rows = []
    for variable, value in _pick(setting, variables).items():
        array = np.atleast_1d(to_numpy(value, variable))
        if array.dtype.kind not in "biuf":
            raise InputError(f"{variable!r} is {value!r}, where numbers fit", "give a function that makes them of it")
        rows.append(array.astype(np.float32))
    return _tensor(np.concatenate(rows))


def _tensor(array: np.ndarray) -> Any:
    array = array.astype(np.float32) if array.dtype.kind == "f" else array
    torch = imported_torch()
    return array if torch is None else torch.from_numpy(array)


def _stack(rows: list[Any], unused: int, like: Any) -> Any:
    library: Any = imported_torch() if is_tensor(like) else np
    # One row more, taken off again, so that there may be none.
    return library.stack([*rows, *[library.zeros_like(like)] * (max(unused, 0) + 1)])[:-1]


def _place(x: Any, device: str) -> Any:
    if hasattr(x, "to"):
        return x.to(device)
    if str(device) != "cpu":
        raise InputError(f"device {device!r}, where arrays of NumPy are on the cpu", "import torch first")
    return x
