//! A writer of model folders: config.json and safetensors, honest or not.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// One safetensors file, its header as text.
#[derive(Clone)]
pub struct Safetensors {
    pub header: Vec<u8>,
    /// Instead of the header's length.
    pub length: Option<u64>,
    pub data: Vec<u8>,
}

/// The tensors of a Llama of one layer, tied.
pub const TENSORS: [(&str, &[usize]); 11] = [
    ("model.embed_tokens.weight", &[6, 4]),
    ("model.layers.0.input_layernorm.weight", &[4]),
    ("model.layers.0.mlp.down_proj.weight", &[4, 6]),
    ("model.layers.0.mlp.gate_proj.weight", &[6, 4]),
    ("model.layers.0.mlp.up_proj.weight", &[6, 4]),
    ("model.layers.0.post_attention_layernorm.weight", &[4]),
    ("model.layers.0.self_attn.k_proj.weight", &[2, 4]),
    ("model.layers.0.self_attn.o_proj.weight", &[4, 4]),
    ("model.layers.0.self_attn.q_proj.weight", &[4, 4]),
    ("model.layers.0.self_attn.v_proj.weight", &[2, 4]),
    ("model.norm.weight", &[4]),
];

impl Safetensors {
    /// A file of these tensors, f32.
    pub fn of(tensors: &[(&str, &[usize])]) -> Self {
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (name, shape) in tensors {
            let n: usize = shape.iter().product();
            let (begin, end) = (data.len(), data.len() + 4 * n);
            entries.push(format!(
                r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#
            ));
            data.extend((0..n).flat_map(|i| ((i * 5 % 11) as f32 / 11.0 - 0.3).to_le_bytes()));
        }
        let header = format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, entries.join(","));
        Self { header: header.into(), length: None, data }
    }

    pub fn valid() -> Self {
        Self::of(&TENSORS)
    }

    /// Replaces a part of the header, which must be there.
    pub fn replace(&mut self, from: &str, to: &str) {
        let header = String::from_utf8(self.header.clone()).unwrap();
        assert!(header.contains(from), "{from} is in the header");
        self.header = header.replacen(from, to, 1).into();
    }

    /// Replaces the extent of a tensor of these bytes.
    pub fn offsets(&mut self, name: &str, to: &str) {
        let header = String::from_utf8(self.header.clone()).unwrap();
        let start = header.find(&format!("\"{name}\"")).unwrap();
        let start = start + header[start..].find("\"data_offsets\":").unwrap() + 15;
        let end = start + header[start..].find('}').unwrap();
        self.header = [&header[..start], to, &header[end..]].concat().into();
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(self.header.len() as u64);
        [&length.to_le_bytes()[..], &self.header, &self.data].concat()
    }
}

pub fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": 4,
        "intermediate_size": 6,
        "max_position_embeddings": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "vocab_size": 6,
    })
}

/// A folder that loads.
pub fn write(folder: &Path, weights: &Safetensors) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    super::overwrite(folder.join("config.json"), config().to_string());
    super::overwrite(folder.join("model.safetensors"), weights.bytes());
    folder.into()
}

/// The same in two shards with an index.
pub fn write_sharded(folder: &Path) -> Value {
    std::fs::create_dir_all(folder).unwrap();
    super::overwrite(folder.join("config.json"), config().to_string());
    let mut map = serde_json::Map::new();
    for (shard, tensors) in [("a.safetensors", &TENSORS[..5]), ("b.safetensors", &TENSORS[5..])] {
        super::overwrite(folder.join(shard), Safetensors::of(tensors).bytes());
        map.extend(tensors.iter().map(|(name, _)| ((*name).to_owned(), shard.into())));
    }
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    write_index(folder, &index.to_string());
    index
}

pub fn write_index(folder: &Path, text: &str) {
    super::overwrite(folder.join("model.safetensors.index.json"), text);
}
