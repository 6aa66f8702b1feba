//! Gradients through the executors: of what is read, with respect to what an edit puts in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use candle_core::{DType, Device, Tensor, Var};
use causalcone_engine::plan::{Cell, Plan, Reading};
use causalcone_engine::{Cone, Executor, Experiment, Op, Reference, Session, collect};
use causalcone_model::{Indices, Model, Site, Target};
use common::*;

const IDS: [u32; 5] = [49, 28, 31, 17, 5];

fn vector(width: usize, seed: u64) -> Var {
    let numbers = random(seed, 1, width, 0.2);
    let numbers: Vec<f32> =
        numbers[0].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
    Var::from_vec(numbers, width, &Device::Cpu).unwrap()
}

/// A vector added at a site, once at every layer and once at one, and read as a logit difference.
fn plan(model: &Model, site: Site, layer: Option<usize>, position: usize, vector: &Var) -> Plan {
    let mut exp = Experiment::new(model);
    let base = exp.run_ids("base", IDS.to_vec()).unwrap();
    let mut target = Target::from(site);
    target.layers = layer.map(Indices::from);
    target.positions = causalcone_model::Positions::Indices(Indices::from(position));
    exp.edit(base, target, Op::add(vector.as_tensor().clone()).scaled(1.5)).unwrap();
    exp.plan_single().unwrap()
}

fn logit_difference(readings: &[Vec<Reading>]) -> Tensor {
    let Reading::Logits(logits) = &readings[0][0] else { panic!("no logits") };
    (logits.get(9).unwrap() - logits.get(2).unwrap()).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The slope along each of a few dimensions by the reference executor's central differences, and the
/// gradient by autograd through each executor.
#[test]
fn the_gradient_of_a_logit_difference_is_its_slope() {
    for name in all_models() {
        let model = model(&name);
        for (site, layer) in places(model).into_iter().filter(|(site, _)| !site.is_attention_matrix()) {
            for position in [1, IDS.len() - 1] {
                let (_, width) = shape(model, site, IDS.len());
                let vector = vector(width, 7);
                let plan = plan(model, site, layer, position, &vector);
                let cells: Vec<&Cell> = plan.cells.iter().collect();
                let say = format!("{name} {site:?} {layer:?} at {position}");
                let gradient = |executor: &dyn Executor| {
                    let difference = logit_difference(&collect(executor, model, &plan, &cells).unwrap());
                    difference.backward().unwrap().get(&vector).map(numbers)
                };
                let (ours, theirs) = (gradient(&Cone::default()), gradient(&Reference));
                let zero = vec![0.0; width];
                let (ours, theirs) = (ours.unwrap_or(zero.clone()), theirs.unwrap_or(zero));
                let size = theirs.iter().fold(0.0f32, |max, x| max.max(x.abs()));
                for (a, b) in ours.iter().zip(&theirs) {
                    // The same sums of products in another order, through every layer and back.
                    assert!((a - b).abs() <= 1e-4 * size.max(1e-2), "{a} is not {b}: {say}");
                }
                // Central differences in f32: what two logits lose to rounding, 1e-6 each, over the step;
                // and what a cubic term adds, which is some of the step's square.
                let before = vector.as_tensor().copy().unwrap();
                for dim in (0..width).step_by(width.div_ceil(3)) {
                    let step = 1e-2f32;
                    let at = |h: f32| {
                        let mut moved = numbers(&before);
                        moved[dim] += h;
                        vector.set(&Tensor::from_vec(moved, width, &Device::Cpu).unwrap()).unwrap();
                        let readings = collect(&Cone::default(), model, &plan, &cells).unwrap();
                        logit_difference(&readings).to_scalar::<f32>().unwrap()
                    };
                    let (low, middle, high) = (at(-step), at(0.0), at(step));
                    let slope = (high - low) / (2.0 * step);
                    vector.set(&before).unwrap();
                    // Where something is clipped within the step there are two slopes.
                    let is_bent = (high + low - 2.0 * middle).abs() / step > 2e-3 + 2e-2 * size;
                    if is_bent && model.config().clip.is_some() {
                        continue;
                    }
                    assert!(
                        (slope - ours[dim]).abs() <= 2e-3 + 2e-2 * size,
                        "{slope} is not {}: {say}",
                        ours[dim]
                    );
                }
            }
        }
    }
}

#[test]
fn a_session_computes_prompts_once_and_edits_each_time() {
    for name in all_models() {
        let model = model(&name);
        let vector = vector(model.config().width, 3);
        let plan = plan(model, Site::BlockOutput, Some(0), 2, &vector);
        let cells: Vec<&Cell> = plan.baselines().chain(&plan.cells).collect();
        let session = Session::new(&Cone::default(), model, &plan, &cells).unwrap();
        assert!(session.work().rows > 0);
        for round in 0..3u8 {
            let expected = collect(&Reference, model, &plan, &cells).unwrap();
            let readings = session.run().unwrap();
            for (ours, theirs) in readings.iter().flatten().zip(expected.iter().flatten()) {
                let (Reading::Logits(ours), Reading::Logits(theirs)) = (ours, theirs) else { panic!() };
                // Two executors, as in tests/cone.rs.
                assert!(distance(&numbers(ours), &numbers(theirs)) < 1e-4, "{name}, round {round}");
            }
            let Reading::Logits(edited) = &readings[1][0] else { panic!() };
            let gradients = edited.get(3).unwrap().backward().unwrap();
            let slope = gradients.get(&vector).unwrap();
            assert_eq!(slope.dtype(), DType::F32);
            vector.set(&(vector.as_tensor() + slope).unwrap()).unwrap();
        }
    }
}
