//! A model: decoder, tokenizer, and where they came from.

use crate::chat::{ChatTemplate, Message, Specials};
use crate::config::Config;
use crate::decoder::Decoder;
use crate::ends;
use crate::families;
use crate::file::keys::Keys;
use crate::file::{DataFile, Precision, Weights, gguf, json};
use crate::progress::{Report, silent};
use crate::store::{self, Located};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use candle_core::Tensor;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A loaded language model.
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
    decoder: Decoder,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
    ends: Vec<u32>,
    hash: OnceLock<String>,
}

impl Model {
    /// Loads a model: a path, an alias (`smollm2`, fetched if need be), or `owner/name` from the
    /// Hugging Face cache. Weights are widened to f32.
    ///
    /// # Errors
    /// When it cannot be found, fetched, read, or computed exactly.
    pub fn load(name: &str) -> Result<Self> {
        Self::load_with(name, &silent)
    }

    /// [`Model::load`], telling `report` how a download goes.
    ///
    /// # Errors
    /// As [`Model::load`]; [`Error::Cancelled`] if `report` says so.
    pub fn load_with(name: &str, report: Report<'_>) -> Result<Self> {
        Self::load_as(name, Precision::Full, report)
    }

    /// [`Model::load_with`], keeping weights as `precision` says.
    ///
    /// # Errors
    /// As [`Model::load_with`]; when nothing of the model is stored so that it could be kept so.
    pub fn load_as(name: &str, precision: Precision, report: Report<'_>) -> Result<Self> {
        let Parts { files, decoder, tokenizer, chat_template, ends } = match store::find(name, report)? {
            Located::Gguf(path) => load_gguf(path, precision)?,
            Located::Directory(path) => load_directory(&path, precision)?,
        };
        let vocab = decoder.config().vocab;
        if let Some(tokenizer) = tokenizer.as_ref().filter(|t| t.len() > vocab) {
            let n = tokenizer.len();
            let file = files.iter().find(|f| f.ends_with("tokenizer.json")).unwrap_or(&files[0]);
            return Err(Error::file(
                file,
                "vocabulary",
                format!("has {n} tokens, but the model's embedding only {vocab} rows"),
            ));
        }
        Ok(Self { name: name.into(), files, decoder, tokenizer, chat_template, ends, hash: OnceLock::new() })
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

    /// Its weights, ready to run.
    pub fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    /// Its tokenizer; a directory without one still runs on token ids.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The tokens that end a text it writes, as its files say: the end of a text, of a turn.
    pub fn ends(&self) -> &[u32] {
        &self.ends
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
        let hash = match self.files.as_slice() {
            [file] => store::cached_sha256(file)?,
            files => {
                let mut lines = BTreeMap::new();
                for file in files {
                    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    lines.insert(name, store::cached_sha256(file)?);
                }
                let list: String = lines.iter().map(|(name, hash)| format!("{name} {hash}\n")).collect();
                store::sha256_of(list)
            }
        };
        Ok(self.hash.get_or_init(|| hash))
    }

    /// The ids of a prompt; `bos` as in [`Tokenizer::prompt`].
    ///
    /// # Errors
    /// When there is no tokenizer, the text cannot be split, or it does not fit the context.
    pub fn prompt(&self, text: &str, bos: Option<bool>) -> Result<Vec<u32>> {
        let ids = self.needs_tokenizer(text)?.prompt(text, bos, self.config().context)?;
        self.decoder.check(&ids)?;
        Ok(ids)
    }

    /// How it writes conversations, where its files say so.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// The ids of a conversation as the model's own template writes it, up to where its turn begins if
    /// `generation_prompt` says so. The template puts the start-of-text token where it belongs; `bos` says that there
    /// is one (true) or none (false), whatever the template does.
    ///
    /// # Errors
    /// When there is no template or tokenizer, the template fails, or the text does not fit the context.
    pub fn chat(&self, messages: &[Message], generation_prompt: bool, bos: Option<bool>) -> Result<Vec<u32>> {
        let Some(template) = &self.chat_template else {
            let problem = "this model came without one: write the conversation out as a prompt".into();
            return Err(Error::Template { line: None, problem });
        };
        let tokenizer = self.needs_tokenizer("messages")?;
        let text = |id: Option<u32>| id.map(|id| tokenizer.token(id));
        let specials = Specials { bos: text(tokenizer.bos()), eos: text(tokenizer.eos()) };
        let text = template.render(messages, generation_prompt, &specials)?;
        // What the template wrote is all: only one that is asked for is added.
        let mut ids = tokenizer.prompt(&text, Some(bos == Some(true)), self.config().context)?;
        if bos == Some(false) && ids.first().is_some_and(|first| Some(*first) == tokenizer.bos()) {
            ids.remove(0);
        }
        self.decoder.check(&ids)?;
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
        match &self.tokenizer {
            Some(tokenizer) => tokenizer.decode(ids),
            None => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    /// The text of a token, or its decimal id where there is no tokenizer.
    pub fn token_text(&self, id: u32) -> String {
        self.tokenizer.as_ref().map_or_else(|| id.to_string(), |tokenizer| tokenizer.token(id))
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
        self.decoder.check(&[id])?;
        Ok(self.decoder.token_embeddings(&[id])?.get(0)?)
    }

    fn needs_tokenizer(&self, text: &str) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().ok_or_else(|| Error::NoTokenizer { given: text.chars().take(40).collect() })
    }
}

/// What a model is made of.
struct Parts {
    files: Vec<PathBuf>,
    decoder: Decoder,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
    ends: Vec<u32>,
}

fn load_gguf(path: PathBuf, precision: Precision) -> Result<Parts> {
    let file = DataFile::open(&path)?;
    let header = gguf::read(&file)?;
    let keys = Keys::from_gguf(&path, &header.metadata);
    let format = families::for_gguf(&keys)?;
    let weights = Weights::from_gguf(file, &header)?.keeping(precision);
    let config = format.config(&keys, &weights)?;
    let vocab = config.vocab;
    // The two take about as long, and neither needs the other.
    let (decoder, tokenizer) =
        rayon::join(|| format.load(config, &weights), || Tokenizer::from_gguf(&path, &header.metadata));
    let tokenizer = tokenizer?;
    if let Some(tokenizer) = tokenizer.as_ref().filter(|t| t.len() != vocab) {
        let problem = format!("{} tokens, where the embedding has {vocab} rows", tokenizer.len());
        return Err(Error::file(&path, "tokenizer.ggml.tokens", problem));
    }
    let decoder = decoder?;
    precision.check(&weights, &path)?;
    let chat_template = header.metadata.iter().find(|(key, _)| key == "tokenizer.chat_template");
    let chat_template = match chat_template {
        Some((_, gguf::Value::Text(source))) => Some(ChatTemplate::new(source.as_str())?),
        Some(_) => return Err(Error::file(&path, "tokenizer.chat_template", "is not a text")),
        None => None,
    };
    let ends = ends::of_gguf(&path, &header.metadata, tokenizer.as_ref(), vocab)?;
    Ok(Parts { files: vec![path], decoder, tokenizer, chat_template, ends })
}

fn load_directory(folder: &Path, precision: Precision) -> Result<Parts> {
    let config_path = folder.join("config.json");
    inside(folder, &config_path)?;
    let keys = Keys::from_json(&config_path, &DataFile::open(&config_path)?.read_all(4 << 20)?)?;
    let format = families::for_hugging_face(&keys)?;
    let shards = weight_files(folder)?;
    let weights = Weights::from_safetensors(&shards)?.keeping(precision);
    let config = format.config(&keys, &weights)?;
    let tokenizer_path = folder.join("tokenizer.json");
    let has_tokenizer = is_there(&tokenizer_path);
    // How a text begins is in the second.
    let tokenizer_files = [tokenizer_path.clone(), folder.join("tokenizer_config.json")];
    let tokenizer_files: Vec<PathBuf> =
        tokenizer_files.into_iter().filter(|file| has_tokenizer && is_there(file)).collect();
    tokenizer_files.iter().try_for_each(|file| inside(folder, file))?;
    let (decoder, tokenizer) = rayon::join(
        || format.load(config, &weights),
        || has_tokenizer.then(|| Tokenizer::from_json(&tokenizer_path)).transpose(),
    );
    let mut files = vec![config_path];
    files.extend(shards);
    files.extend(tokenizer_files);
    let decoder = decoder?;
    precision.check(&weights, folder)?;
    let (chat_template, of_chat) = chat_template(folder)?;
    files.extend(of_chat);
    let tokenizer = tokenizer?;
    let (ends, of_ends) = ends::of_directory(folder, &keys, tokenizer.as_ref(), decoder.config().vocab)?;
    files.extend(of_ends);
    Ok(Parts { files, decoder, tokenizer, chat_template, ends })
}

/// The template of a directory, and the file that is its own: chat_template.jinja, else what tokenizer_config.json says.
fn chat_template(folder: &Path) -> Result<(Option<ChatTemplate>, Option<PathBuf>)> {
    let own = folder.join("chat_template.jinja");
    if is_there(&own) {
        inside(folder, &own)?;
        let text = String::from_utf8(DataFile::open(&own)?.read_all(1 << 20)?);
        let text = text.map_err(|e| Error::file(&own, "text", e.to_string()))?;
        return Ok((Some(ChatTemplate::new(text)?), Some(own)));
    }
    let config = folder.join("tokenizer_config.json");
    if !is_there(&config) {
        return Ok((None, None));
    }
    inside(folder, &config)?;
    let keys = Keys::from_json(&config, &DataFile::open(&config)?.read_all(8 << 20)?)?;
    let source = match keys.get("chat_template") {
        None => None,
        Some(Value::String(source)) => Some(source.as_str()),
        // Several by name, of which one is for conversations without tools or documents.
        Some(Value::Array(several)) => {
            let named = several.iter().find(|one| one.get("name").and_then(Value::as_str) == Some("default"));
            named.and_then(|one| one.get("template")?.as_str())
        }
        Some(_) => return Err(keys.bad("chat_template", "is neither a text nor a list of templates by name")),
    };
    Ok((source.map(ChatTemplate::new).transpose()?, None))
}

/// model.safetensors, or the shards its index lists.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let whole = folder.join("model.safetensors");
    if is_there(&whole) {
        return inside(folder, &whole).map(|()| vec![whole]);
    }
    let index_path = folder.join("model.safetensors.index.json");
    if !is_there(&index_path) {
        let has_pickle = folder.join("pytorch_model.bin").exists();
        let why = if has_pickle {
            "; pytorch_model.bin is a pickle, save the model as safetensors instead"
        } else {
            ""
        };
        return Err(Error::file(
            &whole,
            "file",
            format!("is missing, and so is model.safetensors.index.json{why}"),
        ));
    }
    inside(folder, &index_path)?;
    let bad = |field: &str, problem: &str| Error::file(&index_path, field, problem);
    let index = json::parse(&DataFile::open(&index_path)?.read_all(32 << 20)?);
    let index = index.map_err(|e| bad("document", &e.to_string()))?;
    let map = index
        .get("weight_map")
        .and_then(Value::as_object)
        .ok_or_else(|| bad("weight_map", "is missing or no map"))?;
    let mut names = BTreeSet::new();
    for (tensor, file) in map {
        let plain =
            file.as_str().filter(|f| !f.is_empty() && !f.contains(['/', '\\', '\0']) && !f.starts_with('.'));
        names.insert(
            plain.ok_or_else(|| {
                bad(tensor, &format!("{file} is not the plain name of a file in this folder"))
            })?,
        );
    }
    let mut shards = Vec::new();
    for name in names {
        let shard = folder.join(name);
        if !is_there(&shard) {
            return Err(bad("weight_map", &format!("names {name}, which is missing")));
        }
        inside(folder, &shard)?;
        let held: BTreeSet<String> = crate::file::safetensors::entries(&DataFile::open(&shard)?)?
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        let listed = map.iter().filter(|(_, file)| file.as_str() == Some(name)).map(|(tensor, _)| tensor);
        for tensor in listed.clone() {
            if !held.contains(tensor) {
                return Err(bad(tensor, &format!("should be in {name}, which does not hold it")));
            }
        }
        let listed: BTreeSet<&String> = listed.collect();
        if let Some(extra) = held.iter().find(|tensor| !listed.contains(tensor)) {
            return Err(bad(extra, &format!("is in {name}, where the index does not put it")));
        }
        shards.push(shard);
    }
    if shards.is_empty() {
        return Err(bad("weight_map", "is empty"));
    }
    Ok(shards)
}

/// Whether there is something of that name, be it a link that leads nowhere.
pub(crate) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Checks that a file, links followed, stays in its folder, or in the blobs of the Hugging Face
/// cache the folder is a snapshot of.
pub(crate) fn inside(folder: &Path, file: &Path) -> Result<()> {
    let real = |path: &Path| path.canonicalize().map_err(|source| Error::io(path, "open", source));
    let (real_folder, real_file) = (real(folder)?, real(file)?);
    let holder = real_file.parent();
    let blobs = real_folder.parent().and_then(Path::parent).map(|repository| repository.join("blobs"));
    if holder == Some(real_folder.as_path()) || (blobs.is_some() && holder == blobs.as_deref()) {
        return Ok(());
    }
    Err(Error::file(file, "path", format!("leads out of its folder, to {}", real_file.display())))
}
