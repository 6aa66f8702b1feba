//! Examples that do not fit: told at once, left out, and in the end the exit code.

use crate::failure::Failure;
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use causalcone::{Error, Experiment, Outline, Refused, Runtime};
use std::path::Path;

/// The examples that were left out, of all there are.
pub(crate) struct LeftOut {
    refused: Vec<Refused>,
    /// How many there are; `None` without a data set.
    total: Option<usize>,
}

impl LeftOut {
    /// What JSON output says of them: a list wherever there is a data set.
    pub(crate) fn errors(&self) -> Option<Vec<Refused>> {
        self.total.map(|_| self.refused.clone())
    }

    /// Also these, of examples of another file.
    pub(crate) fn add(&mut self, refused: Vec<Refused>, terminal: &Terminal) {
        tell(&refused, terminal);
        self.refused.extend(refused);
    }

    /// The end of a command whose results are of the other examples.
    pub(crate) fn into_result(self) -> Result<(), Failure> {
        let (bad, total) = (self.refused.len(), self.total.unwrap_or_default());
        if bad == 0 {
            return Ok(());
        }
        Err(Failure::input(format!(
            "{bad} of {total} examples could not be used; the results are of the others"
        )))
    }
}

impl Loaded {
    /// The experiment with the examples that fit it; says which do not. What its file asks to be drawn or fitted is
    /// computed with the runtime.
    pub(crate) fn experiment(
        &self,
        runtime: &Runtime<'_>,
        terminal: &Terminal,
    ) -> Result<(Experiment<'_>, LeftOut), Failure> {
        sifted(self.built(runtime, terminal)?, terminal)
    }

    /// The same without its sweep.
    pub(crate) fn single(
        &self,
        runtime: &Runtime<'_>,
        terminal: &Terminal,
    ) -> Result<(Experiment<'_>, LeftOut), Failure> {
        let mut experiment = self.built(runtime, terminal)?;
        experiment.sweep(None);
        sifted(experiment, terminal)
    }

    /// The experiment, ready to grow, with the examples that fit it; says which do not.
    pub(crate) fn growing(
        &self,
        runtime: &Runtime<'_>,
        terminal: &Terminal,
    ) -> Result<(Experiment<'_>, LeftOut), Failure> {
        let experiment = self.built(runtime, terminal)?;
        let total = experiment.example_count();
        sifted_by(experiment, total, terminal, Experiment::sift_growing)
    }

    /// The experiment as far as it is planned.
    pub(crate) fn outline(&self, terminal: &Terminal) -> Result<(Outline<'_>, LeftOut), Failure> {
        let outline = self.file.outline(&self.model)?;
        let total = outline.example_count();
        sifted_by(outline, total, terminal, Outline::sift)
    }

    /// The experiment with all its examples.
    pub(crate) fn built(
        &self,
        runtime: &Runtime<'_>,
        terminal: &Terminal,
    ) -> Result<Experiment<'_>, Failure> {
        let built = self.file.experiment_with(&self.model, runtime);
        terminal.clear();
        Ok(built?)
    }

    /// The name of its data set, for people.
    pub(crate) fn examples_name(&self) -> Option<String> {
        let name = Path::new(self.file.examples.as_ref()?);
        Some(name.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// An experiment with the examples that fit it; says which do not.
pub(crate) fn sifted<'m>(
    experiment: Experiment<'m>,
    terminal: &Terminal,
) -> Result<(Experiment<'m>, LeftOut), Failure> {
    let total = experiment.example_count();
    sifted_by(experiment, total, terminal, Experiment::sift)
}

/// The same by a way of sifting, of so many examples.
fn sifted_by<E>(
    mut experiment: E,
    total: Option<usize>,
    terminal: &Terminal,
    sift: impl Fn(&mut E) -> causalcone::Result<Vec<Refused>>,
) -> Result<(E, LeftOut), Failure> {
    let refused = match sift(&mut experiment) {
        Err(Error::Examples { refused, .. }) => {
            tell(&refused, terminal);
            return Err(Failure::input("no example can be used"));
        }
        other => other?,
    };
    tell(&refused, terminal);
    Ok((experiment, LeftOut { refused, total }))
}

fn tell(refused: &[Refused], terminal: &Terminal) {
    for one in refused {
        let failure = Failure::input(one.to_string());
        terminal.failure(&match &one.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
}
