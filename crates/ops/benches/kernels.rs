//! Every kernel beside the candle operations it replaces, at the sizes of GPT-2 small.
//!
//! `cargo bench -p causalcone-ops --bench kernels`; `ours` and `candle` take the same inputs.
#![allow(missing_docs, clippy::unwrap_used)]

use candle_core::{D, DType, Device, Result, Tensor};
use causalcone_ops::{Activation, Linear, Rope, Standing};
use divan::Bencher;

const ROWS: usize = 512;
const WIDTH: usize = 768;
const WIDE: usize = 3072;

fn main() {
    divan::main();
}

fn random(rows: usize, width: usize) -> Tensor {
    Tensor::randn(0f32, 1.0, (rows, width), &Device::Cpu).unwrap()
}

fn vector(width: usize) -> Tensor {
    Tensor::randn(0f32, 1.0, width, &Device::Cpu).unwrap()
}

fn run(bencher: Bencher<'_, '_>, f: impl Fn() -> Result<Tensor> + Sync) {
    bencher.bench_local(|| f().unwrap());
}

mod activation {
    use super::*;

    #[divan::bench(args = [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu])]
    fn ours(bencher: Bencher<'_, '_>, activation: Activation) {
        let x = random(ROWS, WIDE);
        run(bencher, || activation.forward(&x));
    }

    #[divan::bench(args = [Activation::GeluTanh, Activation::GeluErf, Activation::Silu, Activation::Relu])]
    fn candle(bencher: Bencher<'_, '_>, activation: Activation) {
        let x = random(ROWS, WIDE);
        run(bencher, || match activation {
            Activation::GeluTanh => x.gelu(),
            Activation::GeluErf => x.gelu_erf(),
            Activation::Silu => x.silu(),
            Activation::Relu => x.relu(),
        });
    }
}

mod layer_norm {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (x, weight, bias) = (random(ROWS, WIDTH), vector(WIDTH), vector(WIDTH));
        run(bencher, || causalcone_ops::layer_norm(&x, &weight, &bias, 1e-5));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let (x, weight, bias) = (random(ROWS, WIDTH), vector(WIDTH), vector(WIDTH));
        run(bencher, || {
            let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let deviation = (centred.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
            centred.broadcast_div(&deviation)?.broadcast_mul(&weight)?.broadcast_add(&bias)
        });
    }
}

mod rms_norm {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (x, weight) = (random(ROWS, WIDTH), vector(WIDTH));
        run(bencher, || causalcone_ops::rms_norm(&x, &weight, 1e-5));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let (x, weight) = (random(ROWS, WIDTH), vector(WIDTH));
        run(bencher, || {
            let rms = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
            x.broadcast_div(&rms)?.broadcast_mul(&weight)
        });
    }
}

mod softmax {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let x = random(12 * ROWS, ROWS);
        run(bencher, || causalcone_ops::softmax(&x));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let x = random(12 * ROWS, ROWS);
        run(bencher, || {
            let exp = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
            exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)
        });
    }
}

mod add {
    use super::*;

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (x, y) = (random(ROWS, WIDE), random(ROWS, WIDE));
        run(bencher, || causalcone_ops::add(&x, &y));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let (x, y) = (random(ROWS, WIDE), random(ROWS, WIDE));
        run(bencher, || x.add(&y));
    }
}

mod add_rows {
    use super::*;

    fn rows() -> Vec<u32> {
        (0..ROWS as u32).map(|i| i * 7 % 256).collect()
    }

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let (x, table, rows) = (random(ROWS, WIDTH), random(256, WIDTH), rows());
        run(bencher, || causalcone_ops::add_rows(&x, &table, &rows));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let (x, table, rows) = (random(ROWS, WIDTH), random(256, WIDTH), rows());
        run(bencher, || x.add(&table.index_select(&Tensor::new(&rows[..], &Device::Cpu)?, 0)?));
    }
}

mod rope {
    use super::*;

    #[divan::bench]
    fn table(bencher: Bencher<'_, '_>) {
        let rows: Vec<_> = (0..4096).map(|i| Standing { position: i % 64, length: 64 }).collect();
        let rope = Rope::new(64, 1e4);
        bencher.bench_local(|| rope.at(&rows, DType::F32, &Device::Cpu).unwrap());
    }

    #[divan::bench]
    fn ours(bencher: Bencher<'_, '_>) {
        let rows: Vec<_> = (0..ROWS).map(|position| Standing { position, length: ROWS }).collect();
        let rotation = Rope::new(64, 1e4).at(&rows, DType::F32, &Device::Cpu).unwrap();
        let x = random(ROWS, WIDTH);
        run(bencher, || rotation.rows(&x, 12));
    }

    #[divan::bench]
    fn candle(bencher: Bencher<'_, '_>) {
        let angles = random(ROWS, 32);
        let (cos, sin) = (angles.cos().unwrap(), angles.sin().unwrap());
        let x = random(ROWS, WIDTH);
        run(bencher, || {
            let x = x.reshape((ROWS, 12, 64))?.transpose(0, 1)?.contiguous()?;
            let (low, high) = (x.narrow(2, 0, 32)?, x.narrow(2, 32, 32)?);
            let rotated_low = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
            let rotated_high = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
            Tensor::cat(&[rotated_low, rotated_high], 2)?.transpose(0, 1)?.contiguous()
        });
    }
}

/// Rows × 768 → 3072, with bias; the weight as GPT-2 stores it (in × out), or as most do (out × in).
mod linear {
    use super::*;

    const CASES: [(usize, bool); 4] = [(ROWS, false), (ROWS, true), (16, false), (16, true)];

    fn weight(is_out_in: bool) -> Tensor {
        if is_out_in { random(WIDE, WIDTH).t().unwrap() } else { random(WIDTH, WIDE) }
    }

    #[divan::bench(args = CASES)]
    fn ours(bencher: Bencher<'_, '_>, (rows, is_out_in): (usize, bool)) {
        let (x, linear) = (random(rows, WIDTH), Linear::new(weight(is_out_in), Some(vector(WIDE))).unwrap());
        run(bencher, || linear.forward(&x));
    }

    #[divan::bench(args = CASES)]
    fn candle(bencher: Bencher<'_, '_>, (rows, is_out_in): (usize, bool)) {
        let (x, weight, bias) = (random(rows, WIDTH), weight(is_out_in), vector(WIDE));
        run(bencher, || {
            if is_out_in && rows <= 32 {
                weight.t()?.matmul(&x.t()?)?.t()?.contiguous()?.broadcast_add(&bias)
            } else {
                x.matmul(&weight)?.broadcast_add(&bias)
            }
        });
    }
}

/// Rows × 1536 → 4608 in four or eight bits; candle's own quantises x, too. TokenScore them the same weight in f32.
mod packed {
    use super::*;
    use candle_core::Module;
    use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
    use causalcone_ops::Blocks;

    const CASES: [(usize, GgmlDType); 6] = [
        (1, GgmlDType::Q4_1),
        (2, GgmlDType::Q4_1),
        (100, GgmlDType::Q4_1),
        (1, GgmlDType::Q8_0),
        (2, GgmlDType::Q8_0),
        (100, GgmlDType::Q8_0),
    ];

    fn weight(dtype: GgmlDType) -> QTensor {
        QTensor::quantize(&random(4608, 1536), dtype).unwrap()
    }

    #[divan::bench(args = CASES)]
    fn ours(bencher: Bencher<'_, '_>, (rows, dtype): (usize, GgmlDType)) {
        let bytes = weight(dtype).data().unwrap().into_owned();
        let stored = Tensor::from_vec(bytes.clone(), (4608, bytes.len() / 4608), &Device::Cpu).unwrap();
        let linear = Linear::packed(&stored, Blocks::of(dtype).unwrap(), None).unwrap();
        let x = random(rows, 1536);
        run(bencher, || linear.forward(&x));
    }

    #[divan::bench(args = CASES)]
    fn full(bencher: Bencher<'_, '_>, (rows, dtype): (usize, GgmlDType)) {
        let linear = Linear::new(weight(dtype).dequantize(&Device::Cpu).unwrap().t().unwrap(), None).unwrap();
        let x = random(rows, 1536);
        run(bencher, || linear.forward(&x));
    }

    #[divan::bench(args = CASES)]
    fn candle(bencher: Bencher<'_, '_>, (rows, dtype): (usize, GgmlDType)) {
        let (x, weight) = (random(rows, 1536), QMatMul::from_qtensor(weight(dtype)).unwrap());
        run(bencher, || weight.forward(&x));
    }
}

/// 512 queries of 12 heads of 64: (keys each, queries that share them).
mod attention {
    use super::*;
    use causalcone_ops::{Query, Ragged, Stretch};
    use std::sync::Arc;

    const CASES: [(u32, u32); 4] = [(15, 1), (15, 15), (128, 128), (1024, 512)];

    fn ragged(keys: u32, sharing: u32) -> Arc<Ragged> {
        let lists = (ROWS as u32).div_ceil(sharing);
        // A shared prefix, and a last row of one's own.
        let stretches = (0..lists)
            .flat_map(|list| [Stretch { start: 0, len: keys - 1 }, Stretch { start: keys + list, len: 1 }])
            .collect();
        let queries = (0..ROWS as u32)
            .map(|row| {
                let first = row / sharing * 2;
                Query { row, stretches: first..first + 2, keys: 0..keys }
            })
            .collect();
        Arc::new(Ragged { queries, stretches, kv_heads: 12, heads: 12, scale: 0.125, softcap: None })
    }

    #[divan::bench(args = CASES)]
    fn ours(bencher: Bencher<'_, '_>, (keys, sharing): (u32, u32)) {
        let (query, table, ragged) = (random(ROWS, WIDTH), random(2048, WIDTH), ragged(keys, sharing));
        run(bencher, || ragged.attend(&query, &table, &table));
    }

    #[divan::bench(args = CASES)]
    fn ours_backward(bencher: Bencher<'_, '_>, (keys, sharing): (u32, u32)) {
        let (query, table, ragged) = (random(ROWS, WIDTH), random(2048, WIDTH), ragged(keys, sharing));
        let query = candle_core::Var::from_tensor(&query).unwrap();
        let mixed = ragged.attend(&query, &table, &table).unwrap().sum_all().unwrap();
        bencher.bench_local(|| mixed.backward().unwrap());
    }

    /// What one would write: a query at a time, its keys gathered.
    #[divan::bench(args = CASES, sample_count = 5)]
    fn candle(bencher: Bencher<'_, '_>, (keys, sharing): (u32, u32)) {
        let (query, table, ragged) = (random(ROWS, WIDTH), random(2048, WIDTH), ragged(keys, sharing));
        let by_head = |x: Tensor| x.reshape(((), 12, 64))?.transpose(0, 1)?.contiguous();
        run(bencher, || {
            let mut mixed = Vec::new();
            for one in &ragged.queries {
                let [prefix, own] =
                    &ragged.stretches[one.stretches.start as usize..one.stretches.end as usize]
                else {
                    candle_core::bail!("two stretches each")
                };
                let rows: Vec<u32> = (0..prefix.len).chain([own.start]).collect();
                let listed = by_head(table.index_select(&Tensor::new(rows, &Device::Cpu)?, 0)?)?;
                let q = by_head(query.narrow(0, one.row as usize, 1)?)?;
                let weights = causalcone_ops::softmax(&(q.matmul(&listed.t()?)? * 0.125)?)?;
                mixed.push(weights.matmul(&listed)?.reshape((1, WIDTH))?);
            }
            Tensor::cat(&mixed, 0)
        });
    }
}
