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

Answers named last_hidden_state, logits or ids are never those of an unedited model; fixtures/make_python.py, which
records pyvene's, makes sure of it. All numbers are multiples of 1/8, so that no type of float rounds them.
"""

from types import SimpleNamespace

CASES = {}
D, M, VOCAB = 24, 40, 61  # of tiny-gpt2: the widths of a block and within an MLP
LAYERS = range(3)

# Rows that agree nowhere, so that a wrong position or source shows. 0 ends texts.
BASE, SOURCE, OTHER = [5, 11, 23, 42, 7], [9, 31, 2, 58, 17], [44, 3, 29, 12, 36]


def case(run):
    CASES[run.__name__] = run
    return run


def cases(**table):
    """A case for each entry, FUNCTION.ENTRY, which is given the entry's value too."""

    def register(run):
        for name, value in table.items():
            one = lambda lib, value=value: run(lib, value)
            one.__doc__ = run.__doc__
            CASES[f"{run.__name__}.{name}"] = one
        return run

    return register


def names(*all_of_them):
    """Components as a table, named without the signs of paths."""
    return {name.replace("[", "_").replace("]", "").replace(".", "_"): name for name in all_of_them}


def ramp(n, seed=1):
    """n numbers from -1 to 1 in no simple order."""
    return [((7 * i + 5 * seed) % 17 - 8) / 8 for i in range(n)]


def table(rows, columns, seed=1):
    return [ramp(columns, seed + i) for i in range(rows)]


def rotation(d, k):
    """k columns of a product of two reflections, which unlike one is not symmetric."""

    def reflect(v, x):
        along = 2 * sum(a * b for a, b in zip(v, x)) / sum(a * a for a in v)
        return [b - along * a for a, b in zip(v, x)]

    unit = lambda i: [float(i == j) for j in range(d)]
    return [list(row) for row in zip(*(reflect(ramp(d, 1), reflect(ramp(d, 2), unit(i))) for i in range(k)))]


def intervened(lib, config, *args, **kwargs):
    """The answer of an intervened GPT-2."""
    return {"last_hidden_state": lib.pv.IntervenableModel(config, model=lib.gpt2())(*args, **kwargs)[1].last_hidden_state}


def intervened_llama(lib, config, *args, **kwargs):
    return {"logits": lib.pv.IntervenableModel(config, model=lib.llama())(*args, **kwargs)[1].logits}


def collected(lib, config, *args, **kwargs):
    """The last of what an intervened GPT-2 collects."""
    return {"collected": lib.pv.IntervenableModel(config, model=lib.gpt2())(*args, **kwargs)[0][-1]}


def at(component, layer=1, **more):
    return {"layer": layer, "component": component, **more}


# ------------------------------------------------------------------------------------------- interchange


@case
def interchange(lib):
    """Swaps in the source's activation at one position."""
    config = lib.pv.IntervenableConfig(at("mlp_output", 0), intervention_types=lib.pv.VanillaIntervention)
    return intervened(lib, config, base=lib.batch([BASE]), sources=lib.batch([SOURCE]), unit_locations={"sources->base": 3})


@cases(
    int=3,
    pair=(2, 3),
    list=[0, 1, 3],
    nested=([[[1]]], [[[4]]]),
    several=([[[0, 1, 2, 3]]], [[[0, 1, 2, 3]]]),
    several_moved=([[[4, 0, 2]]], [[[1, 2, 3]]]),
)
def interchange_at(lib, where):
    """Locations as a number, a pair (source's, base's), a list, and by intervention, example and unit."""
    return intervened(lib, at("block_output", 0), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": where})


@case
def interchange_everywhere(lib):
    """Without locations the whole activation is swapped."""
    return intervened(lib, at("mlp_output"), lib.batch([BASE]), [lib.batch([SOURCE])])


@case
def interchange_units(lib):
    """max_number_of_units says how many positions there are."""
    where = {"sources->base": ([[[3, 0, 1]]], [[[0, 2, 3]]])}
    return intervened(lib, at("block_output", 0, max_number_of_units=3), lib.batch([BASE]), [lib.batch([SOURCE])], where)


@cases(
    int=3,
    pair=(1, 4),
    nested=([[[1], [2], [0]]], [[[3], [0], [2]]]),
    several=([[[1, 4], [2, 2], [0, 3]]], [[[3, 0], [0, 1], [2, 4]]]),
)
def interchange_batch(lib, where):
    """Each example of a batch has a source, and may have positions, of its own."""
    base, source = lib.batch([BASE, SOURCE, OTHER]), lib.batch([SOURCE, OTHER, BASE])
    return intervened(lib, at("block_output", 0), base, [source], {"sources->base": where})


@case
def interchange_layers(lib):
    """One source serves every intervention."""
    return intervened(lib, [at("mlp_output", i) for i in LAYERS], lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 3})


@case
def interchange_longer_source(lib):
    """A source may be longer than the base."""
    source = lib.batch([[9, 31, 2, 58, 17, 30, 8]])
    return intervened(lib, at("block_output", 0), lib.batch([BASE]), [source], {"sources->base": (6, 2)})


@cases(int=3, nested=([[[1], [2]]], [[[3], [0]]]))
def llama_interchange(lib, where):
    """The same of Llama."""
    base, source = lib.batch([BASE, SOURCE]), lib.batch([OTHER, BASE])
    return intervened_llama(lib, at("block_output", 0), base, [source], {"sources->base": where})


# -------------------------------------------------------------------------------------------- components


COMPONENTS = ["block_input", "block_output", "mlp_input", "mlp_activation", "mlp_output", "attention_input", "attention_output"]
OF_GPT2 = ["attention_value_output", "query_output", "key_output", "value_output"]  # on this Llama pyvene has their width wrong
HEADS = ["head_attention_value_output", "head_query_output", "head_key_output", "head_value_output"]


@cases(**names(*COMPONENTS, *OF_GPT2))
def component(lib, name):
    """Every component by its name."""
    return intervened(lib, at(name), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@cases(**names(*COMPONENTS))
def llama_component(lib, name):
    """Components of Llama by name."""
    return intervened_llama(lib, at(name), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@cases(**names(*HEADS))
def head(lib, name):
    """Unit h.pos: heads and positions are listed apart, for each intervention and example."""
    where = {"sources->base": ([[[[1, 3]], [[2]]]], [[[[0, 2]], [[3]]]])}
    config = at(name, unit="h.pos", max_number_of_units=2)
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], where)


@case
def head_everywhere(lib):
    """Unit h: a head at all positions."""
    where = {"sources->base": ([[[1]]], [[[2]]])}
    return intervened(lib, at("head_attention_value_output", unit="h"), lib.batch([BASE]), [lib.batch([SOURCE])], where)


@case
def head_by_get_loc(lib):
    """GET_LOC writes out the locations of one head at one position."""
    config = at("head_attention_value_output", unit="h.pos", intervention_type=lib.pv.ZeroIntervention)
    return intervened(lib, config, lib.batch([BASE]), unit_locations={"base": lib.pv.GET_LOC((2, 1))})


@cases(
    **names(
        "h[1].input", "h[1].output", "h[0].mlp.input", "h[0].mlp.output", "h[2].mlp.act.output", "h[1].attn.input",
        "h[1].attn.c_proj.input", "h[1].attn.c_proj.output", "h[1].attn.resid_dropout.output",
    )
)  # fmt: skip
def path(lib, name):
    """A component as a path to a module and which side of it."""
    return intervened(lib, {"component": name}, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@case
def path_of_lm(lib):
    """Paths of a model with a head start at its body's name."""
    model = lib.pv.IntervenableModel({"component": "transformer.h[1].mlp.output"}, model=lib.gpt2_lm())
    return {"logits": model(lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})[1].logits}


@cases(
    **names(
        "model.layers[1].input", "model.layers[0].output", "model.layers[1].mlp.output", "model.layers[1].mlp.act_fn.output",
        "model.layers[1].self_attn.output", "model.layers[1].self_attn.o_proj.input", "model.layers[1].self_attn.o_proj.output",
        "model.layers[1].self_attn.q_proj.output", "model.layers[1].self_attn.k_proj.output", "model.layers[1].self_attn.v_proj.output",
    )
)  # fmt: skip
def llama_path(lib, name):
    """Paths of Llama."""
    return intervened_llama(lib, {"component": name}, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@case
def lm_head(lib):
    """Components of a model with a language head go by the same names."""
    model = lib.pv.IntervenableModel(at("mlp_output"), model=lib.gpt2_lm())
    return {"logits": model(lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})[1].logits}


# -------------------------------------------------------------------------------- constants and arithmetic


@case
def zero_out(lib):
    """A constant in the configuration: zeros."""
    config = at("mlp_output", 0, source_representation=lib.array([0.0] * D))
    return intervened(lib, config, base=lib.batch([BASE]), unit_locations={"base": 3}, output_original_output=True)


@case
def zero_out_layers(lib):
    """The same in all layers."""
    parts = [at("mlp_output", i, source_representation=lib.array([0.0] * D)) for i in LAYERS]
    config = lib.pv.IntervenableConfig(parts, mode="parallel")
    return intervened(lib, config, base=lib.batch([BASE]), unit_locations={"base": 3})


@cases(
    int=3,
    list=[0, 1, 3],
    several=[[[0, 1, 2, 3]]],
    each=[[[1], [4]]],
    none=None,
)
def constant_at(lib, where):
    """Locations of the base alone."""
    config = at("block_output", intervention_type=lib.pv.AdditionIntervention, source_representation=lib.array(ramp(D)))
    locations = None if where is None else {"base": where}
    return intervened(lib, config, lib.batch([BASE, OTHER]) if where == [[[1], [4]]] else lib.batch([BASE]), unit_locations=locations)


@case
def constant_without_source_location(lib):
    """None in place of the source's locations."""
    config = at("block_output", source_representation=lib.array(ramp(D)))
    return intervened(lib, config, lib.batch([BASE]), unit_locations={"sources->base": (None, 3)})


@case
def constant_without_source_locations(lib):
    """The same with positions by example."""
    config = at("block_output", source_representation=lib.array(ramp(D)))
    return intervened(lib, config, lib.batch([BASE, OTHER]), unit_locations={"sources->base": (None, [[[3], [1]]])})


@cases(vanilla="VanillaIntervention", addition="AdditionIntervention", subtraction="SubtractionIntervention")
def vector(lib, kind):
    """One vector at the call, for a component that is the input of a module."""
    config = lib.pv.IntervenableConfig(at("mlp_input", 0), getattr(lib.pv, kind))
    where = {"base": [[[0, 1, 2, 3]]]}
    return intervened(lib, config, lib.batch([BASE]), unit_locations=where, source_representations=lib.array(ramp(D)))


@cases(addition="AdditionIntervention", subtraction="SubtractionIntervention")
def from_source(lib, kind):
    """Addition and subtraction of a source's activation."""
    config = at("attention_output", intervention_type=getattr(lib.pv, kind))
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@case
def zero(lib):
    """ZeroIntervention needs no source, and without settings is of the first block's output."""
    return intervened(lib, {"intervention_type": lib.pv.ZeroIntervention}, lib.batch([BASE]), unit_locations={"base": 3})


@case
def llama_zero(lib):
    """The same of one of Llama's modules."""
    config = {"component": "model.layers[0].mlp.output", "intervention": lib.pv.ZeroIntervention()}
    return intervened_llama(lib, config, lib.batch([BASE]), unit_locations={"base": 3})


@case
def llama_honest(lib):
    """Instances with constants of their own, given by modules of each layer, at all positions."""
    config = [
        {
            "component": f"model.layers[{i}].self_attn.o_proj.output",
            "intervention": lib.pv.AdditionIntervention(source_representation=lib.array(ramp(32, i))),
        }
        for i in range(2)
    ]
    return intervened_llama(lib, config, lib.batch([BASE]))


def two_additions(lib):
    return lib.pv.IntervenableConfig([at("mlp_output", 0), at("mlp_output", 2)], lib.pv.AdditionIntervention)


@case
def vectors_as_tensor(lib):
    """One vector at the call is for every intervention."""
    return intervened(lib, two_additions(lib), lib.batch([BASE]), unit_locations={"base": 3}, source_representations=lib.array(ramp(D)))


@case
def vectors_as_list(lib):
    """A list has one for each intervention."""
    vectors = [lib.array(ramp(D, 1)), lib.array(ramp(D, 2))]
    return intervened(lib, two_additions(lib), lib.batch([BASE]), unit_locations={"base": 3}, source_representations=vectors)


@case
def vectors_by_key(lib):
    """A dict has them by the interventions' keys."""
    keys = ["layer_0_comp_mlp_output_unit_pos_nunit_1#0", "layer_2_comp_mlp_output_unit_pos_nunit_1#0"]
    vectors = {keys[1]: lib.array(ramp(D, 2)), keys[0]: lib.array(ramp(D, 1))}
    return intervened(lib, two_additions(lib), lib.batch([BASE]), unit_locations={"base": 3}, source_representations=vectors)


@case
def vectors_by_example(lib):
    """Vectors shaped like the activation: examples, units, dimensions."""
    vectors = lib.array([[ramp(D, 1)], [ramp(D, 2)]])
    config = at("mlp_output", intervention_type=lib.pv.AdditionIntervention)
    return intervened(lib, config, lib.batch([BASE, OTHER]), unit_locations={"base": 3}, source_representations=vectors)


# --------------------------------------------------------------------------------------------- subspaces


@cases(int=5, list=[10, 11, 12], nested=[[[3, 0, 20]]])
def subspaces(lib, dims):
    """Only some dimensions of the activation are swapped."""
    config = lib.pv.IntervenableConfig(at("mlp_output", 0), intervention_types=lib.pv.VanillaIntervention)
    return intervened(lib, config, lib.batch([BASE]), lib.batch([SOURCE]), {"sources->base": 3}, subspaces=dims)


@case
def subspaces_batch(lib):
    """Dimensions for each intervention and example."""
    config = [at("mlp_output", 0), at("block_output", 1)]
    dims = [[[0, 1], [0, 1]], [[4, 9, 17], [4, 9, 17]]]
    sources = [lib.batch([SOURCE, BASE]), lib.batch([BASE, SOURCE])]
    return intervened(lib, config, lib.batch([BASE, OTHER]), sources, {"sources->base": 3}, subspaces=dims)


@case
def subspaces_of_constant(lib):
    """Dimensions of a vector that is given at the call, and saved or not it is the same."""
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(at("mlp_output", 0)), model=lib.gpt2())
    zeros = lib.array([0.0] * D)
    outputs = model(base=lib.batch([BASE]), unit_locations={"base": 3}, subspaces=[10, 11, 12], source_representations=zeros)
    return {"last_hidden_state": outputs[1].last_hidden_state}


@cases(zero="ZeroIntervention", addition="AdditionIntervention", subtraction="SubtractionIntervention")
def subspaces_several(lib, kind):
    """Dimensions at several positions."""
    more = {} if kind == "ZeroIntervention" else {"source_representation": lib.array(ramp(D))}
    config = at("block_output", intervention_type=getattr(lib.pv, kind), **more)
    return intervened(lib, config, lib.batch([BASE]), unit_locations={"base": [[[1, 3]]]}, subspaces=[2, 3, 7])


PARTITION = {"subspace_partition": [[0, 8], [8, 20]]}


@cases(first=0, second=1, both=[0, 1])
def partition(lib, part):
    """Parts of a partition, each from one dimension to before another."""
    return intervened(lib, at("block_output", 0, **PARTITION), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 4}, subspaces=part)


@case
def partition_of_lists(lib):
    """A part of more or fewer than two dimensions lists them."""
    config = at("block_output", 0, subspace_partition=[[0, 5, 7], [9, 1, 20, 21]])
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 4}, subspaces=[[[1]]])


@case
def partition_parallel(lib):
    """Two sources for two parts of one position."""
    config = lib.pv.IntervenableConfig([at("block_output", 0, **PARTITION)] * 2, intervention_types=lib.pv.VanillaIntervention)
    sources = [lib.batch([SOURCE]), lib.batch([OTHER])]
    return intervened(lib, config, lib.batch([BASE]), sources, {"sources->base": 4}, subspaces=[[[0]], [[1]]])


# ----------------------------------------------------------------------------------------- several sources


@case
def parallel(lib):
    """Two sources, each with locations of its own."""
    config = lib.pv.IntervenableConfig([at("block_output"), at("block_output")], mode="parallel")
    sources = [lib.batch([SOURCE]), lib.batch([OTHER])]
    return intervened(lib, config, lib.batch([BASE]), sources, {"sources->base": ([[[1]], [[2]]], [[[1]], [[3]]])})


@cases(
    int={"source_0->source_1": 1, "source_1->base": 4},
    pair={"source_0->source_1": (2, 1), "source_1->base": (1, 3)},
    nested={"source_0->source_1": ([[[2]]], [[[1]]]), "source_1->base": ([[[1, 4]]], [[[3, 0]]])},
)
def serial(lib, where):
    """One source goes into the next, and that into the base."""
    config = lib.pv.IntervenableConfig([at("block_output", 0), at("block_output", 1)], mode="serial")
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE]), lib.batch([OTHER])], where)


@case
def serial_subspaces(lib):
    """The same of parts of a partition."""
    parts = [at("block_output", 0, **PARTITION), at("block_output", 1, **PARTITION)]
    config = lib.pv.IntervenableConfig(parts, intervention_types=lib.pv.VanillaIntervention, mode="serial")
    where = {"source_0->source_1": 3, "source_1->base": (3, 4)}
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE]), lib.batch([OTHER])], where, subspaces=[[[0]], [[1]]])


@case
def grouped(lib):
    """Interventions of a group have a source in common."""
    parts = [at("block_output", 0, group_key=0), at("block_output", 2, group_key=0)]
    config = lib.pv.IntervenableConfig(parts, intervention_types=lib.pv.VanillaIntervention)
    where = {"sources->base": ([[[3]], [[4]]], [[[3]], [[4]]])}
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], where)


@case
def path_patching(lib):
    """A head from one source, and what it must not reach restored from another."""
    parts = [at("head_attention_value_output", 0, unit="h.pos", group_key=0), at("mlp_output", 0, group_key=1)]
    parts += [at(name, 1, group_key=1) for name in ("attention_output", "mlp_output")]
    where = [[[[2]], [[3]]], [[3]], [[3]], [[3]]]
    sources = [lib.batch([SOURCE]), lib.batch([BASE])]
    return intervened(lib, lib.pv.IntervenableConfig(parts), lib.batch([BASE]), sources, {"sources->base": (where, where)})


@cases(first=0, second=1, third=2)
def skipped(lib, which):
    """Interventions whose source is None are left out."""
    config = lib.pv.IntervenableConfig([at("block_output", 0)] * 3, intervention_types=lib.pv.VanillaIntervention)
    only = lambda x: [x if i == which else None for i in range(3)]
    where = {"sources->base": (only([[4]]), only([[4]]))}
    return intervened(lib, config, lib.batch([BASE]), only(lib.batch([SOURCE])), where)


@cases(
    second=([None, SOURCE], [None, [[1]]]),
    first=([SOURCE, None], [[[1]], None]),
    both=([SOURCE, OTHER], [[[0]], [[1]]]),
    turned=([SOURCE, OTHER], [[[1]], [[0]]]),
)
def linked(lib, entry):
    """Interventions with one link key edit the same activation, here in parts of their own."""
    rows, dims = entry
    parts = [at("block_output", 0, intervention_link_key=0, **PARTITION) for _ in range(2)]
    config = lib.pv.IntervenableConfig(parts, intervention_types=lib.pv.VanillaIntervention)
    sources, where = [row and lib.batch([row]) for row in rows], [row and [[4]] for row in rows]
    return intervened(lib, config, lib.batch([BASE]), sources, {"sources->base": (where, where)}, subspaces=dims)


@case
def keep_last_dim(lib):
    """An instance that keeps units apart, at two positions."""
    config = lib.pv.IntervenableConfig([at("block_output", 0, intervention=lib.pv.VanillaIntervention(keep_last_dim=True))])
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": ([[[3, 4]]], [[[3, 4]]])})


# -------------------------------------------------------------------------------------------- collecting


def collect(lib, component, layer=1, **more):
    return at(component, layer, intervention_type=lib.pv.CollectIntervention, **more)


@cases(**names(*COMPONENTS, *OF_GPT2))
def collect_component(lib, name):
    """What a component is at one position: examples, units, dimensions."""
    return collected(lib, collect(lib, name), lib.batch([BASE, OTHER]), unit_locations={"sources->base": 3})


@case
def collect_units(lib):
    """Several positions, others in each example."""
    config = collect(lib, "block_output", max_number_of_units=3)
    return collected(lib, config, lib.batch([BASE, OTHER]), unit_locations={"base": [[[0, 2, 3], [4, 1, 1]]]})


@case
def collect_kept_apart(lib):
    """Several positions of an instance that keeps units apart."""
    config = at("block_output", intervention=lib.pv.CollectIntervention(keep_last_dim=True))
    return collected(lib, config, lib.batch([BASE]), unit_locations={"base": [[[0, 2, 3]]]})


@case
def collect_everywhere(lib):
    """Without locations the whole activation."""
    config = {"component": "h[1].mlp.output", "intervention": lib.pv.CollectIntervention(keep_last_dim=True)}
    return collected(lib, config, lib.batch([BASE]))


@case
def collect_subspaces(lib):
    """Some dimensions."""
    return collected(lib, collect(lib, "block_output"), lib.batch([BASE]), unit_locations={"base": 3}, subspaces=[1, 5, 20])


@case
def collect_layers(lib):
    """Activations come in the order of the interventions, beside the outputs."""
    config = lib.pv.IntervenableConfig([collect(lib, "block_output", i) for i in (2, 0)])
    base, activations = lib.pv.IntervenableModel(config, model=lib.gpt2())(
        lib.batch([BASE]), unit_locations={"base": 3}, output_original_output=True
    )[0]
    return {"original": base.last_hidden_state, "collected_2": activations[0], "collected_0": activations[1]}


@case
def collect_downstream(lib):
    """Downstream of an interchange, in one configuration."""
    config = lib.pv.IntervenableConfig(at("block_output", 0, intervention_type=lib.pv.VanillaIntervention))
    config.add_intervention(collect(lib, "block_output", 2))
    model = lib.pv.IntervenableModel(config, model=lib.gpt2())
    (_, activations), outputs = model(base=lib.batch([BASE]), sources=[lib.batch([SOURCE]), None], unit_locations={"sources->base": 3})
    return {"collected": activations[-1], "last_hidden_state": outputs.last_hidden_state}


@case
def collect_head(lib):
    """One number of one head at one position."""
    config = collect(lib, "head_attention_value_output", unit="h.pos")
    return collected(lib, config, lib.batch([BASE]), unit_locations={"base": lib.pv.GET_LOC((3, 3))}, subspaces=[0])


@cases(**names(*HEADS))
def collect_heads(lib, name):
    """Two heads at two positions: examples, heads, positions, dimensions."""
    config = collect(lib, name, unit="h.pos", max_number_of_units=2)
    return collected(lib, config, lib.batch([BASE]), unit_locations={"base": [[[[3, 0]], [[1, 4]]]]})


@case
def collect_attention(lib):
    """Attention's matrices: units are heads."""
    return collected(lib, collect(lib, "attention_weight"), lib.batch([BASE[:4]]), unit_locations={"base": [0, 1, 2, 3]})


@case
def collect_attention_by_path(lib):
    """The same as the input of the module that drops some of them."""
    config = {"component": "h[1].attn.attn_dropout.input", "intervention": lib.pv.CollectIntervention()}
    return collected(lib, config, lib.batch([BASE]), unit_locations={"base": [0, 1, 2, 3]})


@cases(**names(*COMPONENTS))
def llama_collect(lib, name):
    """Of Llama."""
    model = lib.pv.IntervenableModel(collect(lib, name), model=lib.llama())
    return {"collected": model(lib.batch([BASE]), unit_locations={"base": 3})[0][-1]}


# ------------------------------------------------------------------------------------- functions and classes


@case
def function(lib):
    """A function of the whole activation, by path."""
    mask = lib.array([[[float(position != 3)] * D for position in range(5)]])
    return intervened(lib, {"component": "h[0].mlp.output", "intervention": lambda b, s: b * mask}, lib.batch([BASE]))


@case
def function_of_subspaces(lib):
    """Subspaces are handed to a function as a list for each example."""

    def patch(b, s, sp):
        return b * lib.array([[[float(position != sp[0][0])] * D for position in range(5)]])

    return intervened(lib, {"component": "h[0].mlp.output", "intervention": patch}, lib.batch([BASE]), subspaces=3)


@cases(int=3, pair=(1, 3), several=([[[0, 2]]], [[[4, 1]]]))
def function_of_source(lib, where):
    """A function of base and source at some positions, by name."""
    config = at("mlp_output", intervention=lambda b, s: b + s * 0.5)
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": where})


@case
def function_of_source_everywhere(lib):
    """A function of the whole of both."""
    mask = lib.array([[[float(position < 2)] * D for position in range(5)]])
    config = {"component": "h[1].output", "intervention": lambda b, s: b * (1.0 - mask) + s * mask}
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])])


@case
def function_of_layers(lib):
    """One function for all layers."""
    halve = lambda b, s: b * 0.5
    return intervened(lib, [at("mlp_output", i, intervention=halve) for i in LAYERS], lib.batch([BASE]), unit_locations={"base": 3})


@case
def function_of_attention(lib):
    """A function of attention's matrices."""
    config = {"component": "h[1].attn.attn_dropout.input", "intervention": lambda b, s: b * 0.5}
    return intervened(lib, config, lib.batch([BASE]))


@case
def function_of_head(lib):
    """A function of one head: examples, heads, positions, dimensions."""
    seen = {}

    def patch(b, s):
        seen["seen"] = b + 0.0
        return b * 2.0

    config = at("head_query_output", unit="h.pos", intervention=patch)
    return {**intervened(lib, config, lib.batch([BASE]), unit_locations={"base": lib.pv.GET_LOC((2, 3))}), **seen}


@case
def function_of_nothing(lib):
    """A function that returns None only looks, here at what an addition below has changed."""
    seen = {}

    def look(b, s):
        seen["seen"] = b + 0.0

    add = lib.pv.AdditionIntervention(source_representation=lib.array(ramp(D)))
    config = [at("block_output", 0, intervention=add), at("mlp_output", 2, intervention=look)]
    return {**intervened(lib, config, lib.batch([BASE]), unit_locations={"base": [[[1]], [[0, 3]]]}), **seen}


@case
def llama_function(lib):
    """A function of a module of Llama."""
    config = {"component": "model.layers[1].mlp.output", "intervention": lambda b, s: b * 1.5 + s}
    return intervened_llama(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


@case
def user_constant(lib):
    """A class of one's own without a source."""

    class Multiplier(lib.pv.ConstantSourceIntervention):
        def __init__(self, **kwargs):
            super().__init__()

        def forward(self, base, source=None, subspaces=None, **kwargs):
            return base * 3.0

    return intervened(lib, {"intervention_type": Multiplier}, base=lib.batch([BASE]), unit_locations={"base": 3})


@case
def user_instance(lib):
    """An instance of one's own class with a setting, at all positions of a module."""

    class Multiplier(lib.pv.ConstantSourceIntervention):
        def __init__(self, factor, **kwargs):
            super().__init__(**kwargs, keep_last_dim=True)
            self.factor = factor

        def forward(self, base, source=None, subspaces=None, **kwargs):
            return base * self.factor

    return intervened(lib, {"component": "h[1].mlp.output", "intervention": Multiplier(0.25)}, lib.batch([BASE]))


@cases(joined={}, kept_apart={"keep_last_dim": True})
def user_units(lib, settings):
    """What a class of one's own is handed of two positions: one long vector, unless it keeps the last dimension."""
    seen = {}

    class Mix(lib.pv.BasisAgnosticIntervention):
        def forward(self, base, source=None, subspaces=None, **kwargs):
            seen["seen"] = base + 0.0
            return base + (source - base) * 0.5

    where = {"sources->base": ([[[4, 2]]], [[[0, 3]]])}
    outputs = intervened(lib, at("block_output", 0, intervention=Mix(**settings)), lib.batch([BASE]), [lib.batch([SOURCE])], where)
    return {**outputs, **seen}


@case
def user_trainable(lib):
    """A class of one's own that could be trained, with a source and two parents."""

    class Mix(lib.pv.TrainableIntervention, lib.pv.DistributedRepresentationIntervention):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.width = int(self.embed_dim)

        def forward(self, base, source, subspaces=None, **kwargs):
            return base + (source - base) * lib.array(ramp(self.width))

    config = at("mlp_activation", intervention_type=Mix)
    return intervened(lib, config, lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": (1, 3)})


def happy(lib):
    """An addition that is told how much by its subspaces."""
    vector = lib.array(ramp(D))

    class Happy(lib.pv.ConstantSourceIntervention):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, keep_last_dim=True)

        def forward(self, base, source=None, subspaces=None, **kwargs):
            return base + vector * subspaces["mag"]

    part = {"layer": 1, "component": "transformer.h[1].output", "low_rank_dimension": 1, "intervention": Happy(embed_dim=D)}
    return lib.pv.IntervenableModel(lib.pv.IntervenableConfig(representations=[part]), lib.gpt2_lm())


@case
def user_metadata(lib):
    """Subspaces that are a dict are handed on as they are."""
    return {"logits": happy(lib)(lib.batch([BASE]), subspaces=[{"mag": 2.0, "logging": False}])[1].logits}


# ------------------------------------------------------------------------------------- rotations and others


def trained(lib, part, prepare, where=3, **kwargs):
    """An interchange after `prepare` has set the parameters of the only intervention."""
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(part), model=lib.gpt2())
    for intervention in model.interventions.values():
        prepare(intervention)
    outputs = model(lib.batch([BASE, OTHER]), [lib.batch([SOURCE, BASE])], {"sources->base": where}, **kwargs)
    return {"last_hidden_state": outputs[1].last_hidden_state}


@cases(all=None, some=[0, 2], one=1)
def low_rank_rotation(lib, dims):
    """Swaps coordinates along some directions."""
    part = at("block_output", low_rank_dimension=3, intervention_type=lib.pv.LowRankRotatedSpaceIntervention)
    return trained(lib, part, lambda i: lib.set_rotation(i, rotation(D, 3)), subspaces=dims)


@case
def low_rank_rotation_units(lib):
    """Of two positions that are one long vector."""
    kind = lib.pv.LowRankRotatedSpaceIntervention
    part = at("block_output", low_rank_dimension=3, max_number_of_units=2, intervention_type=kind)
    where = ([[[1, 3], [0, 4]]], [[[3, 2], [1, 4]]])
    return trained(lib, part, lambda i: lib.set_rotation(i, rotation(2 * D, 3)), where)


@case
def low_rank_rotation_instance(lib):
    """As an instance, on the activation within the MLP."""
    intervention = lib.pv.LowRankRotatedSpaceIntervention(embed_dim=M, low_rank_dimension=5)
    return trained(lib, at("mlp_activation", intervention=intervention), lambda i: lib.set_rotation(i, rotation(M, 5)))


@case
def rotation_some(lib):
    """A full rotation of which some coordinates are swapped."""
    part = at("block_output", intervention_type=lib.pv.RotatedSpaceIntervention)
    return trained(lib, part, lambda i: lib.set_rotation(i, rotation(D, D)), subspaces=[0, 3, 7])


@case
def rotation_partition(lib):
    """The same by parts of a partition."""
    part = at("block_output", intervention_type=lib.pv.RotatedSpaceIntervention, **PARTITION)
    return trained(lib, part, lambda i: lib.set_rotation(i, rotation(D, D)), subspaces=1)


@case
def boundless(lib):
    """A rotation with a soft boundary."""

    def prepare(i):
        lib.set_rotation(i, rotation(D, D))
        lib.set_parameter(i, "temperature", 3.0)
        lib.set_parameter(i, "intervention_boundaries", [0.375])

    return trained(lib, at("block_output", intervention_type=lib.pv.BoundlessRotatedSpaceIntervention), prepare)


@case
def rotated_mask(lib):
    """A rotation with a soft mask."""

    def prepare(i):
        lib.set_rotation(i, rotation(D, D))
        lib.set_parameter(i, "temperature", 0.5)
        lib.set_parameter(i, "masks", ramp(D))

    return trained(lib, at("block_output", intervention_type=lib.pv.SigmoidMaskRotatedSpaceIntervention), prepare)


@case
def mask(lib):
    """A soft mask without a rotation."""

    def prepare(i):
        lib.set_parameter(i, "temperature", 0.5)
        lib.set_parameter(i, "mask", ramp(D))

    return trained(lib, at("block_output", intervention_type=lib.pv.SigmoidMaskIntervention), prepare)


@case
def pca(lib):
    """Coordinates of a principal component analysis."""
    components, mean, std = rotation(D, 6), ramp(D, 3), [1.0 + x / 2 for x in ramp(D, 4)]
    rows = [list(row) for row in zip(*components)]
    part = lib.pv.PCARotatedSpaceIntervention(embed_dim=D, pca=SimpleNamespace(components_=rows), pca_mean=mean, pca_std=std)

    def prepare(i):
        # pyvene makes them float32, whatever the model is.
        for name, value in (("pca_components", rows), ("pca_mean", mean), ("pca_std", std)):
            lib.set_parameter(i, name, value)

    return trained(lib, at("block_output", intervention=part), prepare, subspaces=[0, 2, 5])


@case
def autoencoder(lib):
    """Latents of an autoencoder."""
    n = 30

    def prepare(i):
        lib.set_parameter(i, "autoencoder.encoder.0.weight", table(n, D, 1))
        lib.set_parameter(i, "autoencoder.encoder.0.bias", ramp(n, 2))
        lib.set_parameter(i, "autoencoder.decoder.0.weight", table(D, n, 3))
        lib.set_parameter(i, "autoencoder.decoder.0.bias", ramp(D, 4))
        i.set_interchange_dim(list(range(0, n, 2)))

    return trained(lib, at("block_output", latent_dim=n, intervention_type=lib.pv.AutoencoderIntervention), prepare)


@case
def jumprelu_autoencoder(lib):
    """Some latents of an autoencoder with thresholds."""
    n = 30

    def prepare(i):
        for name, value in (("W_enc", table(D, n, 1)), ("W_dec", table(n, D, 2)), ("b_enc", ramp(n, 3)), ("b_dec", ramp(D, 4))):
            lib.set_parameter(i, name, value)
        lib.set_parameter(i, "threshold", [abs(x) for x in ramp(n, 5)])

    part = at("block_output", low_rank_dimension=n, intervention_type=lib.pv.JumpReLUAutoencoderIntervention)
    return trained(lib, part, prepare, subspaces=list(range(0, n, 2)))


# --------------------------------------------------------------------------- configurations, outputs, folders


@cases(
    dict=lambda pv: at("mlp_output"),
    list=lambda pv: [at("mlp_output"), at("mlp_output", 2)],
    lists=lambda pv: [[1, "mlp_output", "pos", 1], [2, "mlp_output", "pos", 1]],
    representation=lambda pv: pv.IntervenableConfig(pv.RepresentationConfig(1, "mlp_output", "pos", 1)),
    representations=lambda pv: pv.IntervenableConfig([pv.RepresentationConfig(i, "mlp_output") for i in LAYERS], pv.AdditionIntervention),
    types=lambda pv: pv.IntervenableConfig([at("mlp_output"), at("mlp_output", 2)], [pv.SubtractionIntervention, pv.VanillaIntervention]),
    own_types=lambda pv: [at("mlp_output", intervention_type=pv.SubtractionIntervention), at("mlp_output", 2, intervention_type=pv.ZeroIntervention)],
    instance=lambda pv: pv.IntervenableConfig([at("mlp_output", intervention=pv.AdditionIntervention())]),
    default=lambda pv: pv.IntervenableConfig(),
)  # fmt: skip
def config(lib, make):
    """Configurations as dicts, lists, RepresentationConfig, with types apart or within, or none at all."""
    return intervened(lib, make(lib.pv), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 3})


@case
def config_mixed(lib):
    """Interventions with and without a source."""
    parts = [
        at("mlp_output", 0, intervention_type=lib.pv.AdditionIntervention, source_representation=lib.array(ramp(D))),
        at("block_output", 1, intervention_type=lib.pv.VanillaIntervention),
        at("attention_output", 2, intervention_type=lib.pv.ZeroIntervention),
    ]
    return intervened(lib, parts, lib.batch([BASE]), [None, lib.batch([SOURCE]), None], {"sources->base": 3})


@case
def outputs_pair(lib):
    """The original output comes first if it is asked for."""
    model = lib.pv.IntervenableModel(at("block_output", 0), model=lib.gpt2())
    where = {"sources->base": ([[[3]]], [[[3]]])}
    original, edited = model(lib.batch([BASE]), [lib.batch([SOURCE])], where, output_original_output=True)
    return {"original": original.last_hidden_state, "last_hidden_state": edited.last_hidden_state}


@case
def outputs_by_name(lib):
    """return_dict gives them names, with what is collected."""
    parts = [at("block_output", 0, intervention_type=lib.pv.VanillaIntervention), collect(lib, "mlp_output", 2)]
    model = lib.pv.IntervenableModel(parts, model=lib.llama() if False else lib.gpt2())
    sources = [lib.batch([SOURCE]), None]
    outputs = model(lib.batch([BASE]), sources, {"sources->base": 3}, return_dict=True, output_original_output=True)
    return {
        "original": outputs.original_outputs.last_hidden_state,
        "last_hidden_state": outputs.intervened_outputs.last_hidden_state,
        "collected": outputs.collected_activations[0],
    }


@case
def distribution(lib):
    """The distribution that an edited last position predicts."""
    edited = intervened(lib, at("block_output", 2), lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 4})
    return {"probabilities": lib.pv.embed_to_distrib(lib.gpt2(), edited["last_hidden_state"], logits=False)}


def reloaded(lib, model, prepare=lambda i: None):
    """A model saved to a folder and loaded from it."""
    for intervention in model.interventions.values():
        prepare(intervention)
    folder = lib.tmp()
    model.save(folder)
    return lib.pv.IntervenableModel.load(folder, model=lib.gpt2())


@case
def saved_zero(lib):
    """Interventions are saved to a folder and loaded from it."""
    model = reloaded(lib, lib.pv.IntervenableModel({"intervention_type": lib.pv.ZeroIntervention}, model=lib.gpt2()))
    return {"last_hidden_state": model(lib.batch([BASE]), unit_locations={"base": 3})[1].last_hidden_state}


@case
def saved_constant(lib):
    """Constants are saved too."""
    vectors = [lib.array(ramp(D, i)) for i in LAYERS]
    parts = [at("mlp_output", i, intervention_type=lib.pv.AdditionIntervention, source_representation=v) for i, v in zip(LAYERS, vectors)]
    model = reloaded(lib, lib.pv.IntervenableModel(parts, model=lib.gpt2()))
    return {"last_hidden_state": model(lib.batch([BASE]), unit_locations={"base": 3})[1].last_hidden_state}


@case
def saved_group(lib):
    """Groups and units are saved; sources are not."""
    parts = [at("head_attention_value_output", unit="h.pos", group_key=0), at("mlp_output", group_key=1), at("block_output", 2, group_key=1)]
    model = reloaded(lib, lib.pv.IntervenableModel(lib.pv.IntervenableConfig(parts), model=lib.gpt2()))
    where = [[[[2]], [[3]]], [[1]], [[4]]]
    outputs = model(lib.batch([BASE]), [lib.batch([SOURCE]), lib.batch([OTHER])], {"sources->base": (where, where)})
    return {"last_hidden_state": outputs[1].last_hidden_state}


@case
def saved_rotation(lib):
    """Trained parameters are saved."""
    part = at("block_output", low_rank_dimension=3, intervention_type=lib.pv.LowRankRotatedSpaceIntervention)
    model = lib.pv.IntervenableModel(lib.pv.IntervenableConfig(part), model=lib.gpt2())
    model = reloaded(lib, model, lambda i: lib.set_rotation(i, rotation(D, 3)))
    return {"last_hidden_state": model(lib.batch([BASE]), [lib.batch([SOURCE])], {"sources->base": 3})[1].last_hidden_state}


# -------------------------------------------------------------------------------------------- generation


GREEDY = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
PASSES = {
    "all": {"unit_locations": None, "intervene_on_prompt": True},
    "prompt": {"unit_locations": {"base": 4}, "intervene_on_prompt": True},
    "steps": {},
}


@cases(**PASSES)
def generate(lib, passes):
    """Greedy text under an addition in all layers: in all passes, of the prompt only, or after it only."""
    parts = [at("mlp_output", i, intervention_type=lib.pv.AdditionIntervention) for i in LAYERS]
    model = lib.pv.IntervenableModel(parts, model=lib.gpt2_lm())
    return {"ids": model.generate(lib.batch([BASE]), source_representations=lib.array(ramp(D)) * 3.0, **passes, **GREEDY)[1]}


@cases(**PASSES)
def llama_generate(lib, passes):
    """The same of Llama, for two examples."""
    parts = [at("mlp_output", i, intervention_type=lib.pv.AdditionIntervention) for i in range(2)]
    model = lib.pv.IntervenableModel(parts, model=lib.llama())
    return {"ids": model.generate(lib.batch([BASE, OTHER]), source_representations=lib.array(ramp(32)) * 3.0, **passes, **GREEDY)[1]}


@case
def generate_beside(lib):
    """The unedited text too, if it is asked for."""
    model = lib.pv.IntervenableModel(at("block_output", intervention_type=lib.pv.ZeroIntervention), model=lib.gpt2_lm())
    original, ids = model.generate(lib.batch([BASE]), unit_locations={"base": 4}, intervene_on_prompt=True, output_original_output=True, **GREEDY)
    return {"original": original, "ids": ids}


@cases(steps={}, prompt={"intervene_on_prompt": True})
def generate_function(lib, passes):
    """A function of the text's activation and a source's."""
    parts = [at("mlp_output", i, intervention=lambda b, s: b + s * 2.0) for i in LAYERS]
    model = lib.pv.IntervenableModel(parts, model=lib.gpt2_lm())
    _, ids = model.generate(lib.batch([BASE]), lib.batch([SOURCE[:1]]), unit_locations={"sources->base": 0}, **passes, **GREEDY)
    return {"ids": ids}


@case
def generate_metadata(lib):
    """A class of one's own, told how much at the call."""
    subspaces = [{"mag": 4.0, "logging": False}]
    _, ids = happy(lib).generate(lib.batch([BASE]), unit_locations=None, intervene_on_prompt=True, subspaces=subspaces, **GREEDY)
    return {"ids": ids}


@case
def llama_generate_honest(lib):
    """Constants of instances, after the prompt."""
    add = lambda i: lib.pv.AdditionIntervention(source_representation=lib.array(ramp(32, i)) * 4.0)
    parts = [{"component": f"model.layers[{i}].self_attn.o_proj.output", "intervention": add(i)} for i in range(2)]
    return {"ids": lib.pv.IntervenableModel(parts, model=lib.llama()).generate(lib.batch([BASE]), **GREEDY)[1]}


# ------------------------------------------------------------------------------ the tutorial of additions


def additions(lib, component, n):
    config = lib.pv.IntervenableConfig(
        model_type=type(lib.gpt2()),
        representations=[lib.pv.RepresentationConfig(i, component, "pos", 1) for i in range(n)],
        intervention_types=lib.pv.AdditionIntervention,
    )
    return lib.pv.IntervenableModel(config, lib.gpt2())


@case
def tutorial_last_position(lib):
    """A token's embedding is added to all MLPs at the last position."""
    embedding = lib.wte(lib.gpt2(), 17)[None, None]
    model = additions(lib, "mlp_output", 3)
    outputs = model(base=lib.batch([BASE]), unit_locations={"sources->base": 4}, source_representations=embedding)
    return {"last_hidden_state": outputs[1].last_hidden_state}


@case
def tutorial_loop(lib):
    """The same up to each layer, at each position, of two components."""
    embedding, base, found = lib.wte(lib.gpt2(), 17)[None, None], lib.batch([BASE]), {}
    for till in LAYERS:
        for component in ("mlp_output", "attention_output"):
            model = additions(lib, component, till + 1)
            for position in range(5):
                outputs = model(base, unit_locations={"sources->base": position}, source_representations=embedding)
                found[f"{component}.{till}.{position}.last_hidden_state"] = outputs[1].last_hidden_state
    return found
