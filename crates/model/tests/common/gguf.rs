//! A writer of GGUF files, honest or not.

/// A file in parts; each hostile file differs from [`Gguf::valid`] in one of them.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub n_tensors: Option<u64>,
    pub n_keys: Option<u64>,
    /// Key, and the value with its type in front.
    pub keys: Vec<(Vec<u8>, Vec<u8>)>,
    pub tensors: Vec<Info>,
    pub alignment: usize,
    /// Bytes after the last tensor.
    pub tail: usize,
}

#[derive(Clone)]
pub struct Info {
    pub name: Vec<u8>,
    pub n_dims: Option<u32>,
    pub dims: Vec<u64>,
    pub kind: u32,
    /// Instead of the place where the data is.
    pub offset: Option<u64>,
    pub data: Vec<u8>,
}

pub fn u32v(x: u32) -> Vec<u8> {
    raw(4, &x.to_le_bytes())
}

pub fn f32v(x: f32) -> Vec<u8> {
    raw(6, &x.to_le_bytes())
}

pub fn f64v(x: f64) -> Vec<u8> {
    raw(12, &x.to_le_bytes())
}

pub fn u64v(x: u64) -> Vec<u8> {
    raw(10, &x.to_le_bytes())
}

/// A value of that type with those bytes.
pub fn raw(kind: u32, bytes: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes(), bytes].concat()
}

pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

pub fn text(text: &str) -> Vec<u8> {
    raw(8, &string(text.as_bytes()))
}

/// A list of `n` elements of that type, of which these bytes are there.
pub fn list(kind: u32, n: u64, bytes: &[u8]) -> Vec<u8> {
    raw(9, &[&kind.to_le_bytes()[..], &n.to_le_bytes(), bytes].concat())
}

pub fn texts(texts: &[&str]) -> Vec<u8> {
    let bytes: Vec<u8> = texts.iter().flat_map(|text| string(text.as_bytes())).collect();
    list(8, texts.len() as u64, &bytes)
}

pub fn integers(numbers: &[i32]) -> Vec<u8> {
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    list(5, numbers.len() as u64, &bytes)
}

pub const TOKENS: [&str; 12] = ["<s>", "a", "b", "c", "Ġ", "ab", "abc", "Ġa", "Ġab", "1", "2", "<|im_end|>"];
pub const MERGES: [&str; 4] = ["a b", "ab c", "Ġ a", "Ġ ab"];
pub const LAYERS: usize = 2;
const WIDTH: u64 = 8;
const HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
const MLP: u64 = 12;

impl Gguf {
    /// A model that loads: Llama, two layers, f32, with a byte-level tokenizer.
    pub fn valid() -> Self {
        let mut file = Self {
            magic: *b"GGUF",
            version: 3,
            n_tensors: None,
            n_keys: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            tail: 0,
        };
        for (key, value) in [
            ("general.architecture", text("llama")),
            ("general.name", text("tiny")),
            ("general.alignment", u32v(32)),
            ("llama.block_count", u32v(2)),
            ("llama.embedding_length", u32v(8)),
            ("llama.feed_forward_length", u32v(12)),
            ("llama.attention.head_count", u32v(HEADS)),
            ("llama.attention.head_count_kv", u32v(KV_HEADS)),
            ("llama.attention.layer_norm_rms_epsilon", f32v(1e-5)),
            ("llama.context_length", u32v(64)),
            ("llama.rope.freq_base", f32v(10_000.0)),
            ("llama.rope.dimension_count", u32v(2)),
            ("llama.vocab_size", u32v(12)),
            ("tokenizer.ggml.model", text("gpt2")),
            ("tokenizer.ggml.pre", text("smollm")),
            ("tokenizer.ggml.tokens", texts(&TOKENS)),
            ("tokenizer.ggml.token_type", integers(&[3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4])),
            ("tokenizer.ggml.merges", texts(&MERGES)),
            ("tokenizer.ggml.bos_token_id", u32v(0)),
            ("tokenizer.ggml.eos_token_id", u32v(11)),
            ("tokenizer.ggml.add_bos_token", raw(7, &[1])),
        ] {
            file.set(key, value);
        }
        file.add("token_embd.weight", &[WIDTH, TOKENS.len() as u64]);
        for layer in 0..LAYERS {
            let head = WIDTH / u64::from(HEADS);
            for (part, dims) in [
                ("attn_norm", &[WIDTH][..]),
                ("attn_q", &[WIDTH, WIDTH]),
                ("attn_k", &[WIDTH, head * u64::from(KV_HEADS)]),
                ("attn_v", &[WIDTH, head * u64::from(KV_HEADS)]),
                ("attn_output", &[WIDTH, WIDTH]),
                ("ffn_norm", &[WIDTH]),
                ("ffn_gate", &[WIDTH, MLP]),
                ("ffn_up", &[WIDTH, MLP]),
                ("ffn_down", &[MLP, WIDTH]),
            ] {
                file.add(&format!("blk.{layer}.{part}.weight"), dims);
            }
        }
        file.add("output_norm.weight", &[WIDTH]);
        file
    }

    fn add(&mut self, name: &str, dims: &[u64]) {
        let n = dims.iter().product::<u64>();
        let data = (0..n).flat_map(|i| ((i * 7 % 13) as f32 / 13.0 - 0.4).to_le_bytes()).collect();
        self.tensors.push(Info {
            name: name.into(),
            n_dims: None,
            dims: dims.to_vec(),
            kind: 0,
            offset: None,
            data,
        });
    }

    /// Gives a key another value, or adds it.
    pub fn set(&mut self, key: &str, value: Vec<u8>) {
        match self.keys.iter_mut().find(|(known, _)| known == key.as_bytes()) {
            Some((_, old)) => *old = value,
            None => self.keys.push((key.into(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        let before = self.keys.len();
        self.keys.retain(|(known, _)| known != key.as_bytes());
        assert!(self.keys.len() < before, "{key} was there");
    }

    pub fn tensor(&mut self, name: &str) -> &mut Info {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no tensor {name}"))
    }

    /// The header up to its padding.
    pub fn header(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.n_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.n_keys.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            out.extend(string(key));
            out.extend(value);
        }
        let mut next = 0;
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend(tensor.n_dims.unwrap_or(u32::try_from(tensor.dims.len()).unwrap()).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|d| d.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(next).to_le_bytes());
            next += tensor.data.len().next_multiple_of(self.alignment) as u64;
        }
        out
    }

    /// The whole file; nothing follows the last tensor unless `tail` says so.
    pub fn bytes(&self) -> Vec<u8> {
        let mut out = self.header();
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment), 0);
            out.extend(&tensor.data);
        }
        out.resize(out.len() + self.tail, 0);
        out
    }
}
