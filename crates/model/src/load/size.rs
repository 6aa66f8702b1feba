//! How much memory a model's weights take, from the headers of its files alone.
//!
//! While a model is opened, [`families`](crate::families) goes through its tensors without reading them and adds each to
//! a [`Tally`], once for every way of keeping weights. [`Footprint::new`] then chooses one of these ways.
//!
//! Two rules decide what fits:
//!
//! - *Loading.* The resident weights, and what is in memory beside them while they are laid out, must fit in what is free.
//!   Blocks are assembled so few at a time that their copies take at most [`COPIES`] bytes, or those of one block.
//! - *Room to compute.* `auto` also leaves [`room`] for a prompt of [`PROMPT`] tokens, since a model that only just fits
//!   cannot run. A form that the user names needs no such room: they may know that their prompts are short.

use crate::config::Config;
use crate::file::{Entry, Form, Precision};
use crate::memory::readable;
use crate::{Error, Result};
use causalcone_ops::{full_bytes, half_bytes, packed_bytes};
use serde::Serialize;
use std::fmt;

/// The most bytes that copies of tensors take while blocks are assembled, unless a single block takes more.
const COPIES: u64 = 512 << 20;

/// Tokens of the prompt that room is left for.
const PROMPT: u64 = 256;

/// The ways of keeping weights, in the order of a [`Tally`].
const FORMS: [Precision; 3] = [Precision::Full, Precision::Half, Precision::Packed];

/// The memory that the weights of a model take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Footprint {
    /// Bytes of all weights as f32.
    pub full: u64,
    /// Bytes with the matrices that are stored in 16 bits left so; `None` where the model has none.
    pub half: Option<u64>,
    /// Bytes with all matrices left as they are stored; `None` where all are stored in 32 bits.
    pub packed: Option<u64>,
    /// How the weights are kept, or will be when they are first needed; `None` where they do not fit.
    pub chosen: Option<Precision>,
    /// Bytes of memory that were free when the model was opened; `None` where the system does not say.
    pub free: Option<u64>,
    /// What was asked for.
    #[serde(skip)]
    asked: Precision,
    /// Whether any matrix is quantised.
    #[serde(skip)]
    quantised: bool,
    /// How many blocks are assembled at a time.
    #[serde(skip)]
    at_once: usize,
}

/// What one way of keeping weights takes.
#[derive(Debug, Clone, Copy, Default)]
struct Running {
    /// Bytes held for good.
    held: u64,
    /// The most bytes there are while embeddings are read.
    peak: u64,
    /// The most bytes of copies that one block takes.
    copies: u64,
    /// How many matrices are kept as they are stored.
    kept: usize,
}

/// What the headers of a model's files say of its tensors.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub(crate) tally: Tally,
    /// The name of the token embedding, which is vocab × width.
    pub(crate) embedding: String,
}

/// Sums over the tensors of a model, for each way of keeping weights.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    forms: [Running; 3],
    quantised: bool,
}

impl Tally {
    /// Adds a vector, or a table that is always f32.
    pub(crate) fn vector(&mut self, shape: &[usize]) {
        let bytes = shape.iter().fold(4, |bytes: u64, size| bytes.saturating_mul(*size as u64));
        self.forms.iter_mut().for_each(|running| running.held = running.held.saturating_add(bytes));
    }

    /// Adds a matrix that a linear map is made of. Those of blocks are assembled several at a time, and may be copied once
    /// more to order or to split their rows.
    pub(crate) fn matrix(&mut self, entry: &Entry, (input, output): (usize, usize), in_block: bool) {
        for (running, precision) in self.forms.iter_mut().zip(FORMS) {
            let form = entry.form(precision);
            let full = || full_bytes(input, output);
            let (held, read) = match form {
                Form::Full => (full(), 4 * (input as u64).saturating_mul(output as u64)),
                Form::Half(_) => (half_bytes(input, output), 0),
                Form::Packed(blocks) => {
                    (packed_bytes(input, output, blocks).unwrap_or_else(full), entry.bytes)
                }
            };
            running.held = running.held.saturating_add(held);
            running.kept += usize::from(!matches!(form, Form::Full));
            if in_block {
                let moved = if matches!(form, Form::Half(_)) { held } else { read };
                running.copies = running.copies.max(read.saturating_add(moved));
            } else {
                running.peak = running.peak.max(running.held.saturating_add(read));
            }
            self.quantised |= matches!(form, Form::Packed(_));
        }
    }
}

impl Running {
    fn at_once(&self, layers: usize) -> usize {
        let most = COPIES / self.copies.max(1);
        usize::try_from(most).unwrap_or(usize::MAX).clamp(1, layers.max(1))
    }

    /// The most bytes there are while the model is loaded.
    fn peak(&self, layers: usize) -> u64 {
        let copies = self.copies.saturating_mul(self.at_once(layers) as u64);
        self.peak.max(self.held.saturating_add(copies))
    }
}

impl Footprint {
    /// Chooses how to keep the weights of a model, given what is free.
    pub(crate) fn new(tally: &Tally, config: &Config, asked: Precision, free: Option<u64>) -> Self {
        let [full, half, packed] = tally.forms;
        let kept = |running: Running| (running.kept > 0).then_some(running.held);
        let fits = |running: Running, room: u64| {
            let needed = running.peak(config.layers).max(running.held.saturating_add(room));
            free.is_none_or(|free| needed <= free)
        };
        let running = |precision| match precision {
            Precision::Half => half,
            Precision::Packed => packed,
            Precision::Full | Precision::Auto => full,
        };
        let smaller = if tally.quantised { Precision::Packed } else { Precision::Half };
        let chosen = match asked {
            Precision::Auto if fits(full, room(config)) => Some(Precision::Full),
            Precision::Auto => {
                (running(smaller).kept > 0 && fits(running(smaller), room(config))).then_some(smaller)
            }
            asked => fits(running(asked), 0).then_some(asked),
        };
        let at_once = running(chosen.unwrap_or_default()).at_once(config.layers);
        let quantised = tally.quantised;
        let (half, packed) = (kept(half), kept(packed));
        Self { full: full.held, half, packed, chosen, free, asked, quantised, at_once }
    }

    /// Bytes of the weights when they are kept with that precision; `auto` is what was chosen.
    pub fn bytes(&self, precision: Precision) -> Option<u64> {
        match precision {
            Precision::Auto => self.chosen.and_then(|chosen| self.bytes(chosen)),
            Precision::Full => Some(self.full),
            Precision::Half => self.half,
            Precision::Packed => self.packed,
        }
    }

    /// How the weights are kept, and how many blocks are assembled at a time.
    ///
    /// # Errors
    /// [`Error::Memory`] where they do not fit.
    pub(crate) fn plan(&self, name: &str) -> Result<(Precision, usize)> {
        if let Some(chosen) = self.chosen {
            return Ok((chosen, self.at_once));
        }
        let free = self.free.map(readable).unwrap_or_default();
        let sizes = self.sizes();
        let problem = match self.asked {
            Precision::Auto => {
                format!("the weights of {name} fit in memory in no form: {sizes}; {free} are free")
            }
            asked => {
                format!("the weights of {name} do not fit in memory as \"{asked}\": {sizes}; {free} are free")
            }
        };
        let hint = match (self.asked, self.smallest()) {
            (Precision::Full, smallest) if smallest != Precision::Full => {
                format!("leave `weights` at \"auto\", or set it to \"{smallest}\"")
            }
            (_, Precision::Full) => {
                "free memory, or use a file whose weights are stored in fewer bits".into()
            }
            _ => "free memory, or use a smaller model, or a file with fewer bits per weight".into(),
        };
        Err(Error::Memory { problem, hint })
    }

    /// The form that takes the least memory.
    fn smallest(&self) -> Precision {
        match (self.packed, self.half) {
            (Some(_), _) if self.quantised => Precision::Packed,
            (_, Some(_)) => Precision::Half,
            _ => Precision::Full,
        }
    }

    /// `full 32.1 GB, packed 5.1 GB`: the forms that differ.
    fn sizes(&self) -> String {
        let mut sizes = format!("full {}", readable(self.full));
        for (name, bytes) in [("half", self.half), ("packed", self.packed.filter(|_| self.quantised))] {
            if let Some(bytes) = bytes {
                sizes += &format!(", {name} {}", readable(bytes));
            }
        }
        sizes
    }
}

/// The sizes, what is chosen and what is free, in a line: `full 32.1 GB, packed 6.0 GB; packed is chosen: 11.9 GB are
/// free`.
impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sizes())?;
        match (self.asked, self.chosen) {
            (Precision::Auto, Some(chosen)) => write!(f, "; {chosen} is chosen")?,
            (asked, Some(_)) => write!(f, "; {asked} is asked for")?,
            (Precision::Auto, None) => f.write_str("; none fits")?,
            (asked, None) => write!(f, "; {asked} is asked for and does not fit")?,
        }
        match self.free {
            Some(free) => write!(f, ": {} are free", readable(free)),
            None => Ok(()),
        }
    }
}

/// Bytes to compute a prompt of [`PROMPT`] tokens in: the rows of one block (residual stream, queries, keys, values, both
/// projections of the MLP, norms and sums), its attention weights, and the logits of every position, all in f32.
fn room(config: &Config) -> u64 {
    let rows = PROMPT.min(config.context as u64);
    let (d, m, heads) = (config.width as u64, config.mlp_width as u64, config.heads as u64);
    let row =
        [8u64.saturating_mul(d), 3u64.saturating_mul(m), 2 * heads.saturating_mul(rows), config.vocab as u64]
            .into_iter()
            .fold(0, u64::saturating_add);
    rows.saturating_mul(4).saturating_mul(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bias, Norm, PositionEncoding, Score};
    use crate::file::{Encoding, Order};
    use crate::stage::{Halves, Norms, Stages};
    use causalcone_ops::Activation;

    const GB: u64 = 1_000_000_000;

    /// The shape of Llama 3 8B.
    fn config() -> Config {
        Config {
            family: "llama",
            layers: 32,
            width: 4096,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            mlp_width: 14336,
            vocab: 128_256,
            context: 8192,
            kinds: Vec::new(),
            norm: Norm::Rms { eps: 1e-5 },
            query_key_norm: None,
            clip: None,
            positions: PositionEncoding::Learned,
            block: Stages::decoder(Norms::Before, Halves::InTurn, true).into(),
            activation: Activation::Silu,
            score: Score { scale: 1.0, by_layer: false, softcap: None },
            embedding_scale: 1.0,
            logit_softcap: None,
            tied: false,
            bias: Bias::default(),
        }
    }

    /// The block type of that name.
    fn blocks(name: &str) -> Encoding {
        Encoding::Blocks(causalcone_ops::Blocks::all().find(|blocks| blocks.name() == name).unwrap())
    }

    /// Its tensors, with one type for the unembedding and one for all other matrices.
    fn tally(config: &Config, blocks: Encoding, unembedding: Encoding) -> Tally {
        let mut tally = Tally::default();
        let matrix = |tally: &mut Tally, encoding: Encoding, sizes: (usize, usize), in_block: bool| {
            let (numbers, bytes) = encoding.block();
            let bytes = (sizes.0 * sizes.1) as u64 / numbers * bytes;
            let (shape, order) = (vec![sizes.1, sizes.0], Order::Rows);
            let entry = Entry { name: String::new(), shape, encoding, offset: 0, bytes, order };
            tally.matrix(&entry, sizes, in_block);
        };
        let (d, m, kv) = (config.width, config.mlp_width, config.kv_heads * config.head_dim);
        matrix(&mut tally, blocks, (d, config.vocab), false);
        matrix(&mut tally, unembedding, (d, config.vocab), false);
        for _ in 0..config.layers {
            for sizes in [(d, d), (d, kv), (d, kv), (d, d), (d, m), (d, m), (m, d)] {
                matrix(&mut tally, blocks, sizes, true);
            }
            tally.vector(&[d]);
            tally.vector(&[d]);
        }
        tally.vector(&[d]);
        tally
    }

    #[test]
    fn a_large_model_is_kept_in_the_form_that_fits() {
        let config = config();
        use Encoding::{BF16, F32};
        let (q4_0, q6_k) = (blocks("Q4_0"), blocks("Q6_K"));
        let of = |blocks, unembedding| tally(&config, blocks, unembedding);
        let (quantised, half, full) = (of(q4_0, q6_k), of(BF16, BF16), of(F32, F32));
        for (tally, free, chosen) in [
            (&quantised, 4, None),
            (&quantised, 8, Some(Precision::Packed)),
            (&quantised, 16, Some(Precision::Packed)),
            (&quantised, 32, Some(Precision::Packed)),
            (&quantised, 40, Some(Precision::Full)),
            (&half, 8, None),
            (&half, 16, None),
            (&half, 20, Some(Precision::Half)),
            (&half, 40, Some(Precision::Full)),
            (&full, 16, None),
            (&full, 40, Some(Precision::Full)),
        ] {
            let footprint = Footprint::new(tally, &config, Precision::Auto, Some(free * GB));
            assert_eq!(footprint.chosen, chosen, "{free} GB: {footprint}");
            assert_eq!(footprint.plan("it").is_ok(), chosen.is_some());
        }
        // 8.03 billion parameters, 525 million of them in either embedding.
        let footprint = Footprint::new(&quantised, &config, Precision::Auto, None);
        assert_eq!(footprint.full, 4 * 8_030_261_248);
        // A group of 32 numbers has a scale and a minimum of 4 bytes and 16 bytes of codes; one of Q6_K's 16 a scale and 16.
        let vectors = 4 * 4096 * 65;
        let in_groups = (8_030_261_248 - 4096 * 65 - 128_256 * 4096) / 32 * 24 + 128_256 * 4096 / 16 * 20;
        assert_eq!(footprint.packed, Some(in_groups + vectors));
        assert_eq!(
            (footprint.half, footprint.chosen),
            (None, Some(Precision::Full)),
            "nothing says what is free"
        );
        let footprint = Footprint::new(&half, &config, Precision::Auto, Some(20 * GB));
        assert_eq!(footprint.half, Some(2 * (8_030_261_248 - 4096 * 65) + vectors));
        // The largest matrix of a block is laid out from one copy, and its rows may be moved in another.
        assert_eq!(full.forms[0].at_once(32), 1);
        assert_eq!(full.forms[0].peak(32) - full.forms[0].held, 2 * 4 * 4096 * 14336);
        assert!(quantised.forms[2].peak(32) - quantised.forms[2].held <= COPIES);
    }

    #[test]
    fn a_form_that_is_asked_for_is_taken_or_refused() {
        let config = config();
        let tally = tally(&config, blocks("Q4_0"), blocks("Q4_0"));
        let asked = |precision, free: u64| Footprint::new(&tally, &config, precision, Some(free * GB));
        assert_eq!(asked(Precision::Packed, 40).chosen, Some(Precision::Packed));
        assert_eq!(asked(Precision::Full, 33).chosen, Some(Precision::Full));
        let refused = asked(Precision::Full, 20).plan("model.gguf").unwrap_err();
        let said = refused.to_string();
        for part in ["model.gguf", "\"full\"", "full 32.1 GB, packed 6.0 GB", "20.0 GB are free"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(refused.hint().unwrap().contains("\"packed\""));
        let refused = asked(Precision::Auto, 4).plan("model.gguf").unwrap_err();
        assert!(refused.to_string().contains("in no form: full 32.1 GB, packed 6.0 GB; 4.0 GB are free"));
        let shown = asked(Precision::Auto, 12).to_string();
        assert_eq!(shown, "full 32.1 GB, packed 6.0 GB; packed is chosen: 12.0 GB are free");
        assert!(asked(Precision::Auto, 4).to_string().contains("; none fits: 4.0 GB are free"));
    }
}
