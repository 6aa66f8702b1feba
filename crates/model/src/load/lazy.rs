//! The weights of a model, opened and checked at once, and read when they are first needed.

use super::size::{Footprint, Outline};
use crate::config::Config;
use crate::decoder::Decoder;
use crate::families::Format;
use crate::file::{Entry, Precision, Weights};
use crate::{Result, memory};
use candle_core::{Device, Tensor};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A decoder that is made of its weights when it is first asked for.
#[derive(Debug)]
pub(crate) struct LazyDecoder {
    path: PathBuf,
    format: &'static Format,
    config: Config,
    weights: Weights,
    embedding: String,
    footprint: Footprint,
    decoder: OnceLock<Decoder>,
    /// Held by the thread that reads the weights.
    loading: Mutex<()>,
}

impl LazyDecoder {
    /// Checks all that headers show: that every tensor is there and has its shape, that none is left over, and that
    /// something can be kept as `asked`. Reads no weights.
    ///
    /// # Errors
    /// When one of these does not hold. Weights that do not fit in memory are refused by [`get`](Self::get).
    pub(crate) fn new(
        path: &Path,
        format: &'static Format,
        config: Config,
        weights: Weights,
        asked: Precision,
    ) -> Result<Self> {
        let Outline { tally, embedding } = format.outline(&config, &weights)?;
        let footprint = Footprint::new(&tally, &config, asked, memory::free()?);
        asked.check(footprint.bytes(asked).is_some() || asked == Precision::Auto, path)?;
        let (decoder, loading) = (OnceLock::new(), Mutex::new(()));
        Ok(Self { path: path.into(), format, config, weights, embedding, footprint, decoder, loading })
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn footprint(&self) -> &Footprint {
        &self.footprint
    }

    /// The tensors it is made of, in the order of their files.
    pub(crate) fn tensors(&self) -> Vec<&Entry> {
        self.weights.taken()
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.decoder.get().is_some()
    }

    /// The decoder. The first call reads the weights; others wait for it.
    ///
    /// # Errors
    /// When the weights do not fit in memory, cannot be read, or hold values that no weights have. The next call tries
    /// again.
    pub(crate) fn get(&self) -> Result<&Decoder> {
        if let Some(decoder) = self.decoder.get() {
            return Ok(decoder);
        }
        let _loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(decoder) = self.decoder.get() {
            return Ok(decoder);
        }
        let (precision, at_once) = self.footprint.plan(&self.path.display().to_string())?;
        self.weights.check_sums()?;
        let decoder = self.format.load(self.config.clone(), &self.weights, precision, at_once)?;
        Ok(self.decoder.get_or_init(|| decoder))
    }

    /// What a token puts into the residual stream, as [`Decoder::token_embeddings`] has it, width numbers. Where no
    /// weights have been read yet, only its row is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn token_embedding(&self, id: u32) -> Result<Tensor> {
        let row = id as usize;
        let shape = [self.config.vocab, self.config.width];
        if !self.is_loaded()
            && row < self.config.vocab
            && let Some(numbers) = self.weights.rows(&self.embedding, &shape, row..row + 1)?
        {
            let numbers = Tensor::from_vec(numbers, self.config.width, &Device::Cpu)?;
            let scale = self.config.embedding_scale;
            return Ok(if scale == 1.0 { numbers } else { (numbers * scale)? });
        }
        Ok(self.get()?.token_embeddings(&[id])?.get(0)?)
    }
}
