//! From positions as they were written to plain indices, in the run they are meant in.

use crate::compile::resolve::Resolve;
use crate::experiment::{Experiment, RunSpec};
use crate::ids::RunId;
use causalcone_model::{Error as ModelError, Indices, Positions, Which, nearest};

impl Experiment<'_> {
    /// The positions of `run` that a text means: tokens, "last" and what counts from the end are
    /// looked for in the run itself, everything else means the indices of the edited run. A name
    /// stands for what the example gives under it.
    pub(crate) fn positions(
        &self,
        positions: &Positions,
        run: RunId,
        edited: RunId,
    ) -> Result<Vec<usize>, ModelError> {
        let len = self.runs[run.0].ids.len();
        // What is edited is edited once; a value may be taken several times.
        let resolve: Resolve = if run == edited { Indices::resolve } else { Indices::resolve_any };
        let indices = match positions {
            Positions::Last => return Ok(vec![len - 1]),
            Positions::Token { text, which } => return self.token_positions(text, *which, run),
            Positions::Name(name) => self.named_positions(name)?,
            Positions::Indices(indices) => indices,
        };
        if indices.counts_from_end() {
            return resolve(indices, "position", len);
        }
        if run == edited {
            return resolve(indices, "position", len);
        }
        let edited_len = self.runs[edited.0].ids.len();
        let found = resolve(
            indices,
            "position",
            edited_len.max(match indices {
                Indices::All | Indices::Range(_, None) => 0,
                _ => len,
            }),
        )?;
        match found.iter().find(|position| **position >= len) {
            None => Ok(found),
            Some(position) => Err(ModelError::Address {
                what: "position",
                given: position.to_string(),
                problem: format!(
                    "is not in run \"{}\", which has only {len}, numbered 0 to {}",
                    self.runs[run.0].name,
                    len - 1
                ),
                hint: None,
            }),
        }
    }

    /// Where the tokens of a text stand in a run; they must stand there once.
    fn token_positions(&self, text: &str, which: Which, run: RunId) -> Result<Vec<usize>, ModelError> {
        let RunSpec { name, ids, .. } = &self.runs[run.0];
        let tokenizer = self.model.needs_tokenizer(text)?;
        let wanted = tokenizer.encode_inside(text, self.model.config().context)?;
        let starts: Vec<usize> = match wanted.len() {
            0 => Vec::new(),
            n => ids
                .windows(n)
                .enumerate()
                .filter(|(_, window)| *window == wanted)
                .map(|(start, _)| start)
                .collect(),
        };
        let refuse = |problem: String| {
            Err(ModelError::Address { what: "token", given: format!("{text:?}"), problem, hint: None })
        };
        match starts.as_slice() {
            [start] => Ok(match which {
                Which::All => (*start..start + wanted.len()).collect(),
                Which::First => vec![*start],
                Which::Last => vec![start + wanted.len() - 1],
            }),
            [] => {
                let tokens: Vec<String> =
                    ids.iter().map(|&id| format!("{:?}", tokenizer.token(id))).collect();
                refuse(format!("is not in run \"{name}\", whose tokens are {}", tokens.join(", ")))
            }
            many => refuse(format!(
                "stands more than once in run \"{name}\", at positions {many:?}: give one of them"
            )),
        }
    }

    /// What this example calls by a name.
    pub(crate) fn named_positions(&self, name: &str) -> Result<&Indices, ModelError> {
        let problem = match (self.names.get(name), &self.origin) {
            (Some(indices), _) => return Ok(indices),
            (None, None) => {
                "is a name that examples give, and there are none: add examples = \"FILE\"".into()
            }
            (None, Some(_)) if self.names.is_empty() => {
                "is not in this example, which names no positions".into()
            }
            (None, Some(_)) => {
                let names: Vec<&str> = self.names.keys().map(String::as_str).collect();
                format!("is not in this example, which names {}", names.join(", "))
            }
        };
        let near = nearest(name, self.names.keys().map(String::as_str));
        let hint = near.map(|near| format!("did you mean \"{near}\"?"));
        Err(ModelError::Address { what: "position", given: format!("\"{name}\""), problem, hint })
    }
}
