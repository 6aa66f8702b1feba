//! From positions as they were written to plain indices, in the run they are meant in.

use crate::Result;
use crate::compile::resolve::{Resolve, Resolver};
use crate::experiment::RunSpec;
use crate::ids::RunId;
use causalcone_model::{Indices, Positions, Which, nearest};

impl Resolver<'_> {
    /// The positions of `run` that a text means: tokens, "last" and what counts from the end are
    /// looked for in the run itself, everything else means the indices of the edited run. A name
    /// stands for what the example gives under it.
    pub(crate) fn positions_in(&self, positions: &Positions, run: RunId) -> Result<Vec<usize>> {
        let RunSpec { name, ids, .. } = &self.runs[run.0];
        let (len, is_edited) = (ids.len(), run == self.edit.run);
        // What is edited is edited once; a value may be taken several times.
        let resolve: Resolve = if is_edited { Indices::resolve } else { Indices::resolve_any };
        let indices = match positions {
            Positions::Last => return Ok(vec![len - 1]),
            Positions::Token { text, which } => return self.token_positions(text, *which, run),
            Positions::Name(name) => self.named_positions(name)?,
            Positions::Indices(indices) => indices,
        };
        let edited = self.runs[self.edit.run.0].ids.len();
        let len_meant = match indices {
            _ if is_edited || indices.counts_from_end() => len,
            Indices::All | Indices::Range(_, None) => edited,
            _ => edited.max(len),
        };
        let found = self.within(resolve(indices, "position", len_meant))?;
        let Some(position) = found.iter().find(|position| **position >= len) else { return Ok(found) };
        let problem = format!("is not in run \"{name}\", which has only {len}, numbered 0 to {}", len - 1);
        Err(self.address("position", position.to_string(), problem, None))
    }

    /// Whether positions mean all of a run.
    pub(crate) fn is_all(&self, positions: &Positions) -> Result<bool> {
        Ok(match positions {
            Positions::Indices(indices) => *indices == Indices::All,
            Positions::Name(name) => *self.named_positions(name)? == Indices::All,
            Positions::Last | Positions::Token { .. } => false,
        })
    }

    /// Where the tokens of a text stand in a run; they must stand there once.
    fn token_positions(&self, text: &str, which: Which, run: RunId) -> Result<Vec<usize>> {
        let RunSpec { name, ids, .. } = &self.runs[run.0];
        let tokenizer = self.within(self.model.needs_tokenizer(text))?;
        let wanted = self.within(tokenizer.encode_inside(text, self.model.config().context))?;
        let stands_at = |start: &usize| !wanted.is_empty() && ids[*start..].starts_with(&wanted);
        let starts: Vec<usize> = (0..ids.len()).filter(stands_at).collect();
        let problem = match starts.as_slice() {
            [start] => {
                return Ok(match which {
                    Which::All => (*start..start + wanted.len()).collect(),
                    Which::First => vec![*start],
                    Which::Last => vec![start + wanted.len() - 1],
                });
            }
            [] => {
                let tokens: Vec<String> =
                    ids.iter().map(|&id| format!("{:?}", tokenizer.token(id))).collect();
                format!("is not in run \"{name}\", whose tokens are {}", tokens.join(", "))
            }
            many => {
                format!("stands more than once in run \"{name}\", at positions {many:?}: give one of them")
            }
        };
        Err(self.address("token", format!("{text:?}"), problem, None))
    }

    /// What this example calls by a name.
    fn named_positions(&self, name: &str) -> Result<&Indices> {
        let names = || self.names.keys().map(String::as_str);
        let problem = match (self.names.get(name), self.example) {
            (Some(indices), _) => return Ok(indices),
            (None, None) => {
                "is a name that examples give, and there are none: add examples = \"FILE\"".into()
            }
            (None, Some(_)) if self.names.is_empty() => {
                "is not in this example, which names no positions".into()
            }
            (None, Some(_)) => {
                let names: Vec<&str> = names().collect();
                format!("is not in this example, which names {}", names.join(", "))
            }
        };
        let hint = nearest(name, names()).map(|near| format!("did you mean \"{near}\"?"));
        Err(self.address("position", format!("\"{name}\""), problem, hint))
    }
}
