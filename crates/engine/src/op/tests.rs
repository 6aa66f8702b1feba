use super::*;
use candle_core::{Device, Tensor, Var};
use causalcone_model::Indices;
use causalcone_ops::Activation;
use std::sync::Arc;

#[test]
fn every_kind_has_its_row_and_its_formula() {
    let (b, v) = (3.0, 5.0);
    let tensor = |x: f64| Tensor::new(&[[x]], &Device::Cpu).unwrap();
    for (kind, scale, expected) in [
        (OpKind::Swap, 1.0, 5.0),
        (OpKind::Add, 2.0, 13.0),
        (OpKind::Subtract, 2.0, -7.0),
        (OpKind::Zero, 1.0, 0.0),
        (OpKind::Mean, 1.0, 5.0),
        (OpKind::Skip, 1.0, 5.0),
        (OpKind::Noise, 2.0, 13.0),
        (OpKind::Scale, 2.0, 6.0),
        (OpKind::Collect, 1.0, 3.0),
        (OpKind::Custom, 1.0, 9.0),
    ] {
        assert_eq!(kind.info().kind, kind);
        let operation = Operation { custom: Some(Arc::new(Tensor::sqr)), ..Operation::plain(kind) };
        let result = operation.apply(scale, &tensor(b), Some(&tensor(v))).unwrap();
        assert_eq!(result.to_vec2::<f64>().unwrap(), [[expected]], "{}", kind.info().name);
    }
}

#[test]
fn names_and_kinds_are_there_once() {
    for info in &OPS {
        assert_eq!(OPS.iter().filter(|other| other.name == info.name || other.kind == info.kind).count(), 1);
        assert!(std::ptr::eq(info.kind.info(), info));
        assert_eq!(OpKind::by_name(info.name), Some(info.kind));
        if let Some(alias) = info.alias {
            assert_eq!(OpKind::by_name(alias), Some(info.kind));
        }
    }
}

/// Random numbers of either sign.
fn noise(shape: &[usize], seed: u64) -> Tensor {
    let count: usize = shape.iter().product();
    let numbers: Vec<f64> =
        (0..count).map(|i| f64::from(crate::op::noise::epsilon(seed, 0, 0, 0, i as u64))).collect();
    Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap()
}

/// Parameters of an op for rows of a width, f64.
fn parameters(info: &OpInfo, width: usize, rank: usize) -> Vec<(&'static str, Tensor)> {
    let of = |(seed, parameter): (usize, &ParameterInfo)| {
        let shape: Vec<usize> =
            parameter.shape.iter().map(|axis| if *axis == Axis::Width { width } else { rank }).collect();
        let drawn = noise(&shape, seed as u64 + 10);
        let tensor = match parameter.name {
            "rotation" => causalcone_ops::householder(&unit_diagonal(&drawn)).unwrap(),
            "temperature" | "std" => (drawn.abs().unwrap() + 0.5).unwrap(),
            "boundary" => drawn.affine(0.0, 0.4).unwrap(),
            _ => drawn,
        };
        (parameter.name, tensor)
    };
    info.parameters.iter().enumerate().map(of).collect()
}

/// The same with ones on the diagonal, which the map takes for signs.
fn unit_diagonal(x: &Tensor) -> Tensor {
    let mut rows = x.to_vec2::<f64>().unwrap();
    for (i, row) in rows.iter_mut().enumerate().take(x.dims()[1]) {
        row[i] = 1.0;
    }
    Tensor::new(rows, x.device()).unwrap()
}

/// An op over f64 tensors: the base, the value, then the parameters in the order of their names.
fn computed(op: &Op, inputs: &[Tensor], names: &[&str]) -> Tensor {
    let mut op = op.clone();
    for (name, tensor) in names.iter().zip(&inputs[2..]) {
        op = op.parameter(name, tensor.clone());
    }
    let rows = inputs[0].dims()[0];
    let width = inputs[0].dims()[1] * if op.joint.is_some() { rows } else { 1 };
    let dims = (op.kind.info().subspace == Subspace::Basis).then(|| Indices::from(vec![1usize, 0]));
    let operation = op.operation(width, dims.as_ref()).unwrap();
    operation.apply(op.scale, &inputs[0], Some(&inputs[1])).unwrap()
}

/// The gradients of every op, to the base, the value and each parameter, are its central differences.
#[test]
fn gradients_are_finite_differences() {
    for info in OPS.iter().filter(|info| !matches!(info.kind, OpKind::Custom | OpKind::Zero)) {
        for joint in [None, Some(Joint::Positions)].into_iter().filter(|j| j.is_none() || info.is_of_rows) {
            let (rows, width) = (2, 4);
            let whole = if joint.is_some() { rows * width } else { width };
            let mut op = Op::new(info.kind).scaled(if info.takes_scale { 1.7 } else { 1.0 });
            op.joint = joint;
            if info.value != Takes::No {
                op = op.value(0.0);
            }
            if info.settings.contains(&Setting::Bounds) {
                op = op.between(Some(-0.2), Some(0.3));
            }
            if info.settings.contains(&Setting::Activation) {
                op = op.activated(Activation::GeluErf);
            }
            let given = parameters(info, whole, 3);
            let names: Vec<&str> = given.iter().map(|(name, _)| *name).collect();
            let mut inputs = vec![noise(&[rows, width], 1), noise(&[rows, width], 2)];
            inputs.extend(given.into_iter().map(|(_, tensor)| tensor));
            let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
            let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
            let c = noise(&[rows, width], 3);
            let loss = |inputs: &[Tensor]| (computed(&op, inputs, &names) * &c).unwrap().sum_all().unwrap();
            let gradients = loss(&tracked).backward().unwrap();
            for (index, var) in vars.iter().enumerate() {
                let gradient = gradients.get(var).cloned().unwrap_or_else(|| var.zeros_like().unwrap());
                let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                for (i, gradient) in gradient.into_iter().enumerate() {
                    let moved = |by: f64| {
                        let mut numbers = inputs[index].flatten_all().unwrap().to_vec1::<f64>().unwrap();
                        numbers[i] += by;
                        let mut inputs = inputs.clone();
                        inputs[index] =
                            Tensor::from_vec(numbers, inputs[index].shape().clone(), &Device::Cpu).unwrap();
                        loss(&inputs).to_scalar::<f64>().unwrap()
                    };
                    // In f64 a step of 1e-5 leaves differences good to about 1e-9.
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    let (off, name) = ((slope - gradient).abs(), info.name);
                    let at = format!("{name} {joint:?}, input {index}, number {i}");
                    assert!(off <= 1e-6 * slope.abs().max(1.0), "{at}: {gradient} is not {slope}");
                }
            }
        }
    }
}

/// That an op does not fit vectors of width 4, and that what is said has these words.
fn refused(op: &Op, words: &[&str]) {
    refused_at(op, 4, None, words);
}

fn refused_at(op: &Op, width: usize, dims: Option<usize>, words: &[&str]) {
    let dims = dims.map(Indices::from);
    let Err(problem) = op.operation(width, dims.as_ref()) else { panic!("{op:?} is accepted") };
    let said = format!("{} {}", problem.message, problem.hint.unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let eye = |d: usize, k: usize| {
        let ones = (0..d * k).map(|i| if i / k == i % k { 1f32 } else { 0.0 }).collect();
        Tensor::from_vec(ones, (d, k), &Device::Cpu).unwrap()
    };
    let swap = || Op::new(OpKind::LowRankSwap).value(1.0);
    let rotated = |rotation: Tensor| swap().parameter("rotation", rotation);
    refused(&Op::new(OpKind::LowRankSwap), &["needs a value"]);
    refused(&swap(), &["needs the parameter \"rotation\""]);
    let misspelt = swap().parameter("rotaton", eye(4, 2));
    refused(&misspelt, &["no parameter \"rotaton\"", "did you mean \"rotation\"?"]);
    refused(&rotated(eye(3, 2)), &["shape [3, 2]", "[4, 2] fits", "4 wide"]);
    refused(&rotated(eye(4, 6)), &["rank 6", "width 4"]);
    refused(&rotated((eye(4, 2) * 2.0).unwrap()), &["no rotation"]);
    refused(&rotated((eye(4, 2) * f64::NAN).unwrap()), &["\"rotation\" holds NaN"]);
    refused_at(&rotated(eye(4, 2)), 4, Some(2), &["dimension 2", "there are 2"]);
    refused(&rotated(eye(4, 2)).with_error(), &["has no error"]);
    let square = Op::new(OpKind::RotatedSwap).value(1.0);
    refused(&square.parameter("rotation", eye(4, 2)), &["[4, 4] fits"]);
    let mask = Op::new(OpKind::SigmoidMask).value(1.0).parameter("mask", eye(4, 1).flatten_all().unwrap());
    let zero = Tensor::new(0f32, &Device::Cpu).unwrap();
    refused(&mask.clone().parameter("temperature", zero), &["\"temperature\" must be more than 0"]);
    let words = ["shape [4]", "[12] fits", "all its positions together"];
    refused_at(&mask.joint(Joint::Positions), 12, None, &words);
    let boundless = Op::new(OpKind::BoundlessSwap).value(1.0).parameter("rotation", eye(4, 4));
    refused_at(&boundless, 4, Some(0), &["has no subspace"]);
    let clamp = || Op::new(OpKind::Clamp).value(1.0);
    refused(&clamp(), &["needs min, max or both"]);
    refused(&clamp().between(Some(1.0), Some(0.0)), &["min 1 is more than max 0"]);
    refused(&clamp().between(Some(f64::NAN), None), &["bound NaN"]);
    refused(&Op::zero().activated(Activation::Relu), &["has no activation"]);
}
