//! A causal model: variables, what they depend on, and what changes where some are set.

use crate::{Error, Result};
use causalcone_model::nearest;
use std::fmt;
use std::sync::Arc;

/// More variables than anyone writes; values of one.
const MAX_VARIABLES: usize = 256;
const MAX_VALUES: usize = 1 << 14;
/// All inputs together have at most so many settings, which are listed to draw from.
const MAX_SETTINGS: usize = 1 << 18;

/// A function of parents' values, in their order.
pub type Function = Arc<dyn Fn(&[&str]) -> String + Send + Sync>;

/// Variables, each with its values; those with parents with a function of these.
#[derive(Clone, Default)]
pub struct CausalModel {
    /// Parents first.
    variables: Vec<Variable>,
}

#[derive(Clone)]
struct Variable {
    name: Arc<str>,
    values: Vec<Arc<str>>,
    parents: Vec<usize>,
    /// `None` for inputs.
    function: Option<Function>,
}

/// A value for every variable of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Setting(Vec<usize>);

impl fmt::Debug for CausalModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parents = |variable: &Variable| -> Vec<Arc<str>> {
            variable.parents.iter().map(|parent| self.variables[*parent].name.clone()).collect()
        };
        f.debug_map()
            .entries(self.variables.iter().map(|variable| (&variable.name, parents(variable))))
            .finish()
    }
}

impl CausalModel {
    /// A model without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an input.
    ///
    /// # Errors
    /// When the name is taken, or there is no value or one twice.
    pub fn input(&mut self, name: &str, values: &[&str]) -> Result<()> {
        self.add(name, values, Vec::new(), None)
    }

    /// Adds a variable that is a function of others, which are there already.
    ///
    /// # Errors
    /// As [`CausalModel::input`]; when a parent is not there.
    pub fn variable(
        &mut self,
        name: &str,
        values: &[&str],
        parents: &[&str],
        function: impl Fn(&[&str]) -> String + Send + Sync + 'static,
    ) -> Result<()> {
        if parents.is_empty() {
            return Err(Error::part(part(name), "is a function of no parents: make it an input"));
        }
        let parents = parents.iter().map(|parent| self.find(parent)).collect::<Result<_>>()?;
        self.add(name, values, parents, Some(Arc::new(function)))
    }

    fn add(
        &mut self,
        name: &str,
        values: &[&str],
        parents: Vec<usize>,
        function: Option<Function>,
    ) -> Result<()> {
        let refuse = |problem: String| Err(Error::part(part(name), problem));
        if self.variables.iter().any(|other| &*other.name == name) {
            return refuse("is given twice".into());
        }
        if self.variables.len() == MAX_VARIABLES {
            return refuse(format!("is one more than the {MAX_VARIABLES} variables a model may have"));
        }
        if values.is_empty() || values.len() > MAX_VALUES {
            return refuse(format!("has {} values, where 1 to {MAX_VALUES} fit", values.len()));
        }
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(format!("lists the value {:?} twice", twice[0]));
        }
        let values = values.iter().map(|value| Arc::from(*value)).collect();
        self.variables.push(Variable { name: name.into(), values, parents, function });
        Ok(())
    }

    /// The names of the inputs.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().filter(|variable| variable.function.is_none()).map(|variable| &*variable.name)
    }

    /// The names of all variables, parents before what depends on them.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|variable| &*variable.name)
    }

    pub(super) fn find(&self, name: &str) -> Result<usize> {
        let found = self.variables.iter().position(|variable| &*variable.name == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.variables().collect();
            let hint = nearest(name, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let problem = format!("there is no variable \"{name}\"; they are: {}", names.join(", "));
            Error::hinted("causal model", problem, hint)
        })
    }

    /// The value of a variable.
    ///
    /// # Errors
    /// When there is no such variable, or the setting is of another model.
    pub fn value(&self, setting: &Setting, name: &str) -> Result<&str> {
        let index = self.find(name)?;
        let value = setting.0.get(index).and_then(|value| self.variables[index].values.get(*value));
        value
            .map(|value| &**value)
            .ok_or_else(|| Error::part("causal model", "the setting is of another model"))
    }

    /// The first value of a variable.
    pub(super) fn first(&self, name: &str) -> Result<String> {
        let variable = &self.variables[self.find(name)?];
        Ok(variable.values.first().map(ToString::to_string).unwrap_or_default())
    }

    /// Every variable's value for a value of each input.
    ///
    /// # Errors
    /// When an input is missing, or a name or value is not there; when a function gives something else than one
    /// of its variable's values.
    pub fn run(&self, inputs: &[(&str, &str)]) -> Result<Setting> {
        self.run_with(inputs, &[])
    }

    /// The same with some variables set to values, whatever their functions say.
    ///
    /// # Errors
    /// As [`CausalModel::run`].
    pub fn run_with(&self, inputs: &[(&str, &str)], set: &[(&str, &str)]) -> Result<Setting> {
        let mut fixed: Vec<Option<usize>> = vec![None; self.variables.len()];
        for (name, value) in inputs.iter().chain(set) {
            let index = self.find(name)?;
            fixed[index] = Some(self.index_of(index, value)?);
        }
        self.complete(fixed)
    }

    /// The base with some variables' values taken from other settings; what depends on them follows.
    ///
    /// # Errors
    /// When a variable is not there, or is taken twice; when a setting is of another model.
    pub fn interchange(&self, base: &Setting, sources: &[(&Setting, &[&str])]) -> Result<Setting> {
        if base.0.len() != self.variables.len() {
            return Err(Error::part("causal model", "the setting is of another model"));
        }
        let is_input = |index: usize| self.variables[index].function.is_none();
        let inputs = base.0.iter().enumerate().map(|(index, value)| Some(*value).filter(|_| is_input(index)));
        let mut fixed: Vec<Option<usize>> = inputs.collect();
        let mut taken = vec![false; fixed.len()];
        for (source, names) in sources {
            for name in *names {
                let index = self.find(name)?;
                if std::mem::replace(&mut taken[index], true) {
                    return Err(Error::part(part(name), "is taken from two sources"));
                }
                let value = source.0.get(index).copied();
                fixed[index] = Some(
                    value.ok_or_else(|| Error::part("causal model", "the setting is of another model"))?,
                );
            }
        }
        self.complete(fixed)
    }

    fn index_of(&self, index: usize, value: &str) -> Result<usize> {
        let variable = &self.variables[index];
        let found = variable.values.iter().position(|known| &**known == value);
        found.ok_or_else(|| {
            let known = || variable.values.iter().map(|value| &**value);
            let hint = nearest(value, known()).map(|near| format!("did you mean \"{near}\"?"));
            let listed: Vec<&str> = known().take(20).collect();
            let more = if listed.len() < variable.values.len() { " …" } else { "" };
            let problem = format!("cannot be {value:?}; its values are: {}{more}", listed.join(", "));
            Error::hinted(part(&variable.name), problem, hint)
        })
    }

    /// Computes what is not fixed.
    fn complete(&self, fixed: Vec<Option<usize>>) -> Result<Setting> {
        let mut setting: Vec<usize> = Vec::with_capacity(fixed.len());
        for (index, fixed) in fixed.into_iter().enumerate() {
            let variable = &self.variables[index];
            let value = match (fixed, &variable.function) {
                (Some(value), _) => value,
                (None, None) => {
                    return Err(Error::part(part(&variable.name), "is an input and has no value"));
                }
                (None, Some(function)) => {
                    let value = |parent: &usize| &*self.variables[*parent].values[setting[*parent]];
                    let values: Vec<&str> = variable.parents.iter().map(value).collect();
                    let value = function(&values);
                    self.index_of(index, &value).map_err(|e| {
                        let problem = format!("its function or table gives {value:?} for {values:?}, which is none of its values");
                        Error::hinted(part(&variable.name), problem, e.hint())
                    })?
                }
            };
            setting.push(value);
        }
        Ok(Setting(setting))
    }

    /// Every setting of the inputs, the last one moving fastest.
    ///
    /// # Errors
    /// When there are more than 2¹⁸, or a function fails.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        let inputs: Vec<usize> =
            (0..self.variables.len()).filter(|index| self.variables[*index].function.is_none()).collect();
        let sizes = inputs.iter().map(|index| self.variables[*index].values.len());
        let count = sizes.clone().try_fold(1usize, usize::checked_mul).filter(|count| *count <= MAX_SETTINGS);
        let Some(count) = count else {
            let product: f64 = sizes.map(|size| size as f64).product();
            let problem = format!(
                "its inputs have {product:.0} settings, more than the {MAX_SETTINGS} that are listed"
            );
            let hint = Some("give the inputs fewer values".into());
            return Err(Error::hinted("causal model", problem, hint));
        };
        let setting = |mut number: usize| {
            let mut fixed = vec![None; self.variables.len()];
            for index in inputs.iter().rev() {
                let size = self.variables[*index].values.len();
                fixed[*index] = Some(number % size);
                number /= size;
            }
            self.complete(fixed)
        };
        (0..count).map(setting).collect()
    }
}

/// What a variable is called in messages.
pub(super) fn part(name: &str) -> String {
    format!("variable \"{name}\"")
}
