//! Weights that stay quantised give the model of the same weights widened, whatever order its rows are in.
#![allow(clippy::unwrap_used, clippy::panic)]

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use causalcone_model::{Error, Model, Precision, Site, decoder::Tap, silent};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

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

/// A committed GGUF made wide enough for blocks: its header with other sizes, and weights that look random.
struct Wide {
    file: &'static str,
    /// Keys to change.
    keys: &'static [(&'static str, u32)],
    /// What a length of a tensor becomes.
    lengths: &'static [(usize, usize)],
}

/// Rows of queries and keys in pairs.
const LLAMA: Wide = Wide {
    file: "families/llama3.gguf",
    keys: &[
        ("llama.embedding_length", 256),
        ("llama.feed_forward_length", 512),
        ("llama.attention.key_length", 64),
        ("llama.attention.value_length", 64),
        ("llama.rope.dimension_count", 64),
    ],
    lengths: &[(20, 256), (28, 512), (48, 256), (24, 128), (6, 32)],
};

/// Projections in one matrix, with biases; the embedding is the unembedding.
const GPT2: Wide = Wide {
    file: "families/gpt2-gguf.gguf",
    keys: &[("gpt2.embedding_length", 256), ("gpt2.feed_forward_length", 1024)],
    lengths: &[(24, 256), (72, 768), (96, 1024)],
};

impl Wide {
    fn write(&self, folder: &Path, dtype: impl Fn(usize, &str) -> GgmlDType) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(self.file);
        let content = Content::read(&mut std::fs::File::open(source).unwrap()).unwrap();
        let mut metadata = content.metadata;
        for (key, value) in self.keys {
            assert!(metadata.insert((*key).into(), Value::U32(*value)).is_some(), "{key} is no key of it");
        }
        let mut names: Vec<_> = content.tensor_infos.into_iter().collect();
        names.sort_by(|a, b| a.0.cmp(&b.0));
        let mut matrices = 0;
        let tensors = names.into_iter().map(|(name, info)| {
            let length =
                |n: &usize| self.lengths.iter().find(|(from, _)| from == n).map_or(*n, |(_, to)| *to);
            let shape: Vec<usize> = info.shape.dims().iter().map(length).collect();
            let count = shape.iter().product::<usize>();
            // Norms about 1, matrices about as large as keeps activations so.
            let (size, middle) = if shape.len() == 1 { (0.2, 1.0) } else { (0.1, 0.0) };
            let numbers: Vec<f32> = (0..count)
                .map(|i| middle + size * (((i * 7919 + 31 * name.len()) % 1009) as f32 / 504.5 - 1.0))
                .collect();
            let x = Tensor::from_vec(numbers, shape.clone(), &Device::Cpu).unwrap();
            let is_matrix = shape.len() == 2 && name != "position_embd.weight";
            let dtype = if is_matrix { dtype(matrices, &name) } else { GgmlDType::F32 };
            matrices += usize::from(is_matrix);
            (name, QTensor::quantize(&x, dtype).unwrap())
        });
        let tensors: Vec<(String, QTensor)> = tensors.collect();
        let metadata: Vec<(&str, &Value)> =
            metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
        let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, x)| (name.as_str(), x)).collect();
        let path = folder.join("model.gguf");
        write(&mut BufWriter::new(std::fs::File::create(&path).unwrap()), &metadata, &tensors).unwrap();
        path
    }
}

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
                let rows = |model: &Model| numbers(&model.decoder().token_embeddings(&[id]).unwrap());
                assert_eq!(rows(&full), rows(&packed));
            }
            let sites = |model: &Model| {
                let mut record = Record::default();
                model.decoder().forward(&[5, 1, 40, 5, 9, 0, 33], &mut record).unwrap();
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
