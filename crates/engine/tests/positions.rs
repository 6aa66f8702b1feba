//! Every way to write which layers, heads, positions and dimensions are meant, against the plain way;
//! how the lists of an edit and of its value pair up; and the order edits are made in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::generate::Generation;
use causalcone_engine::{Experiment, Explanation, Op, PreparedSweep, Runtime};
use causalcone_model::{Layout, Model, Site};
use common::*;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const SHORT: [u32; 4] = [49, 28, 31, 17];
const LONG: [u32; 6] = [3, 14, 15, 9, 26, 5];

/// One run to edit, and two to take from.
fn runs(edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": SHORT}, "long": {"ids": LONG}, "mid": {"ids": [7, 8, 9, 10]}},
           "edit": edits})
}

/// Both ways of writing edits do the same to the bit, and something.
fn check_same(model: &Model, written: &Value, plain: &Value) {
    let [a, b, clean] = [written, plain, &json!([])].map(|edits| everything(model, &runs(edits), "base"));
    assert!(a == b, "{}: {written} is not {plain}", model.name());
    assert!(a != clean, "{}: {written} does nothing", model.name());
}

#[test]
fn positions_mean_what_they_say() {
    let check = |form: Value, expected: Value| {
        for name in MODELS {
            for (site, layer) in [(Site::MlpOutput, Some(1)), (Site::Embedding, None)] {
                let of = |positions: &Value| {
                    let mut edit =
                        edit(site, layer, &json!({"op": "add", "value": {"values": 2.0}, "dims": "1.."}));
                    edit["positions"] = positions.clone();
                    json!([edit])
                };
                check_same(model(name), &of(&form), &of(&expected));
                let mut read = of(&form);
                read[0] = with(&read[0], &json!({"op": "collect", "value": null}));
                let outcome = experiment(model(name), &runs(&read)).unwrap().execute().unwrap();
                assert_eq!(json!(outcome.collected()[0].place.positions), expected, "{form}");
            }
        }
    };
    check(json!("all"), json!([0, 1, 2, 3]));
    check(json!("last"), json!([3]));
    check(json!(2), json!([2]));
    check(json!(-1), json!([3]));
    check(json!(-4), json!([0]));
    check(json!([3, 0]), json!([3, 0]));
    check(json!([-1, 1]), json!([3, 1]));
    check(json!("1..3"), json!([1, 2]));
    check(json!("1..=3"), json!([1, 2, 3]));
    check(json!("2.."), json!([2, 3]));
    check(json!("..2"), json!([0, 1]));
    check(json!(".."), json!([0, 1, 2, 3]));
    check(json!("-2.."), json!([2, 3]));
    check(json!("-3..-1"), json!([1, 2]));
    check(json!("-3..=-1"), json!([1, 2, 3]));
    check(json!("1..-1"), json!([1, 2]));
    // Left out: all.
    for name in MODELS {
        let of = |more: Value| json!([with(&json!({"site": "embedding", "op": "zero"}), &more)]);
        check_same(model(name), &of(json!({})), &of(json!({"positions": [0, 1, 2, 3]})));
    }
}

#[test]
fn tokens_are_found_in_the_run() {
    // The, capital, of, a space, Sp, ain, is
    let model = model("tiny-llama-tied");
    let of = |run: &str, prompt: &str, positions: &Value| {
        let mut written = json!({"edit": [{"site": "embedding", "op": "collect", "positions": positions}]});
        written["runs"][run] = json!({"prompt": prompt});
        let outcome = experiment(model, &written).unwrap().execute_with(&Runtime::reference()).unwrap();
        json!(outcome.collected()[0].place.positions)
    };
    for (form, expected) in [
        (json!({"token": " Spain"}), json!([3, 4, 5])),
        (json!({"token": " Spain", "which": "first"}), json!([3])),
        (json!({"token": " Spain", "which": "last"}), json!([5])),
        (json!({"token": "The"}), json!([0])),
        (json!({"token": " capital of"}), json!([1, 2])),
    ] {
        assert_eq!(of("base", "The capital of Spain is", &form), expected, "{form}");
    }
    assert_eq!(of("base", "of Spain", &json!({"token": " Spain", "which": "last"})), json!([3]));
}

#[test]
fn positions_of_a_value_are_those_of_its_run_or_of_the_edit() {
    let check = |base: Value, value: Value, ours: Value, theirs: Value| {
        for name in MODELS {
            let of = |ours: &Value, theirs: &Value| {
                let mut edit = json!({"site": "block_output", "layers": 0, "op": "swap", "run": "base",
                                      "positions": ours, "value": {"run": "long"}});
                if !theirs.is_null() {
                    edit["value"]["positions"] = theirs.clone();
                }
                json!([edit])
            };
            check_same(model(name), &of(&base, &value), &of(&ours, &theirs));
        }
    };
    // The base has 4 positions and the value's run 6. Unnamed, they are the edit's:
    check(json!([2, 0]), json!(null), json!([2, 0]), json!([2, 0]));
    check(json!("1.."), json!(null), json!([1, 2, 3]), json!([1, 2, 3]));
    check(json!("..2"), json!(null), json!([0, 1]), json!([0, 1]));
    // "last" and what counts from the end are looked for in each run:
    check(json!("last"), json!(null), json!([3]), json!([5]));
    check(json!(-2), json!(null), json!([2]), json!([4]));
    check(json!("-2.."), json!(null), json!([2, 3]), json!([4, 5]));
    check(json!([0, -1]), json!(null), json!([0, 3]), json!([0, 5]));
    // Named, they pair up in order, or one serves all:
    check(json!("all"), json!("last"), json!([0, 1, 2, 3]), json!([5]));
    check(json!([3, 1]), json!([0, 5]), json!([1, 3]), json!([5, 0]));
    check(json!("last"), json!(5), json!([3]), json!([-1]));
    check(json!("..=1"), json!("4..=5"), json!([0, 1]), json!([4, 5]));

    // Tokens are looked for in each run as well.
    let model = model("tiny-llama-tied");
    let of = |positions: Value, theirs: Value| {
        let written = json!({
            "runs": {"base": {"prompt": "The capital of Spain is"}, "other": {"prompt": "is Spain"}},
            "edit": [{"site": "block_output", "layers": 0, "op": "swap", "run": "base", "positions": positions,
                      "value": {"run": "other", "positions": theirs}}]});
        let mut written = written;
        if written["edit"][0]["value"]["positions"].is_null() {
            written["edit"][0]["value"] = json!({"run": "other"});
        }
        everything(model, &written, "base")
    };
    assert!(of(json!({"token": " Spain"}), json!(null)) == of(json!([3, 4, 5]), json!([1, 2, 3])));
    assert!(of(json!([3, 4, 5]), json!({"token": " Spain"})) == of(json!([3, 4, 5]), json!([1, 2, 3])));
    assert!(of(json!([0]), json!({"token": " Spain", "which": "last"})) == of(json!(0), json!(3)));
}

#[test]
fn all_positions_of_runs_of_different_lengths_need_an_align() {
    // base is 49 28 31 17, long 3 14 15 9 26 5; shifted has two tokens more before those of base, other ones between.
    let shifted = [3, 49, 28, 9, 5, 17];
    let written = |edits: &Value| {
        let mut written = runs(edits);
        written["runs"]["shifted"] = json!({"ids": shifted});
        written["runs"]["short"] = json!({"ids": [28, 31]});
        written
    };
    let op = |value: Value, more: &Value| {
        let swap =
            json!({"site": "block_output", "layers": [0, 1], "op": "swap", "run": "base", "value": value});
        json!([with(&swap, more)])
    };
    let align = |run: &str, align: &str| op(json!({"run": run, "align": align}), &json!({}));
    for name in MODELS {
        let model = model(name);
        let of = |edits: &Value| everything(model, &written(edits), "base");
        let paired = |run: &str, ours: &Value, theirs: &Value| {
            of(&op(json!({"run": run, "positions": theirs}), &json!({"positions": ours})))
        };
        let all = json!([0, 1, 2, 3]);
        assert!(of(&align("long", "left")) == paired("long", &all, &all));
        assert!(of(&align("long", "right")) == paired("long", &all, &json!([2, 3, 4, 5])));
        assert!(of(&align("shifted", "tokens")) == paired("shifted", &json!([0, 1, 3]), &json!([1, 2, 5])));
        assert!(of(&align("short", "tokens")) == paired("short", &json!([1, 2]), &json!([0, 1])));
        // Runs of the same length pair index to index without it.
        assert!(of(&op(json!({"run": "mid"}), &json!({}))) == paired("mid", &all, &all));
        assert!(of(&align("mid", "right")) == paired("mid", &all, &all));
        let both = json!({"run": "long", "align": "left", "positions": "all"});
        assert!(of(&op(both, &json!({"positions": "all"}))) == paired("long", &all, &all));
    }

    let model = model("tiny-llama-tied");
    let refuse = |edits: &Value, words: &[&str]| refused(experiment(model, &written(edits)), words);
    let wrong = ["positions \"all\"", "\"base\" has 4 tokens", "\"long\" has 6", "align = \"tokens\""];
    refuse(&op(json!({"run": "long"}), &json!({})), &wrong);
    refuse(&op(json!({"run": "long"}), &json!({"positions": "all"})), &wrong);
    refuse(&op(json!({"run": "long", "positions": "all"}), &json!({})), &wrong);
    refuse(&op(json!({"run": "long", "positions": "all"}), &json!({"positions": "0..4"})), &wrong[..3]);
    refuse(&op(json!({"run": "long"}), &json!({"op": "add"})), &wrong);
    refuse(&op(json!({"run": "short"}), &json!({})), &["\"short\" has 2"]);
    refuse(&align("short", "left"), &["positions 2 to 3 of run \"base\"", "positions = \"..2\""]);
    refuse(&align("short", "right"), &["positions 0 to 1 of run \"base\"", "positions = \"-2..\""]);
    refuse(&align("mid", "tokens"), &["no token in common"]);
    // Where it means nothing:
    for more in
        [json!({"positions": "last"}), json!({"positions": [0, 1, 2, 3]}), json!({"positions": "0.."})]
    {
        refuse(&op(json!({"run": "long", "align": "left"}), &more), &["align = \"left\" only applies"]);
    }
    let one = json!({"run": "long", "align": "left", "positions": 0});
    refuse(&op(one, &json!({})), &["align = \"left\" only applies"]);
    refuse(
        &op(json!({"values": 1.0, "align": "left"}), &json!({})),
        &["align of a value need value = { run"],
    );
    refused(
        causalcone_engine::ExperimentFile::from_json(&written(&align("long", "middle")).to_string()),
        &["middle", "left", "right", "tokens"],
    );
}

/// Sweeps go over the positions that pair; a prompt that grows is aligned as it is, and decode steps are not.
#[test]
fn aligned_positions_are_swept_and_generated_from() {
    let model = model("tiny-llama-tied");
    let swap = json!({"run": "base", "site": "block_output", "layers": [0, 1], "op": "swap",
                      "value": {"run": "other", "align": "tokens"}});
    let runs = json!({"base": {"ids": [49, 28, 31, 17]}, "other": {"ids": [49, 9, 28, 5, 17]}});
    let written = json!({"runs": runs, "edit": [swap], "read": {"run": "base", "tokens": [7]}});
    let swept = with(&written, &json!({"sweep": {"positions": "each"}}));
    let result =
        PreparedSweep::new(&experiment(model, &swept).unwrap()).unwrap().run(&Runtime::reference()).unwrap();
    let positions: Vec<_> = result.cells.iter().map(|at| at.position).collect();
    assert_eq!(positions, [Some(0), Some(1), Some(3)]);
    for (cell, (ours, theirs)) in [(0, 0), (1, 2), (3, 4)].into_iter().enumerate() {
        let one = json!({"positions": ours, "value": {"run": "other", "positions": theirs}});
        let one = with(&written, &json!({"edit": [with(&swap, &one)]}));
        let one = experiment(model, &one).unwrap().execute_with(&Runtime::reference()).unwrap();
        let read = experiment(model, &written).unwrap().find_run("base", "test").unwrap();
        let (value, prob) = (result.values[cell][0].unwrap(), one.counterfactual(read).distribution.prob(7));
        assert!((value - prob).abs() < 1e-5 * prob, "cell {cell}: {value} is not {prob}");
    }
    let explained = Explanation::new(&experiment(model, &written).unwrap(), &Runtime::reference()).unwrap();
    assert_eq!(explained.alignments[0].pairs, [(0, 0), (1, 2), (3, 4)]);

    let say = |value: Value, more: &Value| {
        let one = with(&with(&swap, &json!({"value": value})), more);
        let one = experiment(model, &with(&written, &json!({"edit": [one]}))).unwrap();
        let options = Generation { max_tokens: 3, eos: false, ..Generation::default() };
        one.generate(&options).map(|texts| texts.counterfactual[0].ids.clone())
    };
    let aligned = say(json!({"run": "other", "align": "tokens"}), &json!({"steps": "prompt"})).unwrap();
    let listed = json!({"run": "other", "positions": [0, 2, 4]});
    assert_eq!(aligned, say(listed, &json!({"positions": [0, 1, 3]})).unwrap());
    refused(say(json!({"run": "other", "align": "tokens"}), &json!({})), &["all positions of run \"other\""]);
}

#[test]
fn runs_of_different_lengths_are_printed_below_each_other() {
    let model = model("tiny-llama-tied");
    let said = |base: &str, other: &str| {
        let written = json!({"runs": {"base": {"prompt": base}, "other run": {"prompt": other}},
            "edit": [{"site": "block_output", "layers": 0, "op": "swap", "run": "base", "value": {"run": "other run"}}]});
        let error = experiment(model, &written).map(|_| ()).unwrap_err().to_string();
        error.split_once('\n').unwrap().1.to_owned()
    };
    let rows = "  \
  base       …  1 _capital  2 _of  3 _      4 Sp  5 ain  6 _is
  other run  …  1 _capital  2 _of  3 _Rome               4 _is";
    assert_eq!(said("The capital of Spain is", "The capital of Rome is"), rows);
    let long = "The capital of Spain is ".repeat(3);
    let rows = said(&long, "Rome is the capital of");
    assert!(rows.lines().count() == 2 && rows.chars().count() < 500 && rows.contains('…'), "{rows}");
}

/// A value's one position serves all of the edit's: as if written out one edit each.
#[test]
fn one_of_a_value_serves_all_of_an_edit() {
    let base = json!({"op": "swap", "run": "base", "site": "head_query_output", "layers": [0, 1],
                      "positions": [3, 1], "heads": [2, 0]});
    for (key, ours, one) in [
        ("layers", json!([0, 1]), json!(1)),
        ("positions", json!([3, 1]), json!(4)),
        ("heads", json!([2, 0]), json!(1)),
    ] {
        for name in MODELS {
            let edit = |ours: &Value| {
                let mut edit = base.clone();
                edit[key] = ours.clone();
                edit["value"] = json!({"run": "long"});
                edit["value"][key] = one.clone();
                edit
            };
            let each: Vec<Value> = ours.as_array().unwrap().iter().map(edit).collect();
            check_same(model(name), &json!([edit(&ours)]), &json!(each));
        }
    }
    // Without `heads`, one head of the value serves every head there is.
    for name in MODELS {
        for site in ["head_query_output", "attention_weight"] {
            let edit = |more: &Value| {
                let base = json!({"op": "swap", "run": "base", "site": site, "layers": 1,
                                  "value": {"run": "mid", "heads": 1}});
                with(&base, more)
            };
            check_same(model(name), &json!([edit(&json!({}))]), &json!([edit(&json!({"heads": "all"}))]));
        }
    }
}

#[test]
fn lists_pair_up_in_the_order_they_are_written() {
    let base = json!({"op": "swap", "run": "base", "site": "head_attention_value_output", "layers": [0, 1],
                      "positions": [3, 1], "heads": [2, 0], "value": {"run": "long"}});
    for (key, ours, theirs) in [
        ("layers", [0, 1], [1, 0]),
        ("positions", [3, 1], [0, 5]),
        ("positions", [1, 3], [1, 0]),
        ("heads", [2, 0], [0, 1]),
        ("heads", [3, 1], [2, 3]),
    ] {
        for name in MODELS {
            let edit = |ours: Value, theirs: Value| {
                let mut edit = base.clone();
                edit[key] = ours;
                edit["value"][key] = theirs;
                edit
            };
            let each: Vec<Value> = (0..2).map(|i| edit(json!(ours[i]), json!(theirs[i]))).collect();
            check_same(model(name), &json!([edit(json!(ours), json!(theirs))]), &json!(each));
            let turned = edit(json!([ours[1], ours[0]]), json!([theirs[1], theirs[0]]));
            check_same(model(name), &json!([turned]), &json!(each));
            let straight = everything(model(name), &runs(&json!([edit(json!(ours), json!(ours))])), "base");
            assert!(straight != everything(model(name), &runs(&json!(each)), "base"), "{key} are not paired");
        }
    }
}

#[test]
fn layers_heads_and_dims_mean_what_they_say() {
    let check = |site: &str, key: &str, form: Value, expected: Value| {
        for name in MODELS {
            // The small one has other numbers of layers and heads.
            if name == "tiny-llama-tied" {
                continue;
            }
            let of = |indices: &Value| {
                let mut edit = json!({"site": site, "layers": 1, "op": "scale", "scale": -2.0});
                edit[key] = indices.clone();
                json!([edit])
            };
            check_same(model(name), &of(&form), &of(&expected));
        }
    };
    for (form, expected) in [
        (json!("all"), json!([0, 1, 2])),
        (json!(-1), json!([2])),
        (json!([2, 0]), json!([0, 2])),
        (json!("0..2"), json!([0, 1])),
        (json!("0..=1"), json!([0, 1])),
        (json!("-2.."), json!([1, 2])),
    ] {
        check("block_output", "layers", form, expected);
    }
    for site in ["head_query_output", "head_attention_value_output", "attention_score", "attention_weight"] {
        check(site, "heads", json!("all"), json!([0, 1, 2, 3]));
        check(site, "heads", json!("1..=2"), json!([2, 1]));
        check(site, "heads", json!(-1), json!(3));
    }
    // Key and value heads are counted to K: 4 on this GPT-2, 2 on this Llama.
    for site in ["head_key_output", "head_value_output"] {
        check(site, "heads", json!(1), json!([1]));
        check(site, "heads", json!("..2"), json!([1, 0]));
    }
    for site in ["mlp_hidden", "head_value_output", "attention_weight", "block_input"] {
        check(site, "dims", json!("1..=2"), json!([2, 1]));
        check(site, "dims", json!(-1), json!([-1]));
        check(site, "dims", json!("-3..-1"), json!([-2, -3]));
    }
}

#[test]
fn dims_choose_numbers_of_the_value_too() {
    for name in MODELS {
        let model = model(name);
        for (site, layer) in places(model) {
            let width = shape(model, site, SHORT.len()).1;
            let row = random(5, 1, width, 1.0)[0].clone();
            let of = |dims: Value, values: Value| {
                let op =
                    json!({"op": "swap", "dims": dims, "value": {"values": values}, "positions": [2, 3]});
                json!([edit(site, layer, &op)])
            };
            // A value as wide as the site, or as the subspace.
            check_same(model, &of(json!([2, 0]), row.clone()), &of(json!([2, 0]), json!([row[2], row[0]])));
            check_same(model, &of(json!([2, 0]), row.clone()), &of(json!([0, 2]), json!([row[0], row[2]])));
            // And of a run: dim by dim.
            let taken = |dims: &str| {
                let op = json!({"op": "swap", "dims": dims, "value": {"run": "mid"}, "run": "base"});
                edit(site, layer, &op)
            };
            check_same(model, &json!([taken("0..3")]), &json!([taken("1..3"), taken("..1")]));
        }
    }
}

#[test]
fn a_constant_is_a_number_a_row_or_a_row_a_position() {
    for name in MODELS {
        let model = model(name);
        for (site, layer) in places(model) {
            let width = shape(model, site, SHORT.len()).1;
            let of = |positions: Value, values: Value| {
                let op = json!({"op": "add", "positions": positions, "value": {"values": values}});
                edit(site, layer, &op)
            };
            let rows = random(6, 2, width, 1.0);
            let number = of(json!([1, 3]), json!(0.5));
            // A number on every score of a row cancels in the softmax, but not in the scores.
            check_same(model, &json!([number]), &json!([of(json!([1, 3]), json!(vec![0.5; width]))]));
            check_same(
                model,
                &json!([of(json!([1, 3]), rows[0].clone())]),
                &json!([of(json!(1), rows[0].clone()), of(json!(3), rows[0].clone())]),
            );
            check_same(
                model,
                &json!([of(json!([3, 1]), rows.clone())]),
                &json!([of(json!(1), rows[1].clone()), of(json!(3), rows[0].clone())]),
            );
        }
    }
}

#[test]
fn transformer_lens_names_are_the_sites() {
    for name in MODELS {
        let model = model(name);
        let mut seen = 0;
        for site in Site::all() {
            let Some(lens) = site.lens_name() else { continue };
            seen += 1;
            let lens = lens.replace('N', "1");
            let of = |more: &Value| {
                let base = json!({"op": "swap", "run": "base", "positions": "1..",
                                  "value": {"run": "mid"}});
                json!([with(&base, more)])
            };
            let plain = of(&json!({"site": site.name(), "layers": 1}));
            check_same(model, &of(&json!({"site": lens})), &plain);
            check_same(model, &of(&json!({"site": lens, "layers": 1})), &plain);
            // In a value they name another layer.
            let value = json!({"run": "mid", "site": lens});
            let written = of(&json!({"site": site.name(), "layers": 0, "value": value}));
            let value = json!({"run": "mid", "site": site.name(), "layers": 1});
            check_same(model, &written, &of(&json!({"site": site.name(), "layers": 0, "value": value})));
        }
        assert!(seen >= 10);
    }
}

/// The rows a `collect` edit reads, as values for another experiment.
fn collected(model: &Model, written: &Value, read: &Value) -> Value {
    let mut written = written.clone();
    written["edit"].as_array_mut().unwrap().push(with(read, &json!({"op": "collect"})));
    let outcome = experiment(model, &written).unwrap().execute_with(&Runtime::reference()).unwrap();
    let read = &outcome.collected()[0];
    // Of a head site: positions × 1 × width.
    json!(rows(&if read.place.heads.is_some() {
        read.tensor.squeeze(1).unwrap()
    } else {
        read.tensor.clone()
    }))
}

#[test]
fn a_value_from_another_site_is_that_sites() {
    for (site, of, layer) in [
        ("mlp_output", "attention_output", 1),
        ("block_output", "block_input", 0),
        ("embedding", "block_output", 1),
        ("final_norm", "mlp_input", 0),
        ("query_output", "attention_value_output", 1),
    ] {
        for name in MODELS {
            let layers = if ["embedding", "final_norm"].contains(&site) { json!(null) } else { json!(0) };
            let edit = with(&json!({"site": site, "op": "swap", "run": "base"}), &json!({"layers": layers}));
            let written = with(&edit, &json!({"value": {"run": "mid", "site": of, "layers": layer}}));
            let read = json!({"run": "mid", "site": of, "layers": layer});
            let values = collected(model(name), &runs(&json!([])), &read);
            check_same(
                model(name),
                &json!([written]),
                &json!([with(&edit, &json!({"value": {"values": values}}))]),
            );
        }
    }
    // Heads of one kind into another; key and value heads are counted alike.
    for name in MODELS {
        let edit = json!({"site": "head_key_output", "layers": 1, "heads": 1, "op": "swap", "run": "base"});
        let value = json!({"run": "mid", "site": "head_value_output", "heads": 0});
        let read = json!({"run": "mid", "site": "head_value_output", "layers": 1, "heads": 0});
        let values = collected(model(name), &runs(&json!([])), &read);
        check_same(
            model(name),
            &json!([with(&edit, &json!({"value": value}))]),
            &json!([with(&edit, &json!({"value": {"values": values}}))]),
        );
    }
}

#[test]
fn values_pass_along_a_chain_of_runs() {
    // long → mid → base, at another site each time, and a direct edit of long to begin with.
    for name in MODELS {
        let model = model(name);
        let first = json!({"run": "long", "site": "mlp_output", "layers": 0, "op": "scale", "scale": 3.0});
        let second =
            json!({"run": "mid", "site": "block_output", "layers": 0, "op": "swap", "positions": "last"});
        let third = json!({"run": "base", "site": "value_output", "layers": 1, "op": "add", "positions": [1, 3],
                           "scale": -2.0});
        let chain = [
            first.clone(),
            with(&second, &json!({"value": {"run": "long"}})),
            with(&third, &json!({"value": {"run": "mid", "positions": [3, 2]}})),
        ];
        let read = json!({"run": "long", "site": "block_output", "layers": 0, "positions": "last"});
        let given = collected(model, &runs(&json!([first])), &read);
        let second = with(&second, &json!({"value": {"values": given}}));
        let read = json!({"run": "mid", "site": "value_output", "layers": 1, "positions": [3, 2]});
        let given = collected(model, &runs(&json!([second])), &read);
        let third = with(&third, &json!({"value": {"values": given}}));
        check_same(model, &json!(chain), &json!([third]));
        // A chain may be declared in any order.
        let [a, b, c] = chain.clone();
        check_same(model, &json!([c, b, a]), &json!(chain));
        // Two sources at once.
        let parallel = |mid: Value, long: Value| {
            json!([{"run": "base", "site": "block_output", "layers": 0, "op": "swap", "positions": 0, "value": mid},
                   {"run": "base", "site": "block_output", "layers": 1, "op": "swap", "positions": 2, "value": long}])
        };
        let take = |run: &str, layer: usize, position: usize| {
            let read = json!({"run": run, "site": "block_output", "layers": layer, "positions": position});
            json!({"values": collected(model, &runs(&json!([])), &read)})
        };
        let plain = parallel(take("mid", 0, 0), take("long", 1, 2));
        check_same(model, &parallel(json!({"run": "mid"}), json!({"run": "long"})), &plain);
    }
}

#[test]
fn edits_of_one_tensor_are_made_in_file_order() {
    let add = json!({"site": "logits", "op": "add", "value": {"values": 4.0}});
    let double = json!({"site": "logits", "op": "scale", "scale": 2.0});
    for name in MODELS {
        let model = model(name);
        let of = |edits: Value| logits(model, &runs(&edits), "base").concat();
        let clean = of(json!([]));
        let by_hand = |f: fn(f32) -> f32| clean.iter().map(|x| f(*x)).collect::<Vec<_>>();
        assert_eq!(of(json!([add, double])), by_hand(|x| (x + 4.0) * 2.0));
        assert_eq!(of(json!([double, add])), by_hand(|x| x * 2.0 + 4.0));
        assert_eq!(of(json!([double, add, double, add])), by_hand(|x| (x * 2.0 + 4.0) * 2.0 + 4.0));
        assert_eq!(of(json!([add, {"site": "logits", "op": "zero"}])), by_hand(|_| 0.0));
        let negative = json!({"site": "logits", "op": "subtract", "value": {"values": 4.0}, "scale": 0.5});
        assert_eq!(of(json!([negative])), by_hand(|x| x - 2.0));

        // A head is part of the whole tensor.
        let head = json!({"site": "head_value_output", "layers": 0, "heads": 1, "op": "zero"});
        let whole = json!({"site": "value_output", "layers": 0, "op": "add", "value": {"values": 1.0}});
        let value = |edits: Value| {
            let all = everything(model, &runs(&edits), "base");
            all[&Moment::of(Site::ValueOutput, Some(0))].clone()
        };
        let (clean, zero_first, add_first) =
            (value(json!([])), value(json!([head, whole])), value(json!([whole, head])));
        let Layout::Heads { width, .. } = Site::HeadValueOutput.layout(model.config()) else { panic!() };
        for (row, x) in clean.iter().enumerate() {
            for (column, x) in x.iter().enumerate() {
                let in_head = column / width == 1;
                assert_eq!(zero_first[row][column], if in_head { 1.0 } else { x + 1.0 });
                assert_eq!(add_first[row][column], if in_head { 0.0 } else { x + 1.0 });
            }
        }
    }
}

#[test]
fn a_closure_sees_the_edited_rows_only() {
    for name in MODELS {
        let model = model(name);
        let (heads, kv) = (model.config().heads, model.config().kv_heads);
        let width = |site| shape(model, site, SHORT.len()).1;
        let targets = [
            (Site::MlpHidden.layers(0).at([2, 0]), vec![2, width(Site::MlpHidden)]),
            (Site::MlpHidden.layers(0).dims(1..4), vec![4, 3]),
            (Site::HeadKeyOutput.layers(1).at(-1), vec![1, kv, width(Site::HeadKeyOutput)]),
            (
                Site::HeadQueryOutput.layers(1).heads([0, 1]).at(1..=3),
                vec![3, 2, width(Site::HeadQueryOutput)],
            ),
            (Site::AttentionWeight.layers(0).at(1), vec![heads, 1, 4]),
            (Site::AttentionScore.layers(0).at([3, 2]).dims([1, 0]).heads(0), vec![1, 2, 2]),
            (Site::Logits.at(3), vec![1, width(Site::Logits)]),
        ];
        for (target, expected) in targets {
            let seen = Arc::new(Mutex::new(Vec::new()));
            let mut exp = Experiment::new(model);
            let base = exp.run_ids("base", SHORT.to_vec()).unwrap();
            let told = seen.clone();
            let double = move |x: &candle_core::Tensor| {
                told.lock().unwrap().push(x.dims().to_vec());
                x * 2.0
            };
            exp.edit(base, target.clone(), Op::custom(double)).unwrap();
            let ours = exp.execute().unwrap();
            assert_eq!(*seen.lock().unwrap(), [expected], "{target:?}");
            let mut exp = Experiment::new(model);
            let base = exp.run_ids("base", SHORT.to_vec()).unwrap();
            exp.edit(base, target.clone(), Op::scale(2.0)).unwrap();
            let plain = exp.execute().unwrap();
            let logits = |outcome: &causalcone_engine::Outcome<'_>| {
                outcome.counterfactual(base).distribution.logits().to_vec()
            };
            assert_eq!(logits(&ours), logits(&plain), "{target:?}");
            // A closure that changes the shape is refused.
            let mut exp = Experiment::new(model);
            let base = exp.run_ids("base", SHORT.to_vec()).unwrap();
            exp.edit(base, target, Op::custom(candle_core::Tensor::flatten_all)).unwrap();
            let error = exp.execute().unwrap_err().to_string();
            assert!(error.contains("the closure turned shape"), "{error}");
        }
    }
}
