//! An edit that takes a saved one: what is its own, and what the saved one says.

use crate::schema::{EditFile, OpFile};
use crate::{Error, Result};

/// What an edit says itself, and what a saved one, of those of a folder, says where it does not.
pub(crate) fn merged(edit: &EditFile, saved: &EditFile, all: &[EditFile], part: &str) -> Result<EditFile> {
    let parameters = edit.parameters.iter().map(|_| "parameters");
    let joint = edit.joint.iter().map(|_| "joint");
    if let Some(key) = parameters.chain(edit.settings().map(|(key, _)| key)).chain(joint).next() {
        let problem = format!("takes a saved intervention, which has its own {key}");
        return Err(Error::part(part, problem));
    }
    // The op, its parameters and settings: those of the saved edit, or of the edit that it is linked to.
    let source = match &saved.op {
        OpFile::Link(link) => {
            all.iter().find(|other| other.name.as_ref() == Some(&link.link)).unwrap_or(saved)
        }
        _ => saved,
    };
    let or = |own: &Option<_>, saved: &Option<_>| own.clone().or_else(|| saved.clone());
    Ok(EditFile {
        name: edit.name.clone(),
        run: edit.run.clone(),
        site: edit.site.clone().or_else(|| saved.site.clone()),
        // Another site may have no layers, or other heads.
        layers: if edit.site.is_some() { edit.layers.clone() } else { or(&edit.layers, &saved.layers) },
        heads: if edit.site.is_some() { edit.heads.clone() } else { or(&edit.heads, &saved.heads) },
        positions: edit.positions.clone().or_else(|| saved.positions.clone()),
        dims: edit.dims.clone().or_else(|| saved.dims.clone()),
        partition: if edit.partition.is_empty() { saved.partition.clone() } else { edit.partition.clone() },
        value: edit.value.clone().or_else(|| saved.value.clone()),
        scale: edit.scale.or(saved.scale),
        level: edit.level.or(saved.level),
        seed: edit.seed.or(saved.seed),
        steps: edit.steps.or(saved.steps),
        until: if edit.until.is_empty() { saved.until.clone() } else { edit.until.clone() },
        joint: saved.joint,
        gradient: saved.gradient.clone(),
        op: source.op.clone(),
        parameters: source.parameters.clone(),
        activation: source.activation.clone(),
        min: source.min,
        max: source.max,
        error: source.error,
        centre: source.centre,
    })
}
