//! A model: decoder, tokenizer, and where they came from.

use crate::config::Config;
use crate::decoder::Decoder;
use crate::file::keys::KeyReport;
use crate::file::{Entry, Precision};
use crate::load::{self, Deferred, Footprint, LazyDecoder, LoadOptions, Parts};
use crate::memory;
use crate::progress::{Report, silent};
use crate::store;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use causalcone_chat::{ChatTemplate, Clock, Message, Specials};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A language model: its shape, its tokenizer, and its weights, which are read when they are first needed.
///
/// ```
/// use causalcone_model::Model;
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;                 // an alias, a directory, a .gguf file …
/// assert_eq!(model.config().layers, 3);
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug)]
pub struct Model {
    name: String,
    files: Vec<PathBuf>,
    decoder: LazyDecoder,
    tokenizer: Deferred<Option<Tokenizer>>,
    chat_template: Deferred<Option<ChatTemplate>>,
    eos_ids: Deferred<Vec<u32>>,
    report: KeyReport,
    hash: OnceLock<String>,
}

impl Model {
    /// Loads a model: a path, an alias (`smollm2`, fetched if need be), or `owner/name` from the
    /// Hugging Face cache. Weights are kept as [`Precision::Auto`] says.
    ///
    /// # Errors
    /// When it cannot be found, fetched, read, or computed exactly; when its weights do not fit in memory.
    pub fn load(name: &str) -> Result<Self> {
        Self::load_with(name, &silent)
    }

    /// [`Model::load`], telling `report` how a download goes.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Cancelled`] if `report` says so.
    pub fn load_with(name: &str, report: Report<'_>) -> Result<Self> {
        Self::load_as(name, Precision::Auto, report)
    }

    /// [`Model::load_with`], keeping weights as `precision` says.
    ///
    /// # Errors
    /// As [`Model::load_with`]; when nothing of the model is stored so that it could be kept so.
    pub fn load_as(name: &str, precision: Precision, report: Report<'_>) -> Result<Self> {
        Self::load_with_options(name, &precision.into(), report)
    }

    /// [`Model::load_with`], as `options` say.
    ///
    /// # Errors
    /// As [`Model::load_as`].
    pub fn load_with_options(name: &str, options: &LoadOptions, report: Report<'_>) -> Result<Self> {
        Self::of(name, options, report, true)
    }

    /// [`Model::load_as`], reading no weights yet: the first call that needs them does ([`Model::decoder`]). All that the
    /// headers of the files show is checked now; what only values show, such as NaN, is not.
    ///
    /// ```
    /// use causalcone_model::{Model, Precision, silent};
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
    /// let model = Model::open(path, Precision::Auto, &silent)?;
    /// assert!(!model.is_loaded() && model.footprint().full > 0);
    /// model.decoder()?;
    /// assert!(model.is_loaded());
    /// # Ok::<(), causalcone_model::Error>(())
    /// ```
    ///
    /// Other threads wait while one reads the weights, and the reading itself runs on rayon's threads: call
    /// [`Model::decoder`] once before tasks of rayon use the model side by side.
    ///
    /// # Errors
    /// As [`Model::load_as`]. Weights that do not fit in memory are no error yet.
    pub fn open(name: &str, precision: Precision, report: Report<'_>) -> Result<Self> {
        Self::open_with_options(name, &precision.into(), report)
    }

    /// [`Model::open`], as `options` say.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn open_with_options(name: &str, options: &LoadOptions, report: Report<'_>) -> Result<Self> {
        Self::of(name, options, report, false)
    }

    fn of(name: &str, options: &LoadOptions, report: Report<'_>, now: bool) -> Result<Self> {
        crate::threads::start();
        let Parts { files, decoder, tokenizer, chat_template, eos_ids, report } =
            load::load(store::find(name, report)?, options, now)?;
        let (name, hash) = (name.into(), OnceLock::new());
        Ok(Self { name, files, decoder, tokenizer, chat_template, eos_ids, report, hash })
    }

    /// The name it was loaded by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files it consists of.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        self.decoder.config()
    }

    /// The tensors of its files that it is made of, in their order: what else the files hold is not among them.
    pub fn tensors(&self) -> Vec<&Entry> {
        self.decoder.tensors()
    }

    /// Its weights, ready to run. The first call reads them, unless the model was [loaded](Model::load_as) at once.
    ///
    /// # Errors
    /// When they do not fit in memory, cannot be read, or hold values that no weights have.
    pub fn decoder(&self) -> Result<&Decoder> {
        self.decoder.get()
    }

    /// Whether its weights have been read.
    pub fn is_loaded(&self) -> bool {
        self.decoder.is_loaded()
    }

    /// The memory that its weights take, and how they are kept.
    pub fn footprint(&self) -> &Footprint {
        self.decoder.footprint()
    }

    /// Half of the memory that is free once its weights are read, in bytes: what a computation may take unless it is told
    /// otherwise. `None` where the system does not say.
    ///
    /// # Errors
    /// As [`memory::free`].
    pub fn half_of_free_memory(&self) -> Result<Option<u64>> {
        // What the environment says is free is free before anything is read.
        let is_counted = self.is_loaded() && memory::given()?.is_none();
        let weights = if is_counted { 0 } else { self.footprint().bytes(Precision::Auto).unwrap_or(0) };
        Ok(memory::free()?.map(|free| free.saturating_sub(weights) / 2))
    }

    /// Where it is computed.
    pub fn device(&self) -> &Device {
        &Device::Cpu
    }

    /// Checks that a prompt can run: not empty, no longer than the context, ids in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Prompt`], saying what would fit.
    pub fn check(&self, ids: &[u32]) -> Result<()> {
        self.config().check(ids)
    }

    /// Its tokenizer. A model without one, or with one that cannot be used, still runs on token ids.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref().ok()?.as_ref()
    }

    /// Why its tokenizer, its chat template and its end-of-text tokens cannot be used, as far as they cannot: commands
    /// that need them fail with these messages, all others work.
    pub fn problems(&self) -> Vec<&str> {
        let parts =
            [self.tokenizer.as_ref().err(), self.chat_template.as_ref().err(), self.eos_ids.as_ref().err()];
        parts.into_iter().flatten().map(String::as_str).collect()
    }

    /// What was concluded about its configuration's keys: defaults that were taken, keys that were ignored.
    pub fn key_report(&self) -> &KeyReport {
        &self.report
    }

    /// The tokens that end a text it writes, as its files say: the end of a text, of a turn.
    ///
    /// # Errors
    /// When the files name a token that the model does not have.
    pub fn eos_ids(&self) -> Result<&[u32]> {
        self.eos_ids.as_deref().map_err(|problem| Error::Part {
            problem: problem.clone(),
            hint: "eos = false in [generate] goes on without looking for the end of a text".into(),
        })
    }

    /// The tokenizer's end-of-sequence token, where it does not end a text: texts then end with other tokens
    /// ([`Model::eos_ids`]), as they do in transformers, and run on over this one.
    pub fn eos_that_ends_nothing(&self) -> Option<u32> {
        let eos = self.tokenizer()?.eos()?;
        self.eos_ids().is_ok_and(|eos_ids| !eos_ids.contains(&eos)).then_some(eos)
    }

    /// SHA-256 over its files: of the file itself if it is one, of the list of `name hash` lines
    /// sorted by name if they are several.
    ///
    /// # Errors
    /// When a file cannot be read any more.
    pub fn sha256(&self) -> Result<&str> {
        if let Some(hash) = self.hash.get() {
            return Ok(hash);
        }
        let hashes: Vec<String> =
            self.files.iter().map(|file| store::cached_sha256(file)).collect::<Result<_>>()?;
        Ok(self.hash.get_or_init(|| self.hash_of(&hashes)))
    }

    /// [`Model::sha256`] where that takes no long reading: its files have at most `most` bytes together, or their hashes
    /// are remembered from before. `None` elsewhere.
    ///
    /// # Errors
    /// As [`Model::sha256`].
    pub fn sha256_within(&self, most: u64) -> Result<Option<&str>> {
        if let Some(hash) = self.hash.get() {
            return Ok(Some(hash));
        }
        let known: Option<Vec<String>> =
            self.files.iter().map(|file| store::known_sha256(file)).collect::<Result<_>>()?;
        if let Some(hashes) = known {
            return Ok(Some(self.hash.get_or_init(|| self.hash_of(&hashes))));
        }
        let size = |file: &PathBuf| {
            file.metadata().map(|metadata| metadata.len()).map_err(|source| Error::io(file, "open", source))
        };
        let sizes: Vec<u64> = self.files.iter().map(size).collect::<Result<_>>()?;
        if sizes.into_iter().fold(0, u64::saturating_add) > most { Ok(None) } else { self.sha256().map(Some) }
    }

    /// The hash of its files, given that of each.
    fn hash_of(&self, hashes: &[String]) -> String {
        match hashes {
            [hash] => hash.clone(),
            hashes => {
                let name =
                    |file: &PathBuf| file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let lines: BTreeMap<String, &String> = self.files.iter().map(name).zip(hashes).collect();
                let list: String = lines.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
                store::sha256_of(list)
            }
        }
    }

    /// The ids of a prompt; `bos` as in [`Tokenizer::prompt`].
    ///
    /// # Errors
    /// When there is no tokenizer, the text cannot be split, or it does not fit the context.
    pub fn prompt(&self, text: &str, bos: Option<bool>) -> Result<Vec<u32>> {
        let ids = self.needs_tokenizer(text)?.prompt(text, bos, self.config().context)?;
        self.check(&ids)?;
        Ok(ids)
    }

    /// How it writes conversations, where its files say so.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref().ok()?.as_ref()
    }

    /// The ids of a conversation as the model's own template writes it, up to where its turn begins if
    /// `generation_prompt` says so. The template puts the start-of-text token where it belongs; `bos` says that there
    /// is one (true) or none (false), whatever the template does. A template that asks for the date reads the clock.
    ///
    /// # Errors
    /// When there is no template or tokenizer, the template fails, or the text does not fit the context.
    pub fn chat(
        &self,
        messages: &[Message],
        generation_prompt: bool,
        bos: Option<bool>,
        clock: &Clock,
    ) -> Result<Vec<u32>> {
        let template = match &self.chat_template {
            Ok(Some(template)) => template,
            Ok(None) => {
                let problem = "this model came without one: write the conversation out as a prompt".into();
                return Err(causalcone_chat::Error::Template { line: None, problem }.into());
            }
            Err(problem) => {
                let hint = "write the conversation out as a prompt".into();
                return Err(Error::Part { problem: problem.clone(), hint });
            }
        };
        let tokenizer = self.needs_tokenizer("messages")?;
        let text = |id: Option<u32>| id.map(|id| tokenizer.token(id));
        let specials =
            Specials { bos: text(tokenizer.bos()), eos: text(tokenizer.eos()), clock: clock.clone() };
        let text = template.render(messages, generation_prompt, &specials)?;
        // What the template wrote is all: only one that is asked for is added.
        let mut ids = tokenizer.prompt(&text, Some(bos == Some(true)), self.config().context)?;
        if bos == Some(false) && ids.first().is_some_and(|first| Some(*first) == tokenizer.bos()) {
            ids.remove(0);
        }
        self.check(&ids)?;
        Ok(ids)
    }

    /// The id of a text that is one token.
    ///
    /// # Errors
    /// When there is no tokenizer, or the text is not exactly one token (shows the pieces).
    pub fn token_id(&self, text: &str) -> Result<u32> {
        self.needs_tokenizer(text)?.one_token(text)
    }

    /// The ids of a text as it stands behind a prompt: without a start-of-text token, and with no space that the text
    /// does not have. Split on its own, whatever the prompt ends with.
    ///
    /// # Errors
    /// When there is no tokenizer, or the text cannot be split or is too long for the context.
    pub fn answer(&self, text: &str) -> Result<Vec<u32>> {
        self.needs_tokenizer(text)?.encode_behind(text, self.config().context)
    }

    /// The text of tokens in a row, or their decimal ids where there is no tokenizer.
    pub fn text(&self, ids: &[u32]) -> String {
        match self.tokenizer() {
            Some(tokenizer) => tokenizer.decode(ids),
            None => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    /// The text of a token, or its decimal id where there is no tokenizer.
    pub fn token_text(&self, id: u32) -> String {
        self.tokenizer().map_or_else(|| id.to_string(), |tokenizer| tokenizer.token(id))
    }

    /// The word embedding of a text that is one token, d numbers.
    ///
    /// ```
    /// # use causalcone_model::Model;
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
    /// # let model = Model::load(path)?;
    /// let vector = model.embedding("T")?;
    /// assert_eq!(vector.dims(), [model.config().width]);
    /// # Ok::<(), causalcone_model::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`Model::token_id`].
    pub fn embedding(&self, text: &str) -> Result<Tensor> {
        self.embedding_of(self.token_id(text)?)
    }

    /// The word embedding of a token id, d numbers.
    ///
    /// # Errors
    /// When the id is outside the vocabulary.
    pub fn embedding_of(&self, id: u32) -> Result<Tensor> {
        self.check(&[id])?;
        self.decoder.token_embedding(id)
    }

    /// The tokenizer, for something that cannot do without.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] with what is wrong with it; `text` is what it is needed for.
    pub fn needs_tokenizer(&self, text: &str) -> Result<&Tokenizer> {
        self.tokenizer().ok_or_else(|| Error::NoTokenizer {
            given: text.chars().take(40).collect(),
            why: self.tokenizer.as_ref().err().cloned(),
        })
    }
}
