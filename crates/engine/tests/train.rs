//! Training: pyvene's losses followed, and what must not change them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use candle_core::{Device, Tensor};
use causalcone_engine::train::{
    Adam, Checkpoint, HeldOut, Length, Map, Objective, Options, Schedule, Score, Step, Training,
};
use causalcone_engine::{Each, Error, Example, Experiment, Joint, Op, OpKind, Runtime, Sweep};
use causalcone_model::{Indices, Last, Model, Site};
use common::*;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(name)
}

fn record() -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture("training.json")).unwrap()).unwrap()
}

fn tensors() -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture("training.safetensors"), &Device::Cpu).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn examples(record: &Value) -> Vec<Example> {
    let all = record["base"].as_array().unwrap().iter().zip(record["source"].as_array().unwrap());
    all.zip(ids(&record["labels"]))
        .map(|((base, source), label)| {
            Example::new().prompt("base", ids(base)).prompt("source", ids(source)).label(label)
        })
        .collect()
}

/// The interchange of the fixture, with these parameters.
fn interchange<'m>(model: &'m Model, record: &Value, op: Op) -> Experiment<'m> {
    let mut exp = Experiment::new(model);
    let base = exp.open_run("base").unwrap();
    let source = exp.open_run("source").unwrap();
    let layer = usize::try_from(record["layer"].as_u64().unwrap()).unwrap();
    let mut target = Site::BlockOutput.layers(layer).at(Last);
    if op.kind == OpKind::RotatedSwap {
        target.dims = Some(Indices::Range(0, Some(record["dims"].as_i64().unwrap())));
    }
    exp.edit(base, target, op.value(source)).unwrap();
    exp.set_examples(examples(record));
    exp
}

fn low_rank<'m>(model: &'m Model, record: &Value) -> Experiment<'m> {
    let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(3), 0).unwrap();
    interchange(model, record, op)
}

fn options(rate: f64, steps: usize) -> Options {
    Options { length: Length::Steps(steps), learning_rate: rate, ..Options::default() }
}

fn steps(training: &Training<'_>, runtime: &Runtime<'_>) -> Vec<Step> {
    let trainer = training.trainer(runtime).unwrap();
    let mut fit = trainer.fit(0).unwrap();
    let mut steps = Vec::new();
    while let Some(step) = fit.step().unwrap() {
        steps.push(step);
    }
    steps
}

fn losses(experiment: &Experiment<'_>, options: Options) -> Vec<f64> {
    let training = Training::new(experiment, HeldOut::None, options).unwrap();
    steps(&training, &Runtime::default()).iter().map(|step| step.loss).collect()
}

fn close(ours: &[f64], theirs: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), theirs.len());
    for (i, (a, b)) in ours.iter().zip(theirs).enumerate() {
        assert!((a - b).abs() <= tolerance, "step {i}: {a} is not {b}");
    }
}

/// Twenty updates from pyvene's own first parameters, with its parametrisation: in f32 here, in f64 there.
#[test]
fn pyvenes_losses_are_followed() {
    let (record, tensors) = (record(), tensors());
    let model = model("tiny-gpt2");
    for (name, maps) in [
        ("low_rank_swap", vec![Map::Householder, Map::Cayley]),
        ("rotated_swap", vec![Map::Exponential, Map::Cayley]),
        ("boundless_swap", vec![Map::Exponential]),
        ("sigmoid_mask", vec![Map::Cayley]),
    ] {
        let kind = OpKind::by_name(name).unwrap();
        let mut op = Op::new(kind);
        for parameter in kind.info().parameters {
            op = op.parameter(parameter.name, tensors[&format!("{name}.first.{}", parameter.name)].clone());
        }
        let theirs: Vec<f64> = serde_json::from_value(record["losses"][name].clone()).unwrap();
        let exp = interchange(model, &record, op);
        for map in maps {
            let base = (map == Map::Householder).then(|| tensors[&format!("{name}.base")].clone());
            let options = Options { map, base, ..options(record["rate"].as_f64().unwrap(), 20) };
            let training = Training::new(&exp, HeldOut::None, options).unwrap();
            let trainer = training.trainer(&Runtime::default()).unwrap();
            let mut fit = trainer.fit(0).unwrap();
            let mut ours = Vec::new();
            while let Some(step) = fit.step().unwrap() {
                ours.push(step.loss);
            }
            if map == Map::Cayley && name != "sigmoid_mask" {
                // Ours, on the same data from the same rotation: no worse where pyvene ends.
                assert!(ours[19] <= theirs[19], "{name}: {} is more than {}", ours[19], theirs[19]);
                continue;
            }
            // Rounding in f32, which Adam's first steps make the most of: a gradient's sign is a whole step.
            close(&ours, &theirs, 1e-3);
            let trained = fit.experiment().unwrap();
            let mut learned = 0;
            // What an interchange does is the projection on the columns that are exchanged: how these are turned among
            // themselves has no gradient, and where all columns are exchanged in part, next to none.
            let columns = match kind {
                OpKind::RotatedSwap => Some(usize::try_from(record["dims"].as_u64().unwrap()).unwrap()),
                OpKind::BoundlessSwap => None,
                _ => Some(3),
            };
            let projection = |rotation: &Tensor| {
                let columns = rotation.narrow(1, 0, columns.unwrap()).unwrap().contiguous().unwrap();
                columns.matmul(&columns.t().unwrap()).unwrap()
            };
            let mut check = |parameter: &str, ours: &Tensor| {
                learned += 1;
                let mut both = [ours.clone(), tensors[&format!("{name}.last.{parameter}")].clone()];
                match (parameter, columns) {
                    ("rotation", None) => return,
                    ("rotation", Some(_)) => both = both.map(|rotation| projection(&rotation)),
                    _ => {}
                }
                let off =
                    (&both[0] - &both[1]).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
                let off = off.to_scalar::<f32>().unwrap();
                // A quarter of what twenty steps of 4e-3 can change: noise in directions without gradient moves as fast.
                assert!(off < 2e-2, "{name}.{parameter} is {off} away");
            };
            let mut trained = trained.clone();
            trained
                .map_parameters(|_, parameter, tensor| {
                    check(parameter, tensor);
                    Ok(tensor.clone())
                })
                .unwrap();
            assert_eq!(learned, kind.info().parameters.len());
        }
    }
}

#[test]
fn batches_add_up_to_larger_ones() {
    let record = record();
    let exp = low_rank(model("tiny-gpt2"), &record);
    let whole = losses(&exp, options(0.02, 12));
    // Of equal batches the mean gradient is the whole one's.
    let parts = losses(&exp, Options { batch: 2, accumulate: 3, ..options(0.02, 12) });
    // Sums of six losses in another order, through twelve updates.
    close(&parts, &whole, 1e-4);
    // Adam does not see by how much all gradients are too large, but beside a decay that is one of them.
    let mut decayed = Experiment::new(model("tiny-gpt2"));
    let base = decayed.open_run("base").unwrap();
    decayed.open_run("source").unwrap();
    let op = Op::random(OpKind::Nodireft, model("tiny-gpt2").config().width, Some(3), 0).unwrap();
    decayed.edit(base, Site::BlockOutput.layers(1).at(Last), op).unwrap();
    decayed.set_examples(examples(&record));
    let adam = Adam { weight_decay: 0.5, ..Adam::default() };
    let one = losses(&decayed, Options { adam, ..options(0.02, 12) });
    let three = losses(&decayed, Options { adam, batch: 2, accumulate: 3, ..options(0.02, 12) });
    close(&three, &one, 1e-4);
    let apart = losses(&exp, Options { batch: 2, ..options(0.02, 12) });
    assert!((apart[11] - whole[11]).abs() > 1e-3, "updates of parts are other updates");
    // One epoch of three batches is three updates; each example is seen once.
    let epochs = Options { batch: 2, length: Length::Epochs(4), ..Options::default() };
    assert_eq!(losses(&exp, epochs).len(), 12);
}

/// Kept rows, rows computed anew, one thread or two: the same losses.
#[test]
fn memory_does_not_change_a_loss() {
    for name in ["tiny-gpt2", "tiny-llama"] {
        let mut record = record();
        // Ragged, with a common beginning.
        record["base"] =
            serde_json::json!([[1, 2, 3, 4], [1, 2], [5], [1, 2, 3, 9, 9], [7, 7, 7], [1, 2, 4]]);
        record["source"] = serde_json::json!([[9, 2], [1, 2, 3], [6, 6, 6, 6], [1, 2], [3], [8, 1]]);
        let exp = low_rank(model(name), &record);
        let training = Training::new(&exp, HeldOut::None, options(0.02, 8)).unwrap();
        let all = steps(&training, &Runtime::within(None));
        let need = {
            let found = training.trainer(&Runtime::within(Some(1)));
            found.err().unwrap().to_string()
        };
        assert!(need.contains("too little"), "{need}");
        let one = training.trainer(&Runtime::within(Some(1 << 20))).unwrap();
        drop(one);
        for memory in [60_000u64, 120_000, 300_000] {
            let Ok(trainer) = training.trainer(&Runtime::within(Some(memory))) else { continue };
            let mut fit = trainer.fit(0).unwrap();
            for expected in &all {
                let step = fit.step().unwrap().unwrap();
                assert!(
                    (step.loss - expected.loss).abs() < 1e-4,
                    "{memory}: {} is not {}",
                    step.loss,
                    expected.loss
                );
            }
        }
        // Each example alone has the loss it has among others.
        let trainer = training.trainer(&Runtime::default()).unwrap();
        let together = trainer.fit(0).unwrap().scores().unwrap();
        for (i, example) in examples(&record).into_iter().enumerate() {
            let mut alone = low_rank(model(name), &record);
            alone.set_examples(vec![example]);
            let training = Training::new(&alone, HeldOut::None, options(0.02, 1)).unwrap();
            let score = training.trainer(&Runtime::default()).unwrap().fit(0).unwrap().scores().unwrap()[0];
            assert!((score.loss - together[i].loss).abs() < 1e-5);
        }
    }
}

/// Left at any step and gone on from its file, a fit is the same to the bit.
#[test]
fn a_fit_goes_on_bit_by_bit() {
    let record = record();
    let exp = low_rank(model("tiny-gpt2"), &record);
    let how = Options {
        batch: 4,
        evaluate: Some(3),
        patience: Some(2),
        schedule: Schedule::Cosine,
        warmup: 2,
        ..options(0.3, 30)
    };
    let training = Training::new(&exp, HeldOut::Part(0.3), how).unwrap();
    assert_eq!((training.trained(), training.held_out()), (4, 2));
    let trainer = training.trainer(&Runtime::default()).unwrap();
    let mut whole = trainer.fit(0).unwrap();
    let mut all = Vec::new();
    while let Some(step) = whole.step().unwrap() {
        all.push(step);
    }
    assert!(all.len() < 30, "a rate this large does not get better for long");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut fit = trainer.fit(0).unwrap();
    for (i, expected) in all.iter().enumerate() {
        std::fs::write(&path, fit.checkpoint().unwrap().to_bytes().unwrap()).unwrap();
        fit = trainer.resume(&Checkpoint::read(&path).unwrap()).unwrap();
        assert_eq!(fit.done(), i);
        assert_eq!(&fit.step().unwrap().unwrap(), expected);
    }
    assert!(fit.step().unwrap().is_none());
    assert_eq!(
        fit.checkpoint().unwrap().to_bytes().unwrap(),
        whole.checkpoint().unwrap().to_bytes().unwrap()
    );
    // What was best, not what came last.
    let best =
        all.iter().filter_map(|step| step.evaluation).map(|found| found.loss).fold(f64::INFINITY, f64::min);
    assert_eq!(Score::mean(&whole.scores().unwrap()).loss, best);

    let whole = std::fs::read(&path).unwrap();
    for n in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..n]).unwrap();
        assert!(Checkpoint::read(&path).is_err());
    }
    let other = Training::new(
        &interchange(
            model("tiny-gpt2"),
            &record,
            Op::random(OpKind::LowRankSwap, model("tiny-gpt2").config().width, Some(2), 0).unwrap(),
        ),
        HeldOut::None,
        options(0.1, 3),
    )
    .unwrap();
    std::fs::write(&path, &whole).unwrap();
    let trainer = other.trainer(&Runtime::default()).unwrap();
    refused(trainer.resume(&Checkpoint::read(&path).unwrap()), &["another training", "shape"]);
}

/// One fit for each choice of the axes, as if it were alone.
#[test]
fn a_search_is_many_fits() {
    let record = record();
    let model = model("tiny-gpt2");
    let mut exp = Experiment::new(model);
    let (base, source) = (exp.open_run("base").unwrap(), exp.open_run("source").unwrap());
    let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 1).unwrap().value(source);
    let mut target = Site::BlockOutput.layers([0, 2]).at(Last);
    target.positions = causalcone_model::Positions::Indices(Indices::List(vec![-2, -1]));
    exp.edit(base, target, op.clone()).unwrap();
    exp.set_examples(examples(&record));
    let mut searched = exp.clone();
    searched.set_sweep(Sweep {
        layers: Some(causalcone_engine::LayerAxis::Each),
        positions: Some(Each),
        ..Sweep::default()
    });
    let search = Training::new(&searched, HeldOut::Part(0.34), options(0.05, 5)).unwrap();
    assert_eq!(search.len(), 4);
    let trainer = search.trainer(&Runtime::default()).unwrap();
    let originals = trainer.originals().unwrap();
    let mut scores = Vec::new();
    for (point, (layer, position)) in [(0usize, -2i64), (0, -1), (2, -2), (2, -1)].into_iter().enumerate() {
        let mut fit = trainer.fit(point).unwrap();
        while fit.step().unwrap().is_some() {}
        let mut alone = Experiment::new(model);
        let (base, source) = (alone.open_run("base").unwrap(), alone.open_run("source").unwrap());
        let mut target = Site::BlockOutput.layers(layer).at(Last);
        target.positions = causalcone_model::Positions::Indices(Indices::List(vec![position]));
        let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 1).unwrap().value(source);
        alone.edit(base, target, op).unwrap();
        alone.set_examples(examples(&record));
        let training = Training::new(&alone, HeldOut::Part(0.34), options(0.05, 5)).unwrap();
        let other = training.trainer(&Runtime::default()).unwrap();
        let mut one = other.fit(0).unwrap();
        while one.step().unwrap().is_some() {}
        let (ours, theirs) = (fit.scores().unwrap(), one.scores().unwrap());
        for (a, b) in ours.iter().zip(&theirs) {
            assert!((a.loss - b.loss).abs() < 1e-4, "{layer}, {position}: {} is not {}", a.loss, b.loss);
        }
        // What it learned, where it learned it, in an experiment of its own.
        let trained = fit.experiment().unwrap();
        let again = Training::new(&trained, HeldOut::None, options(0.05, 1)).unwrap();
        let again = again.trainer(&Runtime::default()).unwrap().fit(0).unwrap().scores().unwrap();
        let trained_on = search.trained();
        assert_eq!(again.len(), trained_on);
        scores.push(ours);
    }
    let result = search.results(&scores, &originals).unwrap();
    assert_eq!(result.cells.len(), 4 * search.held_out());
    let means = result.means();
    assert_eq!(means.len(), 4 * 2);
    let loss = &means[1];
    assert_eq!(loss.at.layer, Some(0));
    assert!((loss.mean.unwrap() - Score::mean(&scores[0]).loss).abs() < 1e-12);
    assert!((loss.base.unwrap() - Score::mean(&originals).loss).abs() < 1e-12);
    refused(search.results(&scores[1..], &originals), &["not those of this training"]);
}

/// A target token is made likelier on prompts that were not trained on.
#[test]
fn representation_fine_tuning_generalises() {
    let model = model("tiny-llama");
    for kind in
        [OpKind::Loreft, OpKind::Direft, OpKind::Nodireft, OpKind::Consreft, OpKind::Lobireft, OpKind::Noreft]
    {
        let mut exp = Experiment::new(model);
        let base = exp.open_run("base").unwrap();
        let op = Op::random(kind, model.config().width, Some(4), 0).unwrap();
        exp.edit(base, Site::BlockOutput.layers(1).at(Last), op).unwrap();
        let prompt = |i: u32| vec![i % 50, (7 * i) % 50, (3 * i + 1) % 50];
        exp.set_examples((0..24).map(|i| Example::new().prompt("base", prompt(i)).label(9)));
        let held = (24..40).map(|i| Example::new().prompt("base", prompt(i)).label(9)).collect();
        let how = Options { one_label: true, ..options(0.05, 40) };
        let training = Training::new(&exp, HeldOut::Examples(held), how).unwrap();
        let trainer = training.trainer(&Runtime::default()).unwrap();
        let before = trainer.originals().unwrap();
        let mut fit = trainer.fit(0).unwrap();
        while fit.step().unwrap().is_some() {}
        let after = fit.scores().unwrap();
        assert!(Score::mean(&after).loss < Score::mean(&before).loss - 0.5, "{kind:?}");
        if kind == OpKind::Loreft {
            let risen = before.iter().zip(&after).filter(|(a, b)| (a.loss - b.loss).exp() >= 3.0).count();
            assert!(risen * 10 >= before.len() * 8, "{risen} of {}", before.len());
        }
    }
}

#[test]
fn objectives_are_what_they_say() {
    let record = record();
    let model = model("tiny-gpt2");
    // The logit difference, by what a sweep records.
    let mut exp = low_rank(model, &record);
    exp.set_tokens(vec![9, 2]).unwrap();
    let training =
        Training::new(&exp, HeldOut::None, Options { objective: Objective::LogitDiff, ..options(0.05, 15) });
    let training = training.unwrap();
    let trainer = training.trainer(&Runtime::default()).unwrap();
    let mut fit = trainer.fit(0).unwrap();
    let before = fit.scores().unwrap();
    for (one, score) in exp.by_example().zip(&before) {
        let one = one.unwrap();
        let outcome = one.execute().unwrap();
        let logits = outcome.counterfactual(one.find_run("base", "test").unwrap()).distribution;
        assert!((logits.logit(2) - logits.logit(9) - score.loss).abs() < 1e-4);
        assert_eq!(score.accuracy, f64::from(u8::from(score.loss < 0.0)));
    }
    while fit.step().unwrap().is_some() {}
    assert!(Score::mean(&fit.scores().unwrap()).loss < Score::mean(&before).loss);

    // The divergence from another run: none left where its whole last row is swapped in.
    let mut exp = Experiment::new(model);
    let (base, source) = (exp.open_run("base").unwrap(), exp.open_run("source").unwrap());
    let op = Op::random(OpKind::RotatedSwap, model.config().width, None, 0).unwrap().value(source);
    exp.edit(base, Site::BlockOutput.layers(2).at(Last), op).unwrap();
    exp.set_examples(examples(&record));
    let how = Options { objective: Objective::Kl(source), ..options(0.05, 1) };
    let training = Training::new(&exp, HeldOut::None, how).unwrap();
    let trainer = training.trainer(&Runtime::default()).unwrap();
    assert!(trainer.originals().unwrap().iter().all(|score| score.loss > 1e-3));
    for score in trainer.fit(0).unwrap().scores().unwrap() {
        assert!(score.loss.abs() < 1e-6 && score.accuracy == 1.0, "{score:?}");
    }

    // A closure: the cross-entropy again.
    let labels = ids(&record["labels"]);
    let custom = move |logits: &Tensor, examples: &[usize]| {
        let labels: Vec<u32> = examples.iter().map(|i| labels[*i]).collect();
        causalcone_ops::cross_entropy(logits, &labels)
    };
    let exp = low_rank(model, &record);
    let how = Options { objective: Objective::Custom(Arc::new(custom)), ..options(0.05, 5) };
    assert_eq!(losses(&exp, how), losses(&exp, options(0.05, 5)));
}

/// Masks: temperatures go down, sparsity makes boundaries smaller, parameters have rates of their own.
#[test]
fn masks_are_annealed_and_made_sparse() {
    let record = record();
    let model = model("tiny-gpt2");
    let exp = interchange(
        model,
        &record,
        Op::random(OpKind::BoundlessSwap, model.config().width, None, 0).unwrap(),
    );
    let boundary = |how: Options| {
        let training = Training::new(&exp, HeldOut::None, how).unwrap();
        let trainer = training.trainer(&Runtime::default()).unwrap();
        let mut fit = trainer.fit(0).unwrap();
        let mut last = None;
        while let Some(step) = fit.step().unwrap() {
            last = Some(step);
        }
        let mut found = HashMap::new();
        fit.experiment()
            .unwrap()
            .map_parameters(|_, name, tensor| {
                found.insert(name.to_owned(), tensor.clone());
                Ok(tensor.clone())
            })
            .unwrap();
        (found["boundary"].to_scalar::<f32>().unwrap(), last.unwrap(), found)
    };
    let how = Options { temperature: Some((5.0, 0.1)), ..options(1e-3, 10) };
    let (plain, last, found) = boundary(how.clone());
    assert!((last.temperature.unwrap() - 0.1).abs() < 1e-9 && last.penalty == 0.0);
    assert!((found["temperature"].to_scalar::<f32>().unwrap() - 0.1).abs() < 1e-6);
    let (sparse, last, _) = boundary(Options { sparsity: 50.0, ..how.clone() });
    assert!(sparse < plain && last.penalty > 10.0, "{sparse} is not below {plain}");
    let rates = [("boundary".to_owned(), 0.02)].into();
    let (fast, ..) = boundary(Options { sparsity: 50.0, learning_rates: rates, ..how });
    assert!(fast < sparse - 0.05, "{fast} is not far below {sparse}");
}

/// Edits that share parameters train as one.
#[test]
fn linked_edits_train_together() {
    let record = record();
    let model = model("tiny-gpt2");
    let mut exp = Experiment::new(model);
    let (base, source) = (exp.open_run("base").unwrap(), exp.open_run("source").unwrap());
    let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 0).unwrap().value(source);
    let first = exp.edit(base, Site::BlockOutput.layers(0).at(Last), op.clone()).unwrap();
    let second = exp.edit(base, Site::BlockOutput.layers(1).at(Last), op).unwrap();
    let other = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 7).unwrap().value(source);
    exp.edit(base, Site::BlockOutput.layers(2).at(Last), other).unwrap();
    exp.set_examples(examples(&record));
    let mut how = options(0.05, 3);
    how.edits = vec![first, second];
    let training = Training::new(&exp, HeldOut::None, how).unwrap();
    let trainer = training.trainer(&Runtime::default()).unwrap();
    let mut fit = trainer.fit(0).unwrap();
    while fit.step().unwrap().is_some() {}
    let mut trained = fit.experiment().unwrap();
    let (mut asked, mut before) = (0, Vec::new());
    exp.map_parameters(|_, _, tensor| {
        before.push(tensor.to_vec2::<f32>().unwrap());
        Ok(tensor.clone())
    })
    .unwrap();
    trained
        .map_parameters(|_, _, tensor| {
            // Two sets: the linked one is asked for once, and the third edit's did not train.
            assert_eq!(tensor.to_vec2::<f32>().unwrap() == before[asked], asked == 1);
            asked += 1;
            Ok(tensor.clone())
        })
        .unwrap();
    assert_eq!(asked, 2);
}

#[test]
fn a_loss_that_is_not_finite_stops_before_it_harms() {
    let record = record();
    let model = model("tiny-gpt2");
    let exp =
        interchange(model, &record, Op::random(OpKind::SigmoidMask, model.config().width, None, 0).unwrap());
    let broken = |_: &Tensor, examples: &[usize]| Tensor::full(f32::NAN, examples.len(), &Device::Cpu);
    let how = Options { objective: Objective::Custom(Arc::new(broken)), ..options(0.1, 3) };
    let training = Training::new(&exp, HeldOut::None, how).unwrap();
    let trainer = training.trainer(&Runtime::default()).unwrap();
    let mut fit = trainer.fit(0).unwrap();
    let before = fit.checkpoint().unwrap().to_bytes().unwrap();
    let error = fit.step().unwrap_err();
    assert!(matches!(error, Error::Diverged { step: 1, .. }) && !error.is_bad_input(), "{error}");
    assert!(error.to_string().contains("step 1") && error.hint().is_some());
    assert_eq!(fit.checkpoint().unwrap().to_bytes().unwrap(), before);
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let record = record();
    let model = model("tiny-gpt2");
    let exp = low_rank(model, &record);
    let of = |exp: &Experiment<'_>, options: Options| Training::new(exp, HeldOut::None, options).map(|_| ());
    let plain = Options::default;
    let mut none = exp.clone();
    none.set_examples(Vec::new());
    refused(of(&none, plain()), &["there is none"].map(|_| "no examples"));
    let mut one = exp.clone();
    one.set_examples(examples(&record).into_iter().map(|example| example.label(3)));
    refused(of(&one, plain()), &["all 6 labels", "nothing to tell apart", "one_label"]);
    let mut unlabelled = exp.clone();
    unlabelled.set_examples(vec![Example::new().prompt("base", vec![1]).prompt("source", vec![2])]);
    refused(of(&unlabelled, plain()), &["which token should come"]);
    let mut outside = exp.clone();
    outside.set_examples(vec![Example::new().prompt("base", vec![1]).prompt("source", vec![2]).label(9999)]);
    refused(of(&outside, plain()), &["9999"]);
    let mut words = exp.clone();
    words.set_examples(vec![
        Example::new().prompt("base", vec![1]).prompt("source", vec![2]).label("two words"),
    ]);
    assert!(of(&words, plain()).is_err());
    let mut plain_swap = Experiment::new(model);
    let (base, source) = (plain_swap.open_run("base").unwrap(), plain_swap.open_run("source").unwrap());
    plain_swap.edit(base, Site::BlockOutput.layers(0), Op::swap(source)).unwrap();
    plain_swap.set_examples(examples(&record));
    refused(of(&plain_swap, plain()), &["no edit has parameters that train", "random = 0"]);
    for (options, words) in [
        (Options { batch: 0, ..plain() }, &["`batch` must be from 1"][..]),
        (Options { learning_rate: -1.0, ..plain() }, &["`learning_rate` must be"]),
        (Options { learning_rate: f64::NAN, ..plain() }, &["`learning_rate` must be"]),
        (Options { sparsity: 0.1, ..plain() }, &["sparsity", "masks"]),
        (Options { temperature: Some((1.0, 0.1)), ..plain() }, &["no op that trains has a temperature"]),
        (Options { temperature: Some((1.0, 0.0)), ..plain() }, &["`temperature` must be a number above 0"]),
        (Options { map: Map::Exponential, ..plain() }, &["not square", "householder"]),
        (Options { learning_rates: [("mask".to_owned(), 0.1)].into(), ..plain() }, &["\"mask\"", "rotation"]),
        (Options { objective: Objective::LogitDiff, ..plain() }, &["at least 2 tokens"]),
        (Options { patience: Some(0), ..plain() }, &["`patience` must be from 1"]),
        (
            Options {
                map: Map::Householder,
                base: Some(Tensor::zeros((3, 3), candle_core::DType::F32, &Device::Cpu).unwrap()),
                ..plain()
            },
            &["base has shape [3, 3]"],
        ),
    ] {
        refused(of(&exp, options), words);
    }
    refused(Training::new(&exp, HeldOut::Part(1.5), plain()), &["held_out 1.5"]);
    let mut sampled = exp.clone();
    sampled.set_sweep(Sweep { samples: Some(2), ..Sweep::default() });
    refused(of(&sampled, plain()), &["samples of noise"]);
    // Vectors of several positions have parameters as wide as all of them.
    let wide = Op::random(OpKind::LowRankSwap, 2 * model.config().width, Some(2), 0).unwrap();
    let mut joint = Experiment::new(model);
    let (base, source) = (joint.open_run("base").unwrap(), joint.open_run("source").unwrap());
    let mut target = Site::BlockOutput.layers(0).at(Last);
    target.positions = causalcone_model::Positions::Indices(Indices::List(vec![0, 1]));
    joint.edit(base, target, wide.value(source).joint(Joint::Positions)).unwrap();
    joint.set_examples(examples(&record));
    let trained = losses(&joint, options(0.05, 10));
    assert!(trained[9] < trained[0]);
}
