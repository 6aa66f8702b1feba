//! An edit that takes a saved one: what is its own, and what the saved one says.

use crate::schema::{EditFile, OpFile};
use crate::{Error, Result};

/// What an edit says itself, and what a saved one says where it does not.
pub(crate) fn merged(edit: &EditFile, saved: &EditFile, part: &str) -> Result<EditFile> {
    let own = [
        (edit.parameters.is_some(), "parameters"),
        (edit.activation.is_some(), "activation"),
        (edit.min.is_some(), "min"),
        (edit.max.is_some(), "max"),
        (edit.error.is_some(), "error"),
        (edit.centre.is_some(), "centre"),
        (edit.joint.is_some(), "joint"),
    ];
    if let Some((_, key)) = own.iter().find(|(given, _)| *given) {
        let problem = format!("takes a saved intervention, which has its own {key}");
        return Err(Error::part(part, problem));
    }
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
        ..saved.clone()
    })
}

/// The op of a saved edit by its own name and parameters, where it is that of another.
pub(crate) fn unlinked<'a>(edits: &'a [EditFile], edit: &'a EditFile) -> &'a EditFile {
    match &edit.op {
        OpFile::Link(link) => {
            edits.iter().find(|other| other.name.as_ref() == Some(&link.link)).unwrap_or(edit)
        }
        _ => edit,
    }
}
