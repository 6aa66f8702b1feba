//! What the user sees: results on stdout, messages and progress bars on stderr.

use crate::failure::Failure;
use crate::interrupt;
use causalcone::jobs::{Observer, Warning};
use causalcone::{
    KeyPolicy, LoadOptions, MissingSpace, Model, ModelError, Precision, Progress, Refused, Report, Unit,
};
use causalcone_report::terminal::{Colour, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::io::{ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Warnings of one kind that are printed; all are in JSON.
const MOST_WARNINGS: usize = 5;

/// The user's end of the command.
pub(crate) struct Terminal {
    json: bool,
    /// What the command line says about keys of models' configurations.
    keys: KeyPolicy,
    bar: Mutex<Option<ProgressBar>>,
}

impl Terminal {
    pub(crate) fn new(json: bool, keys: KeyPolicy) -> Self {
        Self { json, keys, bar: Mutex::default() }
    }

    /// Whether results are printed as JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Loads a model, showing how a download goes, and says so where its weights do not fit in memory as f32.
    pub(crate) fn load(&self, name: &str, weights: Option<Precision>) -> Result<Model, Failure> {
        self.load_with(name, weights.unwrap_or_default().into())
    }

    /// The same as a file asks, and the command line.
    pub(crate) fn load_with(&self, name: &str, options: LoadOptions) -> Result<Model, Failure> {
        let asked = options.weights;
        let model = self.found(name, options, Model::load_with_options)?;
        let footprint = model.footprint();
        if asked == Precision::Auto && footprint.chosen != Some(Precision::Full) {
            self.note(&format!("memory: {footprint}"));
        }
        Ok(model)
    }

    /// Opens a model without reading its weights, showing how a download goes.
    pub(crate) fn open(&self, name: &str, weights: Option<Precision>) -> Result<Model, Failure> {
        self.open_with(name, weights.unwrap_or_default().into())
    }

    /// The same as a file asks, and the command line.
    pub(crate) fn open_with(&self, name: &str, options: LoadOptions) -> Result<Model, Failure> {
        self.found(name, options, Model::open_with_options)
    }

    /// Loads or opens a model. Warns of unknown keys, also where stderr is no terminal: a log should have it.
    fn found(
        &self,
        name: &str,
        mut options: LoadOptions,
        read: fn(&str, &LoadOptions, Report<'_>) -> Result<Model, ModelError>,
    ) -> Result<Model, Failure> {
        options.keys.ignore_keys.extend(self.keys.ignore_keys.iter().cloned());
        options.keys.strict |= self.keys.strict;
        let model = read(name, &options, &|progress| self.progress(progress));
        self.finished();
        let model = model?;
        if let Some(warning) = model.key_report().warning() {
            let _ = writeln!(std::io::stderr(), "warning: {name}: {warning}");
        }
        model.key_report().notes.iter().for_each(|note| self.note(&format!("{name}: {note}")));
        Ok(model)
    }

    /// Shows where long work stands; says whether to go on.
    pub(crate) fn progress(&self, progress: Progress<'_>) -> ControlFlow<()> {
        if std::io::stderr().is_terminal() {
            let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
            let bar = bar.get_or_insert_with(|| new_bar(&progress));
            bar.set_length(progress.total);
            bar.set_position(progress.done);
            bar.set_message(progress.what.to_owned());
        }
        self.go_on()
    }

    /// [`Terminal::progress`] as work takes it.
    pub(crate) fn report(&self) -> impl Fn(Progress<'_>) -> ControlFlow<()> + Sync + '_ {
        |progress| self.progress(progress)
    }

    /// Whether work that shows no bar should stop.
    pub(crate) fn go_on(&self) -> ControlFlow<()> {
        if interrupt::stopping() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Warns of tokens that were probably meant with a space. Returns the warnings for JSON.
    pub(crate) fn warn(&self, missing: Vec<MissingSpace>) -> Vec<Warning> {
        self.missing_spaces(&missing);
        missing.into_iter().map(Warning::from).collect()
    }

    /// Asks a question that wants a yes; where nobody can answer, it is no.
    pub(crate) fn asks(&self, question: &str) -> bool {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return false;
        }
        let _ = write!(std::io::stderr(), "{question} [y/N] ");
        let mut answer = String::new();
        let is_read = std::io::stdin().read_line(&mut answer).is_ok();
        is_read && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }

    /// What went wrong, on stderr.
    pub(crate) fn failure(&self, failure: &Failure) {
        self.finished();
        let _ = writeln!(std::io::stderr(), "{}", failure.rendered());
    }

    /// The result: a JSON document, or what `human` makes of it.
    pub(crate) fn result<T: Serialize>(
        &self,
        result: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        if !self.json {
            return self.text(&human(result));
        }
        let document = serde_json::to_string_pretty(result).map_err(|e| Failure::run(e.to_string()))?;
        self.text(&format!("{document}\n"))
    }

    /// Text for people on stdout; nothing where JSON was asked for.
    pub(crate) fn say(&self, text: &str) -> Result<(), Failure> {
        if self.json { Ok(()) } else { self.text(text) }
    }

    /// Text on stdout.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        written(std::io::stdout().write_all(text.as_bytes()))
    }

    /// Makes sure that everything has reached stdout.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        written(std::io::stdout().flush())
    }

    /// How a heat map is drawn here.
    pub(crate) fn style(&self) -> Style {
        let is_terminal = std::io::stdout().is_terminal();
        let width = terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0));
        Style {
            colour: Colour::from_env(is_terminal, |name| std::env::var(name).ok()),
            width: if is_terminal { width } else { 100 },
            max_rows: Some(32),
        }
    }
}

impl Observer for Terminal {
    /// Takes the progress bar away.
    fn finished(&self) {
        interrupt::finished();
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }

    /// On stderr; silent where it is no terminal.
    fn note(&self, text: &str) {
        if std::io::stderr().is_terminal() {
            let _ = writeln!(std::io::stderr(), "{text}");
        }
    }

    /// On stderr, as what went wrong.
    fn refused(&self, example: &Refused) {
        let failure = Failure::input(example.to_string());
        self.failure(&match &example.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }

    /// On stderr, also where it is no terminal.
    fn missing_spaces(&self, missing: &[MissingSpace]) {
        self.finished();
        for one in missing.iter().take(MOST_WARNINGS) {
            let _ = writeln!(std::io::stderr(), "warning: {one}");
        }
        if let Some(more @ 1..) = missing.len().checked_sub(MOST_WARNINGS) {
            let _ = writeln!(std::io::stderr(), "warning: {more} more tokens or answers like these");
        }
    }

    fn resumable(&self) {
        interrupt::can_resume();
    }
}

/// How many of a job's examples were there before, for people.
pub(crate) fn before(resumed: usize) -> String {
    match resumed {
        0 => String::new(),
        n => format!(", {n} of them from before"),
    }
}

/// A reader that went away (`| head`) is no failure.
fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::run(format!("cannot write to stdout: {e}")))
        }
        _ => Ok(()),
    }
}

fn new_bar(progress: &Progress<'_>) -> ProgressBar {
    let counts = match progress.unit {
        Unit::Bytes => "{decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}",
        Unit::Cells => "{pos}/{len} cells  {per_sec}",
        Unit::Examples => "{pos}/{len} examples  {per_sec}",
        Unit::Steps => "{pos}/{len} steps  {per_sec}",
        Unit::Passes => "{pos}/{len} passes  {per_sec}",
        Unit::Tokens => "{pos} of at most {len} tokens  {per_sec}",
    };
    let template = format!("{{msg}} {{wide_bar}} {counts}  {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar =
        ProgressBar::with_draw_target(Some(progress.total), ProgressDrawTarget::stderr()).with_style(style);
    bar.set_message(progress.what.to_owned());
    // What a journal held already says nothing about the rate.
    bar.set_position(progress.done);
    bar.reset_eta();
    bar
}
