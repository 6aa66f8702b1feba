//! The cone executor against the reference: random experiments, everything read of every run; then
//! what it computes, counted against closed formulas, and that no budget or batch changes an answer.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use candle_core::{Device, Tensor};
use causalcone_engine::cone::ConePlan;
use causalcone_engine::op::{OPS, OpInfo, OpKind, Setting, Subspace, Takes};
use causalcone_engine::plan::Cell;
use causalcone_engine::schema::Inputs;
use causalcone_engine::{
    Collection, Cone, Executor, ExperimentFile, Explanation, Memo, PreparedSweep, Reference, Runtime,
};
use causalcone_model::stage::{Builder, ENTERING, Kernel, Matrix, Stages};
use causalcone_model::{Layout, LoadOptions, Model, Site, SiteRow, Width, silent};
use common::*;
use serde_json::{Value, json};
use std::path::Path;

/// Numbers by which random experiments are drawn: the same for a seed, on every machine.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % n as u64).unwrap()
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())].clone()
    }

    /// Some of the first `n`, at least one, in any order.
    fn some(&mut self, n: usize, most: usize) -> Vec<usize> {
        let mut all: Vec<usize> = (0..n).collect();
        let count = 1 + self.below(n.min(most));
        (0..count).map(|_| all.remove(self.below(all.len()))).collect()
    }
}

const RUNS: [&str; 4] = ["base", "b", "c", "d"];

/// Prompts of different lengths; some begin alike, some are equal. Where there are windows, or longer prompts turn
/// otherwise, some are long enough to tell.
fn prompts(draw: &mut Draw, model: &Model) -> Vec<Vec<u32>> {
    let config = model.config();
    let longest = config.longest_original().map_or(6, |most| most + 3);
    let longest =
        if config.kinds.iter().any(|kind| kind.window.is_some()) { longest.max(12) } else { longest };
    let vocab = config.vocab.min(60);
    let mut prompts: Vec<Vec<u32>> = Vec::new();
    for _ in 0..2 + draw.below(3) {
        let mut ids: Vec<u32> = match prompts.last() {
            Some(last) if draw.one_in(2) => last[..=draw.below(last.len())].to_vec(),
            _ => Vec::new(),
        };
        let len = (1 + draw.below(longest)).max(ids.len());
        while ids.len() < len {
            ids.push(u32::try_from(draw.below(vocab)).unwrap());
        }
        prompts.push(ids);
    }
    prompts
}

/// A random edit; values come from later runs only, so that there are no circles.
fn random_edit(draw: &mut Draw, model: &Model, prompts: &[Vec<u32>]) -> Value {
    let run = draw.below(prompts.len());
    let n = prompts[run].len();
    let sites: Vec<Site> = sites(model).collect();
    let site = draw.pick(&sites);
    let mut edit = json!({"run": RUNS[run], "site": site.name()});
    if site.is_in_block() {
        edit["layers"] = match draw.below(4) {
            0 => json!("all"),
            1 => json!(draw.some(model.config().layers, 2)),
            _ => json!(draw.below(model.config().layers)),
        };
    }
    let positions = match draw.below(4) {
        0 => (0..n).collect(),
        1 => vec![n - 1],
        _ => draw.some(n, 3),
    };
    edit["positions"] = json!(positions);
    let (heads, width) = shape(model, site, n);
    let has_heads = !matches!(site.layout(model.config()), Layout::Rows { .. });
    if has_heads && draw.one_in(2) {
        edit["heads"] = json!(draw.some(heads, 2));
    }
    let is_matrix = site.is_attention_matrix();
    if draw.one_in(3) {
        // Key columns that every query of the edit sees.
        let columns = if is_matrix { positions.iter().min().unwrap() + 1 } else { width };
        edit["dims"] = json!(draw.some(columns, 3));
    }
    let sources: Vec<usize> = (run + 1..prompts.len()).filter(|other| prompts[*other].len() >= n).collect();
    if !is_matrix && draw.one_in(2) {
        random_operation(draw, model, &mut edit, site, n);
    }
    let op = match edit["op"].as_str() {
        Some(op) => op.to_string(),
        None => draw.pick(&["swap", "add", "subtract", "zero", "scale"]).to_string(),
    };
    edit["op"] = json!(op);
    match op.as_str() {
        _ if OpKind::by_name(&op)
            .is_some_and(|kind| kind.info().value == Takes::No && !kind.info().takes_scale) => {}
        "scale" => edit["scale"] = json!(-1.5),
        _ => {
            let same_length = |other: &&usize| !is_matrix || prompts[**other].len() == n;
            let sources: Vec<usize> = sources.iter().filter(same_length).copied().collect();
            if !sources.is_empty() && !draw.one_in(3) {
                let mut value = json!({"run": RUNS[draw.pick(&sources)]});
                if site.is_in_block() && draw.one_in(3) {
                    value["layers"] = json!(draw.below(model.config().layers));
                }
                let same_shape = |other: &Site| other.layout(model.config()) == site.layout(model.config());
                let others: Vec<Site> = sites
                    .iter()
                    .copied()
                    .filter(|o| same_shape(o) && o.is_in_block() == site.is_in_block())
                    .collect();
                if draw.one_in(3) {
                    value["site"] = json!(draw.pick(&others).name());
                }
                if draw.one_in(4) && !is_matrix {
                    value["positions"] = json!(draw.below(n));
                }
                edit["value"] = value;
            } else {
                let dims = edit["dims"].as_array().map_or(width, Vec::len);
                let is_of_site = OpKind::by_name(&op).unwrap().info().subspace == Subspace::Site;
                let width = if is_of_site { dims } else { width };
                let rows = if draw.one_in(2) { 1 } else { positions.len() };
                let seed = draw.below(1000) as u64;
                edit["value"] = json!({"values": random(seed, rows, width, 0.3)});
            }
            let scaled = OpKind::by_name(&op).is_some_and(|kind| kind.info().takes_scale);
            if scaled && draw.one_in(2) {
                edit["scale"] = json!(0.5);
            }
        }
    }
    edit
}

/// An op with parameters, a subspace, settings, or of joint vectors.
fn random_operation(draw: &mut Draw, model: &Model, edit: &mut Value, site: Site, n: usize) {
    let is_module = matches!(site, Site::BlockOutput | Site::AttentionOutput | Site::MlpOutput);
    let fits = |op: &&OpInfo| match op.kind {
        OpKind::Skip => is_module,
        OpKind::Mean => true,
        // Features that turn on by a hair make rounding visible.
        OpKind::JumpReluAutoencoder => false,
        _ => op.is_of_rows,
    };
    let ops: Vec<&OpInfo> = OPS.iter().filter(fits).collect();
    let op = draw.pick(&ops);
    let (heads, width) = shape(model, site, n);
    let count = |key: &str, all: usize| edit[key].as_array().map_or(all, Vec::len);
    let (positions, heads) = (count("positions", n), count("heads", heads));
    let has_heads = matches!(site.layout(model.config()), Layout::Heads { .. });
    let mut width = match (op.subspace, count("dims", width)) {
        (Subspace::Site, dims) => dims,
        _ => width,
    };
    if draw.one_in(3) && width * positions * heads <= 64 {
        let joint = if has_heads { draw.pick(&["positions", "heads", "all"]) } else { "positions" };
        edit["joint"] = json!(joint);
        width *= if joint == "heads" { 1 } else { positions };
        width *= if joint == "positions" { 1 } else { heads };
    }
    let rank = 1 + draw.below(width.min(5));
    match op.subspace {
        Subspace::Site => {}
        Subspace::None => edit["dims"] = Value::Null,
        Subspace::Basis => {
            let rank = if op.kind == OpKind::RotatedSwap { width } else { rank };
            edit["dims"] = if draw.one_in(2) { json!(draw.some(rank, 3)) } else { Value::Null };
        }
    }
    *edit = with(edit, &json!({"op": op.name}));
    if edit["dims"].is_null() {
        *edit = with(edit, &json!({"dims": null}));
    }
    if !op.parameters.is_empty() {
        edit["parameters"] = parameters(op, draw.below(1000) as u64, width, rank);
    }
    for setting in op.settings {
        match setting {
            Setting::Activation => edit["activation"] = json!(draw.pick(&["linear", "gelu", "relu", "silu"])),
            Setting::Bounds => edit["max"] = json!(0.1),
            Setting::AddError => edit["error"] = json!(draw.one_in(2)),
            Setting::Centre => edit["centre"] = json!(draw.one_in(2)),
        }
    }
}

fn random_experiment(seed: u64, model: &Model) -> Value {
    let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d);
    let prompts = prompts(&mut draw, model);
    let mut runs = json!({});
    for (name, ids) in RUNS.iter().zip(&prompts) {
        runs[*name] = json!({"ids": ids});
    }
    let count = 1 + draw.below(5);
    let edits: Vec<Value> = (0..count).map(|_| random_edit(&mut draw, model, &prompts)).collect();
    json!({"runs": runs, "edit": edits, "read": {"run": "base"}})
}

/// Whether the numbers of two executors are equal: f32 products of the same sums in another order. In
/// longer runs `x` is the largest number of the row, since that is what rounding goes by: among many
/// experiments are some that make numbers large and their difference small.
fn check_close(cone: &Activations, reference: &Activations, by_row: bool, say: &str) {
    for (moment, rows) in reference {
        for (row, (ours, theirs)) in cone[moment].iter().zip(rows).enumerate() {
            let largest = theirs.iter().filter(|x| x.is_finite()).fold(0.0f32, |max, x| max.max(x.abs()));
            for (a, b) in ours.iter().zip(theirs) {
                let x = if by_row { largest } else { b.abs() };
                let near = a == b || (a - b).abs() <= 1e-5 + 1e-5 * x;
                assert!(near, "{a} is not {b} at {moment:?}, row {row}: {say}");
            }
        }
    }
}

/// Keeps the names of runs whose edits all matter to the base, so that none is refused.
fn run_names(written: &Value) -> Vec<&str> {
    written["runs"].as_object().unwrap().keys().map(String::as_str).collect()
}

fn compare(seeds: std::ops::Range<u64>, by_row: bool) {
    let models: Vec<(String, &Model)> =
        all_models().into_iter().map(|name| (name.clone(), model(&name))).collect();
    compare_models(seeds, by_row, &models);
}

fn compare_models(seeds: std::ops::Range<u64>, by_row: bool, models: &[(String, &Model)]) {
    let mut compared = 0;
    for seed in seeds {
        for (name, model) in models {
            let written = random_experiment(seed, model);
            let runs = run_names(&written);
            let say = format!("{name}, seed {seed}: {written}");
            // Reading every run makes every edit matter.
            let [theirs, ours] = [&Reference as &dyn Executor, &Cone { memory: None }]
                .map(|e| collected(e, model, &written, &runs));
            match (theirs, ours) {
                (Ok(theirs), Ok(ours)) => {
                    compared += 1;
                    let finite = |all: &Activations| {
                        all[&Moment::of(Site::Logits, None)].iter().flatten().all(|x| x.is_finite())
                    };
                    for (ours, theirs) in ours.iter().zip(&theirs).filter(|(_, theirs)| finite(theirs)) {
                        // Some families' residual streams are not normed on their way in, and grow.
                        check_close(ours, theirs, by_row || !MODELS.contains(&name.as_str()), &say);
                    }
                }
                (Err(theirs), Err(ours)) => assert_eq!(theirs.to_string(), ours.to_string(), "{say}"),
                (theirs, ours) => panic!("{:?} and {:?}: {say}", theirs.map(drop), ours.map(drop)),
            }
        }
    }
    println!("{compared} experiments compared");
    assert!(compared > 0);
}

#[test]
fn random_experiments_agree_with_the_reference() {
    compare(0..150, false);
}

/// The logits of the base, and nothing else of any run: only what these need is computed.
fn answer(executor: &dyn Executor, model: &Model, written: &Value) -> Result<Rows, causalcone_engine::Error> {
    let mut written = written.clone();
    written["edit"].as_array_mut().unwrap().push(json!({"run": "base", "site": "logits", "op": "collect"}));
    let outcome = experiment(model, &written)?.execute_with(&Runtime::own(executor))?;
    Ok(rows(&outcome.collected()[0].tensor))
}

/// Random experiments of which only the answer is read, in one batch and in several.
fn compare_answers(seeds: std::ops::Range<u64>, model: &Model) {
    let mut compared = 0;
    for seed in seeds {
        let written = random_experiment(seed, model);
        let Ok(theirs) = answer(&Reference, model, &written) else { continue };
        for memory in [None, Some(40_000), Some(80_000)] {
            let ours = match answer(&Cone { memory }, model, &written) {
                Ok(ours) => ours,
                Err(error) if memory.is_some() && error.to_string().contains("too little") => continue,
                Err(error) => panic!("{error}: seed {seed}: {written}"),
            };
            compared += 1;
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let largest = theirs.iter().filter(|x| x.is_finite()).fold(1.0f32, |max, x| max.max(x.abs()));
                // f32 arithmetic in another order, of numbers as large as the row's.
                assert!(
                    theirs.iter().any(|x| !x.is_finite()) || distance(ours, theirs) <= 1e-4 * largest,
                    "seed {seed}, {memory:?}: {written}"
                );
            }
        }
    }
    println!("{compared} answers compared");
    assert!(compared > 100);
}

/// What the drill's attention adds to the residual stream: a site that no family has.
static ATTENTION_NORMED: SiteRow = SiteRow::in_block("attention_normed", Width::Model);

/// A made-up block: attention and MLP side by side, each behind a norm, and a third norm behind attention, whose output
/// is a site.
fn made_up_block() -> Stages {
    let mut block = Builder::new();
    let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 3);
    block.part();
    let mlp_input = block.row(Site::MlpInput, Kernel::Norm("mlp_norm"), &[input], 1);
    let activation = block.row(Site::MlpActivation, Kernel::Activate(Matrix::Into), &[mlp_input], 1);
    let hidden = block.row(Site::MlpHidden, Kernel::Gate(Matrix::Up), &[activation, mlp_input], 2);
    let mlp = block.row(Site::MlpOutput, Kernel::Linear(Matrix::Down), &[hidden], 1);
    block.part();
    let attention_input = block.row(Site::AttentionInput, Kernel::Norm("attention_norm"), &[input], 1);
    block.part();
    let query = block.row(Site::QueryOutput, Kernel::Linear(Matrix::Query), &[attention_input], 2);
    block.part();
    let key = block.row(Site::KeyOutput, Kernel::Linear(Matrix::Key), &[attention_input], 2);
    let value = block.row(Site::ValueOutput, Kernel::Linear(Matrix::Value), &[attention_input], 2);
    block.part();
    let mixed = block.attention(query, key, value);
    let attention = block.row(Site::AttentionOutput, Kernel::Linear(Matrix::AttentionOutput), &[mixed], 1);
    let normed = block.row(Site::new(&ATTENTION_NORMED), Kernel::Norm("third_norm"), &[attention], 1);
    block.part();
    let with_mlp = block.row(None, Kernel::Add(None), &[input, mlp], 1);
    block.row(Site::BlockOutput, Kernel::Add(None), &[with_mlp, normed], 1);
    block.finish().unwrap()
}

/// The weights of a small Llama, with a third norm in every block.
fn made_up_model(folder: &Path) -> Model {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
    let mut tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    let config: Value = serde_json::from_slice(&std::fs::read(from.join("config.json")).unwrap()).unwrap();
    let width = usize::try_from(config["hidden_size"].as_u64().unwrap()).unwrap();
    for layer in 0..config["num_hidden_layers"].as_u64().unwrap() {
        let weight: Vec<f32> = (0..width).map(|i| 1.0 + (i as f32 + layer as f32).sin() / 2.0).collect();
        let name = format!("model.layers.{layer}.third_norm.weight");
        tensors.insert(name, Tensor::new(weight, &Device::Cpu).unwrap());
    }
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), folder.join("config.json")).unwrap();
    let options = LoadOptions { block: Some(made_up_block().into()), ..LoadOptions::default() };
    Model::load_with_options(folder.to_str().unwrap(), &options, &silent).unwrap()
}

/// A drill: a family with another block is a list of stages and the names of its tensors, and nothing else.
#[test]
fn a_made_up_block_is_a_list_of_stages() {
    let folder = tempfile::tempdir().unwrap();
    let model = made_up_model(folder.path());
    assert!(model.config().sites().any(|site| site.name() == "attention_normed"));
    assert!(model.config().lacks(Site::BlockMiddle).is_some());
    compare_models(0..400, true, &[("made up".into(), &model)]);
    compare_answers(0..400, &model);
    // A value from a later tensor, so that a row of which one half is another node's goes on in a later batch.
    let ahead = json!({"runs": {"base": {"ids": [3, 1, 4, 1, 5]}, "b": {"ids": [9, 2, 6, 5, 3]}}, "read": {"run": "base"},
                       "edit": [{"run": "base", "site": "mlp_output", "layers": 0, "positions": 2, "op": "swap",
                                 "value": {"run": "b", "site": "block_output", "layers": 1}}]});
    let [theirs, ours] =
        [&Reference as &dyn Executor, &Cone { memory: None }].map(|e| answer(e, &model, &ahead).unwrap());
    assert!(distance(&theirs[4], &ours[4]) <= 1e-5, "{theirs:?} {ours:?}");

    // What it computes is what the list says, by other arithmetic.
    let written = json!({"runs": {"base": {"ids": [3, 1, 4, 1, 5]}}, "edit": [], "read": {"run": "base"}});
    let all = everything(&model, &written, "base");
    let at = |site: Site, layer: usize| all[&Moment::of(site, Some(layer))].clone();
    let eps = model.config().norm.eps() as f32;
    for layer in 0..model.config().layers {
        let (input, output) = (at(Site::BlockInput, layer), at(Site::BlockOutput, layer));
        let (attention, mlp) = (at(Site::AttentionOutput, layer), at(Site::MlpOutput, layer));
        let normed = at(Site::new(&ATTENTION_NORMED), layer);
        for row in 0..input.len() {
            let mean = attention[row].iter().map(|x| x * x).sum::<f32>() / attention[row].len() as f32;
            for (i, x) in attention[row].iter().enumerate() {
                let weight = 1.0 + (i as f32 + layer as f32).sin() / 2.0;
                let expected = x / (mean + eps).sqrt() * weight;
                // f32 arithmetic in another order.
                assert!(
                    (normed[row][i] - expected).abs() < 1e-5 * (1.0 + expected.abs()),
                    "{layer}, {row}, {i}"
                );
                let sum = input[row][i] + mlp[row][i] + normed[row][i];
                assert!((output[row][i] - sum).abs() < 1e-5 * (1.0 + sum.abs()), "{layer}, {row}, {i}");
            }
        }
    }
}

/// What a block of one's own may not be is refused when it is written, by name.
#[test]
fn a_block_that_cannot_be_is_refused() {
    let refused = |block: Builder| block.finish().unwrap_err().to_string();
    let mut block = Builder::new();
    let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 1);
    block.row(Site::BlockOutput, Kernel::Add(None), &[input], 1);
    assert!(refused(block).contains("stage 2 must read 2 of the stages before it"));
    let mut block = Builder::new();
    let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 1);
    block.row(Site::BlockInput, Kernel::Same, &[input], 1);
    assert!(refused(block).contains("has the site of another one"));
    assert!(refused(Builder::new()).contains("begin with block_input"));
    let with_attention = |is_apart: bool| {
        let mut block = Builder::new();
        let input = block.row(Site::BlockInput, Kernel::Same, &[ENTERING], 1);
        let query = block.row(Site::QueryOutput, Kernel::Linear(Matrix::Query), &[input], 1);
        let key = block.row(Site::KeyOutput, Kernel::Linear(Matrix::Key), &[input], 1);
        let normed = if is_apart { block.row(Site::MlpInput, Kernel::Norm("n"), &[input], 1) } else { input };
        let value = block.row(Site::ValueOutput, Kernel::Linear(Matrix::Value), &[normed], 1);
        if is_apart {
            block.part();
        }
        let mixed = block.attention(query, key, value);
        let output = block.row(Site::AttentionOutput, Kernel::Linear(Matrix::AttentionOutput), &[mixed], 1);
        block.row(Site::BlockOutput, Kernel::Add(None), &[input, output], 1);
        block
    };
    assert!(refused(with_attention(false)).contains("sees keys of its own part"));
    assert!(refused(with_attention(true)).contains("would reach the keys or the values alone"));
}

/// `CAUSALCONE_RANDOM=5000 cargo test -p causalcone-engine --test cone -- --ignored`
#[test]
#[ignore = "as long as one likes"]
fn many_random_experiments_agree_with_the_reference() {
    let count = std::env::var("CAUSALCONE_RANDOM").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    compare(0..count, true);
}

/// A row of a matrix is as long as the run it is taken from, though a shorter prompt owns what it is
/// computed from.
#[test]
fn rows_of_matrices_are_as_long_as_their_run() {
    let written = json!({
        "runs": {"base": {"ids": [6, 46, 32, 38]}, "short": {"ids": [38, 55, 7]}, "long": {"ids": [38, 55, 57, 22]}},
        "edit": [{"run": "base", "site": "attention_weight", "layers": 1, "positions": [1], "op": "add",
                  "value": {"run": "long", "layers": 0}},
                 {"run": "short", "site": "block_output", "layers": 0, "op": "zero"}],
    });
    for name in MODELS {
        let model = model(name);
        let of = |executor| collected(executor, model, &written, &["base", "short"]).unwrap();
        let [theirs, ours] = EXECUTORS.map(of);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            check_close(ours, theirs, false, name);
        }
    }
}

/// A layer × position swap from another prompt that begins alike, as patching grids are.
fn swap_grid(base: &[u32], source: &[u32], more: &Value) -> Value {
    let edit =
        json!({"run": "base", "site": "block_input", "layers": "all", "op": "swap", "value": {"run": "b"}});
    let sweep = with(&json!({"layers": "each", "positions": "each", "metrics": ["logit_diff"]}), more);
    json!({"runs": {"base": {"ids": base}, "b": {"ids": source}}, "edit": [edit],
           "read": {"tokens": [5, 9]}, "sweep": sweep})
}

fn explain(model: &Model, written: &Value, executor: &dyn Executor) -> Explanation {
    Explanation::new(&experiment(model, written).unwrap(), &Runtime::own(executor)).unwrap()
}

#[test]
fn a_swap_grid_computes_the_rows_of_its_formula() {
    let base_ids = [49, 28, 31, 17, 5, 60, 2];
    for same in 0..base_ids.len() {
        let source_ids: Vec<u32> =
            base_ids.iter().enumerate().map(|(i, id)| if i < same { *id } else { (id + 1) % 61 }).collect();
        for name in MODELS {
            let model = model(name);
            let (n, layers) = (base_ids.len() as u64, model.config().layers as u64);
            let same = same as u64;
            // A cell at position p and layer l has the rows from p on in every layer from l on. In the
            // last layer they are there for their keys, so a cell that begins there has two: the edited
            // row and the last one, which reads it.
            let rows = |l: u64, p: u64| {
                if l + 1 == layers { (n - p).min(2) } else { (n - p) * (layers - l) }
            };
            let cells: u64 = (same..n).flat_map(|p| (0..layers).map(move |l| rows(l, p))).sum();
            // The source gives what enters every layer, and shares the rows before the first difference,
            // where the cells are no edits at all.
            let source = (n - same) * (layers - 1);
            // The base gives keys and what enters; its last row goes on to the end in cells alone,
            // unless there are some that are the base.
            let base = n * layers - u64::from(same == 0);
            let explained =
                explain(model, &swap_grid(&base_ids, &source_ids, &json!({})), &Cone { memory: None });
            assert_eq!(explained.rows_computed, cells + source + base, "{name}, {same} alike");
            assert_eq!(explained.rows_naive, 2 * n * layers * n * layers);
            assert!(explained.rows_computed <= explained.rows_naive);
        }
    }
}

#[test]
fn a_cumulative_sweep_computes_its_trunk_once() {
    let model = model("tiny-llama");
    let (n, layers) = (5u64, model.config().layers as u64);
    for position in 0..n {
        let edit = json!({"run": "base", "site": "mlp_output", "layers": "all", "positions": [position],
                          "op": "add", "value": {"values": 1.0}});
        let written = json!({"runs": {"base": {"ids": [3, 1, 4, 1, 5]}}, "edit": [edit], "read": {"tokens": [5]},
                             "sweep": {"layers": "cumulative"}});
        let explained = explain(model, &written, &Cone { memory: None });
        // The first block is everyone's: its edited row is every cell's.
        let first = n;
        // Before the position all is the base's, in every layer.
        let before = position * (layers - 1);
        // Cell i has all from the position on in every layer after its last edit. In the layer right after
        // it only the edited row's key is its own, so in the last layer that and the last row are all.
        let later = n - position;
        let after =
            |i: u64, l: u64| if i > 0 && l == i + 1 && l == layers - 1 { later.min(2) } else { later };
        let cells: u64 = (0..layers).flat_map(|i| (i + 1..layers).map(move |l| after(i, l))).sum();
        // The trunk: the edited row of each layer but the first, which those after go on from; that of the
        // last layer only where it is read.
        let trunk = layers - 2 + u64::from(position == n - 1);
        let naive = n * layers * layers;
        assert_eq!(explained.rows_computed, first + before + cells + trunk, "position {position}");
        assert_eq!(explained.rows_naive, naive);
        assert!(explained.rows_computed <= explained.rows_naive);
    }
}

#[test]
fn what_is_told_before_is_what_is_done() {
    for seed in 0..60 {
        for name in all_models() {
            let model = model(&name);
            let written = random_experiment(seed, model);
            let mut written = written.clone();
            let names: Vec<String> = run_names(&written).into_iter().map(str::to_owned).collect();
            for run in &names {
                let read = json!({"run": run, "site": "block_output", "layers": 0, "op": "collect"});
                written["edit"].as_array_mut().unwrap().push(read);
            }
            let exp = experiment(model, &written).unwrap();
            let Ok(plan) = exp.plan_single() else { continue };
            let cells: Vec<&Cell> = plan.baselines().chain(&plan.cells).collect();
            let cone = Cone { memory: None };
            let told = cone.estimate(&plan, &cells, model.config()).unwrap();
            let done =
                cone.execute(model, &plan, &cells, &mut |_, _| Ok(std::ops::ControlFlow::Continue(())));
            let Ok(done) = done else { continue };
            assert_eq!(told, done, "{name}, seed {seed}: {written}");
            // Each batch visits a layer's weights once at most.
            assert!(done.visits <= done.batches * model.config().layers as u64);
        }
    }
}

#[test]
fn no_memory_budget_changes_an_answer() {
    let model = model("tiny-gpt2");
    let (base, source) = ([49, 28, 31, 17, 5, 60], [49, 28, 30, 17, 6, 1]);
    let written =
        swap_grid(&base, &source, &json!({"sites": ["block_input", "mlp_output", "attention_output"]}));
    let exp = experiment(model, &written).unwrap();
    let sweep = PreparedSweep::new(&exp).unwrap();
    let whole = sweep.run(&Runtime::within(None)).unwrap();
    let plan = exp.plan().unwrap();
    let cells: Vec<&Cell> = plan.baselines().chain(&plan.cells).collect();
    let peak = ConePlan::new(&plan, &cells, model.config(), None).unwrap().work().peak_bytes;
    let mut batches = 0;
    for percent in [90, 80, 70, 60] {
        let cone = Cone { memory: Some(peak * percent / 100) };
        let Ok(told) = cone.estimate(&plan, &cells, model.config()) else { break };
        assert!(told.batches >= batches && told.peak_bytes <= peak * percent / 100);
        batches = told.batches;
        let with_record = Runtime::within(cone.memory.map(|memory| memory + sweep.record_bytes()));
        let result = sweep.run(&with_record).unwrap();
        for (ours, theirs) in result.values.iter().flatten().zip(whole.values.iter().flatten()) {
            let (a, b) = (ours.unwrap(), theirs.unwrap());
            assert!((a - b).abs() <= 1e-5 + 1e-5 * b.abs(), "{a} is not {b} at {percent} %");
        }
    }
    assert!(batches > 2, "{batches} batches only");
    let error = Cone { memory: Some(1) }.estimate(&plan, &cells, model.config()).unwrap_err();
    assert!(error.to_string().contains("too little for even one cell, which needs"), "{error}");
    assert!(error.is_bad_input());
}

/// The written values of edits as tensors that a program gives, the same tensor for the same numbers.
fn give(written: &mut Value, given: &mut Vec<(Value, candle_core::Tensor)>) -> Inputs {
    let mut all = Inputs::default();
    for edit in written["edit"].as_array_mut().unwrap() {
        let values = edit["value"]["values"].clone();
        let Some(rows) = values.as_array() else { continue };
        let number = given.iter().position(|(other, _)| *other == values).unwrap_or_else(|| {
            let row =
                |row: &Value| row.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
            let rows: Vec<Vec<f32>> = match rows[0].is_array() {
                true => rows.iter().map(row).collect(),
                false => vec![row(&values)],
            };
            let mut tensor = candle_core::Tensor::new(rows, &candle_core::Device::Cpu).unwrap();
            if !values[0].is_array() {
                tensor = tensor.squeeze(0).unwrap();
            }
            given.push((values.clone(), tensor));
            given.len() - 1
        });
        let name = format!("v{number}");
        edit["value"] = json!({"given": name});
        all.tensors.insert(name, given[number].1.clone());
    }
    all
}

#[test]
fn a_memo_changes_no_answer() {
    let (mut compared, mut less) = (0, 0);
    for seed in 0..30 {
        for name in all_models() {
            let model = model(&name);
            let mut draw = Draw(seed + 77);
            let whole = random_experiment(seed, model);
            let edits = whole["edit"].as_array().unwrap().clone();
            // Room for some of what there is, so that some is dropped.
            let mut memo = Memo::new(draw.pick(&[1 << 15, 1 << 18, 1 << 24]));
            let mut tensors = Vec::new();
            for _ in 0..6 {
                let mut written = whole.clone();
                written["edit"] = json!(edits[..draw.below(edits.len() + 1)].to_vec());
                for _ in 0..2 {
                    let run = draw.pick(&run_names(&whole));
                    let (site, layer) = draw.pick(&places(model));
                    let collect = edit(site, layer, &json!({"run": run, "op": "collect"}));
                    written["edit"].as_array_mut().unwrap().push(collect);
                }
                let last = edit(Site::FinalNorm, None, &json!({"run": "base", "op": "collect"}));
                written["edit"].as_array_mut().unwrap().push(last);
                let say = format!("{name}, seed {seed}: {written}");
                let given = give(&mut written, &mut tensors);
                let mut file = ExperimentFile::from_json(&written.to_string()).unwrap();
                file.inputs = given;
                let Ok(experiment) = file.experiment(model) else { continue };
                let theirs = Collection::new(&experiment, 1 << 30)
                    .and_then(|all| all.gather(0, &Runtime::reference()));
                let ours = match draw.one_in(4) {
                    true => memo.trace(&experiment, &Runtime::default()),
                    false => memo.collect(&experiment, &Runtime::default()),
                };
                let (theirs, ours) = match (theirs, ours) {
                    (Ok(theirs), Ok(ours)) => (theirs, ours),
                    (Err(theirs), Err(ours)) => {
                        assert_eq!(theirs.to_string(), ours.to_string(), "{say}");
                        continue;
                    }
                    (theirs, ours) => panic!("{theirs:?} and {ours:?}: {say}"),
                };
                assert!(memo.bytes() <= memo.limit(), "{say}");
                assert_eq!(ours.len(), theirs[0].collected.len(), "{say}");
                let mut alone = Memo::new(0);
                alone.collect(&experiment, &Runtime::default()).unwrap();
                assert!(memo.last_work().rows <= alone.last_work().rows, "{say}");
                less += usize::from(memo.last_work().rows < alone.last_work().rows);
                for (ours, theirs) in ours.iter().zip(&theirs[0].collected) {
                    assert_eq!(ours.place, theirs.place, "{say}");
                    let flat = |x: &candle_core::Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                    let (ours, theirs) = (flat(&ours.tensor), flat(&theirs.tensor));
                    let largest =
                        theirs.iter().filter(|x| x.is_finite()).fold(0.0f32, |max, x| max.max(x.abs()));
                    for (a, b) in ours.iter().zip(&theirs) {
                        // f32 products in another order; of large numbers, by the largest.
                        let near = a == b || (a - b).abs() <= 1e-5 + 1e-5 * largest || !b.is_finite();
                        assert!(near, "{a} is not {b}: {say}");
                    }
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} tensors compared, {less} experiments went on from earlier ones");
    assert!(compared > 1000 && less > 100, "{compared}, {less}");
}
