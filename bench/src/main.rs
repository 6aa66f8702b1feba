//! This machine's own GEMM rate and read bandwidth, for `bench/run`.
//!
//! Times the f32 product of ROWS × k by k × n for every weight of a block, by candle's matmul (the weight
//! contiguous as in × out) and by ours, turn and turn about, and prints each shape's medians and both rates
//! weighted by FLOPs: all FLOPs over the sum of the medians. Without arguments it takes 512 rows and GPT-2
//! small's block.
//!
//! ```text
//! causalcone-bench [ROWS KxN ...]
//! causalcone-bench read MEGABYTES
//! ```
//!
//! `read` sums so many MB of numbers, a part on each thread, and prints the median of how many GB a second that is.
#![allow(clippy::print_stdout, reason = "its result is what it prints")]

use candle_core::{Device, Tensor};
use causalcone_ops::Linear;
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
    if let [what, megabytes] = &arguments[..]
        && what == "read"
    {
        println!("{}", json!({"gb_per_s": read_rate(megabytes.parse()?)?}));
        return Ok(());
    }
    let (rows, shapes) = match arguments.split_first() {
        None => (ROWS, GPT2_SMALL.to_vec()),
        Some((rows, shapes)) => {
            (rows.parse()?, shapes.iter().map(|text| shape(text)).collect::<Result<_, _>>()?)
        }
    };
    let (mut flops, mut seconds) = (0.0, [0.0; 2]);
    let mut measured = Vec::new();
    for (k, n) in shapes {
        let medians = time(rows, k, n)?.map(|median| median.as_secs_f64());
        let work = flops_of(rows, k, n);
        flops += work;
        seconds = [seconds[0] + medians[0], seconds[1] + medians[1]];
        let [candle, ours] = medians.map(|median| work / median / 1e9);
        measured.push(json!({"k": k, "n": n, "gflops": {"candle": candle, "ours": ours}}));
    }
    let [candle, ours] = seconds.map(|seconds| flops / seconds / 1e9);
    println!("{}", json!({"rows": rows, "shapes": measured, "gflops": {"candle": candle, "ours": ours}}));
    Ok(())
}

/// GB read a second, of numbers that no cache holds.
fn read_rate(megabytes: usize) -> Result<f64, Box<dyn Error>> {
    let numbers: Vec<f32> = (0..megabytes * 250_000).map(|i| (i % 7) as f32).collect();
    let threads = std::thread::available_parallelism()?.get();
    let mut times = Vec::with_capacity(REPEATS);
    for _ in 0..REPEATS {
        let started = Instant::now();
        let total: f32 = std::thread::scope(|scope| {
            let parts = numbers.chunks(numbers.len().div_ceil(threads).max(1));
            let running: Vec<_> = parts.map(|part| scope.spawn(move || sum(part))).collect();
            running.into_iter().map(|thread| thread.join().unwrap_or(f32::NAN)).sum()
        });
        std::hint::black_box(total);
        times.push(started.elapsed());
    }
    times.sort();
    Ok(numbers.len() as f64 * 4.0 / times[REPEATS / 2].as_secs_f64() / 1e9)
}

/// In 64 sums side by side, so that adding takes less time than reading.
fn sum(part: &[f32]) -> f32 {
    let mut sums = [0f32; 64];
    for chunk in part.chunks_exact(64) {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum += x);
    }
    sums.iter().sum()
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

/// The medians of repeated products, candle's and ours.
fn time(rows: usize, k: usize, n: usize) -> Result<[Duration; 2], Box<dyn Error>> {
    let x = Tensor::randn(0f32, 1.0, (rows, k), &Device::Cpu)?;
    let weight = Tensor::randn(0f32, 1.0, (k, n), &Device::Cpu)?;
    let linear = Linear::new(weight.clone(), None)?;
    let products: [&dyn Fn() -> candle_core::Result<Tensor>; 2] =
        [&|| x.matmul(&weight), &|| linear.forward(&x)];
    for _ in 0..WARM_UP {
        for product in products {
            product()?;
        }
    }
    let mut times = [(); 2].map(|()| Vec::with_capacity(REPEATS));
    for _ in 0..REPEATS {
        for (product, times) in products.iter().zip(&mut times) {
            let started = Instant::now();
            let product = product()?;
            times.push(started.elapsed());
            drop(product);
        }
    }
    Ok(times.map(|mut times| {
        times.sort();
        times[REPEATS / 2]
    }))
}
