//! What the tests of the engine share: models, experiments written as JSON, and every activation
//! of a run at once.
#![allow(dead_code, reason = "no test file uses all of it")]

use causalcone_engine::op::{Axis, OpInfo};
use causalcone_engine::{Cone, Error, Executor, Experiment, ExperimentFile, Reference, Runtime};
use causalcone_model::{Layout, Model, Site};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

/// Two families; the third has a tokenizer.
pub const MODELS: [&str; 3] = ["tiny-gpt2", "tiny-llama", "tiny-llama-tied"];

/// [`MODELS`], and one of each other family, with all that they do otherwise.
pub fn all_models() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/families/cases.json");
    let cases: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let others = cases.into_keys().filter(|name| !name.ends_with("-gguf"));
    let others: Vec<String> = others.map(|name| format!("families/{name}")).collect();
    assert!(others.len() >= 13);
    MODELS.map(String::from).into_iter().chain(others).collect()
}

/// The sites of a model.
pub fn sites(model: &Model) -> impl Iterator<Item = Site> + '_ {
    model.config().sites()
}

/// A fixture, loaded once.
pub fn model(name: &str) -> &'static Model {
    static LOADED: Mutex<BTreeMap<String, &'static Model>> = Mutex::new(BTreeMap::new());
    LOADED.lock().unwrap().entry(name.into()).or_insert_with(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name);
        Box::leak(Box::new(Model::load(path.to_str().unwrap()).unwrap()))
    })
}

/// The experiment a JSON document describes.
pub fn experiment<'m>(model: &'m Model, written: &Value) -> Result<Experiment<'m>, Error> {
    ExperimentFile::from_json(&written.to_string())?.experiment(model)
}

/// Where a tensor stands in the order of execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(usize, usize, pub Site);

impl Moment {
    pub fn of(site: Site, layer: Option<usize>) -> Self {
        let stage = match (site, layer) {
            (Site::Embedding, _) => 0,
            (_, Some(layer)) => layer + 1,
            (_, None) => usize::MAX,
        };
        let tensor = site.tensor();
        let place = Site::all().position(|site| site == tensor);
        Self(stage, place.unwrap_or(usize::MAX), tensor)
    }
}

/// The rows of a tensor, one a position; in attention matrices those of all heads side by side.
pub type Rows = Vec<Vec<f32>>;

/// Every tensor of one run, as it is after the run's edits.
pub type Activations = BTreeMap<Moment, Rows>;

/// Both executors.
pub const EXECUTORS: [&dyn Executor; 2] = [&Reference, &Cone { memory: None }];

/// All activations of a run, by `collect` edits behind the experiment's own, by the executor whose
/// numbers are the same to the bit whatever else is run.
pub fn everything(model: &Model, written: &Value, run: &str) -> Activations {
    try_everything(model, written, run).unwrap_or_else(|e| panic!("{e}\n{written}"))
}

pub fn try_everything(model: &Model, written: &Value, run: &str) -> Result<Activations, Error> {
    Ok(collected(&Reference, model, written, &[run])?.remove(0))
}

/// The activations of a run with its edits, and of one with the same prompt and none: what the two
/// have in common is the same to the bit, by either executor.
pub fn edited_and_not(
    executor: &dyn Executor,
    model: &Model,
    written: &Value,
    run: &str,
) -> [Activations; 2] {
    let mut written = written.clone();
    written["runs"]["unedited"] = written["runs"][run].clone();
    written["read"] = json!({"run": run});
    let both = collected(executor, model, &written, &[run, "unedited"]);
    both.unwrap_or_else(|e| panic!("{e}\n{written}")).try_into().unwrap()
}

/// The activations of some runs.
pub fn collected(
    executor: &dyn Executor,
    model: &Model,
    written: &Value,
    runs: &[&str],
) -> Result<Vec<Activations>, Error> {
    let mut written = written.clone();
    if written["edit"].is_null() {
        written["edit"] = json!([]);
    }
    let edits = written["edit"].as_array_mut().unwrap();
    for run in runs {
        for site in sites(model).filter(|site| site.tensor() == *site) {
            let mut read = json!({"run": run, "site": site.name(), "op": "collect"});
            if site.is_in_block() {
                read["layers"] = json!("all");
            }
            edits.push(read);
        }
    }
    let outcome = experiment(model, &written)?.execute_with(&Runtime::own(executor))?;
    let of = |run: &&str| {
        let all = outcome.collected().iter().filter(|c| *c.run == **run);
        all.map(|c| (Moment::of(c.place.site, c.place.layer), rows(&c.tensor))).collect()
    };
    Ok(runs.iter().map(of).collect())
}

/// The rows of positions × width, or of heads × queries × keys.
pub fn rows(tensor: &candle_core::Tensor) -> Rows {
    match tensor.rank() {
        2 => tensor.to_vec2().unwrap(),
        _ => tensor.transpose(0, 1).unwrap().flatten_from(1).unwrap().to_vec2().unwrap(),
    }
}

/// The logits of all positions.
pub fn logits(model: &Model, written: &Value, run: &str) -> Rows {
    everything(model, written, run).remove(&Moment::of(Site::Logits, None)).unwrap()
}

/// Heads of a site (1 where it has none apart) and numbers in each of its vectors.
pub fn shape(model: &Model, site: Site, positions: usize) -> (usize, usize) {
    match site.layout(model.config()) {
        Layout::Rows { width } => (1, width),
        Layout::Heads { heads, width } => (heads, width),
        Layout::Attention { heads } => (heads, positions),
    }
}

/// Every site, with every layer it has.
pub fn places(model: &Model) -> Vec<(Site, Option<usize>)> {
    let layers = 0..model.config().layers;
    let of = |site: Site| match site.is_in_block() {
        true => layers.clone().map(|layer| (site, Some(layer))).collect(),
        false => vec![(site, None)],
    };
    sites(model).flat_map(of).collect()
}

/// An edit of a site in a layer, if it has layers.
pub fn edit(site: Site, layer: Option<usize>, more: &Value) -> Value {
    let mut edit = json!({"site": site.name()});
    if let Some(layer) = layer {
        edit["layers"] = json!(layer);
    }
    with(&edit, more)
}

/// An object with the keys of another put in; null takes one out.
pub fn with(object: &Value, more: &Value) -> Value {
    let mut object = object.clone();
    for (key, value) in more.as_object().unwrap() {
        match value {
            Value::Null => drop(object.as_object_mut().unwrap().remove(key)),
            value => object[key] = value.clone(),
        }
    }
    object
}

/// Random numbers of either sign, each between 1 and 4 times `size`; not one like another.
pub fn random(seed: u64, rows: usize, width: usize, size: f64) -> Value {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut number = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = state >> 40;
        let size = size * (1.0 + 3.0 * (bits >> 1) as f64 / f64::from(1 << 23));
        if bits & 1 == 0 { size } else { -size }
    };
    (0..rows).map(|_| (0..width).map(|_| number()).collect::<Vec<_>>()).collect::<Vec<_>>().into()
}

/// The largest difference of two rows; a number that is not finite is infinitely far from another.
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let far = |(a, b): (&f32, &f32)| {
        if a == b {
            0.0
        } else if (a - b).is_finite() {
            (a - b).abs()
        } else {
            f32::INFINITY
        }
    };
    a.iter().zip(b).map(far).fold(0.0, f32::max)
}

/// Vectors of length 1, each at right angles to the others, as the columns of a matrix.
pub fn rotation(seed: u64, width: usize, rank: usize) -> Value {
    let drawn: Vec<Vec<f64>> = serde_json::from_value(random(seed, rank, width, 1.0)).unwrap();
    let mut columns: Vec<Vec<f64>> = Vec::new();
    for mut column in drawn {
        // Twice, since the first time leaves what rounding brought in.
        for other in columns.iter().chain(&columns) {
            let along: f64 = column.iter().zip(other).map(|(a, b)| a * b).sum();
            column.iter_mut().zip(other).for_each(|(a, b)| *a -= along * b);
        }
        let length = column.iter().map(|x| x * x).sum::<f64>().sqrt();
        columns.push(column.iter().map(|x| x / length).collect());
    }
    (0..width).map(|i| columns.iter().map(|column| column[i]).collect::<Vec<_>>()).collect::<Vec<_>>().into()
}

/// Random parameters of an op for vectors of a width, by the table's own account of them.
pub fn parameters(op: &OpInfo, seed: u64, width: usize, rank: usize) -> Value {
    let mut given = json!({});
    for (i, parameter) in op.parameters.iter().enumerate() {
        let seed = seed * 31 + i as u64;
        let sizes: Vec<usize> =
            parameter.shape.iter().map(|axis| if *axis == Axis::Width { width } else { rank }).collect();
        // Sums over rows stay of the size of what is summed.
        let size = 0.4 / (width as f64).sqrt();
        given[parameter.name] = match (parameter.name, sizes.as_slice()) {
            ("rotation", [width, rank]) => rotation(seed, *width, *rank),
            ("temperature", _) => json!(0.7),
            ("boundary", _) => json!(0.4),
            ("std", [width]) => random(seed, 1, *width, 0.3)[0]
                .as_array()
                .unwrap()
                .iter()
                .map(|x| json!(x.as_f64().unwrap().abs()))
                .collect(),
            (_, [width]) => random(seed, 1, *width, 0.2)[0].clone(),
            (_, [rows, columns]) => random(seed, *rows, *columns, size),
            (name, shape) => panic!("{name} of shape {shape:?}"),
        };
    }
    given
}

/// That something was refused, in a message with these words.
pub fn refused(result: Result<impl Sized, Error>, words: &[&str]) {
    let Err(error) = result else { panic!("accepted, where {words:?} was to be said") };
    let said = format!("{error} {}", error.hint().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}
