//! The classes of transformers that read a vocabulary, with what each takes where a model's files are silent.

/// The keys that name one token, in the order in which transformers adds tokens that are new.
pub(super) const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The roles in which some classes replace an added token ([`Class::replaces`]).
const REPLACING: [&str; 4] = ["bos_token", "eos_token", "unk_token", "pad_token"];

/// A class of transformers.
#[derive(Debug, PartialEq)]
pub(super) struct Class {
    /// Its name, without `Fast`.
    pub(super) name: &'static str,
    /// The tokens of [`ROLES`] it has.
    roles: &'static [(&'static str, &'static str)],
    /// Whether a text begins with the start-of-text token. `None`: releases of transformers disagree on whether the class
    /// heeds `add_bos_token`.
    pub(super) adds_bos: Option<bool>,
    /// Whether a token that is named by its text alone replaces an added token of that text, flags and all; and if so,
    /// whether it is looked for after a text is normalized.
    replaces: Option<bool>,
}

const END: &str = "<|endoftext|>";

pub(super) const LLAMA: Class = Class {
    name: "LlamaTokenizer",
    roles: &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
    adds_bos: Some(true),
    replaces: Some(false),
};
pub(super) const CODE_LLAMA: Class = Class { name: "CodeLlamaTokenizer", ..LLAMA };
pub(super) const GEMMA: Class = Class {
    name: "GemmaTokenizer",
    roles: &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>")],
    adds_bos: Some(true),
    replaces: Some(false),
};
pub(super) const GPT2: Class = Class {
    name: "GPT2Tokenizer",
    roles: &[("bos_token", END), ("eos_token", END), ("unk_token", END)],
    adds_bos: Some(false),
    replaces: Some(true),
};
pub(super) const QWEN2: Class = Class {
    name: "Qwen2Tokenizer",
    roles: &[("eos_token", END), ("unk_token", END), ("pad_token", END)],
    adds_bos: None,
    replaces: Some(false),
};
pub(super) const NEOX: Class = Class { name: "GPTNeoXTokenizer", replaces: None, ..GPT2 };
/// Where no file names a class: GPT-2's tokens, as far as they are there.
pub(super) const NO_CLASS: Class = Class { name: "no class", replaces: None, ..GPT2 };

impl Class {
    /// Whether a file's `tokenizer_class` means this class.
    pub(super) fn is(&self, name: &str) -> bool {
        name.strip_suffix("Fast").unwrap_or(name) == self.name
    }

    /// The token it has in a role.
    pub(super) fn token(&self, role: &str) -> Option<&'static str> {
        self.roles.iter().find(|(name, _)| *name == role).map(|(_, text)| *text)
    }

    /// What [`replaces`](Self::replaces) says of a token in that role.
    pub(super) fn replaces(&self, role: &str) -> Option<bool> {
        self.replaces.filter(|_| REPLACING.contains(&role))
    }
}
