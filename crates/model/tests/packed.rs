//! Weights that stay quantised give the model of the same weights widened, whatever order its rows are in.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "common/wide.rs"]
mod wide;

use candle_core::Tensor;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::Content;
use causalcone_model::{Error, Model, Precision, Site, decoder::Tap, silent};
use std::path::Path;
use wide::{GPT2, LLAMA};

/// Every type that stays packed, as matrices of one model.
const TYPES: [GgmlDType; 11] = [
    GgmlDType::Q4_1,
    GgmlDType::Q4K,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q5_0,
    GgmlDType::Q6K,
    GgmlDType::Q4_0,
    GgmlDType::Q3K,
    GgmlDType::Q5_1,
    GgmlDType::Q5K,
    GgmlDType::BF16,
];

fn load(path: &Path, precision: Precision) -> Result<Model, Error> {
    Model::load_as(path.to_str().unwrap(), precision, &silent)
}

/// Keeps what every site has.
#[derive(Default)]
struct Record(Vec<(Site, Tensor)>);

impl Tap for Record {
    type Error = Error;
    fn at(&mut self, site: Site, _: Option<usize>, x: Tensor) -> Result<Tensor, Error> {
        self.0.push((site, x.clone()));
        Ok(x)
    }
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn packed_is_the_same_model() {
    for wide in [LLAMA, GPT2] {
        let folder = tempfile::tempdir().unwrap();
        // All types in turn, another one first for each start.
        for start in 0..TYPES.len() {
            let path = wide.write(folder.path(), |at, _| TYPES[(start + at) % TYPES.len()]);
            let [full, packed] = [Precision::Full, Precision::Packed].map(|kept| load(&path, kept).unwrap());
            for id in [0, 7, 52] {
                let rows =
                    |model: &Model| numbers(&model.decoder().unwrap().token_embeddings(&[id]).unwrap());
                assert_eq!(rows(&full), rows(&packed));
            }
            let sites = |model: &Model| {
                let mut record = Record::default();
                model.decoder().unwrap().forward(&[5, 1, 40, 5, 9, 0, 33], &mut record).unwrap();
                record.0
            };
            let (theirs, ours) = (sites(&full), sites(&packed));
            assert_eq!(theirs.len(), ours.len());
            for ((site, full), (_, packed)) in theirs.iter().zip(&ours) {
                let full = numbers(full);
                let largest = full.iter().filter(|x| x.is_finite()).fold(1.0f32, |most, x| most.max(x.abs()));
                for (a, b) in full.iter().zip(numbers(packed)) {
                    // Sums of up to 1024 products in another order, through three blocks.
                    assert!(*a == b || (a - b).abs() <= 1e-5 * largest, "{site:?}: {a} {b}, {largest}");
                }
            }
        }
    }
}

#[test]
fn what_packed_cannot_keep_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = LLAMA.write(folder.path(), |_, _| GgmlDType::F32);
    let error = load(&path, Precision::Packed).unwrap_err().to_string();
    assert!(error.contains("stored in fewer than 32 bits, and this model has none"), "{error}");
    // A scale that is no number: the first of a tensor, found by what is unlike in two files.
    let name = "blk.1.ffn_up.weight";
    let of = |dtype| move |_: usize, given: &str| if given == name { dtype } else { GgmlDType::Q8_0 };
    let path = LLAMA.write(folder.path(), of(GgmlDType::Q4_1));
    let mut bytes = std::fs::read(&path).unwrap();
    let content = Content::read(&mut std::io::Cursor::new(&bytes)).unwrap();
    let start = usize::try_from(content.tensor_data_offset + content.tensor_infos[name].offset).unwrap();
    // Its 1001st block: Q4_1's begin with a scale in IEEE half, of which this is the largest that is none.
    bytes[start + 20 * 1000..][..2].copy_from_slice(&[0x00, 0x7c]);
    std::fs::write(&path, &bytes).unwrap();
    for precision in [Precision::Full, Precision::Packed] {
        let error = load(&path, precision).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("which no weight can be"), "{error}");
    }
}
