//! An experiment with a data set is one experiment an example: here each is made.

use crate::bounds::{EXAMPLES as MAX_EXAMPLES, PARTS as MAX_PARTS};
use crate::error::{Refused, Within};
use crate::experiment::dataset::{Example, Examples, KEYS, Prompt};
use crate::experiment::{Experiment, RunSpec};
use crate::ids::RunId;
use crate::{Error, Result};
use causalcone_model::nearest;
use std::ops::Range;
use std::sync::Arc;

impl<'m> Experiment<'m> {
    /// Adds a run whose prompt the examples give.
    ///
    /// # Errors
    /// When the name is taken, or examples use it for something else.
    pub fn open_run(&mut self, name: &str) -> Result<RunId> {
        self.add_open_run(name, None)
    }

    pub(crate) fn add_open_run(&mut self, name: &str, bos: Option<bool>) -> Result<RunId> {
        if KEYS.contains(&name) {
            let problem =
                format!("cannot get its prompts from examples, where \"{name}\" means something else");
            let hint = Some("give it another name".into());
            return Err(Error::hinted(format!("run \"{name}\""), problem, hint));
        }
        self.add_run(RunSpec { name: name.into(), ids: [].into(), bos })
    }

    /// The data set: the experiment is then made for each of the examples, numbered in order.
    ///
    /// ```
    /// use causalcone_engine::dataset::Example;
    /// use causalcone_engine::{Experiment, Op};
    /// use causalcone_model::{Model, Positions, Site};
    ///
    /// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
    /// let model = Model::load(path)?;
    /// let mut exp = Experiment::new(&model);
    /// let base = exp.open_run("base")?;
    /// exp.edit(base, Site::BlockOutput.layers(0).at(Positions::named("subject")), Op::zero())?;
    /// exp.set_examples(vec![
    ///     Example::new().prompt("base", "The capital of Spain is").position("subject", 3),
    ///     Example::new().prompt("base", "Rome is the capital of").position("subject", [0, 1]),
    /// ]);
    /// for one in exp.by_example() {
    ///     println!("{}", one?.execute()?.counterfactual(base).top(1));
    /// }
    /// # Ok::<(), causalcone_engine::Error>(())
    /// ```
    pub fn set_examples(&mut self, examples: impl IntoIterator<Item = Example>) {
        self.examples = Some(Arc::new(Examples::numbered(examples.into_iter().collect())));
    }

    /// How many examples there are; `None` without a data set.
    pub fn example_count(&self) -> Option<usize> {
        self.examples.as_ref().map(|examples| examples.len())
    }

    /// Takes out the examples that a check refuses, and says why.
    pub(crate) fn sift_by(&mut self, check: impl Fn(&Self) -> Result<()>) -> Result<Vec<Refused>> {
        if self.examples.is_none() {
            return Ok(Vec::new());
        }
        self.check_size()?;
        let mut refused = Vec::new();
        let mut fits = Vec::new();
        let mut same: Option<Error> = None;
        for instance in self.by_example() {
            let checked = instance.and_then(|instance| check(&instance).map_err(|e| instance.blame(e)));
            fits.push(checked.is_ok());
            match checked {
                Ok(()) => {}
                Err(Error::Examples { refused: mut bad, first }) => {
                    same = same.or(first.map(|first| *first));
                    refused.append(&mut bad);
                }
                Err(other) => return Err(other),
            }
        }
        if refused.len() == fits.len() {
            // One reason for all of them lies in the experiment itself: it is reported once, not once an example.
            let all_alike = refused.len() > 1 && refused.iter().all(|r| r.problem == refused[0].problem);
            return Err(same.filter(|_| all_alike).unwrap_or(Error::Examples { refused, first: None }));
        }
        if let Some(examples) = &mut self.examples {
            let mut fits = fits.into_iter();
            Arc::make_mut(examples).retain(|| fits.next().unwrap_or(true));
        }
        Ok(refused)
    }

    /// The experiment of each example alone; itself where there is no data set.
    pub fn by_example(&self) -> impl Iterator<Item = Result<Experiment<'m>>> + '_ {
        self.by_example_in(0..usize::MAX)
    }

    /// The same of some of the examples, by their places among those there are.
    pub(crate) fn by_example_in(
        &self,
        places: Range<usize>,
    ) -> impl Iterator<Item = Result<Experiment<'m>>> + '_ {
        let alone = self.examples.is_none().then(|| Ok(self.clone()));
        // As many tokens and answers as are read, or as the first example that gives any has.
        let given = |count: usize| (count > 0).then_some(count);
        let mut counts = (given(self.tokens.len()), given(self.answers.len()));
        let examples = self.examples.iter().flat_map(move |examples| examples.slice(places.clone()));
        let each = examples.map(move |example| {
            let example = example.map_err(Error::refused)?;
            let instance = self.instance(&example, counts);
            let instance = instance.map_err(|e| Error::in_example(&example.origin, e))?;
            counts = (Some(instance.tokens.len()), Some(instance.answers.len()));
            Ok(instance)
        });
        alone.into_iter().chain(each)
    }

    /// The experiments of all examples, at least one.
    pub(crate) fn instances(&self) -> Result<Vec<Self>> {
        self.check_size()?;
        self.by_example().collect()
    }

    /// That there is an example, and that all of them together are no mistake.
    pub(crate) fn check_size(&self) -> Result<()> {
        let n = self.example_count().unwrap_or(1);
        let each = self.runs.len() + self.edits.len();
        if n > MAX_EXAMPLES || n.saturating_mul(each) > MAX_PARTS {
            let problem = format!(
                "{n} examples of {each} runs and edits each are more than the {MAX_EXAMPLES} examples, and {MAX_PARTS} runs and edits, of one experiment"
            );
            return Err(Error::part("examples", problem));
        }
        if n == 0 {
            return Err(Error::part("examples", "there is none"));
        }
        Ok(())
    }

    /// Says which example an error is about, if this is the experiment of one.
    pub(crate) fn blame(&self, error: Error) -> Error {
        match &self.origin {
            Some(origin) => Error::in_example(origin, error),
            None => error,
        }
    }

    /// The experiment of one example.
    fn instance(&self, example: &Example, (tokens, answers): (Option<usize>, Option<usize>)) -> Result<Self> {
        let names: Vec<&str> = self.runs.iter().map(|run| &*run.name).collect();
        if let Some(key) = example.prompts.keys().find(|key| !names.contains(&key.as_str())) {
            let near = nearest(key, names.iter().copied().chain(KEYS));
            let hint = near.map(|near| format!("did you mean \"{near}\"?"));
            let (keys, runs) = (KEYS.join(", "), names.join(", "));
            let problem = format!("is neither a run nor one of {keys}; the runs are: {runs}");
            return Err(Error::hinted(format!("key \"{key}\""), problem, hint));
        }
        let runs = self.runs.iter().map(|run| self.prompted(run, example)).collect::<Result<_>>()?;
        let mut instance = Self {
            runs,
            examples: None,
            origin: Some(example.origin.clone()),
            names: example.positions.clone(),
            label: example.label.clone(),
            ..self.clone()
        };
        if let Some(given) = &example.tokens {
            let ids = given.iter().map(|token| token.id(self.model, "tokens")).collect::<Result<Vec<_>>>()?;
            instance.set_tokens(ids)?;
        }
        if let Some(given) = &example.answers {
            let ids =
                given.iter().map(|answer| answer.ids(self.model, "answers")).collect::<Result<Vec<_>>>()?;
            instance.set_answers(ids)?;
        }
        let lists = [
            ("tokens", tokens, instance.tokens.len(), self.tokens.is_empty()),
            ("answers", answers, instance.answers.len(), self.answers.is_empty()),
        ];
        for (key, fits, given, by_example) in lists {
            if let Some(fits) = fits.filter(|fits| *fits != given) {
                let of = if by_example { "the examples before it have" } else { "[read] has" };
                return Err(Error::part(key, format!("has {given}, where {of} {fits}")));
            }
        }
        Ok(instance)
    }

    /// A run with the prompt an example gives it.
    fn prompted(&self, run: &RunSpec, example: &Example) -> Result<RunSpec> {
        let part = || format!("run \"{}\"", run.name);
        let ids = match (run.ids.is_empty(), example.prompts.get(&*run.name)) {
            (false, None) => return Ok(run.clone()),
            (false, Some(_)) => {
                let problem = "has a prompt of its own, which an example cannot replace";
                let hint = Some("leave out prompt and ids where examples give the prompt".into());
                return Err(Error::hinted(part(), problem, hint));
            }
            (true, None) => {
                let keys: Vec<&str> = example.prompts.keys().map(String::as_str).collect();
                let has = if keys.is_empty() { "none".into() } else { keys.join(", ") };
                let hint = nearest(&run.name, keys).map(|near| format!("did you mean \"{near}\"?"));
                let problem = format!("has no prompt in this example, which has prompts for: {has}");
                return Err(Error::hinted(part(), problem, hint));
            }
            (true, Some(Prompt::Text(text))) => self.model.prompt(text, run.bos).within(part)?,
            (true, Some(Prompt::Ids(_))) if run.bos.is_some() => return Err(Error::bos_of_ids(part())),
            (true, Some(Prompt::Ids(ids))) => ids.clone(),
            (true, Some(Prompt::Chat { messages })) => {
                self.model.chat(messages, true, run.bos, &self.clock).within(part)?
            }
        };
        self.model.check(&ids).within(part)?;
        Ok(RunSpec { ids: ids.into(), ..run.clone() })
    }

    /// The runs with their prompts, for people: those of every example.
    pub(crate) fn prompted_runs(&self) -> impl Iterator<Item = RunSpec> + '_ {
        let named = |instance: Self| {
            let number = instance.origin.map(|origin| origin.number);
            instance.runs.into_iter().map(move |run| match number {
                Some(number) => RunSpec { name: format!("{}, example {number}", run.name).into(), ..run },
                None => run,
            })
        };
        self.by_example().flatten().flat_map(named)
    }
}
