//! Loops over slices and elementary functions, written once for every instruction set.
//!
//! `S` is the set found at run time by [`pulp::Arch`]. Every function here, and every closure given to
//! one, must be `inline(always)`: only inside the function that the dispatch compiles for that set do the
//! vectors become registers. One closure that is left out makes a kernel a hundred times slower.
//! The order of a sum depends on the slice's length and the instruction set alone.

use pulp::Simd;

/// Runs a kernel with the best instruction set of this machine.
pub(crate) fn dispatch<K: pulp::WithSimd>(kernel: K) -> K::Output {
    pulp::Arch::new().dispatch(kernel)
}

/// Sets `out` to f(x), element by element.
#[inline(always)]
pub(crate) fn map<S: Simd>(simd: S, out: &mut [f32], x: &[f32], f: impl Fn(S::f32s) -> S::f32s) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    let (x, x_tail) = S::as_simd_f32s(x);
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f(x);
    }
    if !out_tail.is_empty() {
        let value = f(simd.partial_load_f32s(x_tail));
        simd.partial_store_f32s(out_tail, value);
    }
}

/// Sets `out` to f(x, y), element by element.
#[inline(always)]
pub(crate) fn map2<S: Simd>(
    simd: S,
    out: &mut [f32],
    x: &[f32],
    y: &[f32],
    f: impl Fn(S::f32s, S::f32s) -> S::f32s,
) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    let ((x, x_tail), (y, y_tail)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = f(x, y);
    }
    if !out_tail.is_empty() {
        let value = f(simd.partial_load_f32s(x_tail), simd.partial_load_f32s(y_tail));
        simd.partial_store_f32s(out_tail, value);
    }
}

/// Sets `out` to f(out, x, y), element by element.
#[inline(always)]
pub(crate) fn update2<S: Simd>(
    simd: S,
    out: &mut [f32],
    x: &[f32],
    y: &[f32],
    f: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s,
) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    let ((x, x_tail), (y, y_tail)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
        *out = f(*out, x, y);
    }
    if !out_tail.is_empty() {
        let old = simd.partial_load_f32s(out_tail);
        let value = f(old, simd.partial_load_f32s(x_tail), simd.partial_load_f32s(y_tail));
        simd.partial_store_f32s(out_tail, value);
    }
}

/// Sets `out` to f(out), element by element.
#[inline(always)]
pub(crate) fn update<S: Simd>(simd: S, out: &mut [f32], f: impl Fn(S::f32s) -> S::f32s) {
    let (out, out_tail) = S::as_mut_simd_f32s(out);
    for out in out {
        *out = f(*out);
    }
    if !out_tail.is_empty() {
        let value = f(simd.partial_load_f32s(out_tail));
        simd.partial_store_f32s(out_tail, value);
    }
}

/// Sets `out` to out + a·x.
#[inline(always)]
pub(crate) fn axpy<S: Simd>(simd: S, out: &mut [f32], a: f32, x: &[f32]) {
    let a = simd.splat_f32s(a);
    update2(
        simd,
        out,
        x,
        x,
        #[inline(always)]
        |out, x, _| simd.mul_add_e_f32s(a, x, out),
    );
}

/// Σ f(x, y), where f(0, 0) is zero. Four sums run side by side, as an addition takes four cycles.
#[inline(always)]
fn sum_of<S: Simd>(simd: S, x: &[f32], y: &[f32], f: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s) -> f32 {
    let ((x, x_tail), (y, y_tail)) = (S::as_simd_f32s(x), S::as_simd_f32s(y));
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<4>(), y.as_chunks::<4>());
    let [mut a, mut b, mut c, mut d] = [simd.splat_f32s(0.0); 4];
    for (x, y) in x.iter().zip(y) {
        a = f(x[0], y[0], a);
        b = f(x[1], y[1], b);
        c = f(x[2], y[2], c);
        d = f(x[3], y[3], d);
    }
    for (&x, &y) in x_rest.iter().zip(y_rest) {
        a = f(x, y, a);
    }
    if !x_tail.is_empty() {
        b = f(simd.partial_load_f32s(x_tail), simd.partial_load_f32s(y_tail), b);
    }
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}

/// Σ x.
#[inline(always)]
pub(crate) fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    sum_of(
        simd,
        x,
        x,
        #[inline(always)]
        |x, _, sum| simd.add_f32s(x, sum),
    )
}

/// Σ x·y.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f32 {
    sum_of(
        simd,
        x,
        y,
        #[inline(always)]
        |x, y, sum| simd.mul_add_e_f32s(x, y, sum),
    )
}

/// Σ x·y·z.
#[inline(always)]
pub(crate) fn dot3<S: Simd>(simd: S, x: &[f32], y: &[f32], z: &[f32]) -> f32 {
    let ((x, x_tail), (y, y_tail), (z, z_tail)) =
        (S::as_simd_f32s(x), S::as_simd_f32s(y), S::as_simd_f32s(z));
    let ((x, x_rest), (y, y_rest), (z, z_rest)) =
        (x.as_chunks::<4>(), y.as_chunks::<4>(), z.as_chunks::<4>());
    let [mut a, mut b, mut c, mut d] = [simd.splat_f32s(0.0); 4];
    for ((x, y), z) in x.iter().zip(y).zip(z) {
        a = simd.mul_add_e_f32s(simd.mul_f32s(x[0], y[0]), z[0], a);
        b = simd.mul_add_e_f32s(simd.mul_f32s(x[1], y[1]), z[1], b);
        c = simd.mul_add_e_f32s(simd.mul_f32s(x[2], y[2]), z[2], c);
        d = simd.mul_add_e_f32s(simd.mul_f32s(x[3], y[3]), z[3], d);
    }
    for ((&x, &y), &z) in x_rest.iter().zip(y_rest).zip(z_rest) {
        a = simd.mul_add_e_f32s(simd.mul_f32s(x, y), z, a);
    }
    if !x_tail.is_empty() {
        let (x, y) = (simd.partial_load_f32s(x_tail), simd.partial_load_f32s(y_tail));
        let z = simd.partial_load_f32s(z_tail);
        b = simd.mul_add_e_f32s(simd.mul_f32s(x, y), z, b);
    }
    simd.reduce_sum_f32s(simd.add_f32s(simd.add_f32s(a, b), simd.add_f32s(c, d)))
}

/// The largest element; −inf where there is none.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (x, tail) = S::as_simd_f32s(x);
    let mut all = simd.splat_f32s(f32::NEG_INFINITY);
    for &x in x {
        all = simd.max_f32s(all, x);
    }
    let mut max = simd.reduce_max_f32s(all);
    for &x in tail {
        max = max.max(x);
    }
    max
}

/// x held between `low` and `high`; NaN stays NaN, which minimum and maximum do not promise.
#[inline(always)]
pub(crate) fn clamp<S: Simd>(simd: S, x: S::f32s, low: f32, high: f32) -> S::f32s {
    let (low, high) = (simd.splat_f32s(low), simd.splat_f32s(high));
    let x = simd.select_f32s(simd.less_than_f32s(x, low), low, x);
    simd.select_f32s(simd.less_than_f32s(high, x), high, x)
}

/// x, or zero where x is below `edge`.
#[inline(always)]
pub(crate) fn zero_below<S: Simd>(simd: S, edge: f32, x: S::f32s, value: S::f32s) -> S::f32s {
    simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(edge)), simd.splat_f32s(0.0), value)
}

/// c₀ + x·(c₁ + x·(c₂ + …)), the coefficients given from the highest power down.
#[inline(always)]
pub(crate) fn polynomial<S: Simd, const N: usize>(simd: S, x: S::f32s, coefficients: [f32; N]) -> S::f32s {
    let mut sum = simd.splat_f32s(0.0);
    for c in coefficients {
        sum = simd.mul_add_e_f32s(sum, x, simd.splat_f32s(c));
    }
    sum
}

/// The smallest x whose e^x is a normal number.
pub(crate) const EXP_LOW: f32 = -87.33;
/// e^x is not followed further up than this; see [`exp`].
pub(crate) const EXP_HIGH: f32 = 88.0;

/// e^x to a relative error of 2e-7: zero below [`EXP_LOW`], e^[`EXP_HIGH`] above, NaN for NaN.
///
/// Nothing here needs more: a softmax takes no positive x, and 1/(1 + e^x) has reached zero by then.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    // Adding 1.5·2²³ leaves the nearest whole number in the lowest bits of the mantissa.
    let shift = simd.splat_f32s(12_582_912.0);
    let within = clamp(simd, x, EXP_LOW, EXP_HIGH);
    let shifted = simd.mul_add_e_f32s(within, simd.splat_f32s(std::f32::consts::LOG2_E), shift);
    let whole = simd.sub_f32s(shifted, shift);
    // ln 2 in two parts: the first has few bits, so its product with a whole number is exact.
    let rest = simd.mul_add_e_f32s(whole, simd.splat_f32s(-0.693_359_4), within);
    let rest = simd.mul_add_e_f32s(whole, simd.splat_f32s(2.121_944_4e-4), rest);
    // Cephes' polynomial for |rest| ≤ ln 2 / 2.
    let curve = polynomial(
        simd,
        rest,
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5, 1.0, 1.0],
    );
    // 2^whole, by writing its exponent. Times NaN it is NaN, whatever bits it has.
    let bits = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let power = simd.transmute_f32s_u32s(simd.add_u32s(bits, simd.splat_u32s(127 << 23)));
    zero_below(simd, EXP_LOW, x, simd.mul_f32s(curve, power))
}

/// tanh x to a relative error of 2e-7, NaN for NaN.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let (one, distance) = (simd.splat_f32s(1.0), simd.abs_f32s(x));
    // Cephes' polynomial near zero, where 1 − 2/(1 + e^2x) would cancel.
    let square = simd.mul_f32s(x, x);
    let near = polynomial(
        simd,
        square,
        [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_5e-2, 0.133_314_42, -0.333_332_8, 0.0],
    );
    let near = simd.mul_add_e_f32s(near, x, x);
    let tail = simd.add_f32s(one, exp(simd, simd.add_f32s(distance, distance)));
    let far = simd.sub_f32s(one, simd.div_f32s(simd.splat_f32s(2.0), tail));
    let far = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(0.0)), simd.neg_f32s(far), far);
    simd.select_f32s(simd.less_than_f32s(distance, simd.splat_f32s(0.625)), near, far)
}

/// Turns a row into its softmax, in place.
#[inline(always)]
pub(crate) fn softmax<S: Simd>(simd: S, row: &mut [f32]) {
    let max = simd.splat_f32s(max(simd, row));
    // −inf − −inf is NaN, so a row without any other score comes out as NaN, as promised.
    update(
        simd,
        row,
        #[inline(always)]
        |x| exp(simd, simd.sub_f32s(x, max)),
    );
    let sum = simd.splat_f32s(sum(simd, row));
    update(
        simd,
        row,
        #[inline(always)]
        |x| simd.div_f32s(x, sum),
    );
}
