//! Mutators that know the structure of a format.
//!
//! A [`Mutator`] takes a valid file apart, changes one or a few parts, and writes it again, so that the change gets past
//! the first check of a reader. What it does depends only on the seed of its [`Random`]. It knows nothing of libFuzzer:
//! every driver uses it.

mod archive;
mod bytes;
mod change;
mod framed;
mod gguf;
mod node;
mod pickle;
mod proto;
mod random;
mod text;
mod words;

pub use node::Node;
pub use random::Random;
pub use words::Words;

/// What a file is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Structure {
    /// A JSON document.
    Json,
    /// A TOML document.
    Toml,
    /// Lines, each of them JSON or plain text.
    Lines,
    /// A Jinja template.
    Template,
    /// A GGUF file.
    Gguf,
    /// A safetensors file.
    Safetensors,
    /// What `torch.save` writes: a zip archive with a pickle, or pickles in a row.
    Torch,
    /// What NumPy writes: an array, or a zip archive of arrays.
    Numpy,
    /// A protocol buffer.
    Proto,
}

/// Makes variants of files of one structure.
#[derive(Debug)]
pub struct Mutator {
    structure: Structure,
    words: Words,
}

impl Mutator {
    /// A mutator that uses the words and parts of these seeds, and the words of a documentation.
    pub fn new(structure: Structure, seeds: &[Vec<u8>], documentation: &str) -> Self {
        let trees = match structure {
            Structure::Lines => {
                let lines = seeds.iter().flat_map(|seed| seed.split(|b| *b == b'\n').take(16));
                lines.filter_map(Node::from_json).collect()
            }
            _ => seeds.iter().filter_map(|seed| tree(structure, seed)).take(64).collect(),
        };
        // Only what may be text: the words of tensors mean nothing.
        let texts = seeds.iter().map(|seed| &seed[..seed.len().min(16 << 10)]);
        Self { structure, words: Words::new(texts.chain([documentation.as_bytes()]), trees) }
    }

    /// A variant of `data`: one to four changes, some of them to single bytes.
    pub fn mutate(&self, data: &[u8], random: &mut Random) -> Vec<u8> {
        let mut data = data.to_vec();
        let rounds = [1, 1, 1, 2, 2, 4][random.below(6)];
        for _ in 0..rounds {
            let changed = if random.one_in(10) { None } else { self.change(&data, random) };
            match changed {
                Some(changed) => data = changed,
                None => bytes::change(&mut data, random),
            }
        }
        data
    }

    /// One change. `None` where the data is not of the structure (any more).
    fn change(&self, data: &[u8], random: &mut Random) -> Option<Vec<u8>> {
        let words = &self.words;
        match self.structure {
            Structure::Json | Structure::Toml => {
                let mut tree = tree(self.structure, data)?;
                tree.change(words, random);
                Some(if self.structure == Structure::Json { tree.to_json() } else { tree.to_toml() })
            }
            Structure::Lines => Some(text::change_lines(data, words, random)),
            Structure::Template => Some(text::change_template(data, words, random)),
            Structure::Gguf => gguf::change(data, words, random),
            Structure::Safetensors => framed::change_safetensors(data, words, random),
            Structure::Torch => {
                pickle::change(data, words, random).or_else(|| archive::change(data, words, random))
            }
            Structure::Numpy => {
                framed::change_npy(data, words, random).or_else(|| archive::change(data, words, random))
            }
            Structure::Proto => proto::change(data, words, random),
        }
    }
}

/// The tree of a document, where the structure has one.
fn tree(structure: Structure, data: &[u8]) -> Option<Node> {
    match structure {
        Structure::Json => Node::from_json(data),
        Structure::Toml => Node::from_toml(data),
        _ => None,
    }
}
