"""One call of an IntervenableModel: what it asks for in one form, and the experiment that does it.

An intervention that has an op of its own becomes an edit for each example. One that Python computes becomes a read of the
rows as they then stand, a call with those of all examples, and a swap of what comes back; in texts that grow a callback.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._arrays import imported_torch, is_tensor
from .._errors import InputError
from .arrays import give, take
from .batches import Batch
from .components import ATTENTION_MATRICES, width_of
from .handles import Handle
from .intervention_base import joins_units
from .interventions import CollectIntervention, LambdaIntervention, SkipIntervention
from .locations import Located, dims_of, located, representations_of, rows_of, subspaces_of
from .program import Program, is_missing
from .swapping import checked_dims
from .units import Place, joined, parted, read_rows, shape_of, stacked_rows, units_of


class Call(NamedTuple):
    """What one call asks for, in one form."""

    base: Batch
    sources: list[Batch | None]
    locations: dict[str, Located]
    constants: dict[str, Any]
    subspaces: dict[str, Any]
    is_generation: bool
    steps: str | None
    more: dict[str, Any]
    is_serial: bool

    def steps_of(self, batch: Batch) -> str | None:
        """The passes edits of these runs are made in: only the base's runs grow."""
        return self.steps if batch is self.base else None


class Caller:
    """Makes calls of an IntervenableModel. `groups` has the keys of each group of interventions, in order."""

    def __init__(
        self,
        handle: Handle,
        places: list[Place],
        interventions: Any,
        groups: list[list[str]],
        mode: str,
        outputs: list[Any],
    ) -> None:
        self._interventions = interventions
        self._handle = handle
        self._places = places
        self._groups = groups
        self._mode = mode
        self._outputs = outputs
        self._keys = [place.key for place in places]

    def call(
        self,
        base: Any,
        sources: Any,
        unit_locations: dict[str, Any] | None,
        source_representations: Any,
        subspaces: Any,
        more: dict[str, Any] | None,
        is_generation: bool = False,
        steps: str | None = None,
    ) -> Call:
        # Whoever has put another intervention in a place means it.
        self._places = [place._replace(intervention=self._interventions[place.key]) for place in self._places]
        batch = Batch(base, self._handle.core)
        groups = self._groups
        given: list[Any] = [None] * len(groups) if is_missing(sources) else sources
        if not isinstance(given, (list, tuple)):
            given = [given]
        if len(given) == 1 and len(groups) > 1:
            given = list(given) * len(groups)
        if len(given) != len(groups):
            raise InputError(f"{len(given)} sources for {len(groups)} groups of interventions")
        made: dict[int, Batch] = {}
        batches: list[Batch | None] = []
        for one in given:
            if one is not None and id(one) not in made:
                made[id(one)] = Batch(one, self._handle.core)
                if len(made[id(one)]) != len(batch):
                    raise InputError(f"a source of {len(made[id(one)])} examples for a base of {len(batch)}")
            batches.append(None if one is None else made[id(one)])
        keys = self._keys
        constants = representations_of(source_representations, keys)
        own = subspaces_of(subspaces, len(keys), len(batch))
        is_serial = self._mode == "serial" and any(one is not None for one in batches)
        if is_serial and any(one is None for one in batches):
            raise InputError("a source that is None breaks the chain of serial mode", "give one to each group")
        locations = self._locations(unit_locations, len(batch), constants, is_serial)
        if steps == "decode":
            locations = {name: self._of_one_position(name, one, is_serial) for name, one in locations.items()}
        if unit_locations is not None:
            self._refuse_nothing(batches, constants, is_missing(sources))
        return Call(
            batch, batches, locations, constants, dict(zip(keys, own)), is_generation, steps, more or {}, is_serial
        )

    def _of_one_position(self, name: str, where: Located, is_serial: bool) -> Located:
        """Locations in passes that see one position, which pyvene calls 0: all there is on the base's side."""
        keys = dict(self._arrows(is_serial))[name]
        units = {place.key: place.unit for place in self._places}

        def checked(key: str, own: list[Any] | None) -> list[Any] | None:
            if own is None or units[key] == "h":
                return own
            if any(set(one[1] if units[key] == "h.pos" else one) != {0} for one in own):
                raise InputError(
                    f"{key}: positions {own} in passes that see one", "give 0, or intervene_on_prompt=True"
                )
            return [(heads, None) for heads, _ in own] if units[key] == "h.pos" else None

        return Located(where.sources, [checked(key, own) for key, own in zip(keys, where.bases)])

    def _locations(
        self, given: dict[str, Any] | None, examples: int, constants: dict[str, Any], is_serial: bool
    ) -> dict[str, Located]:
        units = [place.unit for place in self._places]
        if given is None:
            return {name: Located([None] * len(keys), [None] * len(keys)) for name, keys in self._arrows(is_serial)}
        if not isinstance(given, dict):
            raise InputError(
                f"unit_locations of type {type(given).__name__}", "give {'sources->base': …} or {'base': …}"
            )
        if not is_serial:
            key = next((one for one in ("sources->base", "base") if one in given), None)
            if key is None or len(given) != 1:
                raise InputError(f"unit_locations for {', '.join(given)}", "in parallel mode 'sources->base' or 'base'")
            return {"sources->base": located(key, given[key], units, examples)}
        arrows = dict(self._arrows(is_serial))
        if set(given) == {"base"} or (set(given) == {"sources->base"} and constants):
            which = str(next(iter(given)))
            whole = located(which, given[which], units, examples)
            sides = dict(zip(self._keys, zip(*whole)))
            return {
                name: Located([sides[key][0] for key in keys], [sides[key][1] for key in keys])
                for name, keys in arrows.items()
            }
        unknown = [key for key in given if key not in arrows]
        if unknown:
            raise InputError(f"unit_locations for {unknown[0]!r}", f"in serial mode: {', '.join(arrows)}")
        lacking = [name for name in arrows if name not in given]
        if lacking:
            raise InputError(f"unit_locations lack {lacking[0]!r}", f"in serial mode: {', '.join(arrows)}")
        by_key = {place.key: place.unit for place in self._places}
        return {
            name: located(name, given[name], [by_key[key] for key in keys], examples) for name, keys in arrows.items()
        }

    def _arrows(self, is_serial: bool) -> list[tuple[str, list[str]]]:
        groups = self._groups
        if not is_serial:
            return [("sources->base", self._keys)]
        ends = [f"source_{number + 1}" for number in range(len(groups) - 1)] + ["base"]
        return [(f"source_{number}->{end}", keys) for number, (end, keys) in enumerate(zip(ends, groups))]

    def _refuse_nothing(self, sources: list[Batch | None], constants: dict[str, Any], has_none: bool) -> None:
        """An intervention that is told its units and has nothing to put in would change nothing without a word. A
        source that is None on purpose, among others, leaves its group out."""
        for place in self._places:
            needs = not (
                place.intervention.is_source_constant
                or isinstance(place.intervention, LambdaIntervention)
                or place.key in constants
            )
            if needs and has_none and not constants:
                raise InputError(
                    f"{place.key} has nothing to put in",
                    "give sources, source_representations, or a source_representation",
                )

    def program(self, call: Call) -> tuple[Program, list[str], list[Any]]:
        """The call's runs and edits, what is computed in Python computed on the way; and what is collected."""
        program = Program(self._handle)
        last = len(self._groups)
        runs = [program.run(f"b{example}", ids) for example, ids in enumerate(call.base.ids)]
        stages: list[list[str] | None] = []
        for number, source in enumerate(call.sources):
            stages.append(
                None if source is None else [program.run(f"s{number}_{e}", ids) for e, ids in enumerate(source.ids)]
            )
        collected: dict[str, Any] = {}
        # Sources first: in serial mode each is edited from the one before it.
        is_serial = call.is_serial
        for level in range(last if is_serial else 1):
            places = [place for place in self._places if not is_serial or place.group == level]
            is_last = not is_serial or level == last - 1
            edited = runs if is_last else stages[level + 1]
            batch = call.base if is_last else call.sources[level + 1]
            if edited is None or batch is None:
                continue
            for place in sorted(places, key=lambda one: one.order):
                located_at = self._located(call, place)
                own = call.subspaces[place.key]
                if isinstance(own, list) and own and isinstance(own[0], (list, tuple)) and len(own) != len(batch):
                    raise InputError(f"{place.key}: subspaces for {len(own)} examples, where there are {len(batch)}")
                collect = self._edit(program, call, place, (edited, batch), stages[place.group], located_at)
                if collect is not None:
                    collected[place.key] = collect
        found = [collected[key] for key in self._keys if key in collected]
        return program, runs, found

    def _located(self, call: Call, place: Place) -> tuple[Any, Any]:
        if not call.is_serial:
            whole = call.locations["sources->base"]
            number = self._keys.index(place.key)
        else:
            (name,) = (name for name, keys in self._arrows(True) if place.key in keys)
            whole = call.locations[name]
            number = self._groups[place.group].index(place.key)
        return whole.sources[number], whole.bases[number]

    def _edit(
        self,
        program: Program,
        call: Call,
        place: Place,
        edited: tuple[list[str], Batch],
        source_runs: list[str] | None,
        units: tuple[Any, Any],
    ) -> Any:
        """Adds one intervention of all examples; gives what it collects."""
        runs, batch = edited
        source_units, base_units = units
        intervention = place.intervention
        source = call.sources[place.group]
        is_collect = isinstance(intervention, CollectIntervention)
        if isinstance(intervention, SkipIntervention) and intervention.native() is None:
            raise NotImplementedError(
                f"{place.key}: a skip of your own: give the module's input to a function as its source"
            )
        is_lambda = isinstance(intervention, LambdaIntervention)
        constant = call.constants.get(place.key, intervention.source_representation)
        needs = not (intervention.is_source_constant or is_lambda)
        if needs and constant is None and source_runs is None:
            return None
        native = intervention.native()
        if is_collect:
            return self._collect(program, call, place, edited, base_units, native is None)
        if native is None:
            return self._compute(program, call, place, edited, source_runs, units)
        info = self._handle.core.info
        joint = joins_units(intervention)
        parameters = {name: program.given(_detached(one)) for name, one in native.tensors.items()}
        for example, run in enumerate(runs):
            positions, heads = units_of(info, place, batch, example, base_units)
            value: Any = None
            if constant is not None and not isinstance(intervention, SkipIntervention):
                shape = shape_of(info, place, batch, example, positions, heads)
                rows = rows_of(constant, example, len(batch), shape, place.key)
                if rows.ndim == 3 and width_of(info, place.site) is None:
                    # Of attention matrices there is a row a query, head by head.
                    for head, one in zip(heads or range(len(rows)), rows):
                        program.edit(
                            run,
                            place.site,
                            place.layer,
                            op=native.op,
                            positions=positions,
                            heads=[head],
                            value=program.given(one),
                            steps=call.steps_of(batch),
                        )
                    continue
                # Heads come first in an array, and second in the engine.
                rows = rows.swapaxes(0, 1) if rows.ndim == 3 else rows
                value = program.given(rows if is_tensor(rows) else program.vector(constant, rows))
            elif needs and source_runs is not None and source is not None:
                theirs = units_of(info, place, source, example, source_units)
                is_shorter = len(source.ids[example]) < len(batch.ids[example])
                value = {"run": source_runs[example]} | _source_units(place, (positions, heads), theirs, is_shorter)
            settings, op = dict(native.settings), native.op
            if op == "skip":
                op, value = self._skipped(place, value)
            count = len(heads or []) if place.unit != "pos" else len(positions or [])
            program.edit(
                run,
                place.site,
                place.layer,
                op=op,
                positions=positions,
                heads=heads,
                value=value,
                parameters=parameters or None,
                dims=self._dims(call, place, example),
                joint=("heads" if place.unit != "pos" else "positions") if joint and count > 1 else None,
                steps=call.steps_of(batch),
                **settings,
            )
        return None

    def _dims(self, call: Call, place: Place, example: int) -> list[int] | None:
        """The dimensions that change of one example; None for all."""
        intervention = place.intervention
        width = width_of(self._handle.core.info, place.site)
        whole = None if width is None else width * (place.units if joins_units(intervention) else 1)
        return dims_of(
            call.subspaces[place.key], example, intervention.subspace_partition, intervention.exchanged(whole)
        )

    def _skipped(self, place: Place, value: Any) -> tuple[str, Any]:
        """A skip takes the module's input of the source run: an interchange with another site of it."""
        inputs = {"block_output": "block_input", "mlp_output": "mlp_input", "attention_output": "attention_input"}
        if place.site not in inputs:
            raise NotImplementedError(f"{place.key}: skip is of {', '.join(inputs)}")
        return "swap", {**value, "site": inputs[place.site]}

    def _collect(
        self, program: Program, call: Call, place: Place, edited: tuple[list[str], Batch], units: Any, is_own: bool
    ) -> Any:
        rows = read_rows(self._handle.core.info, program, place, edited, units)
        stacked = stacked_rows(rows, edited[1], units)
        if is_own:
            # What its forward makes of them.
            made = self._call_python(place, stacked, None, call)
            return stacked if made is None else made
        subspaces, partition = call.subspaces[place.key], place.intervention.subspace_partition
        width = place.intervention.exchanged(stacked.shape[-1])
        if subspaces is None and width is None:
            return stacked
        by_example = [dims_of(subspaces, example, partition, width) for example in range(len(edited[1]))]
        if len({len(one or []) for one in by_example}) > 1:
            raise InputError("subspaces of different sizes make no array", "collect them by themselves")
        for dims in by_example:
            checked_dims(dims or [], stacked.shape[-1])
        parts = [one if dims is None else one[..., dims] for one, dims in zip(stacked, by_example)]
        if is_tensor(stacked):
            return imported_torch().stack(parts)  # type: ignore[union-attr]
        return give(np.stack([np.asarray(one) for one in parts]))

    def _compute(
        self,
        program: Program,
        call: Call,
        place: Place,
        edited: tuple[list[str], Batch],
        source_runs: list[str] | None,
        units: tuple[Any, Any],
    ) -> None:
        """An intervention that Python computes: its rows as they stand are read, and what it gives is put in."""
        info = self._handle.core.info
        source_units, base_units = units
        source = call.sources[place.group]
        theirs = None
        if place.key in call.constants:
            theirs = call.constants[place.key]
            theirs = theirs if is_tensor(theirs) else give(np.asarray(take(theirs)))
        elif source_runs is not None and source is not None:
            read = read_rows(info, program, place, (source_runs, source), source_units)
            theirs = stacked_rows(read, source, source_units)
        if call.is_generation:
            for example, run in enumerate(edited[0]):
                self._function(program, call, place, (run, edited[1], example), theirs, base_units)
            return
        rows = read_rows(info, program, place, edited, base_units)
        stacked = stacked_rows(rows, edited[1], base_units)
        made = self._call_python(place, stacked, theirs, call)
        if made is None:
            return
        if tuple(made.shape) != tuple(stacked.shape):
            raise InputError(
                f"{place.key}: a function gave {tuple(made.shape)} for {tuple(stacked.shape)}", "give the same shape"
            )
        runs, batch = edited
        for example, run in enumerate(runs):
            positions, heads = units_of(info, place, batch, example, base_units)
            own = made[example]
            if base_units is None and len(own) != len(rows[example]):
                start = batch.starts[example]
                own = own[start : start + len(rows[example])]
            if place.site.startswith("head_"):
                own = own.swapaxes(0, 1)
            if positions is None:
                positions = list(range(len(batch.ids[example])))
            if place.site in ATTENTION_MATRICES:
                # Head by head: rows of a query each.
                parts: list[Any] = [([head], one) for head, one in zip(heads or range(len(own)), own)]
            else:
                parts = [(heads, own)]
            for which, one in parts:
                value = program.given(one)
                program.edit(run, place.site, place.layer, op="swap", positions=positions, heads=which, value=value)

    def _function(
        self, program: Program, call: Call, place: Place, at: tuple[str, Batch, int], theirs: Any, base_units: Any
    ) -> None:
        """An intervention that Python computes in each pass of a run that grows."""
        run, batch, example = at
        positions, heads = units_of(self._handle.core.info, place, batch, example, base_units)
        source = None if theirs is None else theirs[example : example + 1] if len(theirs) == len(batch) else theirs
        is_head = place.site.startswith("head_")

        def changed(rows: np.ndarray) -> np.ndarray:
            given = np.array(rows.swapaxes(0, 1) if is_head else rows)[None]
            made = self._call_python(place, give(given), source, call)
            if made is None:
                return np.ascontiguousarray(rows)
            own = np.asarray(take(made))[0]
            return np.ascontiguousarray(own.swapaxes(0, 1) if is_head else own, dtype=np.float32)

        program.edit(
            run,
            place.site,
            place.layer,
            op=program.function(changed),
            positions=None if call.steps == "decode" else positions,
            heads=heads,
            steps=call.steps_of(batch),
        )

    def _call_python(self, place: Place, base: Any, source: Any, call: Call) -> Any:
        intervention = place.intervention
        subspaces = call.subspaces[place.key]
        more = dict(call.more)
        # A function may change what it is given in place: it gets its own.
        base = base.clone()
        source = None if source is None else source.clone()
        if isinstance(intervention, LambdaIntervention):
            extra = () if subspaces is None else (subspaces,)
            made = intervention(base, source, *extra, **more)
        else:
            shape = tuple(base.shape)
            joins = len(shape) > 2 and joins_units(intervention)
            flat = joined if joins else lambda x: x
            source = None if intervention.is_source_constant else source
            made = intervention.forward(flat(base), None if source is None else flat(source), subspaces, **more)
            if hasattr(made, "output") and not is_tensor(made):
                self._outputs.append(made)
                made = made.output
            if made is not None and joins:
                made = parted(made, shape, place.key)
        if made is None or is_tensor(made):
            return made
        return give(np.asarray(take(made), dtype=np.float32))


def _source_units(
    place: Place,
    own: tuple[list[int] | None, list[int] | None],
    theirs: tuple[list[int] | None, list[int] | None],
    is_shorter: bool,
) -> dict[str, Any]:
    """What a value says of the source's positions and heads, where they are not those of the edit. Raises InputError
    where a source that is shorter than its base is to be taken whole."""
    value: dict[str, Any] = {}
    (own_positions, own_heads), (positions, heads) = own, theirs
    if positions is not None and positions != own_positions:
        value["positions"] = positions
    elif positions is None and is_shorter:
        raise InputError(f"{place.key}: a source shorter than its base", "say which units are meant")
    if positions is None and own_positions is None:
        value["align"] = "left"
    if heads is not None and heads != own_heads:
        value["heads"] = heads
    return value


def _detached(tensor: Any) -> Any:
    """A parameter as it is, or without its gradient where none is wanted."""
    torch = imported_torch()
    if torch is not None and is_tensor(tensor) and not torch.is_grad_enabled():
        return tensor.detach()
    return tensor
