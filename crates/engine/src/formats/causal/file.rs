//! A causal model in writing, with the prompts of its inputs.

use super::model::{CausalModel, Setting, part};
use crate::{Error, Result, parse};
use causalcone_model::file::DataFile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// As large as an experiment file may be.
const MAX_FILE: u64 = 16 << 20;

/// A causal model as written, and the data set it is to make.
///
/// ```
/// use causalcone_engine::causal::CausalFile;
/// let file = CausalFile::from_toml("
///     prompt = 'The capital of {country} is'
///     label = ' {capital}'
///     [interchange]
///     source = ['capital']
///     [variables.country]
///     values = ['Spain', 'Italy']
///     [variables.capital]
///     parents = ['country']
///     table = [['Spain', 'Madrid'], ['Italy', 'Rome']]
/// ")?;
/// let model = file.causal_model()?;
/// let italy = model.run(&[("country", "Italy")])?;
/// assert_eq!(file.prompt(&model, &italy)?, "The capital of Italy is");
/// assert_eq!(file.label(&model, &italy)?, " Rome");
/// # Ok::<(), causalcone_engine::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CausalFile {
    /// Alias, directory, file or owner/name of the language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The prompt of a setting: `{name}` stands for a variable's value, `{{` and `}}` for braces.
    pub prompt: String,
    /// What should come next, in the same way: a text of one token.
    pub label: String,
    /// By run, the variables whose values are taken from it.
    pub interchange: BTreeMap<String, Vec<String>>,
    /// The variables by name.
    pub variables: BTreeMap<String, VariableFile>,
    /// How many examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub examples: Option<usize>,
    /// What part of the settings is kept for the held-out examples alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<f64>,
    /// How many held-out examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_examples: Option<usize>,
    /// Whether only prompts that the language model answers rightly are used.
    #[serde(default)]
    pub only_right: bool,
    /// Whether only examples whose label is not the base's own are used.
    #[serde(default)]
    pub only_changed: bool,
    /// Of the draw.
    #[serde(default)]
    pub seed: u64,
}

/// `[variables.NAME]`: an input has values, another variable parents and a table or a function.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableFile {
    /// Its values; those of its table if left out, "true" and "false" for a function.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// The variables it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parents: Vec<String>,
    /// Rows of the parents' values and its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub table: Vec<Vec<String>>,
    /// A function by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<FunctionFile>,
}

/// Functions with a name; each gives the first value of its variable for yes, the second for no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FunctionFile {
    /// Whether all parents have the same value.
    Equal,
    /// Whether all parents have their first value.
    And,
    /// Whether a parent has its first value.
    Or,
    /// Whether the one parent does not have its first value.
    Not,
}

impl CausalFile {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// When it cannot be read or does not follow the schema.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = DataFile::open(path)?.read_all(MAX_FILE)?;
        let text = String::from_utf8(bytes).map_err(|_| Error::File {
            path: path.into(),
            problem: "is not UTF-8 text".into(),
            hint: None,
        })?;
        parse::toml(text.strip_prefix('\u{feff}').unwrap_or(&text)).map_err(|e| e.in_file(path))
    }

    /// Reads TOML.
    ///
    /// # Errors
    /// When the text does not follow the schema.
    pub fn from_toml(text: &str) -> Result<Self> {
        Ok(parse::toml(text)?)
    }

    /// The causal model.
    ///
    /// # Errors
    /// When variables contradict each other: what is missing, given twice, or goes round in a circle.
    pub fn causal_model(&self) -> Result<CausalModel> {
        let mut model = CausalModel::new();
        let mut open: Vec<&String> = self.variables.keys().collect();
        while !open.is_empty() {
            // Those whose parents are there; the others wait.
            let is_ready = |name: &&String| {
                let parents = &self.variables[*name].parents;
                parents.iter().all(|parent| model.variables().any(|known| known == parent))
            };
            let (ready, waits): (Vec<&String>, Vec<&String>) = open.into_iter().partition(is_ready);
            if ready.is_empty() {
                return Err(self.stuck(&waits));
            }
            for name in ready {
                self.add(&mut model, name)?;
            }
            open = waits;
        }
        if model.inputs().next().is_none() {
            return Err(Error::part("variables", "there is no input: a variable with values and no parents"));
        }
        Ok(model)
    }

    fn stuck(&self, waits: &[&String]) -> Error {
        for name in waits {
            let unknown = self.variables[*name].parents.iter().find(|p| !self.variables.contains_key(*p));
            if let Some(unknown) = unknown {
                let names = self.variables.keys().map(String::as_str);
                let hint =
                    causalcone_model::nearest(unknown, names).map(|near| format!("did you mean \"{near}\"?"));
                return Error::hinted(
                    part(name),
                    format!("has the parent \"{unknown}\", which is no variable"),
                    hint,
                );
            }
        }
        let names: Vec<&str> = waits.iter().map(|name| name.as_str()).collect();
        Error::part("variables", format!("{} depend on each other in a circle", names.join(", ")))
    }

    fn add(&self, model: &mut CausalModel, name: &str) -> Result<()> {
        let file = &self.variables[name];
        let refuse = |problem: String| Err(Error::part(part(name), problem));
        let values: Vec<&str> = file.values.iter().map(String::as_str).collect();
        let parents: Vec<&str> = file.parents.iter().map(String::as_str).collect();
        match (file.parents.len(), file.table.is_empty(), file.function) {
            (0, true, None) => model.input(name, &values),
            (0, ..) => refuse("has a table or a function, but no parents".into()),
            (_, true, None) | (_, false, Some(_)) => {
                refuse("needs either a table or a function of its parents".into())
            }
            (n, false, None) => {
                let mut by_parents: BTreeMap<Vec<String>, String> = BTreeMap::new();
                let mut found: Vec<&str> = Vec::new();
                for row in &file.table {
                    let Some((own, of)) = row.split_last().filter(|(_, of)| of.len() == n) else {
                        return refuse(format!(
                            "has a row {row:?} in its table, where {n} of its parents' values and its own fit"
                        ));
                    };
                    if by_parents.insert(of.to_vec(), own.clone()).is_some() {
                        return refuse(format!("has two rows for {of:?} in its table"));
                    }
                    if !found.contains(&own.as_str()) {
                        found.push(own);
                    }
                }
                self.check_table(name, &by_parents)?;
                let values = if values.is_empty() { found } else { values };
                model.variable(name, &values, &parents, move |of: &[&str]| {
                    let of: Vec<String> = of.iter().map(|value| (*value).to_owned()).collect();
                    by_parents.get(&of).cloned().unwrap_or_default()
                })
            }
            (n, true, Some(function)) => {
                let values = if values.is_empty() { vec!["true", "false"] } else { values };
                let &[yes, no] = values.as_slice() else {
                    return refuse(format!(
                        "has {} values, where a function has two: for yes and for no",
                        values.len()
                    ));
                };
                if function == FunctionFile::Not && n != 1 || function == FunctionFile::Equal && n < 2 {
                    return refuse(format!(
                        "has {n} parents, where \"not\" has one and \"equal\" at least two"
                    ));
                }
                let (yes, no) = (yes.to_owned(), no.to_owned());
                let first: Vec<String> =
                    file.parents.iter().map(|parent| model.first(parent)).collect::<Result<_>>()?;
                let function = move |of: &[&str]| {
                    let mut is_first = of.iter().zip(&first).map(|(value, first)| value == first);
                    let holds = match function {
                        FunctionFile::Equal => of.windows(2).all(|pair| pair[0] == pair[1]),
                        FunctionFile::And => is_first.all(|is| is),
                        FunctionFile::Or => is_first.any(|is| is),
                        FunctionFile::Not => !is_first.all(|is| is),
                    };
                    if holds { yes.clone() } else { no.clone() }
                };
                model.variable(name, &[&values[0], &values[1]].map(|v| *v), &parents, function)
            }
        }
    }

    /// That a table has a row for each setting of the parents, as far as these list their values themselves.
    fn check_table(&self, name: &str, rows: &BTreeMap<Vec<String>, String>) -> Result<()> {
        let parents = &self.variables[name].parents;
        let lists: Vec<&Vec<String>> = parents.iter().map(|parent| &self.variables[parent].values).collect();
        for (place, list) in lists.iter().enumerate().filter(|(_, list)| !list.is_empty()) {
            let is_there = |value: &String| rows.keys().any(|of| of[place] == *value);
            if let Some(missing) = list.iter().find(|value| !is_there(value)) {
                let problem = format!("has no row for {} = {missing:?} in its table", parents[place]);
                return Err(Error::part(part(name), problem));
            }
        }
        Ok(())
    }

    /// The prompt of a setting.
    ///
    /// # Errors
    /// When the text names no variable.
    pub fn prompt(&self, model: &CausalModel, setting: &Setting) -> Result<String> {
        Ok(self.filled("prompt", &self.prompt, model, setting)?.0)
    }

    /// The label of a setting.
    ///
    /// # Errors
    /// As [`CausalFile::prompt`].
    pub fn label(&self, model: &CausalModel, setting: &Setting) -> Result<String> {
        Ok(self.filled("label", &self.label, model, setting)?.0)
    }

    /// A text with values in place of names, and where in it each value ends, in bytes.
    pub(super) fn filled<'t>(
        &self,
        what: &str,
        text: &'t str,
        model: &CausalModel,
        setting: &Setting,
    ) -> Result<(String, Vec<(&'t str, usize)>)> {
        let refuse = |problem: String| Error::part(what, problem);
        let (mut filled, mut ends, mut rest) = (String::new(), Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            filled.push_str(before);
            if let Some(after) = ["{{", "}}"].iter().find_map(|pair| from.strip_prefix(pair)) {
                filled.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let name = from.strip_prefix('{').and_then(|inner| inner.split_once('}'));
            let (name, after) = name.ok_or_else(|| {
                refuse(format!("{text:?} has a brace without its other one; {{{{ and }}}} stand for braces"))
            })?;
            filled.push_str(model.value(setting, name)?);
            ends.push((name, filled.len()));
            rest = after;
        }
        filled.push_str(rest);
        Ok((filled, ends))
    }
}
