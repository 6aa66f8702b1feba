//! A fit on its way, as one file.

use super::variables::{Variable, Variables};
use crate::{Error, Result, parse};
use candle_core::{Device, Tensor};
use causalcone_model::file::{DataFile, Weights, safetensors as file};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

const STATE: &str = "state";

/// Where a fit stands, besides its numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// Which choice of the axes.
    pub(super) point: usize,
    /// Updates done.
    pub(super) step: usize,
    /// The lowest loss of an evaluation.
    pub(super) best: Option<f64>,
    /// Evaluations since.
    pub(super) since: usize,
    /// Whether it has stopped early.
    pub(super) stopped: bool,
    /// The numbers of the best evaluation, by variable, where they are wanted.
    #[serde(skip)]
    pub(super) best_numbers: Vec<Vec<f32>>,
}

/// A fit between two updates: its numbers, what the optimiser remembers, and where it stands.
///
/// As bytes it is a safetensors file whose metadata say where it stands. The fit that goes on from it is the same
/// to the bit as one that was never left.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub(super) state: State,
    /// By variable: its shape, its numbers, and both moments.
    variables: Vec<Saved>,
}

#[derive(Debug, Clone)]
struct Saved {
    name: String,
    shape: Vec<usize>,
    /// Numbers, first and second moments, and the best numbers where there are some.
    parts: Vec<(&'static str, Vec<f32>)>,
}

const PARTS: [&str; 4] = ["numbers", "first", "second", "best"];

/// Variables of several edits have one name.
fn key(index: usize, variable: &Variable) -> String {
    format!("{index}.{}", variable.name)
}

impl Checkpoint {
    pub(super) fn of(state: &State, variables: &Variables) -> Result<Self> {
        let one = |(index, variable): (usize, &Variable)| {
            let mut parts = vec![
                (PARTS[0], variable.numbers()?),
                (PARTS[1], variable.moments.first.clone()),
                (PARTS[2], variable.moments.second.clone()),
            ];
            if let Some(best) = state.best_numbers.get(index) {
                parts.push((PARTS[3], best.clone()));
            }
            Ok(Saved { name: key(index, variable), shape: variable.raw.dims().to_vec(), parts })
        };
        let variables = variables.iter().enumerate().map(one).collect::<Result<_>>()?;
        Ok(Self { state: state.clone(), variables })
    }

    /// How many updates are done.
    pub fn done(&self) -> usize {
        self.state.step
    }

    /// Which choice of the axes it is of.
    pub fn point(&self) -> usize {
        self.state.point
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let failed = |e: String| Error::part("checkpoint", e);
        let state = serde_json::to_string(&self.state).map_err(|e| failed(e.to_string()))?;
        let bytes: Vec<(String, Vec<u8>, &[usize])> = self
            .variables
            .iter()
            .flat_map(|saved| saved.parts.iter().map(move |(part, numbers)| (saved, part, numbers)))
            .map(|(saved, part, numbers)| {
                let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                (format!("{}.{part}", saved.name), bytes, saved.shape.as_slice())
            })
            .collect();
        let views = bytes.iter().map(|(name, bytes, shape)| {
            TensorView::new(Dtype::F32, shape.to_vec(), bytes).map(|view| (name.as_str(), view))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(|e| failed(e.to_string()))?;
        let metadata = HashMap::from([(STATE.to_string(), state)]);
        safetensors::serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it is not one that [`Checkpoint::to_bytes`] made.
    pub fn read(path: &Path) -> Result<Self> {
        let refuse = |problem: String| Error::File {
            path: path.into(),
            problem,
            hint: Some("start over with --force".into()),
        };
        let weights = Weights::from_safetensors(&[path])?;
        let metadata = file::metadata(&DataFile::open(path)?)?;
        let state = metadata.get(STATE).ok_or_else(|| refuse("is no checkpoint".into()))?;
        let mut state: State = parse::json_part(state).map_err(|e| refuse(e.to_string()))?;
        let mut variables: Vec<Saved> = Vec::new();
        let mut names: Vec<(usize, String, Vec<usize>)> = Vec::new();
        for entry in weights.entries() {
            if let Some(name) = entry.name.strip_suffix(".numbers") {
                let index = name.split('.').next().and_then(|index| index.parse().ok());
                let index = index.ok_or_else(|| refuse(format!("\"{name}\" is no variable")))?;
                names.push((index, name.to_owned(), entry.shape.clone()));
            }
        }
        names.sort();
        for (_, name, shape) in names {
            let mut parts = Vec::new();
            for part in PARTS {
                let full = format!("{name}.{part}");
                if part != PARTS[3] || weights.contains(&full) {
                    parts.push((part, weights.take(&full, &shape)?.flatten_all()?.to_vec1::<f32>()?));
                }
            }
            if let Some((_, best)) = parts.iter().find(|(part, _)| *part == PARTS[3]) {
                state.best_numbers.push(best.clone());
            }
            variables.push(Saved { name, shape, parts });
        }
        weights.finish(|_| false)?;
        Ok(Self { state, variables })
    }

    /// Puts the numbers into the variables of a fit.
    pub(super) fn restore(&self, variables: &mut Variables) -> Result<()> {
        let count = variables.iter().count();
        let of_another = |what: String| Error::part("checkpoint", format!("is of another training: {what}"));
        if count != self.variables.len() {
            return Err(of_another(format!("{} variables, and not {count}", self.variables.len())));
        }
        for (index, (variable, saved)) in variables.iter_mut().zip(&self.variables).enumerate() {
            if saved.name != key(index, variable) || saved.shape != variable.raw.dims() {
                return Err(of_another(format!(
                    "\"{}\" of shape {:?}, and not \"{}\" of {:?}",
                    saved.name,
                    saved.shape,
                    key(index, variable),
                    variable.raw.dims()
                )));
            }
            let part = |name| saved.parts.iter().find(|(part, _)| *part == name).map(|(_, x)| x.clone());
            let numbers = part(PARTS[0]).unwrap_or_default();
            variable.raw.set(&Tensor::from_vec(numbers, saved.shape.as_slice(), &Device::Cpu)?)?;
            variable.moments.first = part(PARTS[1]).unwrap_or_default();
            variable.moments.second = part(PARTS[2]).unwrap_or_default();
        }
        Ok(())
    }
}
