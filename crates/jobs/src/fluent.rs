//! Sweeps and trainings in memory, in one line each: [`ExperimentExt`].

use crate::error::Result;
use crate::figure::heat_map;
use crate::observer::Silent;
use crate::tidy::{means_table, table};
use crate::train::{Trained, in_memory};
use causalcone_engine::train::{HeldOut, Options as TrainOptions};
use causalcone_engine::{
    Each, EditId, Experiment, Explanation, LayerAxis, Method, Metric, PreparedSweep, Runtime, Sweep,
    SweepResult,
};
use causalcone_model::{Model, Site};
use causalcone_report::{HeatMap, Table};

/// Sweeps and trains an experiment in memory. [`Experiment::generate`](causalcone_engine::Experiment::generate) generates
/// text.
///
/// Examples that do not fit the experiment are errors here. Remove them first with
/// [`Experiment::sift`](causalcone_engine::Experiment::sift), which returns them with the reasons.
///
/// ```
/// use causalcone_engine::generate::Generation;
/// use causalcone_engine::{Each, Experiment, Op};
/// use causalcone_jobs::ExperimentExt;
/// use causalcone_model::{Model, Site};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// # let place = tempfile::tempdir()?;
/// # let cells = place.path().join("cells.csv");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// exp.edit(base, Site::MlpOutput.layers(..), Op::zero())?;
/// exp.set_tokens(vec![7])?;
///
/// exp.sweep().layers(Each).positions(Each).run()?.table().save(&cells)?;
/// # assert_eq!(std::fs::read_to_string(cells)?.lines().count(), 1 + 3 * model.config().layers);
///
/// let texts = exp.generate(&Generation { max_tokens: 5, ..Generation::default() })?;
/// assert_eq!(texts.counterfactual[0].ids.len(), 5);
/// # Ok(())
/// # }
/// ```
///
/// An edit with parameters is trained on a data set, and what it has learned is saved as a folder that any experiment
/// loads:
///
/// ```
/// use causalcone_engine::train::{Length, Options};
/// use causalcone_engine::{Example, Experiment, Op, OpKind};
/// use causalcone_jobs::ExperimentExt;
/// use causalcone_model::{Last, Model, Site};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama");
/// # let place = tempfile::tempdir()?;
/// # let folder = place.path().join("das");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.open_run("base")?;
/// let source = exp.open_run("source")?;
/// let op = Op::random(OpKind::LowRankSwap, model.config().width, Some(2), 0)?.value(source);
/// exp.edit(base, Site::BlockOutput.layers(0).at(Last), op)?;
/// exp.set_examples(vec![
///     Example::new().prompt("base", vec![3, 1, 4]).prompt("source", vec![2, 7, 1]).label(5),
///     Example::new().prompt("base", vec![1, 6]).prompt("source", vec![1, 8]).label(9),
/// ]);
/// let options = Options { length: Length::Steps(20), learning_rate: 0.05, ..Options::default() };
///
/// exp.train(options)?.best()?.save(&folder)?;
/// # assert!(folder.join("weights.safetensors").is_file());
/// # Ok(())
/// # }
/// ```
pub trait ExperimentExt<'m> {
    /// Starts a sweep of this experiment as it is now. Axes that are not set are not swept. The experiment's own sweep
    /// ([`Experiment::set_sweep`](causalcone_engine::Experiment::set_sweep)) is ignored.
    fn sweep(&self) -> SweepBuilder<'m>;

    /// Trains the edits that have parameters on the experiment's data set. No example is held out. If the experiment has a
    /// sweep ([`Experiment::set_sweep`](causalcone_engine::Experiment::set_sweep)), each choice of its axes is trained.
    ///
    /// # Errors
    /// As [`ExperimentExt::train_with`].
    fn train(&self, options: TrainOptions) -> Result<Trained<'m>> {
        self.train_with(options, HeldOut::None, &Runtime::default())
    }

    /// Trains as [`ExperimentExt::train`] does. The examples of `held_out` are not trained on; they score the training. The
    /// runtime sets the memory and the threads, and its `progress` is called at each step.
    ///
    /// # Errors
    /// When the experiment or an option is invalid, a computation fails, or `progress` asks to stop.
    fn train_with(
        &self,
        options: TrainOptions,
        held_out: HeldOut,
        runtime: &Runtime<'_>,
    ) -> Result<Trained<'m>>;
}

impl<'m> ExperimentExt<'m> for Experiment<'m> {
    fn sweep(&self) -> SweepBuilder<'m> {
        SweepBuilder { experiment: self.clone(), axes: Sweep::default() }
    }

    fn train_with(
        &self,
        options: TrainOptions,
        held_out: HeldOut,
        runtime: &Runtime<'_>,
    ) -> Result<Trained<'m>> {
        in_memory(self, held_out, options, runtime, &Silent)
    }
}

/// The axes of a sweep that is not run yet ([`ExperimentExt::sweep`]).
#[derive(Debug, Clone)]
#[must_use = "a sweep does nothing before it is run"]
pub struct SweepBuilder<'m> {
    experiment: Experiment<'m>,
    axes: Sweep,
}

impl<'m> SweepBuilder<'m> {
    /// The swept edits, which move together, in place of the first.
    pub fn edits(mut self, edits: impl IntoIterator<Item = EditId>) -> Self {
        self.axes.edits = edits.into_iter().collect();
        self
    }

    /// Over the layers the edits list: [`Each`], or another [`LayerAxis`].
    pub fn layers(mut self, axis: impl Into<LayerAxis>) -> Self {
        self.axes.layers = Some(axis.into());
        self
    }

    /// Over the positions the edits list.
    pub fn positions(mut self, each: Each) -> Self {
        self.axes.positions = Some(each);
        self
    }

    /// Over the heads the edits list.
    pub fn heads(mut self, each: Each) -> Self {
        self.axes.heads = Some(each);
        self
    }

    /// Over sites, in place of the edits'.
    pub fn sites(mut self, sites: impl IntoIterator<Item = Site>) -> Self {
        self.axes.sites = sites.into_iter().collect();
        self
    }

    /// Over scales, in place of the edits', or levels of noise.
    pub fn scales(mut self, scales: impl IntoIterator<Item = f64>) -> Self {
        self.axes.scales = scales.into_iter().collect();
        self
    }

    /// Over so many samples of the noise of all edits.
    pub fn samples(mut self, samples: usize) -> Self {
        self.axes.samples = Some(samples);
        self
    }

    /// What is recorded, in place of [`Metric::Prob`].
    pub fn metrics(mut self, metrics: impl IntoIterator<Item = Metric>) -> Self {
        self.axes.metrics = metrics.into_iter().collect();
        self
    }

    /// How cells' numbers are found, in place of [`Method::Exact`].
    pub fn methods(mut self, methods: impl IntoIterator<Item = Method>) -> Self {
        self.axes.methods = methods.into_iter().collect();
        self
    }

    /// Points of the path of [`Method::Integrated`].
    pub fn steps(mut self, steps: usize) -> Self {
        self.axes.steps = Some(steps);
        self
    }

    /// What running it would compute.
    ///
    /// # Errors
    /// When the experiment and the axes do not fit each other.
    pub fn explain(&self) -> Result<Explanation> {
        self.explain_with(&Runtime::default())
    }

    /// What running it with that runtime would compute.
    ///
    /// # Errors
    /// As [`SweepBuilder::explain`].
    pub fn explain_with(&self, runtime: &Runtime<'_>) -> Result<Explanation> {
        let experiment = self.clone().experiment();
        let prepared = PreparedSweep::new(&experiment)?;
        Ok(Explanation::of_sweep(&experiment, &prepared, runtime)?)
    }

    /// Runs every cell.
    ///
    /// # Errors
    /// As [`SweepBuilder::run_with`].
    pub fn run(self) -> Result<Swept<'m>> {
        self.run_with(&Runtime::default())
    }

    /// Runs every cell. The runtime sets the memory and the threads, and its `progress` is called between cells.
    ///
    /// # Errors
    /// When the experiment and the axes do not fit each other, a computation fails, or `progress` asks to stop.
    pub fn run_with(self, runtime: &Runtime<'_>) -> Result<Swept<'m>> {
        let experiment = self.experiment();
        let result = PreparedSweep::new(&experiment)?.run(runtime)?;
        Ok(Swept { model: experiment.model(), result })
    }

    fn experiment(self) -> Experiment<'m> {
        let mut experiment = self.experiment;
        experiment.set_sweep(self.axes);
        experiment
    }
}

/// A finished sweep.
#[derive(Debug, Clone)]
pub struct Swept<'m> {
    /// The model it was of.
    pub model: &'m Model,
    /// Its numbers.
    pub result: SweepResult,
}

impl Swept<'_> {
    /// The table of all cells: one row for each cell, token and metric ([`table`]).
    #[must_use]
    pub fn table(&self) -> Table {
        table(&self.result, self.model)
    }

    /// The table of means over examples or samples ([`means_table`]); none without examples and samples.
    #[must_use]
    pub fn means(&self) -> Option<Table> {
        self.result.has_means().then(|| means_table(&self.result, self.model))
    }

    /// The heat map ([`heat_map`]).
    #[must_use]
    pub fn heat_map(&self, title: &str) -> HeatMap {
        heat_map(&self.result, self.model, title)
    }
}
