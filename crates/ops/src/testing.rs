//! What the kernels' tests share.

use candle_core::{DType, Device, Result, Tensor, Var};

/// Numbers in (−1, 1) that look random and are the same every time.
pub(crate) fn noise(shape: impl Into<candle_core::Shape>, seed: u64) -> Tensor {
    let shape = shape.into();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    let values: Vec<f32> = (0..shape.elem_count())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(crate) fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn wide(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Checks every element to `tolerance`, absolute below one and relative above.
pub(crate) fn assert_close(ours: &Tensor, theirs: &Tensor, tolerance: f64) {
    assert_eq!(ours.dims(), theirs.dims());
    for (i, (a, b)) in wide(ours).into_iter().zip(wide(theirs)).enumerate() {
        assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "element {i}: {a} is not {b}");
    }
}

/// Checks f's values and gradients at f32 inputs against its own composed fallback in f64: the values
/// themselves, and for every input the central differences of Σ c·f, c being noise.
///
/// In f64 a step of 1e-5 leaves differences good to about 1e-9, so `tolerance` is all for f32's
/// rounding.
pub(crate) fn check(inputs: &[Tensor], tolerance: f64, f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let vars: Vec<Var> = inputs.iter().map(|x| Var::from_tensor(x).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let wide_inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();

    let y = f(&tracked).unwrap();
    let oracle = f(&wide_inputs).unwrap();
    assert_close(&y, &oracle, tolerance);

    let c = noise(y.dims(), 99);
    let grads = (&y * &c).unwrap().sum_all().unwrap().backward().unwrap();
    let c = c.to_dtype(DType::F64).unwrap();
    let loss = |inputs: &[Tensor]| -> f64 { wide(&(f(inputs).unwrap() * &c).unwrap()).iter().sum() };
    for (k, var) in vars.iter().enumerate() {
        let Some(grad) = grads.get(var) else { panic!("input {k} has no gradient") };
        let grad = wide(grad);
        for (i, grad) in grad.into_iter().enumerate() {
            let moved = |by: f64| {
                let mut values = wide(&wide_inputs[k]);
                values[i] += by;
                let mut inputs = wide_inputs.clone();
                inputs[k] = Tensor::from_vec(values, inputs[k].dims(), &Device::Cpu).unwrap();
                loss(&inputs)
            };
            let step = 1e-5;
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let apart = (grad - slope).abs();
            assert!(
                apart <= tolerance * slope.abs().max(1.0),
                "input {k}, element {i}: {grad} is not {slope}"
            );
        }
    }
}

/// Checks that f gives the same bits, forward and backward, on one thread and on four.
pub(crate) fn assert_same_on_any_threads(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let x = Var::from_tensor(x).unwrap();
            let y = f(x.as_tensor()).unwrap();
            let grads = (&y * &y).unwrap().sum_all().unwrap().backward().unwrap();
            [numbers(&y), numbers(grads.get(&x).unwrap())]
                .map(|x| x.into_iter().map(f32::to_bits).collect::<Vec<_>>())
        })
    };
    assert_eq!(on(1), on(4));
}
