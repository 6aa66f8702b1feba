//! `models check`: whether a model loads and computes what it should.

use crate::failure::Failure;
use crate::options::Weights;
use crate::terminal::Terminal;
use causalcone::check::{BetterBase, TextCheck, TextScore};
use causalcone::{Defaulted, Experiment, KeyReport, Model, check};
use causalcone_model::file::DataFile;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::Path;

/// Two implementations in f32 and f64 agree so far: absolutely and relative to the logit.
const TOLERANCE: f64 = 1e-4;
/// A file of logits has a few lines; one with a whole vocabulary may have some megabytes.
const MOST_BYTES: u64 = 16 << 20;

#[derive(Serialize)]
struct Checked<'a> {
    model: &'a str,
    family: &'a str,
    keys: Value,
    problems: Vec<&'a str>,
    /// Absent where the model has no tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<TextCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Comparison>,
}

/// Logits beside those of another implementation.
#[derive(Serialize)]
struct Comparison {
    logits: usize,
    /// The largest difference, as a part of what is tolerated.
    worst: f64,
    worst_id: u32,
    expected: f64,
    computed: f64,
    agrees: bool,
}

/// `causalcone models check`.
pub(crate) fn check(
    name: &str,
    weights: Weights,
    against: Option<&Path>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    // The file's mistakes are found before a model is loaded for it.
    let golden = against.map(Golden::read).transpose()?;
    let model = terminal.load(name, weights.given())?;
    let text = match model.tokenizer() {
        Some(_) => Some(check::check(&model)?),
        None => None,
    };
    let against = golden.map(|golden| golden.compare(&model)).transpose()?;
    let checked = Checked {
        model: name,
        family: model.config().family,
        keys: keys(model.key_report()),
        problems: model.problems(),
        text,
        against,
    };
    terminal.result(&checked, |checked| rendered(checked, model.key_report()))?;
    match &checked {
        Checked { against: Some(Comparison { agrees: false, .. }), .. } => {
            Err(Failure::run("the logits differ from those of the file"))
        }
        Checked { text: Some(TextCheck { verdict, .. }), .. } if verdict.is_bad() => {
            Err(Failure::run(verdict.sentence()))
        }
        _ => Ok(()),
    }
}

/// What was concluded about the keys of a model's configuration.
pub(crate) fn keys(report: &KeyReport) -> Value {
    let defaulted = report.defaulted.iter().map(|one| {
        let said = json!({"value": one.value, "source": one.source});
        (one.key.clone(), said)
    });
    json!({
        "defaulted": defaulted.collect::<Map<_, _>>(),
        "ignored": report.ignored,
        "unknown": report.unknown,
        "notes": report.notes,
    })
}

fn rendered(checked: &Checked<'_>, report: &KeyReport) -> String {
    let mut out = format!("{} loads: family {}\n", checked.model, checked.family);
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(out, "{text}");
    };
    let KeyReport { defaulted, ignored, unknown, notes } = report;
    for Defaulted { key, value, source } in defaulted {
        line(format_args!("missing key    {key} = {value} ({source})"));
    }
    for (what, list) in [("ignored key", ignored), ("unknown key", unknown), ("note", notes)] {
        list.iter().for_each(|one| line(format_args!("{what:<14} {one}")));
    }
    for problem in &checked.problems {
        line(format_args!("problem        {problem}"));
    }
    match &checked.text {
        None => line(format_args!("text           not scored: there is no tokenizer")),
        Some(text) => {
            for score in &text.scores {
                let TextScore { text, tokens, bits_per_byte, .. } = score;
                line(format_args!("{text:<14} {bits_per_byte:.3} bits per byte over {tokens} tokens"));
            }
            if let Some(BetterBase { written, better, bits_per_byte }) = text.better_base {
                line(format_args!(
                    "other base     {better}: {bits_per_byte:.3} bits per byte; the files have {written}"
                ));
            }
            line(format_args!("verdict        {}", text.verdict.sentence()));
        }
    }
    if let Some(Comparison { logits, worst, worst_id, expected, computed, agrees }) = &checked.against {
        let verdict = if *agrees { "agree" } else { "DIFFER" };
        line(format_args!(
            "logits         {logits} {verdict}; the largest difference is {worst:.3} of what is tolerated"
        ));
        line(format_args!("               (id {worst_id}: expected {expected}, computed {computed})"));
    }
    out
}

/// Logits by another implementation, for one or several prompts.
struct Golden(Vec<Prompt>);

/// Token ids, and some logits after the last of them by id.
struct Prompt {
    ids: Vec<u32>,
    top: Vec<(u32, f64)>,
}

impl Golden {
    fn read(path: &Path) -> Result<Self, Failure> {
        let bad = |problem: &str| {
            let failure = Failure::input(format!("{}: {problem}", path.display()));
            failure.hint("it should be {\"ids\": [5, 17, 3], \"top\": [[6, 11.05], [35, 10.42]]}: token ids, and logits after the last")
        };
        let text = DataFile::open(path)?.read_all(MOST_BYTES)?;
        let document: Value = serde_json::from_slice(&text).map_err(|e| bad(&e.to_string()))?;
        // A second, shorter prompt may be in the same document.
        let prompts =
            std::iter::once(&document).chain(document.get("short").filter(|short| short.is_object()));
        let read = |prompt: &Value| -> Option<Prompt> {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let ids = prompt.get("ids")?.as_array()?.iter().map(id).collect::<Option<Vec<_>>>()?;
            let pair = |entry: &Value| match entry {
                Value::Array(pair) => Some((id(pair.first()?)?, pair.get(1)?.as_f64()?)),
                record => Some((id(record.get("id")?)?, record.get("logit")?.as_f64()?)),
            };
            let top = prompt.get("top")?.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
            (!ids.is_empty() && !top.is_empty()).then_some(Prompt { ids, top })
        };
        let prompts: Option<Vec<_>> = prompts.map(read).collect();
        prompts.map(Self).ok_or_else(|| bad("has no \"ids\" and \"top\" logits in the expected form"))
    }

    fn compare(self, model: &Model) -> Result<Comparison, Failure> {
        let mut found =
            Comparison { logits: 0, worst: 0.0, worst_id: 0, expected: 0.0, computed: 0.0, agrees: true };
        for Prompt { ids, top } in self.0 {
            let mut experiment = Experiment::new(model);
            let run = experiment.run_ids("base", ids)?;
            let tokens: Vec<u32> = top.iter().map(|(id, _)| *id).collect();
            experiment.set_tokens(tokens.clone())?;
            let outcome = experiment.execute()?;
            let records = outcome.original(run).distribution.records(model, &tokens);
            for (record, (id, expected)) in records.iter().zip(top) {
                let computed = record.logit.unwrap_or(f64::NAN);
                let worst = (computed - expected).abs() / (TOLERANCE + TOLERANCE * expected.abs());
                found.logits += 1;
                // NaN counts as the worst.
                if found.logits == 1 || worst > found.worst || worst.is_nan() {
                    found = Comparison { worst, worst_id: id, expected, computed, ..found };
                }
            }
        }
        found.agrees = found.worst <= 1.0;
        Ok(found)
    }
}
