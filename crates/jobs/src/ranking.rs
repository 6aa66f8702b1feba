//! The cells of a sweep that change the answer most.

use crate::tidy::{common_token, span};
use causalcone_engine::SweepResult;
use causalcone_engine::plan::Coordinates;
use causalcone_model::{Model, Site};
use serde::Serialize;

/// One cell of a sweep, or the mean of the cells of all examples, and how much it changes the first metric.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Strongest {
    /// The site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<&'static str>,
    /// The layer; the last one where layers accumulate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The layers, where several are edited together: "0..=5", "0 3 7".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<String>,
    /// The head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// The position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The token at that position, where all prompts have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale: Option<f64>,
    /// The number.
    pub value: f64,
    /// The number less the number without edits.
    pub change: f64,
}

/// The cells whose first number changes most, at most `most` of them, the largest change first; of equal changes the
/// earlier cell. Cells whose number is not finite are left out. Over examples or samples, the means are ranked.
///
/// ```
/// use causalcone_engine::{Each, Experiment, Op};
/// use causalcone_jobs::{ExperimentExt, strongest};
/// use causalcone_model::{Model, Site};
///
/// # fn main() -> Result<(), causalcone_jobs::Error> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// exp.edit(base, Site::MlpOutput.layers(..), Op::zero())?;
/// exp.set_tokens([7])?;
/// let swept = exp.sweep().layers(Each).positions(Each).run()?;
/// let found = strongest(&swept.result, &model, 2);
/// assert!(found[0].change.abs() >= found[1].change.abs());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn strongest(result: &SweepResult, model: &Model, most: usize) -> Vec<Strongest> {
    let mut all: Vec<Strongest> = Vec::new();
    let mut add = |at: &Coordinates, value: Option<f64>, base: Option<f64>| {
        let (Some(value), Some(base)) = (value, base) else { return };
        all.push(Strongest {
            site: at.site.map(Site::name),
            layer: at.layer,
            layers: span(&at.layers).filter(|_| at.layers.len() > 1),
            head: at.head,
            position: at.position,
            token: at
                .position
                .and_then(|position| common_token(result, position))
                .map(|id| model.token_text(id))
                .filter(|_| model.tokenizer().is_some()),
            scale: at.scale,
            value,
            change: value - base,
        });
    };
    if result.has_means() {
        let per_cell = result.columns.len().max(1);
        let means = result.means();
        means.iter().step_by(per_cell).for_each(|mean| add(&mean.at, mean.mean, mean.base));
    } else {
        let rows = result.rows().step_by(result.columns.len().max(1));
        rows.for_each(|row| add(row.at, row.value, row.base));
    }
    all.sort_by(|a, b| b.change.abs().total_cmp(&a.change.abs()));
    all.truncate(most);
    all
}
