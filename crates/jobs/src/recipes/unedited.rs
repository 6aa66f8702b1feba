//! What the model answers a prompt of an experiment without any edit.

use crate::error::Result;
use crate::source::Source;
use causalcone_engine::schema::{ReadFile, RunFile};
use causalcone_engine::{Column, ExperimentFile, Method, Runtime};

/// The numbers of a run without edits, one for each exact column of a sweep's table; `None` where one is not finite.
///
/// ```
/// use causalcone_engine::Runtime;
/// use causalcone_jobs::recipes::{Patch, unedited};
/// use causalcone_jobs::{Silent, Source, sweep};
/// use causalcone_model::Model;
///
/// # fn main() -> Result<(), causalcone_jobs::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
/// let model = Model::load(path)?;
/// let patch = Patch::new("The capital of Spain is", "The capital of Italy is", ["T", "is"]);
/// let source = Source::new(&model, patch.file()?);
/// let patched = sweep::in_memory(&source, &Runtime::default(), &Silent)?;
/// let columns = &patched.result.columns;
/// let [Some(number)] = unedited(&source, "base", columns, &Runtime::default())?[..] else { unreachable!() };
/// // The same sums, in products of other shapes.
/// assert!((number - patched.result.base[0][0].unwrap_or(f64::NAN)).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the experiment has no such run, or it cannot be computed.
pub fn unedited(
    source: &Source<'_>,
    run: &str,
    columns: &[Column],
    runtime: &Runtime<'_>,
) -> Result<Vec<Option<f64>>> {
    let file = &source.file;
    let read = file.read.clone().unwrap_or_default();
    let alone = ExperimentFile {
        runs: file.runs.get(run).map(|own: &RunFile| (run.to_owned(), own.clone())).into_iter().collect(),
        edit: Vec::new(),
        sweep: None,
        read: Some(ReadFile { run: Some(run.into()), ..read }),
        ..file.clone()
    };
    let experiment = alone.experiment_with(source.model, runtime)?;
    let outcome = experiment.execute_with(runtime)?;
    let answer = outcome.original(experiment.read_run()?).distribution;
    let (tokens, label) = (experiment.tokens(), experiment.tokens().first().copied());
    let mut numbers = Vec::new();
    for column in columns.iter().filter(|column| column.method == Method::Exact) {
        let values = column.metric.values(answer, answer, tokens, label);
        let value = values.get(column.token.unwrap_or(0)).copied();
        numbers.push(value.filter(|value| value.is_finite()));
    }
    Ok(numbers)
}
