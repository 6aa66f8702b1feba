"""What pyvene's tour of its API shows, case by case, for pyvene and for causalcone.pyvene alike.

A case takes `lib` and gives named arrays. `lib` has

    pv                           the module
    gpt2(), gpt2_lm(), llama()   the models, each loaded once
    batch([[ids], …])            {"input_ids", "attention_mask"} of rows of one length
    array(nested)                floats, as the models have them
    wte(model, id)               the embedding of a token: d numbers
    tmp()                        a new folder
    set_rotation(i, matrix)      makes d × k orthonormal columns the rotation of an intervention
    set_parameter(i, name, x)    sets a parameter by the name it has in pyvene's state_dict

Answers named last_hidden_state, logits or ids are never those of an unedited model: fixtures/make_python.py, which
records pyvene's, makes sure of it. Constants are multiples of 1/8, so that no type of float rounds them.
"""

from copy import deepcopy
from types import SimpleNamespace

CASES = {}
D, M = 24, 40  # of tiny-gpt2: the widths of a block and within an MLP
LAYERS = range(3)

# Rows that agree nowhere, so that a wrong position or source shows. Token 0 ends texts.
BASE, SOURCE, OTHER = [5, 11, 23, 42, 7], [9, 31, 2, 58, 17], [44, 3, 29, 12, 36]


def case(run):
    CASES[run.__name__] = run
    return run


def cases(**entries):
    """A case for each entry, FUNCTION.ENTRY, which is given a copy of the entry's value too."""

    def register(run):
        for name, value in entries.items():
            one = lambda lib, value=value: run(lib, deepcopy(value))
            one.__doc__ = run.__doc__
            CASES[f"{run.__name__}.{name}"] = one
        return run

    return register


def named(*components):
    """Components by names without the signs of paths."""
    return {name.replace("[", "_").replace("]", "").replace(".", "_"): name for name in components}


def ramp(n, seed=1):
    """n numbers from -1 to 1 in no simple order."""
    return [((7 * i + 5 * seed) % 17 - 8) / 8 for i in range(n)]


def rows(n, columns, seed=1):
    return [ramp(columns, seed + i) for i in range(n)]


def rotation(d, k):
    """k columns of a product of two reflections, which unlike one is not symmetric."""

    def reflect(v, x):
        along = 2 * sum(a * b for a, b in zip(v, x)) / sum(a * a for a in v)
        return [b - along * a for a, b in zip(v, x)]

    unit = lambda i: [float(i == j) for j in range(d)]
    return [list(row) for row in zip(*(reflect(ramp(d, 1), reflect(ramp(d, 2), unit(i))) for i in range(k)))]


def at(component, layer=1, **more):
    """A representation, by the component's name or by its path."""
    return {"component": component, **more} if "." in component else {"layer": layer, "component": component, **more}


def gpt2(lib, config, *args, **kwargs):
    """The answer of an intervened GPT-2."""
    return {"last_hidden_state": lib.pv.IntervenableModel(config, model=lib.gpt2())(*args, **kwargs)[1].last_hidden_state}


def llama(lib, config, *args, **kwargs):
    return {"logits": lib.pv.IntervenableModel(config, model=lib.llama())(*args, **kwargs)[1].logits}


def swapped(lib, config, where=3, answer=gpt2, **kwargs):
    """The answer for one base and one source."""
    return answer(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], where and {"sources->base": where}, **kwargs)


# ------------------------------------------------------------------------------------------- interchange


@case
def interchange(lib):
    """Swaps in the source's activation at one position."""
    config = lib.pv.IntervenableConfig(at("mlp_output", 0), intervention_types=lib.pv.VanillaIntervention)
    where = {"sources->base": 3}
    return gpt2(lib, config, base=lib.batch([BASE]), sources=lib.batch([SOURCE]), unit_locations=where, subspaces=[10, 11, 12])


@cases(
    everywhere=None, int=3, pair=(2, 3), list=[0, 1, 3], nested=([[[1]]], [[[4]]]),
    several=([[[0, 1, 2, 3]]], [[[0, 1, 2, 3]]]), moved=([[[4, 0, 2]]], [[[1, 2, 3]]]),
)  # fmt: skip
def interchange_at(lib, where):
    """Locations as a number, a pair (source's, base's), a list, by intervention, example and unit, or none for all."""
    return swapped(lib, at("mlp_output"), where)


@cases(
    int=3, pair=(1, 4), nested=([[[1], [2], [0]]], [[[3], [0], [2]]]),
    several=([[[1, 4], [2, 2], [0, 3]]], [[[3, 0], [0, 1], [2, 4]]]),
)  # fmt: skip
def interchange_batch(lib, where):
    """Each example of a batch has a source, and may have positions, of its own: at most max_number_of_units."""
    base, source = lib.batch([BASE, SOURCE, OTHER]), lib.batch([SOURCE, OTHER, BASE])
    return gpt2(lib, at("block_output", 0, max_number_of_units=2), base, [source], {"sources->base": where})


@cases(int=3, pair=(6, 2), nested=([[[6], [2]]], [[[3], [0]]]))
def llama_interchange(lib, where):
    """The same of Llama, with sources that are longer than the base."""
    source = lib.batch([OTHER + [30, 8], BASE + [1, 19]])
    return llama(lib, at("block_output", 0), lib.batch([BASE, SOURCE]), [source], {"sources->base": where})


@cases(int=3, nested=([[[1], [2]]], [[[3], [0]]]))
def interchange_batch_of_one_choice(lib, where):
    """Ids with an axis for choices, as MQNLI's loop has them, give outputs with that axis."""
    base, source = lib.batch([[BASE], [SOURCE]]), lib.batch([[SOURCE], [OTHER]])
    return gpt2(lib, at("block_output", 0), base, [source], {"sources->base": where})


# -------------------------------------------------------------------------------------------- components


COMPONENTS = ["block_input", "block_output", "mlp_input", "mlp_activation", "mlp_output", "attention_input", "attention_output"]
OF_GPT2 = ["attention_value_output", "query_output", "key_output", "value_output"]  # pyvene has this Llama's widths wrong
HEADS = ["head_attention_value_output", "head_query_output", "head_key_output", "head_value_output"]
PATHS = [
    "h[1].input", "h[1].output", "h[1].mlp.input", "h[1].mlp.output", "h[1].mlp.act.output", "h[1].attn.input",
    "h[1].attn.c_proj.input", "h[1].attn.c_proj.output", "h[1].attn.resid_dropout.output",
]  # fmt: skip
OF_LLAMA = [
    "layers[1].input", "layers[0].output", "layers[1].mlp.output", "layers[1].mlp.act_fn.output", "layers[1].self_attn.output",
    "layers[1].self_attn.o_proj.input", "layers[1].self_attn.o_proj.output", "layers[1].self_attn.q_proj.output",
    "layers[1].self_attn.k_proj.output", "layers[1].self_attn.v_proj.output",
]  # fmt: skip
SOME = list(range(0, D, 3))  # of a whole vector the MLP's input, inside and output would give one answer


@cases(**named(*COMPONENTS, *OF_GPT2, *PATHS))
def component(lib, name):
    """Every component by its name, and modules by path and side."""
    return swapped(lib, at(name), (1, 3), subspaces=SOME)


@cases(**named(*COMPONENTS, *[f"model.{path}" for path in OF_LLAMA]))
def llama_component(lib, name):
    """Components and modules of Llama."""
    return swapped(lib, at(name), (1, 3), answer=llama, subspaces=SOME)


@cases(**named("mlp_output", "transformer.h[1].mlp.output"))
def lm_component(lib, name):
    """A model with a language head has the same components, and paths from its body's name on."""
    model = lib.pv.IntervenableModel(at(name), model=lib.gpt2_lm())
    return {"logits": model(lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})[1].logits}


@cases(**named(*HEADS))
def head(lib, name):
    """Unit h.pos: heads and positions are listed apart, for each intervention and example."""
    return swapped(lib, at(name, unit="h.pos", max_number_of_units=2), ([[[[1, 3]], [[2]]]], [[[[0, 2]], [[3]]]]))


@case
def head_everywhere(lib):
    """Unit h: a head at all positions."""
    return swapped(lib, at("head_attention_value_output", unit="h"), ([[[1]]], [[[2]]]))


# -------------------------------------------------------------------------------- constants and arithmetic


@cases(one=[0], all=LAYERS)
def zero_out(lib, layers):
    """A constant in the configuration: zeros, in one layer or in all. The unedited output too, if it is asked for."""
    parts = [at("mlp_output", i, source_representation=lib.array([0.0] * D)) for i in layers]
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(parts, mode="parallel"), model=lib.gpt2())
    original, edited = model(base=lib.batch([BASE]), unit_locations={"base": 3}, output_original_output=True)
    return {"original": original.last_hidden_state, "last_hidden_state": edited.last_hidden_state}


@cases(
    everywhere=None, int={"base": 3}, list={"base": [0, 1, 3]}, several={"base": [[[0, 1, 2, 3]]]},
    without_source={"sources->base": (None, 3)}, without_sources={"sources->base": (None, [[[3, 1]]])},
)  # fmt: skip
def constant_at(lib, where):
    """Locations of the base alone."""
    config = at("block_output", intervention_type=lib.pv.AdditionIntervention, source_representation=lib.array(ramp(D)))
    return gpt2(lib, config, lib.batch([BASE]), unit_locations=where)


@cases(vanilla="VanillaIntervention", addition="AdditionIntervention", subtraction="SubtractionIntervention")
def vector(lib, kind):
    """A vector at the call, for some dimensions of several positions of a module's input."""
    config = lib.pv.IntervenableConfig(at("mlp_input", 0), getattr(lib.pv, kind))
    where, given = {"base": [[[0, 1, 2, 3]]]}, lib.array(ramp(D))
    return gpt2(lib, config, lib.batch([BASE]), unit_locations=where, source_representations=given, subspaces=[2, 3, 7])


@cases(
    tensor=lambda lib: lib.array(ramp(D)),
    list=lambda lib: [lib.array(ramp(D, 1)), lib.array(ramp(D, 2))],
    dict=lambda lib: {f"layer_{i}_comp_mlp_output_unit_pos_nunit_1#0": lib.array(ramp(D, i)) for i in (2, 0)},
    by_example=lambda lib: lib.array([[ramp(D, 1)], [ramp(D, 2)]]),
)
def vectors(lib, make):
    """One for all interventions, one for each, by the interventions' keys, or examples × units × dimensions."""
    config = lib.pv.IntervenableConfig([at("mlp_output", 0), at("mlp_output", 2)], lib.pv.AdditionIntervention)
    where = {"base": [[[3], [1]], [[0], [4]]]}
    return gpt2(lib, config, lib.batch([BASE, OTHER]), unit_locations=where, source_representations=make(lib))


@cases(addition="AdditionIntervention", subtraction="SubtractionIntervention")
def from_source(lib, kind):
    """Addition and subtraction of a source's activation."""
    return swapped(lib, at("attention_output", intervention_type=getattr(lib.pv, kind)), (1, 3))


@cases(whole=None, some=[2, 3, 7])
def zero(lib, dims):
    """ZeroIntervention needs no source; without settings it is of the first block's output."""
    config = {"intervention_type": lib.pv.ZeroIntervention}
    return gpt2(lib, config, lib.batch([BASE]), unit_locations={"base": 3}, subspaces=dims)


def honest(lib, scale=1.0):
    """Instances with constants of their own, at a module of each layer of Llama."""
    add = lambda i: lib.pv.AdditionIntervention(source_representation=lib.array(ramp(32, i)) * scale)
    parts = [{"component": f"model.layers[{i}].self_attn.o_proj.output", "intervention": add(i)} for i in range(2)]
    return lib.pv.IntervenableModel(parts, model=lib.llama())


@case
def llama_honest(lib):
    """Constants of instances, by paths, at all positions."""
    return {"logits": honest(lib)(lib.batch([BASE]))[1].logits}


# --------------------------------------------------------------------------------------------- subspaces


@cases(int=5, list=[10, 11, 12], nested=[[[3, 0, 20]]])
def subspaces(lib, dims):
    """Only some dimensions are swapped."""
    return swapped(lib, at("mlp_output", 0), subspaces=dims)


@case
def subspaces_batch(lib):
    """Dimensions for each intervention and example."""
    config, dims = [at("mlp_output", 0), at("block_output", 1)], [[[0, 1], [0, 1]], [[4, 9, 17], [4, 9, 17]]]
    sources = [lib.batch([SOURCE, BASE]), lib.batch([BASE, SOURCE])]
    return gpt2(lib, config, lib.batch([BASE, OTHER]), sources, {"sources->base": 3}, subspaces=dims)


PARTS = {"subspace_partition": [[0, 8], [8, 20]]}
LISTS = {"subspace_partition": [[0, 5, 7], [9, 1, 20, 21]]}


@cases(int=(PARTS, 1), list=(PARTS, [0, 1]), nested=(PARTS, [[[0]]]), lists=(LISTS, 1))
def partition(lib, entry):
    """Parts of a partition, each from one dimension to before another; more or fewer than two are a list."""
    parts, which = entry
    return swapped(lib, at("block_output", 0, **parts), 4, subspaces=which)


# ----------------------------------------------------------------------------------------- several sources


@cases(positions=(([[[1]], [[2]]], [[[1]], [[3]]]), None), parts=(4, [[[0]], [[1]]]))
def parallel(lib, entry):
    """Two sources, each with locations of its own, or a part of the activation."""
    where, parts = entry
    config = lib.pv.IntervenableConfig([at("block_output", **PARTS)] * 2, mode="parallel")
    sources = [lib.batch([SOURCE]), lib.batch([OTHER])]
    return gpt2(lib, config, lib.batch([BASE]), sources, {"sources->base": where}, subspaces=parts)


@cases(
    int=({"source_0->source_1": 1, "source_1->base": 4}, None),
    pair=({"source_0->source_1": (2, 1), "source_1->base": (1, 3)}, None),
    nested=({"source_0->source_1": ([[[2]]], [[[1]]]), "source_1->base": ([[[1, 4]]], [[[3, 0]]])}, None),
    parts=({"source_0->source_1": 3, "source_1->base": (3, 4)}, [[[0]], [[1]]]),
)
def serial(lib, entry):
    """One source goes into the next, and that into the base; or only parts of them."""
    where, parts = entry
    config = lib.pv.IntervenableConfig([at("block_output", i, **PARTS) for i in range(2)], mode="serial")
    return gpt2(lib, config, lib.batch([BASE]), [lib.batch([SOURCE]), lib.batch([OTHER])], where, subspaces=parts)


@case
def grouped(lib):
    """Interventions of a group have a source in common."""
    parts = [at("block_output", 0, group_key=0), at("block_output", 2, group_key=0)]
    config = lib.pv.IntervenableConfig(parts, intervention_types=lib.pv.VanillaIntervention)
    return swapped(lib, config, ([[[3]], [[4]]], [[[3]], [[4]]]))


@case
def path_patching(lib):
    """A head from one source, and what it must not reach restored from another."""
    parts = [at("head_attention_value_output", 0, unit="h.pos", group_key=0), at("mlp_output", 0, group_key=1)]
    parts += [at(name, 1, group_key=1) for name in ("attention_output", "mlp_output")]
    where = [[[[2]], [[3]]], [[3]], [[3]], [[3]]]
    sources = [lib.batch([SOURCE]), lib.batch([BASE])]
    return gpt2(lib, lib.pv.IntervenableConfig(parts), lib.batch([BASE]), sources, {"sources->base": (where, where)})


@cases(first=0, second=1, third=2)
def skipped(lib, which):
    """Interventions whose source is None are left out."""
    config = lib.pv.IntervenableConfig([at("block_output", 0)] * 3, intervention_types=lib.pv.VanillaIntervention)
    only = lambda x: [x if i == which else None for i in range(3)]
    where = {"sources->base": (only([[4]]), only([[4]]))}
    return gpt2(lib, config, lib.batch([BASE]), only(lib.batch([SOURCE])), where)


@cases(
    first=([SOURCE, None], [[[1]], None]),
    second=([None, SOURCE], [None, [[1]]]),
    both=([SOURCE, OTHER], [[[0]], [[1]]]),
    turned=([SOURCE, OTHER], [[[1]], [[0]]]),
)
def linked(lib, entry):
    """Interventions with one link key edit the same activation, here in parts of their own."""
    ids, dims = entry
    parts = [at("block_output", 0, intervention_link_key=0, **PARTS) for _ in range(2)]
    config = lib.pv.IntervenableConfig(parts, intervention_types=lib.pv.VanillaIntervention)
    sources, where = [row and lib.batch([row]) for row in ids], [row and [[4]] for row in ids]
    return gpt2(lib, config, lib.batch([BASE]), sources, {"sources->base": (where, where)}, subspaces=dims)


@case
def keep_last_dim(lib):
    """An instance that keeps units apart, at two positions."""
    intervention = lib.pv.VanillaIntervention(keep_last_dim=True)
    return swapped(lib, at("block_output", 0, intervention=intervention), ([[[3, 4]]], [[[3, 4]]]))


# -------------------------------------------------------------------------------------------- collecting


def collect(lib, component, layer=1, **more):
    return at(component, layer, intervention_type=lib.pv.CollectIntervention, **more)


def apart(lib):
    return at("mlp_output", intervention=lib.pv.CollectIntervention(keep_last_dim=True))


def collected(lib, model, config, where, ids=(BASE,), **kwargs):
    """What one intervention collects: a list, of one activation unless there were several passes."""
    model = lib.pv.IntervenableModel(config, model=model)
    (activations,) = model(lib.batch(list(ids)), unit_locations=where, **kwargs)[0][-1]
    return {"collected": activations}


@cases(**named(*COMPONENTS, *OF_GPT2))
def collect_component(lib, name):
    """What a component is at one position: examples, units, dimensions."""
    return collected(lib, lib.gpt2(), collect(lib, name), {"sources->base": 3}, [BASE, OTHER])


@cases(**named(*COMPONENTS))
def llama_collect(lib, name):
    """The same of Llama."""
    return collected(lib, lib.llama(), collect(lib, name), {"base": 3})


@cases(
    some=(lambda lib: collect(lib, "block_output"), 3, [1, 5, 20]),
    one=(lambda lib: collect(lib, "block_output"), 3, 4),
    units=(lambda lib: collect(lib, "block_output", max_number_of_units=3), [[[0, 2, 3], [4, 1, 1]]], None),
    kept_apart=(apart, [[[0, 2], [3, 1]]], None),
    everywhere=(apart, None, None),
)
def collect_at(lib, entry):
    """Some dimensions; several positions, of which an instance that keeps them apart takes any number; or all."""
    make, where, dims = entry
    return collected(lib, lib.gpt2(), make(lib), where and {"base": where}, [BASE, OTHER], subspaces=dims)


@case
def collect_head(lib):
    """GET_LOC writes out the locations of one head at one position; here of one number of it."""
    config = collect(lib, "head_attention_value_output", unit="h.pos")
    return collected(lib, lib.gpt2(), config, {"base": lib.pv.GET_LOC((3, 3))}, subspaces=[0])


@cases(**named(*HEADS))
def collect_heads(lib, name):
    """Two heads at two positions: examples, heads, positions, dimensions."""
    config = collect(lib, name, unit="h.pos", max_number_of_units=2)
    return collected(lib, lib.gpt2(), config, {"base": [[[[3, 0]], [[1, 4]]]]})


@cases(
    name=lambda lib: collect(lib, "attention_weight"),
    path=lambda lib: at("h[1].attn.attn_dropout.input", intervention=lib.pv.CollectIntervention()),
)
def collect_attention(lib, make):
    """Attention's matrices, of which units are heads; also as what goes into the module that drops some of it."""
    return collected(lib, lib.gpt2(), make(lib), {"base": [0, 1, 2, 3]}, [BASE[:4]])


@case
def collect_layers(lib):
    """Activations come in the order of the interventions, beside the original output."""
    model = lib.pv.IntervenableModel([collect(lib, "block_output", i) for i in (2, 0)], model=lib.gpt2())
    (original, (second, zeroth)), _ = model(lib.batch([BASE]), unit_locations={"base": 3}, output_original_output=True)
    return {"original": original.last_hidden_state, "collected_2": second, "collected_0": zeroth}


@case
def collect_downstream(lib):
    """Downstream of an interchange, in one configuration."""
    config = lib.pv.IntervenableConfig(at("block_output", 0, intervention_type=lib.pv.VanillaIntervention))
    config.add_intervention(collect(lib, "block_output", 2))
    model = lib.pv.IntervenableModel(config, model=lib.gpt2())
    sources = [lib.batch([SOURCE]), None]
    (_, activations), edited = model(base=lib.batch([BASE]), sources=sources, unit_locations={"sources->base": 3})
    return {"collected": activations[-1], "last_hidden_state": edited.last_hidden_state}


# ------------------------------------------------------------------------------------- functions and classes


def mask(lib, position):
    """0 at one position, 1 at the others of one example."""
    return lib.array([[[float(i != position)] * D for i in range(5)]])


@cases(
    masked=lambda lib: at("h[0].mlp.output", intervention=lambda b, s: b * mask(lib, 3)),
    attention=lambda lib: at("h[1].attn.attn_dropout.input", intervention=lambda b, s: b * 0.5),
    layers=lambda lib: [at("mlp_output", i, intervention=lambda b, s: b * 0.5) for i in LAYERS],
)
def function(lib, make):
    """Functions of whole activations, among them attention's matrices, by path or name."""
    return gpt2(lib, make(lib), lib.batch([BASE]))


@case
def function_of_subspaces(lib):
    """Subspaces are handed to a function as a list for each example."""
    config = at("h[0].mlp.output", intervention=lambda b, s, sp: b * mask(lib, sp[0][0]))
    return gpt2(lib, config, lib.batch([BASE]), subspaces=3)


@cases(everywhere=None, int=3, pair=(1, 3), several=([[[0, 2]]], [[[4, 1]]]))
def function_of_source(lib, where):
    """A function of base and source, by name."""
    return swapped(lib, at("mlp_output", intervention=lambda b, s: b + s * 0.5), where)


@case
def function_of_nothing(lib):
    """A function that returns None only looks, here at a head that an addition below has changed."""
    seen = {}

    def look(b, s):
        seen["seen"] = b + 0.0

    add = lib.pv.AdditionIntervention(source_representation=lib.array(ramp(D)))
    config = [at("block_output", 0, intervention=add), at("head_query_output", 2, unit="h.pos", intervention=look)]
    where = {"base": [[[1]], [[[2, 0]], [[0, 1, 3]]]]}
    return {**gpt2(lib, config, lib.batch([BASE]), unit_locations=where), **seen}


@case
def llama_function(lib):
    """A function of a module of Llama."""
    return swapped(lib, at("model.layers[1].mlp.output", intervention=lambda b, s: b * 1.5 + s), (1, 3), answer=llama)


@case
def user_constant(lib):
    """A class of one's own without a source."""

    class Multiplier(lib.pv.ConstantSourceIntervention):
        def __init__(self, **kwargs):
            super().__init__()

        def forward(self, base, source=None, subspaces=None, **kwargs):
            return base * 3.0

    return gpt2(lib, {"intervention_type": Multiplier}, base=lib.batch([BASE]), unit_locations={"base": 3})


@cases(joined={}, kept_apart={"keep_last_dim": True})
def user_units(lib, settings):
    """What a class of one's own is handed of two positions: one long vector, unless it keeps the last dimension."""
    seen = {}

    class Mix(lib.pv.BasisAgnosticIntervention):
        def forward(self, base, source=None, subspaces=None, **kwargs):
            seen["seen"] = base + 0.0
            return base + (source - base) * 0.5

    return {**swapped(lib, at("block_output", 0, intervention=Mix(**settings)), ([[[4, 2]]], [[[0, 3]]])), **seen}


MARKED = {
    "first": lambda pv: (pv.LocalistRepresentationIntervention, pv.ConstantSourceIntervention),
    "last": lambda pv: (pv.ConstantSourceIntervention, pv.LocalistRepresentationIntervention),
    "built_in": lambda pv: (pv.ZeroIntervention,),
}
UNITS = {"two": {"base": [[[1, 3], [0, 4]]]}, "everywhere": None}


@cases(**{f"{order}_{where}": (bases, UNITS[where]) for order, bases in MARKED.items() for where in UNITS})
def user_localist(lib, entry):
    """A class of one's own that is marked as localist gets its units one by one, wherever the mark stands."""
    bases, where = entry
    seen = {}

    class Shift(*bases(lib.pv)):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)

        def forward(self, base, source=None, subspaces=None, **kwargs):
            seen["seen"] = base + 0.0
            return base + lib.array(ramp(D, 4))

    config = at("block_output", max_number_of_units=2, intervention=Shift())
    return {**gpt2(lib, config, lib.batch([BASE, OTHER]), unit_locations=where), **seen}


@case
def user_localist_heads(lib):
    """The same of heads: examples, heads, positions, dimensions."""
    seen = {}

    class Look(lib.pv.Intervention, lib.pv.LocalistRepresentationIntervention):
        def forward(self, base, source, subspaces=None, **kwargs):
            seen["base"], seen["source"] = base + 0.0, source + 0.0
            return base + source * 0.5

    where = ([[[[1, 3]], [[2, 0]]]], [[[[0, 2]], [[3, 1]]]])
    config = at("head_value_output", unit="h.pos", max_number_of_units=2, intervention=Look())
    return {**swapped(lib, config, where), **seen}


@cases(two=UNITS["two"], everywhere=None)
def user_collect(lib, where):
    """A class of one's own that collects gets its units as one long vector."""
    seen = {}

    class Doubled(lib.pv.CollectIntervention):
        def forward(self, base, source=None, subspaces=None, **kwargs):
            seen["seen"] = base + 0.0
            return base[..., : base.shape[-1] // 2] * 2.0

    config = at("block_output", max_number_of_units=2, intervention=Doubled(embed_dim=2 * D))
    return {**collected(lib, lib.gpt2(), config, where, [BASE, OTHER]), **seen}


@case
def user_rotated(lib):
    """A class of one's own that asks the class it is made of."""

    class Half(lib.pv.LowRankRotatedSpaceIntervention):
        def forward(self, base, source, subspaces=None, **kwargs):
            return base + (super().forward(base, source, subspaces) - base) * 0.5

    return trained(lib, at("block_output", intervention_type=Half, **LOW[0]), LOW[1])


@case
def user_trainable(lib):
    """A class of one's own that could be trained, with a source, a width and two parents."""

    class Mix(lib.pv.TrainableIntervention, lib.pv.DistributedRepresentationIntervention):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.width = int(self.embed_dim)

        def forward(self, base, source, subspaces=None, **kwargs):
            return base + (source - base) * lib.array(ramp(self.width))

    return swapped(lib, at("mlp_activation", intervention_type=Mix), (1, 3))


def happy(lib):
    """An addition that is told how much by its subspaces."""
    vector = lib.array(ramp(D, 3))

    class Happy(lib.pv.ConstantSourceIntervention):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, keep_last_dim=True)

        def forward(self, base, source=None, subspaces=None, **kwargs):
            return base + vector * subspaces["mag"]

    part = {"layer": 1, "component": "transformer.h[1].output", "low_rank_dimension": 1, "intervention": Happy(embed_dim=D)}
    return lib.pv.IntervenableModel(lib.pv.IntervenableConfig(representations=[part]), lib.gpt2_lm())


@case
def user_metadata(lib):
    """Subspaces that are a dict are handed on as they are, to an instance at all positions."""
    return {"logits": happy(lib)(lib.batch([BASE]), subspaces=[{"mag": 2.0, "logging": False}])[1].logits}


# ------------------------------------------------------------------------------------- rotations and others


def set_parameters(lib, intervention, parameters):
    for name, value in parameters.items():
        if name == "rotation":
            lib.set_rotation(intervention, value)
        elif name == "latents":
            intervention.set_interchange_dim(value)
        else:
            lib.set_parameter(intervention, name, value)


def trained(lib, part, parameters, where=3, **kwargs):
    """An interchange after the parameters of the only intervention are set."""
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(part), model=lib.gpt2())
    for intervention in model.interventions.values():
        set_parameters(lib, intervention, parameters)
    outputs = model(lib.batch([BASE, OTHER]), [lib.batch([SOURCE, BASE])], {"sources->base": where}, **kwargs)
    return {"last_hidden_state": outputs[1].last_hidden_state}


N = 30  # latents
LOW = {"low_rank_dimension": 3}, {"rotation": rotation(D, 3)}
FULL = {"rotation": rotation(D, D)}
LINEAR = {
    "autoencoder.encoder.0.weight": rows(N, D, 1), "autoencoder.encoder.0.bias": ramp(N, 2),
    "autoencoder.decoder.0.weight": rows(D, N, 3), "autoencoder.decoder.0.bias": ramp(D, 4), "latents": list(range(0, N, 2)),
}  # fmt: skip
JUMPING = {
    "W_enc": rows(D, N, 1), "W_dec": rows(N, D, 2), "b_enc": ramp(N, 3), "b_dec": ramp(D, 4),
    "threshold": [abs(x) for x in ramp(N, 5)],
}  # fmt: skip


LEARNED = {
    "low_rank": ("LowRankRotatedSpaceIntervention", *LOW, None),
    "low_rank_some": ("LowRankRotatedSpaceIntervention", *LOW, [0, 2]),
    "low_rank_one": ("LowRankRotatedSpaceIntervention", *LOW, 1),
    "rotated": ("RotatedSpaceIntervention", {}, FULL, [0, 3, 7]),
    "rotated_part": ("RotatedSpaceIntervention", PARTS, FULL, 1),
    "boundless": ("BoundlessRotatedSpaceIntervention", {}, {**FULL, "temperature": 3.0, "intervention_boundaries": [0.375]}, None),
    "rotated_mask": ("SigmoidMaskRotatedSpaceIntervention", {}, {**FULL, "temperature": 0.5, "masks": ramp(D)}, None),
    "mask": ("SigmoidMaskIntervention", {}, {"temperature": 0.5, "mask": ramp(D)}, None),
    "autoencoder": ("AutoencoderIntervention", {"latent_dim": N}, LINEAR, None),
    "jumprelu": ("JumpReLUAutoencoderIntervention", {"low_rank_dimension": N}, JUMPING, LINEAR["latents"]),
}


@cases(**LEARNED)
def learned(lib, entry):
    """Swaps coordinates in a basis that is learned: rotations, soft masks, autoencoders."""
    kind, settings, parameters, dims = entry
    return trained(lib, at("block_output", intervention_type=getattr(lib.pv, kind), **settings), parameters, subspaces=dims)


@case
def low_rank_units(lib):
    """Of two positions, which are one long vector."""
    kind, where = lib.pv.LowRankRotatedSpaceIntervention, ([[[1, 3], [0, 4]]], [[[3, 2], [1, 4]]])
    part = at("block_output", low_rank_dimension=3, max_number_of_units=2, intervention_type=kind)
    return trained(lib, part, {"rotation": rotation(2 * D, 3)}, where)


@case
def low_rank_instance(lib):
    """As an instance, within the MLP."""
    intervention = lib.pv.LowRankRotatedSpaceIntervention(embed_dim=M, low_rank_dimension=5)
    return trained(lib, at("mlp_activation", intervention=intervention), {"rotation": rotation(M, 5)})


@case
def pca(lib):
    """Coordinates of a principal component analysis."""
    intervention, parameters = principal(lib, D, 6)
    return trained(lib, at("block_output", intervention=intervention), parameters, subspaces=[0, 2, 5])


def principal(lib, d, k):
    components, mean, std = [list(x) for x in zip(*rotation(d, k))], ramp(d, 3), [1.0 + x / 2 for x in ramp(d, 4)]
    fitted = SimpleNamespace(components_=components)
    intervention = lib.pv.PCARotatedSpaceIntervention(embed_dim=d, pca=fitted, pca_mean=mean, pca_std=std)
    # Set once more since pyvene makes them float32, whatever the model is.
    return intervention, {"pca_components": components, "pca_mean": mean, "pca_std": std}


# ------------------------------------------------------------------------------ interventions by themselves


def block(*shape, start=0):
    """An array of different multiples of 1/8."""
    if len(shape) == 1:
        return [(start + i) / 8 for i in range(shape[0])]
    size = 1
    for one in shape[1:]:
        size *= one
    return [block(*shape[1:], start=start + i * size) for i in range(shape[0])]


def alone(lib, intervention, shape=(2, 3, 6), source=..., subspaces=None):
    """What an intervention makes of a base and a source when it is called by itself."""
    base = lib.array(block(*shape))
    source = lib.array(block(*shape, start=100)) if source is ... else source
    return {"output": intervention(base, source, subspaces=subspaces)}


THIRDS = {"subspace_partition": [[0, 2], [2, 4], [4, 6]]}
SUBSPACES = {
    "none": ({}, (2, 3, 6), None),
    "one_for_all": ({}, (2, 3, 6), [[1, 4]]),
    "flat": ({}, (2, 3, 6), [1, 4]),
    "same": ({}, (2, 3, 6), [[5, 0]] * 7),
    "rows": ({}, (2, 3, 6), [[1, 0], [0, 1], [1, 2]]),
    "rows_of_vectors": ({}, (3, 6), [[1, 0], [0, 1], [1, 2]]),
    "rows_of_heads": ({}, (2, 2, 3, 6), [[1, 0], [0, 5], [4, 2]]),
    "as_many_rows_as_examples": ({}, (2, 2, 6), [[1, 0], [4, 2]]),
    "examples": ({}, (2, 3, 6), [[1, 0, 5], [4]]),
    "examples_of_vectors": ({}, (3, 6), [[1, 0], [3], [2, 4, 5]]),
    "parts": (THIRDS, (2, 3, 6), [[0], [2], [1]]),
    "parts_for_all": (THIRDS, (2, 3, 6), [[2, 0]]),
    "use_fast": ({"use_fast": True}, (2, 3, 6), [[1, 0], [0, 1], [1, 2]]),
    "keep_last_dim": ({"keep_last_dim": True}, (2, 3, 6), [[1, 0], [0, 1], [1, 2]]),
    "narrow": ({"embed_dim": 4}, (3, 2), None),
    "wide": ({"embed_dim": 4}, (2, 3, 6), None),
}
MODES = {
    "swap": "VanillaIntervention", "add": "AdditionIntervention", "subtract": "SubtractionIntervention",
    "zero": "ZeroIntervention", "skip": "SkipIntervention",
}  # fmt: skip


@cases(**{f"{mode}_{name}": (kind, entry) for mode, kind in MODES.items() for name, entry in SUBSPACES.items()})
def alone_in_place(lib, entry):
    """Subspaces by themselves are of every row, of one row each, or where they differ in length of one example each."""
    kind, (settings, shape, subspaces) = entry
    return alone(lib, getattr(lib.pv, kind)(**settings), shape, subspaces=subspaces)


@cases(**{name: entry for name, entry in SUBSPACES.items() if not name.startswith("examples")})
def alone_collect(lib, entry):
    """The same of what is collected."""
    settings, shape, subspaces = entry
    return alone(lib, lib.pv.CollectIntervention(**settings), shape, None, subspaces)


@cases(vector=lambda lib: lib.array(ramp(6)), constant=lambda lib: None)
def alone_broadcast(lib, source):
    """A source that is one vector, at the call or the intervention's own."""
    settings = {} if source(lib) is not None else {"source_representation": lib.array(ramp(6, 2))}
    return alone(lib, lib.pv.AdditionIntervention(**settings), source=source(lib), subspaces=[[1, 0], [0, 1], [1, 2]])


SMALL = {
    "rotated": ("RotatedSpaceIntervention", {}, {"rotation": rotation(6, 6)}),
    "low_rank": ("LowRankRotatedSpaceIntervention", {"low_rank_dimension": 3}, {"rotation": rotation(6, 3)}),
    "boundless": (
        "BoundlessRotatedSpaceIntervention", {},
        {"rotation": rotation(6, 6), "temperature": 3.0, "intervention_boundaries": [0.375]},
    ),
    "rotated_mask": (
        "SigmoidMaskRotatedSpaceIntervention", {}, {"rotation": rotation(6, 6), "temperature": 0.5, "masks": ramp(6)},
    ),
    "mask": ("SigmoidMaskIntervention", {}, {"temperature": 0.5, "mask": ramp(6)}),
    "autoencoder": (
        "AutoencoderIntervention", {"latent_dim": 8},
        {
            "autoencoder.encoder.0.weight": rows(8, 6, 1), "autoencoder.encoder.0.bias": ramp(8, 2),
            "autoencoder.decoder.0.weight": rows(6, 8, 3), "autoencoder.decoder.0.bias": ramp(6, 4), "latents": [0, 2, 7],
        },
    ),
    "jumprelu": (
        "JumpReLUAutoencoderIntervention", {"low_rank_dimension": 8},
        {
            "W_enc": rows(6, 8, 1), "W_dec": rows(8, 6, 2), "b_enc": ramp(8, 3), "b_dec": ramp(6, 4),
            "threshold": [abs(x) for x in ramp(8, 5)],
        },
    ),
}  # fmt: skip


@cases(
    rotated=("rotated", None), rotated_one=("rotated", [[0, 3]]), rotated_rows=("rotated", [[0, 3], [5, 1]]),
    low_rank=("low_rank", None), low_rank_one=("low_rank", [[0, 2]] * 2), boundless=("boundless", None),
    rotated_mask=("rotated_mask", None), mask=("mask", None), autoencoder=("autoencoder", None),
    jumprelu_some=("jumprelu", [[0, 2, 7]]), jumprelu_rows=("jumprelu", [[0, 7], [5, 1]]),
)  # fmt: skip
def alone_learned(lib, entry):
    """Interventions with parameters, each called by itself."""
    which, subspaces = entry
    kind, settings, parameters = SMALL[which]
    intervention = getattr(lib.pv, kind)(embed_dim=6, **settings)
    set_parameters(lib, intervention, parameters)
    return alone(lib, intervention, (2, 6), subspaces=subspaces)


@case
def alone_low_rank_of_a_width(lib):
    """A number of dimensions says nothing about the directions of a low-rank rotation."""
    kind, settings, parameters = SMALL["low_rank"]
    intervention = getattr(lib.pv, kind)(embed_dim=6, **settings)
    set_parameters(lib, intervention, {**parameters, "latents": 1})
    return alone(lib, intervention, (2, 6))


@cases(whole=None, some=[[0, 2]])
def alone_pca(lib, subspaces):
    """Principal components, called by themselves."""
    intervention, parameters = principal(lib, 6, 4)
    set_parameters(lib, intervention, parameters)
    return alone(lib, intervention, (2, 6), subspaces=subspaces)


# --------------------------------------------------------------------------- configurations, outputs, folders


TWO = [at("mlp_output"), at("mlp_output", 2)]


@cases(
    default=lambda pv: pv.IntervenableConfig(),
    dict=lambda pv: TWO[0],
    list=lambda pv: TWO,
    lists=lambda pv: [[1, "mlp_output", "pos", 1], [2, "mlp_output", "pos", 1]],
    representation=lambda pv: pv.IntervenableConfig(pv.RepresentationConfig(1, "mlp_output", "pos", 1)),
    three=lambda pv: pv.IntervenableConfig([pv.RepresentationConfig(i, "mlp_output") for i in LAYERS], pv.AdditionIntervention),
    types=lambda pv: pv.IntervenableConfig(TWO, [pv.SubtractionIntervention, pv.VanillaIntervention]),
    own_types=lambda pv: [{**TWO[0], "intervention_type": pv.ZeroIntervention}, {**TWO[1], "intervention_type": pv.VanillaIntervention}],
    instance=lambda pv: pv.IntervenableConfig([at("mlp_output", intervention=pv.AdditionIntervention())]),
)
def config(lib, make):
    """Configurations as dicts, lists, RepresentationConfig, types apart or within, or nothing; one source serves all."""
    return swapped(lib, make(lib.pv))


@case
def config_mixed(lib):
    """Interventions with and without a source."""
    parts = [
        at("mlp_output", 0, intervention_type=lib.pv.AdditionIntervention, source_representation=lib.array(ramp(D))),
        at("block_output", 1, intervention_type=lib.pv.VanillaIntervention),
        at("attention_output", 2, intervention_type=lib.pv.ZeroIntervention),
    ]
    return gpt2(lib, parts, lib.batch([BASE]), [None, lib.batch([SOURCE]), None], {"sources->base": 3})


@case
def outputs_by_name(lib):
    """return_dict gives them names, with what is collected."""
    parts = [at("block_output", 0, intervention_type=lib.pv.VanillaIntervention), collect(lib, "mlp_output", 2)]
    model, sources = lib.pv.IntervenableModel(parts, model=lib.gpt2()), [lib.batch([SOURCE]), None]
    outputs = model(lib.batch([BASE]), sources, {"sources->base": 3}, return_dict=True, output_original_output=True)
    return {
        "original": outputs.original_outputs.last_hidden_state,
        "last_hidden_state": outputs.intervened_outputs.last_hidden_state,
        "collected": outputs.collected_activations[0],
    }


@case
def distribution(lib):
    """The distribution over tokens that each edited position predicts."""
    edited = swapped(lib, at("block_output", 2), 4)["last_hidden_state"]
    return {"probabilities": lib.pv.embed_to_distrib(lib.gpt2(), edited, logits=False)}


def additions(lib):
    kind = lib.pv.AdditionIntervention
    return [at("mlp_output", i, intervention_type=kind, source_representation=lib.array(ramp(D, i))) for i in LAYERS]


@cases(
    zero=(lambda lib: {"intervention_type": lib.pv.ZeroIntervention}, 3),
    constants=(additions, 3),
    rotation=(lambda lib: at("block_output", low_rank_dimension=3, intervention_type=lib.pv.LowRankRotatedSpaceIntervention), 3),
    group=(
        lambda lib: [at("head_query_output", unit="h.pos", group_key=0), at("mlp_output", group_key=0)],
        ([[[[2]], [[3]]], [[1]]], [[[[2]], [[3]]], [[4]]]),
    ),
)
def saved(lib, entry):
    """Interventions, their constants and parameters are saved to a folder and loaded from it; sources are not."""
    make, where = entry
    model, folder = lib.pv.IntervenableModel(make(lib), model=lib.gpt2()), lib.tmp()
    for intervention in model.interventions.values():
        if isinstance(intervention, lib.pv.LowRankRotatedSpaceIntervention):
            lib.set_rotation(intervention, rotation(D, 3))
    model.save(folder)
    model = lib.pv.IntervenableModel.load(folder, model=lib.gpt2())
    return {"last_hidden_state": model(lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": where})[1].last_hidden_state}


# -------------------------------------------------------------------------------------------- generation


GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
PASSES = {
    "all": {"unit_locations": None, "intervene_on_prompt": True},
    "prompt": {"unit_locations": {"base": 4}, "intervene_on_prompt": True},
    "steps": {},
}


@cases(**PASSES)
def generate(lib, passes):
    """Greedy text under an addition in all passes, of the prompt only, or after it only."""
    model = lib.pv.IntervenableModel(at("mlp_output", intervention_type=lib.pv.AdditionIntervention), model=lib.gpt2_lm())
    return {"ids": model.generate(lib.batch([BASE]), source_representations=lib.array(ramp(D, 3)), **passes, **GREEDY)[1]}


@cases(**PASSES)
def llama_generate(lib, passes):
    """The same in all layers of Llama, for two examples."""
    parts = [at("mlp_output", i, intervention_type=lib.pv.AdditionIntervention) for i in range(2)]
    model, vector = lib.pv.IntervenableModel(parts, model=lib.llama()), lib.array(ramp(32)) * 3.0
    return {"ids": model.generate(lib.batch([BASE, OTHER]), source_representations=vector, **passes, **GREEDY)[1]}


@case
def llama_generate_beside(lib):
    """Constants of instances, after the prompt; and the unedited text, if it is asked for."""
    original, ids = honest(lib, 4.0).generate(lib.batch([BASE]), output_original_output=True, **GREEDY)
    return {"original": original, "ids": ids}


@cases(steps=(0, {}), prompt=((0, 4), {"intervene_on_prompt": True}))
def generate_function(lib, entry):
    """A function of the text's activation and a source's."""
    where, passes = entry
    parts = [at("mlp_output", i, intervention=lambda b, s: b + s * 2.0) for i in LAYERS]
    model, source = lib.pv.IntervenableModel(parts, model=lib.gpt2_lm()), lib.batch([SOURCE[:1]])
    return {"ids": model.generate(lib.batch([BASE]), source, unit_locations={"sources->base": where}, **passes, **GREEDY)[1]}


@case
def generate_metadata(lib):
    """A class of one's own, told how much at the call."""
    subspaces = [{"mag": 1.0, "logging": False}]
    return {"ids": happy(lib).generate(lib.batch([BASE]), subspaces=subspaces, **PASSES["all"], **GREEDY)[1]}


# ------------------------------------------------------------------------------ the tutorial of additions


@case
def tutorial(lib):
    """A token's embedding is added up to each layer, at each position, to two components."""
    embedding, base, found = lib.wte(lib.gpt2(), 17)[None, None], lib.batch([BASE]), {}
    for till in LAYERS:
        for component in ("mlp_output", "attention_output"):
            config = lib.pv.IntervenableConfig(
                model_type=type(lib.gpt2()),
                representations=[lib.pv.RepresentationConfig(i, component, "pos", 1) for i in range(till + 1)],
                intervention_types=lib.pv.AdditionIntervention,
            )
            model = lib.pv.IntervenableModel(config, lib.gpt2())
            for position in range(5):
                _, edited = model(base, unit_locations={"sources->base": position}, source_representations=embedding)
                found[f"{component}.{till}.{position}.last_hidden_state"] = edited.last_hidden_state
    return found
