//! Committed models made wide enough for quantised blocks.
#![allow(dead_code, reason = "each test binary uses its own part")]

use candle_core::quantized::gguf_file::{Content, Value, write};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use std::io::BufWriter;
use std::path::{Path, PathBuf};

/// A committed GGUF made wide enough for blocks: its header with other sizes, and weights that look random.
pub struct Wide {
    pub file: &'static str,
    /// Keys to change.
    pub keys: &'static [(&'static str, u32)],
    /// What a length of a tensor becomes.
    pub lengths: &'static [(usize, usize)],
}

/// Rows of queries and keys in pairs.
pub const LLAMA: Wide = Wide {
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
pub const GPT2: Wide = Wide {
    file: "families/gpt2-gguf.gguf",
    keys: &[("gpt2.embedding_length", 256), ("gpt2.feed_forward_length", 1024)],
    lengths: &[(24, 256), (72, 768), (96, 1024)],
};

impl Wide {
    /// Writes `model.gguf` into the folder, each matrix of the type that `dtype` gives for its number and name.
    pub fn write(&self, folder: &Path, dtype: impl Fn(usize, &str) -> GgmlDType) -> PathBuf {
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
