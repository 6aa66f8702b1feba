//! What holds for every edit at every site of every family: it has an effect, an edit that changes
//! nothing changes nothing, and the past never hears of it. Then, that a run's numbers do not hang on
//! what else is run, nor on how long the prompt goes on, nor on the number of threads.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::Executor;
use causalcone_model::{Layout, Model, Site};
use common::*;
use serde_json::{Value, json};
use std::process::Command;

const IDS: [u32; 4] = [49, 28, 31, 17];

fn runs(edits: &Value) -> Value {
    json!({"runs": {"base": {"ids": IDS}, "twin": {"ids": IDS}}, "edit": edits})
}

/// The positions whose logits an edit of this place at `position` reaches.
fn reached(model: &Model, (site, layer): (Site, Option<usize>), position: usize) -> Vec<usize> {
    let later = position..IDS.len();
    let is_last = layer == Some(model.config().layers - 1);
    match site.tensor() {
        Site::FinalNorm | Site::Logits => vec![position],
        Site::Embedding | Site::BlockInput | Site::AttentionInput | Site::ValueOutput => later.collect(),
        // The first query has one key, whose weight is 1 whatever its score.
        Site::KeyOutput => (position.max(1)..IDS.len()).collect(),
        Site::QueryOutput | Site::AttentionScore if position == 0 => Vec::new(),
        _ if is_last => vec![position],
        _ => later.collect(),
    }
}

/// Runs an edit of one place and one position, and checks what changes and what does not, in every
/// tensor of the run. `heads` and `dims` are what the edit names, all where `None`.
fn check_reach(
    executor: &dyn Executor,
    model: &Model,
    place: (Site, Option<usize>),
    position: usize,
    op: &Value,
    (heads, dims): (Option<usize>, Option<usize>),
) {
    let (site, layer) = place;
    let mut written = edit(site, layer, &json!({"run": "base", "positions": position}));
    if let Some(head) = heads {
        written["heads"] = json!(head);
    }
    if let Some(dim) = dims {
        written["dims"] = json!(dim);
    }
    let written = with(&written, op);
    let [edited, clean] = edited_and_not(executor, model, &runs(&json!([written])), "base");
    let here = Moment::of(site, layer);
    let width = shape(model, site, IDS.len()).1;
    for (moment, rows) in &edited {
        for (row, (new, old)) in rows.iter().zip(&clean[moment]).enumerate() {
            let say =
                || format!("{} by {}, at {moment:?}, row {row}, by {written}", model.name(), executor.name());
            if *moment < here || row < position || (*moment == here && row != position) {
                assert_eq!(new, old, "changed the past: {}", say());
            }
            if *moment == here && row == position {
                for (column, (new, old)) in new.iter().zip(old).enumerate() {
                    let (head, dim) = (column / width, column % width);
                    let visible = !site.is_attention_matrix() || dim <= row;
                    let named = heads.is_none_or(|h| h == head) && dims.is_none_or(|d| d == dim);
                    assert_eq!(new != old, visible && named, "column {column}: {}", say());
                }
            }
        }
    }
    let logits = Moment::of(Site::Logits, None);
    let expected = reached(model, place, position);
    for (row, (new, old)) in edited[&logits].iter().zip(&clean[&logits]).enumerate() {
        let change = distance(new, old);
        if expected.contains(&row) {
            assert!(change > 1e-4 && change.is_finite(), "logits {row} off by {change} only: {written}");
        } else {
            assert!(change <= rounding(executor), "logits {row} off by {change}: {written}");
        }
    }
}

/// How far numbers may be apart that are equal but computed in another company: the cone executor
/// multiplies all live rows together, and a product is rounded by the shape it is computed in.
fn rounding(executor: &dyn Executor) -> f32 {
    if executor.name() == "reference" { 0.0 } else { 1e-5 }
}

/// Everything an edit of `op` can reach, at every place and position.
fn check_effects(op: impl Fn(usize) -> Value) {
    for (executor, name) in EXECUTORS.iter().flat_map(|e| all_models().into_iter().map(|name| (*e, name))) {
        let model = model(&name);
        for (site, layer) in places(model) {
            for position in 0..IDS.len() {
                let (_, width) = shape(model, site, IDS.len());
                check_reach(executor, model, (site, layer), position, &op(width), (None, None));
            }
        }
    }
}

#[test]
fn a_large_vector_added_reaches_its_cone_and_nothing_else() {
    check_effects(|width| json!({"op": "add", "value": {"values": random(1, 1, width, 2.0)}}));
}

#[test]
fn a_large_vector_swapped_in_reaches_its_cone_and_nothing_else() {
    check_effects(|width| json!({"op": "swap", "value": {"values": random(2, 1, width, 2.0)}}));
}

#[test]
fn a_negative_scale_reaches_its_cone_and_nothing_else() {
    check_effects(|_| json!({"op": "scale", "scale": -3.0}));
}

#[test]
fn silence_reaches_its_cone_and_nothing_else() {
    check_effects(|_| json!({"op": "zero"}));
}

#[test]
fn one_head_or_one_dimension_changes_alone() {
    let op = json!({"op": "add", "value": {"values": 30.0}});
    for (executor, name) in EXECUTORS.iter().flat_map(|e| all_models().into_iter().map(|name| (*e, name))) {
        let model = model(&name);
        for (site, layer) in places(model) {
            let (heads, width) = shape(model, site, IDS.len());
            let has_heads = !matches!(site.layout(model.config()), Layout::Rows { .. });
            let dim = if site.is_attention_matrix() { 1 } else { width - 1 };
            let mut cases = vec![(None, Some(dim))];
            if has_heads {
                cases.push((Some(heads - 1), Some(dim)));
            }
            // A constant on all of a head's scores would cancel in the softmax.
            if has_heads && site != Site::AttentionScore {
                cases.push((Some(heads - 1), None));
            }
            // What is clipped may be as large as it gets already.
            let is_clipped = (Site::QueryOutput..=Site::HeadValueOutput).contains(&site);
            for case in cases.into_iter().filter(|_| !(is_clipped && model.config().clip.is_some())) {
                check_reach(executor, model, (site, layer), 2, &op, case);
            }
        }
    }
}

#[test]
fn an_edit_of_all_positions_by_a_row_each_changes_all_it_can() {
    for name in MODELS {
        let model = model(name);
        let clean = logits(model, &runs(&json!([])), "base");
        for (site, layer) in places(model) {
            let (_, width) = shape(model, site, IDS.len());
            let op = json!({"op": "add", "value": {"values": random(3, IDS.len(), width, 2.0)}});
            let edited = logits(model, &runs(&json!([edit(site, layer, &op)])), "base");
            let expected: Vec<bool> = (0..IDS.len())
                .map(|row| (0..=row).any(|p| reached(model, (site, layer), p).contains(&row)))
                .collect();
            let changed: Vec<bool> = clean.iter().zip(&edited).map(|(a, b)| distance(a, b) > 1e-4).collect();
            assert_eq!(changed, expected, "{name} {site:?} {layer:?}");
        }
    }
}

#[test]
fn an_edit_that_gives_back_what_it_took_changes_nothing() {
    let heads_and_dims = json!({"op": "swap", "value": {"run": "twin"}, "dims": [2, 0]});
    let ops = [
        json!({"op": "swap", "value": {"run": "twin"}}),
        json!({"op": "swap", "value": {"run": "twin"}, "positions": [2, 0]}),
        json!({"op": "swap", "value": {"run": "twin", "positions": "last"}, "positions": -1}),
        heads_and_dims,
        json!({"op": "scale", "scale": 1.0}),
        json!({"op": "scale"}),
        json!({"op": "add", "value": {"values": 0.0}}),
        json!({"op": "subtract", "value": {"values": 0.0}, "positions": "1.."}),
        json!({"op": "collect"}),
    ];
    let check = |executor: &dyn Executor, model: &Model, edit: &Value| {
        let written = runs(&json!([edit]));
        let [edited, clean] = edited_and_not(executor, model, &written, "base");
        for (moment, rows) in &edited {
            for (new, old) in rows.iter().zip(&clean[moment]) {
                let size = old.iter().filter(|x| x.is_finite()).fold(1.0f32, |size, x| size.max(x.abs()));
                let say = || format!("{} by {}, {moment:?}: {written}", model.name(), executor.name());
                assert!(distance(new, old) <= rounding(executor) * size, "{}", say());
            }
        }
    };
    for (executor, name) in EXECUTORS.iter().flat_map(|e| all_models().into_iter().map(|name| (*e, name))) {
        let model = model(&name);
        for (site, layer) in places(model) {
            let zeros = json!({"op": "add", "value": {"values": vec![0.0; shape(model, site, IDS.len()).1]}});
            for op in ops.iter().chain([&zeros]) {
                check(executor, model, &edit(site, layer, &with(&json!({"run": "base"}), op)));
            }
            // Added times 0; scores hold -inf beyond the diagonal, and nothing times 0 is that.
            if site != Site::AttentionScore {
                let op = json!({"run": "base", "op": "add", "value": {"run": "twin"}, "scale": 0.0});
                check(executor, model, &edit(site, layer, &op));
            }
        }
    }
}

#[test]
fn reading_is_not_writing() {
    // What `collect` gives is what an onlooker of the decoder sees, and the answer stays the same.
    struct Onlooker(Activations);
    impl causalcone_model::decoder::Tap for Onlooker {
        type Error = causalcone_model::Error;
        fn at(
            &mut self,
            site: Site,
            layer: Option<usize>,
            x: candle_core::Tensor,
        ) -> Result<candle_core::Tensor, Self::Error> {
            assert!(self.0.insert(Moment::of(site, layer), rows(&x)).is_none(), "{site:?} {layer:?} twice");
            Ok(x)
        }
    }
    for name in all_models() {
        let model = model(&name);
        let mut onlooker = Onlooker(Activations::new());
        let logits = model.decoder().unwrap().forward(&IDS, &mut onlooker).unwrap();
        let collected = everything(model, &runs(&json!([])), "base");
        assert!(collected == onlooker.0);
        assert_eq!(collected[&Moment::of(Site::Logits, None)], rows(&logits));
        let outcome = experiment(model, &runs(&json!([]))).unwrap().execute();
        assert!(outcome.unwrap().collected().is_empty());
    }
}

#[test]
fn a_prompt_going_on_changes_nothing_before() {
    let (long, short) = ([49, 28, 31, 17, 5, 50], 3);
    for name in all_models() {
        let model = model(&name);
        for (site, layer) in places(model) {
            let mut op = json!({"op": "add", "positions": 1});
            let width = if site.is_attention_matrix() { 2 } else { shape(model, site, 6).1 };
            op["dims"] = json!(format!("0..{width}"));
            op["value"] = json!({"values": random(4, 1, width, 1.0)});
            let of = |ids: &[u32]| {
                let written = json!({"runs": {"base": {"ids": ids}}, "edit": [edit(site, layer, &op)]});
                everything(model, &written, "base")
            };
            let (whole, part) = (of(&long), of(&long[..short]));
            for (moment, rows) in &part {
                let (heads, width) = shape(model, moment.2, short);
                let stride = whole[moment][0].len() / heads;
                let stride = if moment.2.is_attention_matrix() { stride } else { width };
                for (row, theirs) in rows.iter().zip(&whole[moment]) {
                    for head in 0..heads {
                        let ours = &row[head * width..][..width];
                        let theirs = &theirs[head * stride..][..width];
                        for (a, b) in ours.iter().zip(theirs) {
                            let near = a == b || (a - b).abs() <= 1e-5 * (1.0 + a.abs());
                            assert!(near, "{name} {moment:?}: {a} and {b}, by {site:?} {layer:?}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn runs_side_by_side_are_the_runs_alone() {
    let of = |run: &str, ids: &[u32], edits: Value| (run.to_owned(), json!({"ids": ids}), edits);
    let parts = [
        of(
            "base",
            &[49, 28, 31, 17],
            json!([{"site": "mlp_output", "layers": "all", "op": "scale", "scale": 2.0}]),
        ),
        of(
            "b",
            &[1, 2],
            json!([{"site": "attention_score", "layers": 0, "positions": 1, "dims": 0, "op": "zero"}]),
        ),
        of(
            "c",
            &[9],
            json!([{"site": "head_value_output", "layers": 1, "heads": 0, "op": "zero"},
                             {"site": "embedding", "op": "add", "value": {"values": 0.5}}]),
        ),
        of("d", &[49, 28, 31, 18, 3, 2, 1, 7], json!([])),
    ];
    for name in all_models() {
        let model = model(&name);
        let mut together = json!({"runs": {}, "edit": [], "read": {"run": "base"}});
        for (run, prompt, edits) in &parts {
            together["runs"][run] = prompt.clone();
            let edits = edits.as_array().unwrap().iter().map(|edit| with(edit, &json!({"run": run})));
            together["edit"].as_array_mut().unwrap().extend(edits);
        }
        for (run, prompt, edits) in &parts {
            let mut alone = json!({"runs": {}, "edit": edits});
            alone["runs"][run] = prompt.clone();
            let (alone, beside) = (everything(model, &alone, run), everything(model, &together, run));
            assert!(alone == beside, "{name} {run}");
        }
    }
}

/// Prints the bits of an experiment's answers, so that another process can compare them.
#[test]
fn the_number_of_threads_does_not_matter() {
    const MARK: &str = "CAUSALCONE_TEST_PRINT";
    let ids: Vec<u32> = (0..16).map(|i| i * 7 % 61).collect();
    let written = json!({"runs": {"base": {"ids": ids}, "other": {"ids": ids.iter().rev().collect::<Vec<_>>()}},
        "edit": [{"site": "block_output", "layers": [0, 1], "positions": "3..9", "op": "swap",
                  "value": {"run": "other"}}]});
    if std::env::var_os(MARK).is_some() {
        for name in MODELS {
            let logits = logits(model(name), &written, "base");
            let bits: Vec<String> = logits.concat().iter().map(|x| x.to_bits().to_string()).collect();
            println!("{MARK} {}", bits.join(" "));
        }
        return;
    }
    let with_threads = |n: &str| {
        let test = ["--exact", "the_number_of_threads_does_not_matter", "--nocapture"];
        let child = Command::new(std::env::current_exe().unwrap())
            .args(test)
            .env(MARK, "1")
            .env("RAYON_NUM_THREADS", n)
            .output()
            .unwrap();
        let text = String::from_utf8(child.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(MARK)).map(|(_, bits)| bits.to_owned());
        let lines: Vec<String> = lines.collect();
        assert_eq!(lines.len(), MODELS.len(), "{text}");
        lines
    };
    let one = with_threads("1");
    for n in ["2", "5"] {
        assert!(with_threads(n) == one, "{n} threads");
    }
}
