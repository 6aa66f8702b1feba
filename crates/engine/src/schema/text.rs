//! Experiment files as TOML text, laid out as people write them.

use super::ExperimentFile;
use crate::{Error, Result};
use toml::{Table, Value};

impl ExperimentFile {
    /// The experiment as a TOML document: keys first, then a section for each run, edit and other table. Reading the text
    /// gives the same experiment again.
    ///
    /// ```
    /// use causalcone_engine::ExperimentFile;
    /// let text = "\
    /// model = \"smollm2\"
    ///
    /// [runs.base]
    /// prompt = \"The capital of Spain is\"
    ///
    /// [[edit]]
    /// site = \"mlp_output\"
    /// layers = \"all\"
    /// op = \"zero\"
    /// ";
    /// assert_eq!(ExperimentFile::from_toml(text)?.to_toml()?, text);
    /// # Ok::<(), causalcone_engine::Error>(())
    /// ```
    ///
    /// # Errors
    /// When it needs arrays, functions or examples that a program gives: a text cannot hold these. When a number is larger
    /// than those of TOML (2⁶³ − 1).
    pub fn to_toml(&self) -> Result<String> {
        if self.inputs != super::Inputs::default() {
            let problem = "has arrays, functions or examples of a program, which a file cannot hold";
            return Err(Error::part("experiment", problem));
        }
        let failed =
            |e: toml::ser::Error| Error::part("experiment", format!("cannot be written as TOML: {e}"));
        let document = Table::try_from(self).map_err(failed)?;
        let is_empty = |value: &Value| value.as_table().is_some_and(Table::is_empty);
        let (sections, keys): (Vec<_>, Vec<_>) =
            document.iter().filter(|(_, value)| !is_empty(value)).partition(|(_, value)| is_section(value));
        let mut text = lines(keys);
        let mut section = |heading: String, table: &Table| {
            let gap = if text.is_empty() { "" } else { "\n" };
            text += &format!("{gap}{heading}\n{}", lines(table.iter().collect()));
        };
        for (name, value) in sections {
            match value {
                Value::Array(list) => {
                    list.iter()
                        .filter_map(Value::as_table)
                        .for_each(|one| section(format!("[[{name}]]"), one));
                }
                Value::Table(table) if table.values().all(Value::is_table) => {
                    for (key, one) in table.iter().filter_map(|(key, one)| Some((key, one.as_table()?))) {
                        section(format!("[{name}.{}]", quoted(key)), one);
                    }
                }
                Value::Table(table) => section(format!("[{name}]"), table),
                _ => {}
            }
        }
        Ok(text)
    }
}

/// Whether a value has a heading of its own.
fn is_section(value: &Value) -> bool {
    match value {
        Value::Table(_) => true,
        Value::Array(list) => !list.is_empty() && list.iter().all(Value::is_table),
        _ => false,
    }
}

/// A line for each key.
fn lines(keys: Vec<(&String, &Value)>) -> String {
    keys.into_iter().map(|(key, value)| format!("{} = {value}\n", quoted(key))).collect()
}

/// A key, in quotes where it has other characters than bare keys may have.
fn quoted(key: &str) -> String {
    let is_bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    if is_bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Every example that is shipped, and texts that need quotes.
    #[test]
    fn what_is_written_is_read_as_the_same_experiment() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
        let mut count = 0;
        for entry in std::fs::read_dir(examples).unwrap().map(Result::unwrap) {
            if entry.path().extension().is_some_and(|extension| extension == "toml") {
                let file = ExperimentFile::load(&entry.path()).unwrap();
                let text = file.to_toml().unwrap();
                let again = ExperimentFile {
                    folder: file.folder.clone(),
                    ..ExperimentFile::from_toml(&text).unwrap()
                };
                assert_eq!(again, file, "{text}");
                count += 1;
            }
        }
        assert!(count > 10);
        let odd = "[runs.\"a.b \\\" ü\"]\nprompt = \"line\\n\\\"two\\\" \\u007f \\\\\"\n\
            [[edit]]\nsite = \"z\"\nop = \"add\"\nvalue = { values = [0.5, -1.0] }\nscale = 1e-20\n\
            [sweep]\nlayers = { window = 3 }\n";
        let file = ExperimentFile::from_toml(odd).unwrap();
        let text = file.to_toml().unwrap();
        assert_eq!(ExperimentFile::from_toml(&text).unwrap(), file, "{text}");
        assert!(text.contains("value = { values = [0.5, -1.0] }"), "{text}");
    }
}
