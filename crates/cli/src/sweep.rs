//! `sweep`: every cell, a table, a heat map, and a record of what ran.

use crate::args::SweepArgs;
use crate::examples::LeftOut;
use crate::failure::Failure;
use crate::folder::{Folder, Identity, Results};
use crate::loaded::Loaded;
use crate::options::Verify;
use crate::terminal::{Terminal, Warning};
use causalcone::{
    Agreement, Error, Explanation, KeyReport, Model, Precision, PreparedSweep, Refused, Runtime, SweepResult,
    Verification, cone::Work, heat_map, means_table, table,
};
use causalcone_engine::schema::{EditRefFile, EditsFile, RunFile, TokenFile};
use causalcone_report::{Format, HeatMap, text};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// Seconds each part took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Seconds {
    load: f64,
    /// Everything after loading until the table is written.
    pub(crate) sweep: f64,
    figure: f64,
}

/// What was done, as `sweep --json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    model: String,
    out: String,
    pub(crate) cells: usize,
    resumed: usize,
    /// How well estimates tell the exact numbers; empty where there are not both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    agreement: Vec<Agreement>,
    files: Vec<String>,
    pub(crate) seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<Verification>,
    /// The examples left out; a list wherever there is a data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
    /// Tokens that probably lack a leading space; omitted if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

/// What ran, for whoever wants to run it again.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a causalcone::ExperimentFile,
    identity: &'a Identity,
    model: ModelRecord<'a>,
    plan: &'a Explanation,
    /// What was then really done, which is less where cells came from a journal.
    done: Work,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified: Option<&'a Verification>,
    seconds: Seconds,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

#[derive(Serialize)]
pub(crate) struct ModelRecord<'a> {
    name: &'a str,
    family: &'a str,
    sha256: &'a str,
    /// How the weights were kept.
    weights: Option<Precision>,
    /// Defaults that were taken, keys that were ignored.
    #[serde(skip_serializing_if = "KeyReport::is_empty")]
    keys: &'a KeyReport,
}

impl<'a> ModelRecord<'a> {
    pub(crate) fn of(model: &'a Model) -> Result<Self, Failure> {
        Ok(Self {
            name: model.name(),
            family: model.config().family,
            sha256: model.sha256()?,
            weights: model.footprint().chosen,
            keys: model.key_report(),
        })
    }
}

/// What a sweep left behind.
pub(crate) struct Swept {
    pub(crate) summary: Summary,
    pub(crate) result: SweepResult,
    pub(crate) map: HeatMap,
    pub(crate) left_out: LeftOut,
}

/// `causalcone sweep`.
pub(crate) fn command(args: &SweepArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, args.again, Results::Sweep)?;
    let started = Instant::now();
    let loaded = Loaded::new(&args.file, terminal)?.at_date_of(&folder)?;
    let load = started.elapsed().as_secs_f64();
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let how = How { format: args.format, runtime, verify: args.verify };
    let swept = sweep(&loaded, &folder, how, load, terminal)?;
    let drawn = causalcone_report::terminal::render(&swept.map, &terminal.style()).unwrap_or_default();
    terminal.result(&swept.summary, |summary| {
        let files: String = summary.files.iter().map(|file| format!("  {file}\n")).collect();
        let (cells, seconds) = (summary.cells, summary.seconds.sweep);
        let resumed = if summary.resumed > 0 {
            format!(", {} of them from the journal", summary.resumed)
        } else {
            String::new()
        };
        let verified = match &summary.verified {
            Some(Verification { cells, worst, .. }) => {
                format!("{cells} cells are the reference executor's, within {worst:.3} of what is allowed\n")
            }
            None => String::new(),
        };
        let agreement: String = summary.agreement.iter().map(in_words).collect();
        format!("{drawn}\n{cells} cells in {seconds:.1} s{resumed}\n{agreement}{verified}{files}")
    })?;
    swept.left_out.into_result()
}

/// How well an estimate tells the exact numbers.
fn in_words(agreement: &Agreement) -> String {
    let token = agreement.token.map(|number| format!(" of tokens[{number}]")).unwrap_or_default();
    let correlation = agreement.correlation.map_or_else(
        || "nothing to correlate".into(),
        |r| format!("correlation {r:.3} with the exact numbers"),
    );
    let (method, metric, error) = (agreement.method.name(), agreement.metric.name(), agreement.mean_error);
    format!("{method} {metric}{token}: {correlation}, mean error {error:.3e}\n")
}

/// How a sweep is run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'r> {
    pub(crate) format: Format,
    pub(crate) runtime: Runtime<'r>,
    pub(crate) verify: Option<Verify>,
}

/// Runs a sweep into a folder.
pub(crate) fn sweep(
    loaded: &Loaded,
    folder: &Folder,
    how: How<'_>,
    load: f64,
    terminal: &Terminal,
) -> Result<Swept, Failure> {
    let started = Instant::now();
    let model = &loaded.model;
    let (experiment, left_out) = loaded.experiment(&how.runtime, terminal)?;
    let prepared = PreparedSweep::new(&experiment)?;
    let plan = Explanation::of_sweep(&experiment, &prepared, &how.runtime)?;
    let identity = loaded.identity(&experiment)?;
    let cells = prepared.cells();
    let (mut journal, done) = folder.journal(&identity, cells, prepared.columns().len())?;
    let resumed = done.len();
    let result = prepared.resume(&how.runtime, done, |finished| journal.append(finished.iter().cloned()));
    terminal.clear();
    let mut result = result.map_err(|e| match e {
        Error::Interrupted => Failure::interrupted("; finished cells are in the journal"),
        other => other.into(),
    })?;

    let warnings = terminal.warn(std::mem::take(&mut result.missing_spaces));
    let name = format!("cells.{}", how.format.name());
    let cells_table = table(&result, model)?;
    folder.write(&name, |w| cells_table.write(how.format, w))?;
    let means = result.has_means().then(|| format!("means.{}", how.format.name()));
    if let Some(means) = &means {
        let means_table = means_table(&result, model)?;
        folder.write(means, |w| means_table.write(how.format, w))?;
    }
    let sweep = started.elapsed().as_secs_f64();

    let started = Instant::now();
    let map = titled(heat_map(&result, model, ""), loaded, experiment.example_count());
    let figures = folder.draw("heatmap", map.to_svg(), terminal)?;
    let seconds = Seconds { load, sweep, figure: started.elapsed().as_secs_f64() };

    let verified = how.verify.map(|verify| verified(&prepared, &result, verify, terminal)).transpose()?;
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        identity: &identity,
        model: ModelRecord::of(model)?,
        plan: &plan,
        done: result.work,
        verified: verified.as_ref(),
        seconds,
        errors: left_out.errors(),
    };
    folder.write("experiment.json", |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    let tables = [name.as_str()].into_iter().chain(means.as_deref());
    let names = tables.chain(figures.iter().map(String::as_str)).chain(["experiment.json"]);
    let files = names.map(|name| folder.shown(name)).collect();
    let out = folder.shown("");
    let agreement = result.agreement();
    let errors = left_out.errors();
    let summary = Summary {
        model: model.name().into(),
        out,
        cells,
        resumed,
        agreement,
        files,
        seconds,
        verified,
        errors,
        warnings,
    };
    Ok(Swept { summary, result, map, left_out })
}

/// Compares cells with the reference executor; the results stay whatever it finds.
fn verified(
    prepared: &PreparedSweep<'_>,
    result: &SweepResult,
    verify: Verify,
    terminal: &Terminal,
) -> Result<Verification, Failure> {
    let verification = prepared.verify(result, verify.sample(), &|progress| terminal.progress(progress));
    terminal.clear();
    let verification = verification?;
    let Some(first) = verification.wrong.first() else { return Ok(verification) };
    let number = |x: Option<f64>| x.map_or_else(|| "nothing finite".into(), |x| x.to_string());
    let token = first.token.map(|id| format!(" of token {id}")).unwrap_or_default();
    let (wrong, numbers, cell, metric) =
        (verification.wrong.len(), verification.numbers, first.cell, first.metric);
    Err(Failure::run(format!(
        "{wrong} of {numbers} numbers are not the reference executor's; the first is {metric}{token} in cell {cell}: {} in place of {}",
        number(first.value),
        number(first.reference)
    ))
    .hint("this is a defect of causalcone: please report it with the experiment file"))
}

/// Says on the figure what was done to what.
pub(crate) fn titled(mut map: HeatMap, loaded: &Loaded, examples: Option<usize>) -> HeatMap {
    let file = &loaded.file;
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
    let name = Path::new(loaded.model.name()).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut subtitle = match examples {
        Some(n) => {
            let of = text::prose(&loaded.examples_name().unwrap_or_default());
            format!("{name}: mean of {n} examples of {of}")
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
