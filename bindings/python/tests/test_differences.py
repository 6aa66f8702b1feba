"""What is done otherwise than pyvene does it, as docs/pyvene-differences.md says: against experiments of our own."""

from contextlib import nullcontext

import causalcone as cc
import causalcone.pyvene as pv
import numpy as np
import pytest
from cases import LEARNED, set_parameters
from common import FIXTURES, Lib, numbers

ROWS = [[5, 11, 23, 42, 7], [9, 31, 2, 58, 17]]
SOURCES = [[44, 3, 29, 12, 36], [1, 2, 3, 4, 5]]
BASE, SOURCE = {"input_ids": np.array(ROWS)}, {"input_ids": np.array(SOURCES)}
WIDTH = 24


@pytest.fixture(scope="module")
def gpt2():
    return pv.create_gpt2_lm(str(FIXTURES / "tiny-gpt2"))[2]


def expected(gpt2, edits, example=0, rows=ROWS, sources=(SOURCES,)):
    """The logits of a base with these edits, by an experiment of our own."""
    exp = cc.Experiment(gpt2.core)
    exp.run(ids=rows[example], name="base")
    for number, one in enumerate(sources):
        exp.run(ids=one[example], name=f"s{number}")
    for edit in edits:
        exp.edit(**({"run": "base"} | edit))
    exp.collect("base", site="logits")
    exp.read("base")
    return exp.activations()[-1].numpy


def check(found, *rows):
    for ours, theirs in zip(numbers(found.logits), rows, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def swap(**more):
    return {"site": "mlp_output", "layers": 1, "op": "swap"} | more


def test_a_list_of_two_units_is_two_units(gpt2):
    model = pv.IntervenableModel(
        {"layer": 1, "component": "mlp_output", "intervention_type": pv.ZeroIntervention}, gpt2
    )
    edit = swap(op="zero", positions=[0, 1])
    check(model(BASE, unit_locations={"base": [0, 1]})[1], expected(gpt2, [edit]), expected(gpt2, [edit], 1))


def test_a_call_leaves_nothing_behind(gpt2):
    model = pv.IntervenableModel({"layer": 1, "component": "mlp_output"}, gpt2)
    model(BASE, SOURCE, {"sources->base": 2})
    by_example = {"sources->base": ([[[1], [2]]], [[[3], [4]]])}
    sources = [SOURCE]
    found = model(BASE, sources, by_example)[1]
    own = [
        expected(gpt2, [swap(positions=[to], value={"run": "s0", "positions": [of]})], example)
        for example, (of, to) in enumerate([(1, 3), (2, 4)])
    ]
    check(found, *own)
    assert sources == [SOURCE] and by_example == {"sources->base": ([[[1], [2]]], [[[3], [4]]])}


def test_subspaces_are_each_examples_own(gpt2):
    model = pv.IntervenableModel({"layer": 1, "component": "mlp_output"}, gpt2)
    found = model(BASE, SOURCE, {"sources->base": 2}, subspaces=[[[0, 1], [5, 6, 7]]])[1]
    own = [
        expected(gpt2, [swap(positions=[2], value={"run": "s0"}, dims=dims)], example)
        for example, dims in enumerate([[0, 1], [5, 6, 7]])
    ]
    check(found, *own)


def test_constants_are_each_examples_own(gpt2):
    model = pv.IntervenableModel({"layer": 1, "component": "mlp_output"}, gpt2)
    given = np.random.default_rng(0).standard_normal((2, 1, WIDTH)).astype(np.float32)
    found = model(BASE, unit_locations={"base": 2}, source_representations=given)[1]
    check(found, *(expected(gpt2, [swap(positions=[2], value=given[e, 0])], e) for e in (0, 1)))


def test_several_units_are_collected_whole(gpt2):
    model = pv.IntervenableModel({"layer": 1, "intervention_type": pv.CollectIntervention}, gpt2)
    (original, (some,)), _ = model(BASE, unit_locations={"base": [0, 2, 3]})
    (_, (all_of_them,)), _ = model(BASE)
    assert numbers(some).shape == (2, 3, WIDTH) and numbers(all_of_them).shape == (2, 5, WIDTH)
    np.testing.assert_array_equal(numbers(some), numbers(all_of_them)[:, [0, 2, 3]])
    assert numbers(original.logits).shape[:2] == (2, 5)


def test_a_function_of_a_part_gets_that_part(gpt2):
    seen = []
    model = pv.IntervenableModel(
        {"layer": 1, "component": "query_output", "intervention": lambda b, s: seen.append(tuple(b.shape))}, gpt2
    )
    model(BASE)
    assert seen == [(2, 5, WIDTH)]


def test_what_a_function_changes_in_place_is_its_own(gpt2):
    def changing(b, s):
        b[:, 0] = 0
        s[:] = 0
        return b

    model = pv.IntervenableModel([{"layer": 1, "component": "mlp_output", "intervention": changing}], gpt2)
    for _ in range(2):
        found = model(BASE, SOURCE, {"sources->base": [1, 2, 3]})[1]
        edit = swap(op="zero", positions=[1])
        check(found, expected(gpt2, [edit]), expected(gpt2, [edit], 1))
    assert BASE["input_ids"].tolist() == ROWS and SOURCE["input_ids"].tolist() == SOURCES


def test_linked_places_edit_their_own_activations(gpt2):
    place = {"component": "mlp_output", "intervention_type": pv.AdditionIntervention, "intervention_link_key": 0}
    model = pv.IntervenableModel([place | {"layer": 0}, place | {"layer": 2}], gpt2)
    vector = np.linspace(-1, 1, WIDTH, dtype=np.float32)
    found = model(BASE, unit_locations={"base": 2}, source_representations=vector)[1]
    edits = [swap(op="add", layers=layer, positions=[2], value=vector) for layer in (0, 2)]
    check(found, expected(gpt2, edits), expected(gpt2, edits, 1))


def test_groups_in_serial_mode(gpt2):
    places = [
        {"layer": layer, "component": component, "group_key": group}
        for group, component in enumerate(("mlp_output", "attention_output"))
        for layer in (0, 1)
    ]
    model = pv.IntervenableModel(pv.IntervenableConfig(places, mode="serial"), gpt2)
    other = {"input_ids": np.array([[8, 7, 6, 5, 4], [21, 22, 23, 24, 25]])}
    lists = lambda position: [[[position]] * 2] * 2
    where = {"source_0->source_1": (lists(1), lists(2)), "source_1->base": (lists(2), lists(3))}
    found = model(BASE, [SOURCE, other], where)[1]
    edits = [
        swap(run="s1", layers=[0, 1], positions=[2], value={"run": "s0", "positions": [1]}),
        swap(site="attention_output", layers=[0, 1], positions=[3], value={"run": "s1", "positions": [2]}),
    ]
    sources = (SOURCES, other["input_ids"].tolist())
    check(found, expected(gpt2, edits, 0, sources=sources), expected(gpt2, edits, 1, sources=sources))


def test_all_latents_are_exchanged(gpt2):
    model = pv.IntervenableModel(
        {"layer": 1, "component": "mlp_output", "intervention_type": pv.AutoencoderIntervention, "latent_dim": 7}, gpt2
    )
    (intervention,) = model.interventions.values()
    found = model(BASE, SOURCE, {"sources->base": 2})[1]
    tensors = {name: numbers(one).copy() for name, one in intervention.tensors().items()}
    edit = swap(op="autoencoder_swap", positions=[2], value={"run": "s0"}, parameters=tensors)
    check(found, expected(gpt2, [edit]), expected(gpt2, [edit], 1))


def test_noise_of_any_number_of_positions(gpt2):
    model = pv.IntervenableModel({"component": "block_input", "intervention_type": pv.NoiseIntervention}, gpt2)
    found = model(BASE, unit_locations={"base": [0, 1, 2]})[1]
    edit = {"site": "block_input", "layers": 0, "op": "noise", "positions": [0, 1, 2], "level": 0.13462981581687927}
    check(found, *(expected(gpt2, [edit | {"seed": 1}], example) for example in (0, 1)))


def test_sources_of_texts_that_grow_have_their_own_units(gpt2):
    happy = {"input_ids": np.array([[8, 7, 6]])}
    base = {"input_ids": np.array([ROWS[0]])}
    for op, kind in (("add", pv.AdditionIntervention), ("add", lambda b, s: b + s)):
        which = {"intervention": kind} if not isinstance(kind, type) else {"intervention_type": kind}
        model = pv.IntervenableModel([{"layer": 1, "component": "mlp_output"} | which], gpt2)
        for where in (1, (1, 0), ([[[1]]], [[[0]]])):
            with pytest.raises(cc.InputError) if where == 1 else nullcontext():
                ids = numbers(
                    model.generate(base, happy, {"sources->base": where}, max_new_tokens=5, eos_token_id=-1)[1]
                )
            if where == 1:
                continue
            exp = cc.Experiment(gpt2.core)
            exp.run(ids=ROWS[0], name="base")
            exp.run(ids=[8, 7, 6], name="happy")
            value = {"run": "happy", "positions": [1]}
            exp.edit("base", site="mlp_output", layers=1, op=op, value=value, steps="decode")
            exp.read("base")
            assert ids[0, 5:].tolist() == exp.generate(max_tokens=5, eos=False).counterfactual.ids


def test_negative_positions_count_from_the_end(gpt2):
    model = pv.IntervenableModel({"layer": 1, "component": "mlp_output"}, gpt2)
    ours, theirs = (model(BASE, SOURCE, {"sources->base": where})[1] for where in (-1, 4))
    np.testing.assert_array_equal(numbers(ours.logits), numbers(theirs.logits))


def test_rows_kept_change_no_answer(gpt2):
    rng = np.random.default_rng(0)
    vectors = [rng.standard_normal(WIDTH).astype(np.float32) for _ in range(3)]
    calls = [
        (layers, int(position), int(which), int(source))
        for layers, position, which, source in zip(
            rng.integers(1, 4, 60), rng.integers(0, 5, 60), rng.integers(0, 3, 60), rng.integers(0, 2, 60)
        )
    ]

    def answer(layers, position, which, source):
        model = pv.IntervenableModel([{"layer": layer, "component": "mlp_output"} for layer in range(layers)], gpt2)
        where = {"sources->base": position}
        if source:
            return numbers(model(BASE, SOURCE, where)[1].logits)
        return numbers(model(BASE, unit_locations=where, source_representations=vectors[which])[1].logits)

    gpt2.core.keep = 0
    alone = [answer(*call) for call in calls]
    # Much, and so little that what is kept is dropped again and again.
    for keep in (64 << 20, 100_000):
        gpt2.core.keep = keep
        for call, theirs in zip(calls, alone):
            np.testing.assert_allclose(answer(*call), theirs, atol=1e-5)
        assert 0 < gpt2.core.kept <= keep
    gpt2.core.keep = 64 << 20


def test_a_collect_of_ones_own_gives_what_it_makes(gpt2):
    class Doubled(pv.CollectIntervention):
        def forward(self, base, source=None, subspaces=None):
            return base[..., :3] * 2

    plain = pv.IntervenableModel([{"layer": 1, "intervention_type": pv.CollectIntervention}], gpt2)
    own = pv.IntervenableModel([{"layer": 1, "intervention": Doubled(keep_last_dim=True)}], gpt2)
    where = {"base": [1, 2]}
    joined = pv.IntervenableModel([{"layer": 1, "intervention": Doubled()}], gpt2)
    with pytest.raises(cc.InputError, match="cannot be divided"):
        joined(BASE, unit_locations=where)
    expected_rows = 2 * numbers(plain(BASE, unit_locations=where)[0][1][0])[..., :3]
    np.testing.assert_allclose(numbers(own(BASE, unit_locations=where)[0][1][0]), expected_rows, atol=1e-6)
    (only,) = plain.interventions.values()
    only.set_interchange_dim(4)
    assert numbers(plain(BASE, unit_locations=where)[0][1][0]).shape == (2, 2, 4)


@pytest.mark.parametrize("name", sorted(LEARNED))
def test_an_intervention_by_itself_is_the_one_in_a_model(gpt2, name):
    kind, settings, parameters, dims = LEARNED[name]
    intervention = getattr(pv, kind)(embed_dim=WIDTH, **settings)
    set_parameters(Lib(), intervention, parameters)
    where = {"sources->base": 2}
    answers = []
    for one in (intervention, lambda b, s, subspaces=None: intervention.forward(b[:, 0], s[:, 0], subspaces)[:, None]):
        model = pv.IntervenableModel([{"layer": 1, "component": "block_output", "intervention": one}], gpt2)
        answers.append(numbers(model(BASE, SOURCE, where, subspaces=dims)[1].logits))
    np.testing.assert_allclose(*answers, atol=1e-4)
    assert np.abs(answers[0] - numbers(gpt2(**BASE).logits)).max() > 1e-3


def test_an_intervention_may_be_replaced_and_call_its_class(gpt2):
    class Twice(pv.VanillaIntervention):
        def forward(self, base, source, subspaces=None):
            return super().forward(base, source * 2, subspaces)

    model = pv.IntervenableModel([{"layer": 1, "component": "mlp_output", "intervention_type": Twice}], gpt2)
    value = {"run": "s0", "positions": [2]}
    found = model(BASE, SOURCE, {"sources->base": 2})[1]
    twice = [swap(positions=[2], value=value), swap(positions=[2], op="scale", scale=2.0)]
    check(found, *(expected(gpt2, twice, example) for example in (0, 1)))
    (key,) = model.sorted_keys
    model.interventions[key] = pv.ZeroIntervention(embed_dim=WIDTH)
    edit = swap(op="zero", positions=[2])
    check(model(BASE, unit_locations={"base": 2})[1], expected(gpt2, [edit]), expected(gpt2, [edit], 1))


def test_constants_of_heads_are_laid_out_as_what_is_collected(gpt2):
    place = {"layer": 1, "component": "head_value_output", "unit": "h.pos", "max_number_of_units": 2}
    where = {"base": [[[[0, 2], [3, 1]], [[0, 3], [1, 4]]]]}
    collect = pv.IntervenableModel([place | {"intervention_type": pv.CollectIntervention}], gpt2)
    rows = numbers(collect(SOURCE, unit_locations=where)[0][1][0])
    assert rows.shape == (2, 2, 2, 6)
    put = pv.IntervenableModel([place], gpt2)
    found = put(BASE, unit_locations=where, source_representations=rows)[1]
    taken = put(BASE, SOURCE, {"sources->base": (where["base"], where["base"])})[1]
    np.testing.assert_allclose(numbers(found.logits), numbers(taken.logits), atol=1e-5)
    whole = {"layer": 1, "component": "attention_weight"}
    read = pv.IntervenableModel([whole | {"intervention_type": pv.CollectIntervention}], gpt2)
    weights = numbers(read(SOURCE)[0][1][0])
    found = pv.IntervenableModel([whole], gpt2)(BASE, source_representations=weights)[1]
    edit = swap(site="attention_weight", value={"run": "s0"})
    check(found, expected(gpt2, [edit]), expected(gpt2, [edit], 1))


def test_heads_are_chosen_in_texts_that_grow(gpt2):
    place = {
        "layer": 1,
        "component": "head_attention_value_output",
        "unit": "h",
        "intervention_type": pv.ZeroIntervention,
    }
    base = {"input_ids": np.array([ROWS[0]])}
    options = {"max_new_tokens": 6, "eos_token_id": -1}
    model = pv.IntervenableModel([place | {"layer": layer} for layer in (0, 1)], gpt2)
    texts = []
    for heads in ([0], [1], [0, 1, 2, 3]):
        where = {"base": [[heads]] * 2}
        ids = numbers(model.generate(base, unit_locations=where, **options)[1])[0, 5:].tolist()
        exp = cc.Experiment(gpt2.core)
        exp.run(ids=ROWS[0])
        exp.edit(site=place["component"], layers=[0, 1], heads=heads, op="zero", steps="decode")
        assert ids == exp.generate(max_tokens=6, eos=False).counterfactual.ids
        texts.append(ids)
    both = pv.IntervenableModel([place | {"unit": "h.pos"}], gpt2)
    assert numbers(both.generate(base, unit_locations={"base": [[[[1]], [[0]]]]}, **options)[1]).shape == (1, 11)
    with pytest.raises(cc.InputError, match="see one"):
        both.generate(base, unit_locations={"base": [[[[1]], [[3]]]]}, **options)


def test_new_tokens_stand_behind_padded_prompts(gpt2):
    padded = np.array([ROWS[0], [0, 0, 9, 31, 2]])
    mask = np.array([[1] * 5, [0, 0, 1, 1, 1]])
    options = {"max_new_tokens": 4, "eos_token_id": -1}
    made = numbers(gpt2.generate(input_ids=padded, attention_mask=mask, **options))
    assert made.shape == (2, 9) and made[:, :5].tolist() == padded.tolist()
    alone = numbers(gpt2.generate(input_ids=np.array([[9, 31, 2]]), **options))
    assert made[1, 5:].tolist() == alone[0, 3:].tolist()


def test_equal_prompts_draw_their_own_texts(gpt2):
    options = {"max_new_tokens": 8, "do_sample": True, "temperature": 5.0, "eos_token_id": -1, "seed": 3}
    four = numbers(gpt2.generate(np.array([[5, 11, 23]] * 4), **options)).tolist()
    assert len({tuple(row) for row in four}) == 4
    assert numbers(gpt2.generate(np.array([[5, 11, 23]]), **options)).tolist() == four[:1]
    for wrong in ({"temperature": 0.0}, {"max_new_tokens": 0}, {"max_new_tokens": 100}, {"max_length": 3}):
        with pytest.raises(cc.InputError):
            gpt2.generate(np.array([[5, 11, 23]]), **{"max_new_tokens": None, "do_sample": True} | wrong)
    gpt2.generate(np.array([[5, 11, 23]]), max_new_tokens=2, num_beams=1, length_penalty=1.0)


def test_edits_of_one_activation_are_made_as_listed(gpt2):
    vector = np.linspace(-1, 1, 6, dtype=np.float32)
    add = {"layer": 1, "component": "head_value_output", "unit": "h.pos", "intervention_type": pv.AdditionIntervention}
    zero = {"layer": 1, "component": "value_output", "intervention_type": pv.ZeroIntervention}
    places = {"h": (add | {"source_representation": vector}, [[[1]] * 2, [[2]] * 2]), "z": (zero, [[2]] * 2)}
    answers = {}
    for order in ("hz", "zh"):
        model = pv.IntervenableModel([places[one][0] for one in order], gpt2)
        answers[order] = model(BASE, unit_locations={"base": [places[one][1] for one in order]})[1]
    first = swap(site="head_value_output", heads=[1], positions=[2], op="add", value=vector)
    second = swap(site="value_output", positions=[2], op="zero")
    for order, edits in (("hz", [first, second]), ("zh", [second, first])):
        check(answers[order], *(expected(gpt2, edits, example) for example in (0, 1)))


def test_a_source_that_a_function_changes_is_its_own(gpt2):
    def changing(b, s):
        s *= 5
        return b + s

    vector = np.ones(WIDTH, dtype=np.float32)
    model = pv.IntervenableModel([{"layer": 1, "component": "mlp_output", "intervention": changing}], gpt2)
    for _ in range(2):
        found = model(BASE, unit_locations={"base": 1}, source_representations=vector)[1]
        edit = swap(op="add", positions=[1], value=5 * vector)
        check(found, expected(gpt2, [edit]), expected(gpt2, [edit], 1))
    assert (vector == 1).all()


def test_labels_beside_the_ids_have_a_loss(gpt2):
    ids, labels = np.array([[0, 0, 5, 11, 23], ROWS[0]]), np.array([[3, 3, 5, 11, 23], [-100] * 5])
    mask = np.array([[0, 0, 1, 1, 1], [1] * 5])
    model = pv.IntervenableModel([{"layer": 1, "component": "mlp_output"}], gpt2)
    output = model({"input_ids": ids, "attention_mask": mask, "labels": labels})[0]
    labels[:] = 7
    alone = gpt2(input_ids=np.array([[5, 11, 23]]), labels=np.array([[5, 11, 23]]))
    np.testing.assert_allclose(float(output.loss), float(alone.loss), atol=1e-5)
    assert output.keys() == ["loss", "logits"]
    numbers(output.last_hidden_state)[:] = 0
    assert np.abs(numbers(output.logits)[1]).max() > 0.1


def test_chains_with_a_link_missing_are_refused(gpt2):
    places = [{"layer": layer, "component": "mlp_output"} for layer in (0, 1)]
    model = pv.IntervenableModel(pv.IntervenableConfig(places, mode="serial"), gpt2)
    for sources, where in [
        ([SOURCE, None], {"source_0->source_1": 1, "source_1->base": 1}),
        ([SOURCE, SOURCE], {"source_0->source_1": 1}),
    ]:
        with pytest.raises(cc.InputError):
            model(BASE, sources, where)
    vector = np.ones(WIDTH, dtype=np.float32)
    found = model(BASE, unit_locations={"base": 2}, source_representations=vector)[1]
    edits = [swap(layers=layer, positions=[2], value=vector) for layer in (0, 1)]
    check(found, expected(gpt2, edits), expected(gpt2, edits, 1))


def test_nothing_that_is_asked_for_is_left_out_in_silence(gpt2):
    place = {"layer": 1, "component": "mlp_output"}
    _, tokenizer, _ = pv.create_llama(str(FIXTURES / "tiny-llama-tied"))
    refused = [
        lambda: pv.IntervenableModel([place], gpt2, nonsense=3),
        lambda: pv.IntervenableModel([place | {"moe_key": 1}], gpt2),
        lambda: pv.IntervenableModel([place | {"unit": "t"}], gpt2),
        lambda: pv.IntervenableModel([place], gpt2).save("never", include_model=True),
        lambda: pv.IntervenableModel([place], gpt2)(BASE, SOURCE, {"sources->base": 1}, subspaces=[[[0], [1], [2]]]),
        lambda: pv.IntervenableModel([place | {"component": "head_value_output", "unit": "h.pos"}], gpt2)(
            BASE, SOURCE, {"sources->base": 1}
        ),
        lambda: tokenizer("T", text_pair="The"),
        lambda: tokenizer("T", return_offsets_mapping=True),
        lambda: tokenizer(["T"], is_split_into_words=True),
        lambda: tokenizer([]),
        lambda: gpt2(input_ids=np.array([[1, 2]]), attention_mask=np.ones((1, 3))),
        lambda: gpt2(input_ids=np.array([[1, 2]]), labels=np.ones((1, 3))),
    ]
    for call in refused:
        with pytest.raises((cc.InputError, NotImplementedError)):
            call()
    assert tokenizer.encode("The capital", truncation=True, max_length=1) == tokenizer.encode("The capital")[:1]
    assert tokenizer(["T", "The capital"], padding="do_not_pad").input_ids[0] == tokenizer.encode("T")
