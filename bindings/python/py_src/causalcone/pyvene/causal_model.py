"""High-level causal models: variables, what each is computed from, and data drawn from them.

A model says what a network might compute; interchange interventions on it say what the network should then answer.
Chance comes from Python's `random`: `random.seed` decides.

>>> from causalcone.pyvene import CausalModel
>>> model = CausalModel(
...     variables=["A", "B", "same"],
...     values={"A": [0, 1], "B": [0, 1], "same": [False, True]},
...     parents={"A": [], "B": [], "same": ["A", "B"]},
...     functions={"A": lambda: 0, "B": lambda: 1, "same": lambda a, b: a == b},
... )
>>> model.run_forward()["same"], model.run_forward({"A": 1})["same"]
(False, True)
>>> model.run_interchange({"A": 0, "B": 0}, {"same": {"A": 1, "B": 0}})["same"]
False
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .._arrays import imported_torch
from .._errors import InputError

Setting = "dict[str, Any]"
"""A value for each of some variables."""


class CausalModel:
    """Variables in a graph without cycles.

    `values` lists what each variable can be, `parents` what it is computed from, `functions` how: called with the
    parents' values in the order they are listed, and for an input, which has no parents, with nothing. `timesteps` say
    when each is computed, if not as soon as can be; `equiv_classes` which parents' values give a value.

    Raises InputError for a variable without values, parents or a function, an unknown parent, or a cycle.
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
        self.values = dict(values)
        self.parents = {variable: list(own) for variable, own in parents.items()}
        self.functions = dict(functions)
        known = set(self.variables)
        for variable in self.variables:
            for what, given in (("values", self.values), ("parents", self.parents), ("a function", self.functions)):
                if variable not in given:
                    raise InputError(f"variable {variable!r} has not been given {what}")
            unknown = [parent for parent in self.parents[variable] if parent not in known]
            if unknown:
                raise InputError(
                    f"{variable!r} has a parent {unknown[0]!r}, which is no variable", ", ".join(self.variables)
                )
        self.children: dict[str, list[str]] = {variable: [] for variable in self.variables}
        for variable in self.variables:
            for parent in self.parents[variable]:
                self.children[parent].append(variable)
        self.inputs = [variable for variable in self.variables if not self.parents[variable]]
        self.start_variables = list(self.inputs)
        self.outputs = [variable for variable in self.variables if not self.children[variable]]
        found, self.end_time = self.generate_timesteps()
        if timesteps is None:
            self.timesteps = found | {output: self.end_time for output in self.outputs}
        else:
            self.timesteps = dict(timesteps)
            for variable in self.variables:
                if variable not in self.timesteps:
                    raise InputError(f"timesteps lack {variable!r}")
                late = [one for one in self.parents[variable] if self.timesteps[one] >= self.timesteps[variable]]
                if late:
                    raise InputError(f"{variable!r} is computed no later than {late[0]!r}, from which it comes")
            self.end_time = max(self.timesteps.values())
        self.variables.sort(key=lambda variable: self.timesteps[variable])
        self.equiv_classes: dict[str, dict[Any, list[dict[str, Any]]]] = dict(equiv_classes or {})
        self.pos = dict(pos or {})
        widths: dict[int, int] = {}
        for variable in self.variables:
            if variable not in self.pos:
                step = self.timesteps[variable]
                self.pos[variable] = (widths.get(step, 0), step)
                widths[step] = widths.get(step, 0) + 1
        self.run_forward()

    def generate_timesteps(self) -> tuple[dict[str, int], int]:
        """When each variable can be computed, inputs at 0, and the last of these times."""
        steps: dict[str, int] = {}
        open_variables = list(self.variables)
        while open_variables:
            ready = [one for one in open_variables if all(parent in steps for parent in self.parents[one])]
            if not ready:
                raise InputError(f"{', '.join(open_variables)} are computed from each other")
            for one in ready:
                steps[one] = max((steps[parent] + 1 for parent in self.parents[one]), default=0)
            open_variables = [one for one in open_variables if one not in steps]
        return steps, max(steps.values(), default=0)

    def generate_equiv_classes(self) -> None:
        """For every variable that is computed and each of its values: the parents' values that give it."""
        for variable in self.variables:
            if variable in self.inputs or variable in self.equiv_classes:
                continue
            classes: dict[Any, list[dict[str, Any]]] = {value: [] for value in self.values[variable]}
            own = self.parents[variable]
            for given in itertools.product(*(self.values[parent] for parent in own)):
                value = self.functions[variable](*given)
                if value not in classes:
                    raise InputError(f"{variable!r} is {value!r} for {given}, which is none of its values")
                classes[value].append(dict(zip(own, given)))
            self.equiv_classes[variable] = classes

    def marginalize(self, target: str) -> None:
        """Not here: make a model without the variable. Raises NotImplementedError."""
        raise NotImplementedError(
            "marginalize: make a CausalModel without the variable, its function in its children's"
        )

    def run_forward(self, intervention: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The value of every variable, with some set; raises InputError for one that is not there."""
        intervention = {} if intervention is None else dict(intervention)
        self._known(intervention)
        setting: dict[str, Any] = {}
        # In the order of time, parents come first.
        for variable in self.variables:
            if variable in intervention:
                setting[variable] = intervention[variable]
            else:
                setting[variable] = self.functions[variable](*(setting[parent] for parent in self.parents[variable]))
        return setting

    def run_interchange(
        self, input: Mapping[str, Any], source_interventions: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The values for an input where some variables are as another input, their own, makes them."""
        self._known(source_interventions)
        setting = dict(input)
        for variable, source in source_interventions.items():
            setting[variable] = self.run_forward(source)[variable]
        return self.run_forward(setting)

    def find_live_paths(self, intervention: Mapping[str, Any]) -> dict[int, list[list[str]]]:
        """The paths along which a change of each variable changes the next, by their lengths in variables."""
        actual = self.run_forward(intervention)

        def changes(variable: str, child: str) -> bool:
            others = (self.run_forward({**intervention, variable: value}) for value in self.values[variable])
            return any(other[child] != actual[child] for other in others)

        paths: dict[int, list[list[str]]] = {}
        latest = [[variable] for variable in self.variables]
        length = 1
        while latest:
            length += 1
            latest = [
                [*path, child] for path in latest for child in self.children[path[-1]] if changes(path[-1], child)
            ]
            if latest:
                paths[length] = copy.deepcopy(latest)
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
        """Adds a variable. `children` are computed from it as well, behind their other parents."""
        self._known(parents)
        self._known(children)
        if variable in self.variables:
            raise InputError(f"there is a variable {variable!r} already")
        own = {**self.parents, variable: list(parents)}
        for child in children:
            own[child] = [*own[child], variable]
        steps = None if timestep is None else {**self.timesteps, variable: timestep}
        self.__init__(  # type: ignore[misc]
            [*self.variables, variable],
            {**self.values, variable: values},
            own,
            {**self.functions, variable: function},
            steps,
            None,
            {one: place for one, place in self.pos.items() if one != variable},
        )

    def sample_intervention(self, mandatory: Any = None) -> dict[str, Any]:
        """Values for some of the variables between inputs and outputs, at least one."""
        between = [one for one in self.variables if one not in self.inputs and one not in self.outputs]
        if not between:
            raise InputError("there is no variable between inputs and outputs to intervene on")
        intervention: dict[str, Any] = {}
        while not intervention:
            for variable in between:
                if random.choice([0, 1]) == 0:
                    intervention[variable] = random.choice(self.values[variable])
        return intervention

    def sample_input(self, mandatory: Callable[[dict[str, Any]], bool] | None = None, **_: Any) -> dict[str, Any]:
        """A value for every input; until all values together are `mandatory`, if that is given."""
        while True:
            drawn = {variable: random.sample(list(self.values[variable]), 1)[0] for variable in self.inputs}
            if mandatory is None or mandatory(self.run_forward(drawn)):
                return drawn

    def sample_input_tree_balanced(self, output_var: str | None = None, output_var_value: Any = None) -> dict[str, Any]:
        """An input that gives a variable a value, each as likely as any other: both drawn unless given."""
        if output_var is None:
            if len(self.outputs) != 1:
                raise InputError(f"there are several outputs: {', '.join(self.outputs)}", "give output_var")
            output_var = self.outputs[0]
        self._known([output_var])
        self.generate_equiv_classes()
        if output_var_value is None:
            output_var_value = random.choice(self.values[output_var])
        drawn: dict[str, Any] = {}

        def choose(variable: str, value: Any) -> None:
            ways = self.equiv_classes[variable].get(value)
            if not ways:
                raise InputError(f"nothing makes {variable!r} {value!r}")
            for parent, wanted in random.choice(ways).items():
                if parent in self.inputs:
                    drawn[parent] = wanted
                else:
                    choose(parent, wanted)

        if output_var in self.inputs:
            drawn[output_var] = output_var_value
        else:
            choose(output_var, output_var_value)
        for variable in self.inputs:
            if variable not in drawn:
                drawn[variable] = random.choice(self.values[variable])
        return drawn

    def get_path_maxlen_filter(self, lengths: Iterable[int]) -> Callable[[dict[str, Any]], bool]:
        """Whether the longest live path is of one of these lengths."""
        wanted = set(lengths)
        return lambda setting: max(self.find_live_paths(self._input_of(setting)), default=0) in wanted

    def get_partial_filter(self, partial_setting: Mapping[str, Any]) -> Callable[[dict[str, Any]], bool]:
        """Whether some variables have these values."""
        wanted = dict(partial_setting)
        return lambda setting: all(setting[variable] == value for variable, value in wanted.items())

    def get_specific_path_filter(self, start: str, end: str) -> Callable[[dict[str, Any]], bool]:
        """Whether a live path leads from one variable to another."""

        def leads(setting: dict[str, Any]) -> bool:
            paths = self.find_live_paths(self._input_of(setting)).values()
            return any(path[0] == start and path[-1] == end for of_length in paths for path in of_length)

        return leads

    def input_to_tensor(self, setting: Mapping[str, Any]) -> Any:
        """The inputs' values in a row, float32: a torch tensor if torch was imported, else a NumPy array."""
        return _row(setting[variable] for variable in self.inputs)

    def output_to_tensor(self, setting: Mapping[str, Any]) -> Any:
        """The outputs' values in a row, one number each, float32."""
        return _row(float(setting[variable]) for variable in self.outputs)

    def generate_factual_dataset(
        self,
        size: int,
        sampler: Callable[..., dict[str, Any]] | None = None,
        filter: Callable[[dict[str, Any]], bool] | None = None,
        device: str = "cpu",
        input_function: Callable[[Any], Any] | None = None,
        output_function: Callable[[Any], Any] | None = None,
        return_tensors: bool = True,
    ) -> list[dict[str, Any]]:
        """`size` examples: "input_ids", what an input is, and "labels", what it gives; as rows of numbers, or as
        settings where `return_tensors` is False."""
        sampler = sampler or self.sample_input
        into, out = self._functions(input_function, output_function, return_tensors)
        examples: list[dict[str, Any]] = []
        while len(examples) < size:
            drawn = sampler()
            if filter is None or filter(drawn):
                examples.append({"input_ids": into(drawn), "labels": out(self.run_forward(drawn))})
        return examples

    def generate_counterfactual_dataset(
        self,
        size: int,
        intervention_id: Callable[[dict[str, Any]], Any],
        batch_size: int,
        sampler: Callable[..., dict[str, Any]] | None = None,
        intervention_sampler: Callable[[], dict[str, Any]] | None = None,
        filter: Callable[[dict[str, Any]], bool] | None = None,
        device: str = "cpu",
        input_function: Callable[[Any], Any] | None = None,
        output_function: Callable[[Any], Any] | None = None,
        return_tensors: bool = True,
    ) -> list[dict[str, Any]]:
        """`size` examples or a few more, `batch_size` of each intervention: a base, sources that make the variables of
        the intervention what it says, and "labels", what the interchange gives, beside "base_labels".

        `sampler` is called without anything for a base and with output_var and output_var_value for a source; the
        balanced one if left out. Sources that an intervention does not use are zeros, or empty settings."""
        sampler = sampler or self.sample_input_tree_balanced
        intervention_sampler = intervention_sampler or self.sample_intervention
        into, out = self._functions(input_function, output_function, return_tensors)
        most = sum(1 for one in self.variables if one not in self.inputs and one not in self.outputs)
        examples: list[dict[str, Any]] = []
        while len(examples) < size:
            intervention = intervention_sampler()
            if filter is not None and not filter(intervention):
                continue
            for _ in range(batch_size):
                base = sampler()
                by_variable = {
                    variable: sampler(output_var=variable, output_var_value=intervention[variable])
                    for variable in self.variables
                    if variable in intervention
                }
                sources = [into(source) for source in by_variable.values()]
                empty = into(base) * 0 if return_tensors else {}
                sources += [copy.copy(empty) for _ in range(most - len(sources))]
                which = intervention_id(intervention)
                examples.append(
                    {
                        "labels": out(self.run_interchange(base, by_variable)),
                        "base_labels": out(self.run_forward(base)),
                        "input_ids": into(base),
                        "source_input_ids": _stack(sources) if return_tensors else sources,
                        "intervention_id": _row([which]) if return_tensors else [which],
                    }
                )
        return examples

    def print_structure(self, pos: Any = None, font: int = 12, node_size: int = 1000) -> None:
        """Draws the graph; needs networkx and matplotlib."""
        self._draw({variable: variable for variable in self.variables}, pos, font, node_size)

    def print_setting(self, total_setting: Mapping[str, Any], font: int = 12, node_size: int = 1000) -> None:
        """Draws the graph with the value of each variable; needs networkx and matplotlib."""
        self._draw({one: f"{one}: {total_setting[one]}" for one in self.variables}, None, font, node_size)

    def _draw(self, labels: Mapping[str, str], pos: Any, font: int, node_size: int) -> None:
        try:
            import matplotlib.pyplot as plt
            import networkx as nx
        except ImportError:
            raise ImportError(
                "drawing a causal model needs networkx and matplotlib: pip install networkx matplotlib"
            ) from None
        graph = nx.DiGraph()
        graph.add_nodes_from(self.variables)
        graph.add_edges_from((parent, child) for child in self.variables for parent in self.parents[child])
        plt.figure(figsize=(10, 10))
        nx.draw_networkx(
            graph, pos or self.pos, labels=dict(labels), node_color="lightgreen", node_size=node_size, font_size=font
        )
        plt.show()

    def _functions(
        self, into: Any, out: Any, return_tensors: bool
    ) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        if not return_tensors:
            return into or (lambda setting: setting), out or (lambda setting: setting)
        return into or self.input_to_tensor, out or self.output_to_tensor

    def _input_of(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        return {variable: setting[variable] for variable in self.inputs}

    def _known(self, variables: Iterable[str]) -> None:
        unknown = [one for one in variables if one not in self.values]
        if unknown:
            raise InputError(f"{unknown[0]!r} is no variable", f"there are {', '.join(self.variables)}")


def _row(values: Iterable[Any]) -> Any:
    array = np.concatenate([np.atleast_1d(np.asarray(value, dtype=np.float32)) for value in values])
    torch = imported_torch()
    return array if torch is None else torch.from_numpy(array)


def _stack(rows: list[Any]) -> Any:
    torch = imported_torch()
    return np.stack(rows) if torch is None else torch.stack(rows)
