//! An edit as it is asked for.

use super::partition::{self, Partition};
use super::steps::Steps;
use crate::Result;
use crate::ids::{EditId, RunId};
use crate::op::Op;
use causalcone_model::{Indices, Target};

/// An edit with all that a file can say of it ([`Experiment::add`](crate::Experiment::add)).
///
/// ```
/// use causalcone_engine::generate::Steps;
/// use causalcone_engine::{EditSpec, Experiment, Op};
/// use causalcone_model::{Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// let first = EditSpec::new(base, Site::BlockOutput.layers(0), Op::zero())
///     .named("first half")
///     .part("subject", 0..10)
///     .part("rest", 10..20)
///     .parts(&["subject"])?
///     .steps(Steps::Decode)
///     .until(vec![7]);
/// exp.add(first)?;
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct EditSpec {
    pub(crate) name: Option<String>,
    pub(crate) run: RunId,
    pub(crate) target: Target,
    pub(crate) op: Op,
    /// Names for parts of the dimensions, which `target` has by number.
    pub(crate) partition: Partition,
    /// In which passes of a growing run it is made.
    pub(crate) steps: Option<Steps>,
    /// The tokens that end it.
    pub(crate) until: Vec<u32>,
}

impl EditSpec {
    /// An edit made in every pass.
    pub fn new(run: RunId, target: impl Into<Target>, op: Op) -> Self {
        let (target, partition) = (target.into(), Partition::new());
        Self { name: None, run, target, op, partition, steps: None, until: Vec::new() }
    }

    /// What the edit of that number is called in messages.
    pub(crate) fn part_name(&self, EditId(index): EditId) -> String {
        self.name.as_ref().map_or_else(|| format!("edit {index}"), |name| format!("edit \"{name}\""))
    }

    /// A name, for messages, results, and edits that link to it.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// A name for some dimensions of the site. Parts of one edit have no dimension in common.
    pub fn part(mut self, name: impl Into<String>, dims: impl Into<Indices>) -> Self {
        self.partition.insert(name.into(), dims.into());
        self
    }

    /// Edits these parts, and no other dimensions.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn parts(mut self, names: &[&str]) -> Result<Self> {
        let part = self.name.as_ref().map_or_else(|| "edit".into(), |name| format!("edit \"{name}\""));
        self.target.dims = Some(partition::dims_of(&self.partition, names, &part)?);
        Ok(self)
    }

    /// In which passes of a run that grows it is made; what grows no run refuses all but [`Steps::All`].
    pub fn steps(self, steps: Steps) -> Self {
        Self { steps: Some(steps), ..self }
    }

    /// Ends the edit once the run has grown by one of these tokens: it is not made in the pass that takes this one in, nor in
    /// later ones.
    pub fn until(self, tokens: Vec<u32>) -> Self {
        Self { until: tokens, ..self }
    }
}
