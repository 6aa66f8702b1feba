//! What the heat map of a sweep says that it is of.

use crate::record::short_name;
use crate::source::Source;
use causalcone_engine::schema::{EditRefFile, EditsFile, RunFile, TokenFile};
use causalcone_report::{HeatMap, text};

/// Says on the figure what was done to what.
pub(crate) fn titled(mut map: HeatMap, source: &Source<'_>, examples: Option<usize>) -> HeatMap {
    let file = &source.file;
    let sweep = file.sweep.as_ref();
    let first = match sweep.and_then(|sweep| sweep.edit.as_ref()) {
        Some(EditsFile::One(one)) => Some(one),
        Some(EditsFile::Many(many)) => many.first(),
        None => None,
    };
    let edit = match first {
        Some(EditRefFile::Name(name)) => file.edit.iter().find(|edit| edit.name.as_ref() == Some(name)),
        Some(EditRefFile::Index(index)) => file.edit.get(*index),
        None => file.edit.first(),
    };
    let Some(edit) = edit else { return map };
    let value = edit.value.as_ref().map(|value| match (&value.embedding, &value.run, &value.file) {
        (Some(TokenFile::Text(word)), ..) => format!("embedding of {}", text::token(word)),
        (Some(TokenFile::Id(id)), ..) => format!("embedding of token {id}"),
        (_, Some(run), _) => format!("from run {}", text::prose(run)),
        (.., Some(file)) => text::prose(file),
        _ => "a constant".into(),
    });
    let sites =
        sweep.and_then(|sweep| sweep.sites.clone()).unwrap_or_else(|| edit.site.iter().cloned().collect());
    let parts = [Some(edit.op.to_string()), value, Some(format!("at {}", sites.join(", ")))];
    map.title = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");

    let run = edit.run.as_ref().and_then(|name| file.runs.get(name));
    let run = run.or_else(|| file.runs.get("base")).or_else(|| file.runs.values().next());
    let prompt = match run {
        Some(RunFile { prompt: Some(prompt), .. }) => text::prose(prompt),
        Some(RunFile { ids: Some(ids), .. }) => format!("{} token ids", ids.len()),
        _ => String::new(),
    };
    let name = short_name(source.model);
    let mut subtitle = match examples {
        Some(n) => {
            let of = source.examples_name().map(|of| format!(" of {}", text::prose(&of))).unwrap_or_default();
            format!("{name}: mean of {n} examples{of}")
        }
        None => format!("{name}: {prompt}"),
    };
    if let Some(n) = sweep.and_then(|sweep| sweep.samples) {
        subtitle += &format!(", {n} samples of noise");
    }
    if sweep.and_then(|sweep| sweep.metrics.as_ref()).is_some_and(|metrics| metrics.len() > 1) {
        subtitle += " (the other metrics are in the table)";
    }
    map.subtitle = Some(text::shorten(&subtitle, 90));
    map
}
