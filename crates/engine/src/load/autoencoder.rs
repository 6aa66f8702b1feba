//! Folders of autoencoders as SAELens writes them: `cfg.json` says how it computes,
//! `sae_weights.safetensors` has its tensors by the names the ops have too.
//!
//! What the configuration says and no op of ours computes is refused by name; the keys that tell of its
//! training are not read.

use super::value::TensorsFile;
use crate::op::{Op, OpKind};
use crate::{Error, Result};
use candle_core::Device;
use causalcone_model::file::{DataFile, json};
use serde_json::Value;
use std::path::Path;

const CONFIG: &str = "cfg.json";
const WEIGHTS: &str = "sae_weights.safetensors";
const MAX_CONFIG: u64 = 1 << 20;
/// What a key must say, where it says anything, for the formula of the op to be the autoencoder's.
const NEEDED: [(&str, &[&str]); 6] = [
    ("normalize_activations", &["none"]),
    ("activation_fn_str", &["relu"]),
    ("activation_fn", &["relu"]),
    ("reshape_activations", &["none"]),
    ("finetuning_scaling_factor", &["false"]),
    ("rescale_acts_by_decoder_norm", &["false"]),
];

/// The autoencoder of a folder, as an op of that kind.
pub(super) fn read(path: &Path, name: &str, kind: OpKind, device: &Device, part: &str) -> Result<Op> {
    let op = kind.info().name;
    let file = path.join(CONFIG);
    let refuse = |problem: String, hint: Option<String>| Error::File { path: file.clone(), problem, hint };
    let bytes = DataFile::open(&file).and_then(|found| found.read_all(MAX_CONFIG));
    let bytes = bytes.map_err(|source| Error::Part { part: part.into(), source })?;
    let config = json::parse(&bytes).map_err(|e| refuse(e.to_string(), None))?;
    let architecture = match text(&config, "architecture").as_deref() {
        None | Some("standard") => OpKind::AutoencoderSwap,
        Some("jumprelu") => OpKind::JumpReluAutoencoder,
        Some(other) => {
            let problem =
                format!("architecture is {other}, where standard or jumprelu fits: no op computes others");
            return Err(refuse(problem, None));
        }
    };
    if architecture != kind {
        let fits = architecture.info().name;
        let problem = format!("is of an autoencoder for op \"{fits}\", where {name} is given to op \"{op}\"");
        return Err(refuse(problem, Some(format!("op = \"{fits}\""))));
    }
    for (key, fits) in NEEDED {
        if let Some(given) = text(&config, key).filter(|given| !fits.contains(&given.as_str())) {
            let problem = format!("{key} is {given}, which op \"{op}\" does not compute; {} fits", fits[0]);
            return Err(refuse(problem, None));
        }
    }
    let shown = format!("{name}/{WEIGHTS}");
    let tensors = TensorsFile::open(&path.join(WEIGHTS), &shown, part)?;
    let mut found = tensors.parameters(kind, device, part)?;
    // Where it says nothing, it is from before there was a choice.
    found.settings.centre = Some(match config.get("apply_b_dec_to_input") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(given)) => *given,
        Some(other) => {
            return Err(refuse(format!("apply_b_dec_to_input is {other}, where true or false fits"), None));
        }
    });
    Ok(found)
}

/// What a key says, as text; nothing where it is not there or null.
fn text(config: &Value, key: &str) -> Option<String> {
    match config.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
