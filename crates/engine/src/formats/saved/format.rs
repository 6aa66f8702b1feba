//! The files of a folder, and what `intervention.json` says.

use crate::Result;
use crate::schema::{EditFile, ParametersFile};
use causalcone_model::{Indices, Model, store};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file of a folder that says what is in it.
pub const DESCRIPTION: &str = "intervention.json";
/// The file of a folder with the tensors.
pub const WEIGHTS: &str = "weights.safetensors";

/// The version of the format this library writes and reads.
pub(super) const VERSION: u32 = 1;

/// A saved intervention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// The version of this format.
    pub version: u32,
    /// The model it is for.
    pub base: BaseModel,
    /// The edits, each with a name, in the schema of experiment files; their tensors are in the folder's
    /// weights.
    pub edit: Vec<EditFile>,
    /// How it was made.
    pub made: Made,
    /// What it must answer; none where its values come from examples that are not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestFile>,
}

/// The model an intervention is for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseModel {
    /// What it was called.
    pub model: String,
    /// Its family; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub family: String,
    /// Its sizes by name.
    #[serde(default)]
    pub sizes: BTreeMap<String, usize>,
    /// The SHA-256 of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The SHA-256 of its vocabulary: the texts of all tokens in order, each with a zero byte after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer_sha256: Option<String>,
}

/// How an intervention was made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// By which program.
    pub by: String,
    /// From what, as whoever made it told it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub how: String,
}

/// What the model must answer with the intervention.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestFile {
    /// The runs' token ids by name.
    pub runs: BTreeMap<String, Vec<u32>>,
    /// Positions that examples have names for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<String, Indices>,
    /// Which run is read, at its last position.
    pub read: String,
    /// The likeliest tokens.
    pub top: Vec<Top>,
    /// How far each probability may be from what is told here.
    pub tolerance: f64,
}

/// A likely token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Top {
    /// Its id.
    pub id: u32,
    /// Its probability.
    pub prob: f64,
}

impl BaseModel {
    /// The account of a loaded model.
    ///
    /// # Errors
    /// When its files cannot be read for their hash.
    pub fn of(model: &Model) -> Result<Self> {
        let config = model.config();
        let sizes = [
            ("layers", config.layers),
            ("width", config.width),
            ("heads", config.heads),
            ("kv_heads", config.kv_heads),
            ("head_dim", config.head_dim),
            ("mlp_width", config.mlp_width),
            ("vocab", config.vocab),
        ];
        let vocabulary = model.tokenizer().map(|tokenizer| {
            let ids = 0..u32::try_from(tokenizer.len()).unwrap_or(u32::MAX);
            store::sha256_of(ids.map(|id| tokenizer.token(id) + "\0").collect::<String>())
        });
        Ok(Self {
            model: model.name().into(),
            family: config.family.into(),
            sizes: sizes.map(|(name, size)| (name.to_string(), size)).into(),
            sha256: Some(model.sha256()?.into()),
            tokenizer_sha256: vocabulary,
        })
    }

    /// In what another model does not fit, of what is known of both.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if !self.family.is_empty() && self.family != other.family {
            found.push(format!("family {} and not {}", self.family, other.family));
        }
        for (name, size) in &self.sizes {
            match other.sizes.get(name) {
                Some(theirs) if theirs == size => {}
                Some(theirs) => found.push(format!("{name} {size} and not {theirs}")),
                None => found.push(format!("{name} {size}, which is not known here")),
            }
        }
        let vocabularies = (&self.tokenizer_sha256, &other.tokenizer_sha256);
        if let (Some(ours), Some(theirs)) = vocabularies
            && ours != theirs
        {
            found.push("another vocabulary".into());
        }
        found
    }
}

impl Description {
    /// Checks what no schema can: the version, names, and that only the folder's own weights are named.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.version != VERSION {
            return Err(format!("is of version {}, where {VERSION} fits", self.version));
        }
        if self.edit.is_empty() {
            return Err("holds no edit".into());
        }
        for (index, edit) in self.edit.iter().enumerate() {
            let Some(name) = &edit.name else { return Err(format!("edit {index} has no name")) };
            if self.edit[..index].iter().any(|other| other.name.as_ref() == Some(name)) {
                return Err(format!("two edits are called \"{name}\""));
            }
            if let Some(ParametersFile::All(_) | ParametersFile::Fit(_)) = &edit.parameters {
                return Err(format!("edit \"{name}\" does not name its parameters one by one"));
            }
            if let Some(file) = edit.files().into_iter().find(|file| *file != WEIGHTS) {
                return Err(format!("edit \"{name}\" names the file \"{file}\", where only {WEIGHTS} fits"));
            }
            if let crate::schema::OpFile::Load(_) = edit.op {
                return Err(format!("edit \"{name}\" loads another folder"));
            }
        }
        Ok(())
    }

    /// The tensors its edits name.
    pub(super) fn tensors(&self) -> Vec<&str> {
        self.edit.iter().flat_map(EditFile::tensors).collect()
    }
}
