//! The README of a folder, made from its description.

use super::format::Description;
use std::fmt::Write;

/// What people read of a saved intervention.
pub(super) fn card(description: &Description) -> String {
    let base = &description.base;
    let mut text = format!("# An intervention on {}\n\n", base.model);
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "Made by {}{}.\n",
        description.made.by,
        match description.made.how.as_str() {
            "" => String::new(),
            how => format!(": {how}"),
        }
    );
    let _ = writeln!(text, "| | |\n|---|---|\n| family | {} |", base.family);
    for (name, size) in &base.sizes {
        let _ = writeln!(text, "| {name} | {size} |");
    }
    if let Some(hash) = &base.sha256 {
        let _ = writeln!(text, "| sha256 of the weights | {hash} |");
    }
    let _ = writeln!(text, "\n| edit | op | site | layers | positions |\n|---|---|---|---|---|");
    for edit in &description.edit {
        let cell = |given: Option<String>| given.unwrap_or_else(|| "all".into());
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            edit.name.as_deref().unwrap_or_default(),
            edit.op,
            edit.site.as_deref().unwrap_or_default(),
            cell(edit.layers.as_ref().map(ToString::to_string)),
            cell(edit.positions.as_ref().and_then(|positions| serde_json::to_string(positions).ok())),
        );
    }
    let name = description.edit.first().and_then(|edit| edit.name.as_deref()).unwrap_or_default();
    let _ = write!(
        text,
        "\nIn an experiment file:\n\n```toml\n[[edit]]\nop = {{ load = \"THIS FOLDER\", name = \"{name}\" }}\n```\n\n\
         `causalcone info THIS-FOLDER` compares what the model answers with what it answered when this was saved.\n"
    );
    text
}
