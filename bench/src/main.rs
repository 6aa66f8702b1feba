//! This machine's own GEMM rate, for `bench/run`.
//!
//! Times candle's f32 matmul of ROWS × k by k × n, the weight contiguous as in × out, for every weight of a
//! block, and prints each shape's median and the rate weighted by FLOPs: all FLOPs over the sum of the
//! medians. Without arguments it takes 512 rows and GPT-2 small's block.
//!
//! ```text
//! causalcone-bench [ROWS KxN ...]
//! ```
#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use candle_core::{Device, Tensor};
use serde_json::json;
use std::error::Error;
use std::time::{Duration, Instant};

/// Width × width of queries, keys and values, the attention's output, and the two halves of the MLP.
const GPT2_SMALL: [(usize, usize); 4] = [(768, 2304), (768, 768), (768, 3072), (3072, 768)];
const ROWS: usize = 512;
/// Untimed products of each shape first: threads start, pages are touched, clocks rise.
const WARM_UP: usize = 3;
/// Each shape is timed this often; an odd number, so that the median is a measurement.
const REPEATS: usize = 31;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (rows, shapes) = match arguments.split_first() {
        None => (ROWS, GPT2_SMALL.to_vec()),
        Some((rows, shapes)) => {
            (rows.parse()?, shapes.iter().map(|text| shape(text)).collect::<Result<_, _>>()?)
        }
    };
    let mut flops = 0.0;
    let mut seconds = 0.0;
    let mut measured = Vec::new();
    for (k, n) in shapes {
        let median = time(rows, k, n)?.as_secs_f64();
        let work = flops_of(rows, k, n);
        flops += work;
        seconds += median;
        measured.push(json!({"k": k, "n": n, "seconds": median, "gflops": work / median / 1e9}));
    }
    println!("{}", json!({"rows": rows, "shapes": measured, "gflops": flops / seconds / 1e9}));
    Ok(())
}

/// `KxN`, as in 768x3072.
fn shape(text: &str) -> Result<(usize, usize), Box<dyn Error>> {
    let (k, n) = text.split_once('x').ok_or_else(|| format!("{text} is not a shape such as 768x3072"))?;
    Ok((k.parse()?, n.parse()?))
}

/// A multiplication and an addition for each element of the weight and each row.
fn flops_of(rows: usize, k: usize, n: usize) -> f64 {
    [rows, k, n].iter().fold(2.0, |product, factor| product * *factor as f64)
}

/// The median of repeated products.
fn time(rows: usize, k: usize, n: usize) -> Result<Duration, Box<dyn Error>> {
    let x = Tensor::randn(0f32, 1.0, (rows, k), &Device::Cpu)?;
    let weight = Tensor::randn(0f32, 1.0, (k, n), &Device::Cpu)?;
    for _ in 0..WARM_UP {
        x.matmul(&weight)?;
    }
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        let product = x.matmul(&weight)?;
        times.push(started.elapsed());
        drop(product);
    }
    times.sort();
    Ok(times[REPEATS / 2])
}
