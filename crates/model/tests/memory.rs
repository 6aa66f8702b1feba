//! What a model takes in memory is known before its weights are read, and nothing else is read to know it.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/wide.rs"]
mod wide;

use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use causalcone_model::{Error, Model, Precision, silent};
use peak_alloc::PeakAlloc;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use wide::{GPT2, LLAMA};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;
/// One test at a time: memory is counted for the whole process.
static WATCH: Mutex<()> = Mutex::new(());

fn open(path: &Path, precision: Precision) -> Result<Model, Error> {
    Model::open(path.to_str().unwrap(), precision, &silent)
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The directories and files of committed models.
fn committed() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let mut found: Vec<PathBuf> = ["tiny-gpt2", "tiny-llama", "tiny-llama-tied", "tiny-llama-tied.gguf"]
        .map(|name| fixtures.join(name))
        .into();
    let families = std::fs::read_dir(fixtures.join("families")).unwrap().map(|entry| entry.unwrap().path());
    let is_model = |path: &PathBuf| {
        path.extension().is_some_and(|end| end == "gguf") || path.join("config.json").exists()
    };
    found.extend(families.filter(is_model));
    found.sort();
    assert!(found.len() > 10, "{found:?}");
    found
}

#[test]
fn sizes_are_those_of_the_weights() {
    let _watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut cases = 0;
    for wide in [LLAMA, GPT2] {
        use GgmlDType::{BF16, F16, Q4_0, Q4K, Q6K, Q8_0};
        for (precision, types) in [
            (Precision::Full, [Q4_0, Q6K]),
            (Precision::Packed, [Q4_0, Q6K]),
            (Precision::Packed, [Q4K, Q8_0]),
            (Precision::Packed, [Q4_0, F16]),
            (Precision::Half, [BF16, F16]),
            (Precision::Half, [BF16, Q8_0]),
        ] {
            let path = wide.write(folder.path(), |at, _| types[at % 2]);
            let model = open(&path, precision).unwrap();
            let predicted = model.footprint().bytes(precision).unwrap();
            let before = MEMORY.current_usage();
            model.decoder().unwrap();
            let held = (MEMORY.current_usage() - before) as u64;
            // What the library's own bookkeeping takes: some hundred bytes for a tensor.
            let most = predicted + predicted / 50 + (64 << 10);
            assert!((predicted..most).contains(&held), "{precision} {types:?}: {held}, not {predicted}");
            cases += 1;
        }
    }
    assert_eq!(cases, 12);
}

#[test]
fn a_model_is_described_without_its_weights() {
    let _watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    for path in committed() {
        let name = path.display();
        let lazy = open(&path, Precision::Auto).unwrap_or_else(|e| panic!("{name}: {e}"));
        let eager = Model::load(path.to_str().unwrap()).unwrap();
        assert!(!lazy.is_loaded() && eager.is_loaded());
        assert_eq!(lazy.config(), eager.config());
        assert_eq!(lazy.footprint().chosen, Some(Precision::Full), "{name}: {}", lazy.footprint());
        for id in [0, 7] {
            // A row that is read by itself is that of the whole matrix.
            let [alone, whole] = [&lazy, &eager].map(|model| numbers(&model.embedding_of(id).unwrap()));
            assert_eq!(alone, whole, "{name}");
        }
        assert!(lazy.check(&[u32::MAX]).is_err() && lazy.embedding_of(u32::MAX).is_err());
        assert!(!lazy.is_loaded(), "{name}");
    }
    // Rows of blocks.
    let folder = tempfile::tempdir().unwrap();
    for dtype in [GgmlDType::Q4_0, GgmlDType::Q6K, GgmlDType::BF16] {
        let path = LLAMA.write(folder.path(), |_, _| dtype);
        let rows = |model: &Model| [0, 52].map(|id| numbers(&model.embedding_of(id).unwrap()));
        let lazy = open(&path, Precision::Packed).unwrap();
        let alone = rows(&lazy);
        assert!(!lazy.is_loaded());
        lazy.decoder().unwrap();
        assert_eq!(alone, rows(&lazy), "{dtype:?}");
    }
}

#[test]
fn headers_are_checked_at_once_and_values_when_they_are_read() {
    let _watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/tiny-llama");
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(source.join("config.json"), folder.path().join("config.json")).unwrap();
    let tensors = candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu).unwrap();
    let down = "model.layers.1.mlp.down_proj.weight";
    let with = |change: &dyn Fn(&mut std::collections::HashMap<String, Tensor>)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
        open(folder.path(), Precision::Auto)
    };
    let missing = with(&|tensors| drop(tensors.remove(down)));
    assert!(missing.unwrap_err().to_string().contains("the tensor is missing"));
    let turned =
        with(&|tensors| drop(tensors.insert(down.into(), tensors[down].t().unwrap().contiguous().unwrap())));
    assert!(turned.unwrap_err().to_string().contains("has shape [28, 20]"));
    let more = with(&|tensors| drop(tensors.insert("model.adapter.weight".into(), tensors[down].clone())));
    assert!(more.unwrap_err().to_string().contains("this model family has no such tensor"));
    let counts = Tensor::zeros((20, 28), DType::U8, &Device::Cpu).unwrap();
    let counts = with(&|tensors| drop(tensors.insert(down.into(), counts.clone())));
    assert!(counts.unwrap_err().to_string().contains("is not a tensor of floats"));
    // What only values show comes when these are read, every time.
    let infinite = (tensors[down].ones_like().unwrap() * f64::INFINITY).unwrap();
    let model = with(&|tensors| drop(tensors.insert(down.into(), infinite.clone()))).unwrap();
    for _ in 0..2 {
        let error = model.decoder().unwrap_err().to_string();
        assert!(error.contains(down) && error.contains("which no weight can be"), "{error}");
    }
    // Nothing of it is stored in 16 bits.
    let error = open(&source, Precision::Half).unwrap_err().to_string();
    assert!(error.contains("stored in 16 bits, and this model has none"), "{error}");
}
