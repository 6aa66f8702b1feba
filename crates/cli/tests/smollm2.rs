//! The real model against pyvene's own answers on the same file: token ids equal, every probability
//! within 1e-4 (ours and theirs are both f32 over 30 layers; measured they differ by 5e-6).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use causalcone::{
    Experiment, ExperimentFile, Last, Method, Model, Op, Precision, PreparedSweep, Runtime, Site,
    SweepResult, generate, train,
};
use serde_json::Value;
use std::sync::OnceLock;

const TOLERANCE: f64 = 1e-4;

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load("smollm2").expect("the default model can be fetched"))
}

/// The same, its matrices as they are in the file.
fn packed() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| Model::load_as("smollm2", Precision::Packed, &causalcone::silent).unwrap())
}

fn published() -> &'static Value {
    static PUBLISHED: OnceLock<Value> = OnceLock::new();
    let text = include_str!("../fixtures/smollm2_spain_italy.json");
    PUBLISHED.get_or_init(|| serde_json::from_str(text).unwrap())
}

fn shipped(name: &str) -> ExperimentFile {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    ExperimentFile::load(&std::path::Path::new(folder).join(name)).unwrap()
}

#[test]
fn ids_and_likeliest_tokens_are_pyvenes() {
    [model(), packed()].into_iter().for_each(answers_are_pyvenes);
}

fn answers_are_pyvenes(model: &Model) {
    let mut exp = Experiment::new(model);
    let rome = model.embedding(" Rome").unwrap();
    let spain = exp.run("The capital of Spain is").unwrap();
    let italy = exp.run("The capital of Italy is").unwrap();
    exp.edit(spain, Site::MlpOutput.layers(..).at(Last), Op::add(rome)).unwrap();
    let outcome = exp.execute().unwrap();
    for (run, key) in [(spain, "base"), (italy, "source")] {
        assert_eq!(serde_json::json!(exp.ids(run)), published()[key]["ids"], "{key}");
    }
    for (answer, expected) in [
        (outcome.original(spain), &published()["base"]["top"]),
        (outcome.original(italy), &published()["source"]["top"]),
        (outcome.counterfactual(spain), &published()["add_all_mlp_last"]),
        (outcome.counterfactual(italy), &published()["source"]["top"]),
    ] {
        let expected = expected.as_array().unwrap();
        for (ours, theirs) in answer.top(expected.len()).0.iter().zip(expected) {
            assert_eq!(
                (ours.token.as_str(), u64::from(ours.id)),
                (theirs["token"].as_str().unwrap(), theirs["id"].as_u64().unwrap())
            );
            assert!(
                (ours.prob.unwrap() - theirs["prob"].as_f64().unwrap()).abs() <= TOLERANCE,
                "{ours:?} {theirs}"
            );
        }
    }
}

/// Compares every published cell of a sweep; returns how many there were.
fn compare(result: &SweepResult, grid: &Value) -> usize {
    let layers: Vec<usize> = serde_json::from_value(grid["layers"].clone()).unwrap();
    let mut compared = 0;
    for row in result.rows() {
        let (layer, position) = (row.at.layer.unwrap(), row.at.position.unwrap());
        let site = row.at.site.unwrap().name();
        let token = model().token_text(row.token.unwrap());
        let Some(index) = layers.iter().position(|l| *l == layer) else { continue };
        let theirs = grid["prob"][site][&token][index][position].as_f64().unwrap();
        let ours = row.value.unwrap();
        assert!(
            (ours - theirs).abs() <= TOLERANCE,
            "{site} layer {layer} position {position} {token:?}: {ours} {theirs}"
        );
        compared += 1;
    }
    compared
}

fn sweep(file: &ExperimentFile) -> SweepResult {
    PreparedSweep::new(&file.experiment(model()).unwrap()).unwrap().run(&Runtime::default()).unwrap()
}

#[test]
fn the_cumulative_sweep_is_pyvenes() {
    assert_eq!(compare(&sweep(&shipped("cumulative.toml")), &published()["cumulative"]), 600);
}

#[test]
fn swaps_at_four_sites_are_pyvenes() {
    let mut file = shipped("swap.toml");
    let layers: Vec<usize> = serde_json::from_value(published()["swap"]["layers"].clone()).unwrap();
    file.edit[0].layers = Some(layers.into());
    let sites = ["block_output", "mlp_output", "attention_output", "mlp_activation"];
    file.sweep.as_mut().unwrap().sites = Some(sites.map(String::from).to_vec());
    assert_eq!(compare(&sweep(&file), &published()["swap"]), 400);
}

/// With the steering repository's copy beside the project, the committed one is checked to be it.
#[test]
fn the_committed_numbers_are_the_original_ones() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/oracle/smollm2_spain_italy.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        println!("skipped: the original file is not beside the project");
        return;
    };
    let original: Value = serde_json::from_str(&text).unwrap();
    for (sweep, rows) in [("cumulative", 600), ("swap", 400)] {
        let grid = &published()[sweep];
        let layers: Vec<u64> = serde_json::from_value(grid["layers"].clone()).unwrap();
        let cells = original[sweep].as_array().unwrap();
        assert_eq!(cells.len(), rows);
        for cell in cells {
            let layer = layers.iter().position(|l| Some(*l) == cell["layer"].as_u64()).unwrap();
            let (component, token) = (cell["component"].as_str().unwrap(), cell["token"].as_str().unwrap());
            let position = usize::try_from(cell["position"].as_u64().unwrap()).unwrap();
            let ours = grid["prob"][component][token][layer][position].as_f64().unwrap();
            // Seven digits are kept.
            assert!((ours - cell["prob"].as_f64().unwrap()).abs() < 1e-6);
        }
    }
}

#[test]
fn shipped_examples_fit_the_default_model() {
    let model = model();
    for (name, cells) in [
        ("causal-tracing", 4 * 30 * 5),
        ("causal-tracing-mlp", 4 * 28 * 2),
        ("heads", 30 * 9),
        ("data-set", 30 * 14),
    ] {
        let mut experiment = shipped(&format!("{name}.toml")).experiment(model).unwrap();
        assert!(experiment.sift().unwrap().is_empty(), "{name}");
        assert_eq!(experiment.plan().unwrap().cells.len(), cells, "{name}");
    }
}

/// Greedy text under a vector added in some passes is transformers', token for token, and as likely.
#[test]
fn steered_texts_are_transformers() {
    let fixture: Value = serde_json::from_str(include_str!("../fixtures/smollm2_generation.json")).unwrap();
    for (case, model) in
        fixture["cases"].as_array().unwrap().iter().flat_map(|case| [(case, model()), (case, packed())])
    {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let mut file = shipped("generate.toml");
        file.runs.get_mut("base").unwrap().prompt = Some(fixture["prompt"].as_str().unwrap().into());
        let edit = &mut file.edit[0];
        edit.scale = case["scale"].as_f64();
        edit.layers = Some(case["layer"].as_i64().unwrap().into());
        edit.steps = serde_json::from_value(case["steps"].clone()).unwrap();
        let options = generate::Generation { max_tokens: ids.len(), ..file.generate.clone().unwrap() };
        let text = file.experiment(model).unwrap().generate(&options).unwrap().counterfactual.remove(0);
        assert_eq!((&text.ids, text.text.as_str()), (&ids, case["text"].as_str().unwrap()), "{case}");
        for (ours, theirs) in text.logprobs.iter().zip(case["logprobs"].as_array().unwrap()) {
            assert!((ours - theirs.as_f64().unwrap()).abs() <= TOLERANCE, "{ours} {theirs}");
        }
    }
}

/// Attribution patching of the shipped example, beside the exact numbers: its integrated form tells them where the
/// plain one does not.
#[test]
fn estimates_go_with_the_exact_numbers() {
    let mut experiment = shipped("attribution.toml").experiment(model()).unwrap();
    assert!(experiment.sift().unwrap().is_empty());
    let result = PreparedSweep::new(&experiment).unwrap().run(&Runtime::default()).unwrap();
    let agreement = result.agreement();
    let correlation = |method| {
        let of = agreement.iter().find(|agreement| agreement.method == method).unwrap();
        of.correlation.unwrap()
    };
    // Measured: −0.470 and 0.957.
    assert!(correlation(Method::Attribution) < 0.0);
    assert!(correlation(Method::Integrated) > 0.9);
}

#[test]
fn the_lens_ends_at_pyvenes_answer() {
    let mut exp = Experiment::new(model());
    exp.run("The capital of Spain is").unwrap();
    let lens = exp.lens(&Runtime::default(), 10).unwrap();
    let last = lens.original.depths.last().unwrap().positions.last().unwrap();
    let expected = published()["base"]["top"].as_array().unwrap();
    for (ours, theirs) in last.top.iter().zip(expected) {
        assert_eq!(u64::from(ours.token), theirs["id"].as_u64().unwrap());
        assert!((ours.prob - theirs["prob"].as_f64().unwrap()).abs() <= TOLERANCE);
    }
    let sum: f64 = lens.original.contributions.iter().map(|contribution| contribution.logits[0]).sum();
    // 332 parts of up to a few hundred, in f32.
    assert!((sum - lens.original.logits[0]).abs() < 1e-3, "{sum} {}", lens.original.logits[0]);
}

/// LoReFT on a toy task: the right plural at least three times as likely for at least 80 % of the words held out.
#[test]
fn loreft_makes_the_target_likelier() {
    let file = shipped("loreft.toml");
    let mut experiment = file.experiment(model()).unwrap();
    assert!(experiment.sift().unwrap().is_empty());
    let (options, held_out, refused) = file.training(&experiment).unwrap();
    assert!(refused.is_empty());
    // Fewer than the file has: what is to be shown is there long before.
    let options = train::Options { length: train::Length::Steps(25), ..options };
    let training = train::Training::new(&experiment, held_out, options).unwrap();
    let runtime = Runtime::default();
    let trainer = training.trainer(&runtime).unwrap();
    let mut fit = trainer.fit(0).unwrap();
    while fit.step().unwrap().is_some() {}
    let (before, after) = (trainer.originals().unwrap(), fit.scores().unwrap());
    let rises = before.iter().zip(&after).filter(|(before, after)| before.loss - after.loss >= 3f64.ln());
    let (rises, all) = (rises.count(), after.len());
    assert!(rises * 10 >= all * 8, "{rises} of {all}");
}

#[test]
fn capitals_are_known_and_their_subjects_stand_where_it_says() {
    let model = model();
    let mut experiment = shipped("data-set.toml").experiment(model).unwrap();
    experiment.set_sweep(None);
    let mut lengths = std::collections::BTreeSet::new();
    for (one, line) in experiment.by_example().zip(include_str!("../examples/capitals.jsonl").lines()) {
        let (one, line): (_, Value) = (one.unwrap(), serde_json::from_str(line).unwrap());
        for (run, name) in [("base", "subject"), ("other", "other_subject")] {
            let ids = one.ids(one.find_run(run, "test").unwrap());
            lengths.insert(ids.len());
            let positions: Vec<usize> = match &line["positions"][name] {
                Value::Array(list) => list.iter().map(|p| p.as_u64().unwrap() as usize).collect(),
                one => vec![one.as_u64().unwrap() as usize],
            };
            let text: String = positions.iter().map(|p| model.token_text(ids[*p])).collect();
            let country = line[run].as_str().unwrap().strip_prefix("The capital of").unwrap();
            let country = country.strip_suffix(" is").unwrap();
            assert!(
                if run == "base" { country == text } else { country.ends_with(&text) },
                "{country}: {text}"
            );
        }
    }
    assert!(lengths.len() > 2, "{lengths:?}");
    // The first: Italy's residual stream in place of Spain's.
    let first = experiment.by_example().next().unwrap().unwrap();
    let base = first.find_run("base", "test").unwrap();
    let outcome = first.execute().unwrap();
    assert!(outcome.original(base).prob(" Madrid").unwrap() > 0.3);
}

#[test]
fn noise_loses_the_answer_and_restoring_brings_it_back() {
    let mut file = shipped("causal-tracing.toml");
    file.edit[1].layers = Some(0.into());
    file.edit[1].positions = Some(3.into());
    let sweep = file.sweep.as_mut().unwrap();
    sweep.samples = Some(2);
    let result = self::sweep(&file);
    assert_eq!(result.cells.len(), 2);
    for row in result.rows() {
        // Block 0 of a clean run at the corrupted position is all that was lost, but its keys and values.
        let (base, fixed, value) = (row.base.unwrap(), row.fixed.unwrap(), row.value.unwrap());
        assert!(base > 0.3 && fixed < 0.05 && value > 0.9 * base, "{base} {fixed} {value}");
    }
    assert_eq!(result.means()[0].n, 2);
}
