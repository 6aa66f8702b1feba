//! `save` and `info`: interventions in folders, and control vectors.

use crate::args::{InfoArgs, SaveArgs};
use crate::failure::{Failure, all_fit, taken};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::jobs::shown;
use causalcone::saved::{Description, Tested};
use causalcone::{ControlVector, Runtime, Saved, visible};
use causalcone_files::{IfExists, PlaceKind, check_output};
use serde::Serialize;

#[derive(Serialize)]
struct SaveResult {
    out: String,
    edits: Vec<String>,
}

#[derive(Serialize)]
struct VectorResult {
    out: String,
    layers: Vec<usize>,
}

/// `causalcone save`.
pub(crate) fn save(args: &SaveArgs, terminal: &Terminal) -> Result<(), Failure> {
    let is_vector = args.out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    match PlaceKind::at(&args.out)? {
        // A folder is replaced by a folder.
        Some(PlaceKind::Folder) if args.force && !is_vector => {}
        Some(_) if args.force && !is_vector => {
            return Err(causalcone_files::Error::NotAFolder { path: args.out.clone() }.into());
        }
        _ => check_output(&args.out, IfExists::forced(args.force && is_vector)).map_err(taken)?,
    }
    let loaded = Loaded::new(&args.file, terminal)?;
    let report = terminal.report();
    let runtime = Runtime { progress: &report, ..Runtime::default() };
    let (experiment, left_out) = loaded.source().single(&runtime, terminal)?;
    if is_vector {
        let vector = ControlVector::of(&experiment)?;
        vector.write(&args.out, IfExists::forced(args.force))?;
        let layers: Vec<usize> = vector.directions.keys().copied().collect();
        terminal.result(&VectorResult { out: shown(&args.out), layers }, |result| {
            let layers: Vec<String> = result.layers.iter().map(ToString::to_string).collect();
            let (layers, out) = (layers.join(", "), &result.out);
            let edit = "[[edit]]\n    op = \"add\"\n    site = \"block_output\"";
            format!(
                "{out} is a control vector for layers {layers}\n\n    {edit}\n    value = {{ file = \"{out}\" }}\n"
            )
        })?;
        return all_fit(&left_out);
    }
    let name = args.file.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let saved = Saved::of(&experiment, &format!("causalcone save {name}"), &Runtime::default())?;
    saved.write(&args.out, IfExists::forced(args.force))?;
    let edits = saved.edits().iter().filter_map(|edit| edit.name.clone()).collect();
    terminal.result(&SaveResult { out: shown(&args.out), edits }, |result| {
        let (edits, out) = (result.edits.join(", "), &result.out);
        format!(
            "{out} holds {edits}\n\n    [[edit]]\n    op = {{ load = \"{out}\", name = \"{}\" }}\n",
            result.edits[0]
        )
    })?;
    all_fit(&left_out)
}

#[derive(Serialize)]
struct InfoResult<'a> {
    folder: String,
    #[serde(flatten)]
    description: &'a Description,
    /// None where no self-test was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    tested: Option<TestedJson<'a>>,
}

#[derive(Serialize)]
struct TestedJson<'a> {
    passed: bool,
    difference: f64,
    found: &'a [causalcone::saved::Top],
}

/// `causalcone info`.
pub(crate) fn info(args: &InfoArgs, terminal: &Terminal) -> Result<(), Failure> {
    let saved = Saved::open(&args.folder)?;
    let name = args.model.clone().unwrap_or_else(|| saved.description.base.model.clone());
    if args.no_test || saved.description.test.is_none() {
        let result =
            InfoResult { folder: shown(&args.folder), description: &saved.description, tested: None };
        return terminal.result(&result, |result| described(result.description) + "self-test      not run\n");
    }
    let model = terminal.load(&name, args.weights.given()).map_err(|failure| {
        failure.hint("-m names the model it is for, and --no-test only describes the folder")
    })?;
    let tested = saved.test(&model, &Runtime::default())?;
    let json = TestedJson { passed: tested.passed(), difference: tested.difference, found: &tested.found };
    let result =
        InfoResult { folder: shown(&args.folder), description: &saved.description, tested: Some(json) };
    terminal.result(&result, |result| {
        let tokens = |id| visible(&model.token_text(id));
        described(result.description) + &of_test(&tested, tokens)
    })?;
    if tested.passed() { Ok(()) } else { Err(Failure::run("the self-test failed")) }
}

fn described(description: &Description) -> String {
    let base = &description.base;
    let mut text = format!("model          {} ({})\n", base.model, base.family);
    let sizes: Vec<String> = base.sizes.iter().map(|(name, size)| format!("{name} {size}")).collect();
    text += &format!("sizes          {}\n", sizes.join(", "));
    if let Some(hash) = &base.sha256 {
        text += &format!("sha256         {hash}\n");
    }
    text += &format!("made by        {}", description.made.by);
    if !description.made.how.is_empty() {
        text += &format!(": {}", description.made.how);
    }
    text += "\n";
    for edit in &description.edit {
        let site = edit.site.as_deref().unwrap_or_default();
        let layers = edit.layers.as_ref().map(|layers| format!(" of layers {layers}")).unwrap_or_default();
        text += &format!(
            "edit           {}: {} at {site}{layers}\n",
            edit.name.as_deref().unwrap_or_default(),
            edit.op
        );
    }
    text
}

fn of_test(tested: &Tested, token: impl Fn(u32) -> String) -> String {
    let verdict = if tested.passed() { "passed" } else { "FAILED" };
    let mut text = format!(
        "self-test      {verdict}: largest difference {:.1e} of {:.1e} allowed\n",
        tested.difference, tested.tolerance
    );
    for (expected, found) in tested.expected.iter().zip(&tested.found) {
        let now =
            if expected.id == found.id { String::new() } else { format!(" was {}", token(expected.id)) };
        text += &format!("  {:<16} {:.6} (saved {:.6}){now}\n", token(found.id), found.prob, expected.prob);
    }
    text
}
