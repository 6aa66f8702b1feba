//! An edit with every list written out, and the edits of a cell that are made of it.

use crate::Result;
use crate::ids::RunId;
use crate::op::Operation;
use crate::op::noise::Noise;
use crate::plan::{Constant, Edit, Numbers, Place, ValueSource};
use candle_core::Tensor;
use causalcone_model::Site;
use std::ops::Range;
use std::sync::Arc;

/// The same place in several layers: with every list written out, of which a cell of a sweep takes some.
#[derive(Debug, Clone)]
pub(crate) struct LayerPlaces {
    pub(crate) site: Site,
    /// `[None]` outside the blocks.
    pub(crate) layers: Vec<Option<usize>>,
    pub(crate) positions: Arc<[usize]>,
    /// `None` where no heads are named.
    pub(crate) heads: Option<Arc<[usize]>>,
    pub(super) dims: Option<Arc<[usize]>>,
}

/// An edit with every list written out.
#[derive(Debug, Clone)]
pub(crate) struct Expanded {
    pub(crate) run: RunId,
    pub(crate) places: LayerPlaces,
    pub(super) operation: Arc<Operation>,
    pub(super) scale: f64,
    pub(super) value: ExpandedValue,
}

#[derive(Debug, Clone)]
pub(super) enum ExpandedValue {
    None,
    /// One row, or one a position; for all layers, or for each.
    Constant(Vec<Tensor>),
    /// Different numbers for each sample.
    Noise(Arc<Noise>),
    /// Activations of another run. Each of its lists has one item, or as many as the edit's.
    Run(RunId, LayerPlaces),
    /// The run's own activations, at a site before the edit's.
    Input(Site),
}

/// Which of an edit's lists a cell takes; `None` is all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) layers: Option<Range<usize>>,
    pub(crate) position: Option<usize>,
    pub(crate) head: Option<usize>,
    pub(crate) scale: Option<f64>,
}

impl LayerPlaces {
    /// The place in each layer of a choice.
    pub(crate) fn chosen(&self, choice: &Selection) -> Vec<Place> {
        self.indices(choice).map(|index| self.at(index, choice)).collect()
    }

    /// The layers of a choice, by their places in the list.
    fn indices(&self, choice: &Selection) -> Range<usize> {
        choice.layers.clone().unwrap_or(0..self.layers.len())
    }

    /// The place in the layer at that place in the list.
    fn at(&self, index: usize, choice: &Selection) -> Place {
        Place {
            site: self.site,
            layer: self.layers[index.min(self.layers.len() - 1)],
            positions: pick(&self.positions, choice.position),
            heads: self.heads.as_ref().map(|heads| pick(heads, choice.head)),
            dims: self.dims.clone(),
        }
    }
}

/// The chosen one of a list (a list of one serves every choice), or all of it.
fn pick(list: &Arc<[usize]>, choice: Option<usize>) -> Arc<[usize]> {
    match choice {
        Some(i) if list.len() > 1 => [list[i]].into(),
        _ => list.clone(),
    }
}

impl Expanded {
    /// The run the value comes from.
    pub(crate) fn source(&self) -> Option<RunId> {
        match &self.value {
            ExpandedValue::Run(run, _) => Some(*run),
            _ => None,
        }
    }

    /// The scale, where the op uses one.
    pub(crate) fn scale(&self, choice: &Selection) -> Option<f64> {
        self.operation.info().takes_scale.then(|| choice.scale.unwrap_or(self.scale))
    }

    /// What an added constant adds to each layer, multiplied by the scale; `None` where it is not a single row.
    pub(crate) fn added(&self, width: usize) -> Result<Vec<(usize, Option<Vec<f32>>)>> {
        let mut found = Vec::with_capacity(self.places.layers.len());
        for (i, layer) in self.places.layers.iter().enumerate() {
            let row = match &self.value {
                ExpandedValue::Constant(rows) => {
                    let row = &rows[i.min(rows.len() - 1)];
                    let row = (row * self.scale)?.flatten_all()?.to_vec1::<f32>()?;
                    match row.len() {
                        1 => Some(vec![row[0]; width]),
                        n if n == width => Some(row),
                        _ => None,
                    }
                }
                _ => None,
            };
            found.extend(layer.map(|layer| (layer, row)));
        }
        Ok(found)
    }

    /// How many numbers of noise one sample of it takes.
    pub(crate) fn noise(&self) -> usize {
        match &self.value {
            ExpandedValue::Noise(noise) => noise.len(),
            _ => 0,
        }
    }

    /// The edits a cell makes, one a layer, with this sample of noise. `source` is the plan's number
    /// of the run that values come from.
    pub(crate) fn edits(&self, choice: &Selection, sample: usize, source: Option<usize>) -> Vec<Arc<Edit>> {
        // Cells that share a constant share its tensor, of which one that edits a position or head at a
        // time takes a row.
        let constant = |rows: Numbers| {
            let row = choice.position.filter(|_| rows.rows().is_some_and(|rows| rows > 1));
            let head = choice.head.filter(|_| rows.heads().is_some_and(|heads| heads > 1));
            ValueSource::Constant(Constant { rows, row, head })
        };
        let edit = |index| {
            let place = self.places.at(index, choice);
            let value = match (&self.value, source) {
                (ExpandedValue::Constant(rows), _) => {
                    Some(constant(rows[index.min(rows.len() - 1)].clone().into()))
                }
                (ExpandedValue::Noise(noise), _) => Some(constant(Numbers::noise(noise.clone(), sample))),
                (ExpandedValue::Input(site), _) => {
                    Some(ValueSource::Own(Place { site: *site, ..place.clone() }))
                }
                (ExpandedValue::Run(_, places), Some(run)) => {
                    Some(ValueSource::Run(run, places.at(index, choice)))
                }
                (ExpandedValue::Run(..), None) | (ExpandedValue::None, _) => None,
            };
            let scale = choice.scale.unwrap_or(self.scale);
            Arc::new(Edit { op: self.operation.clone(), scale, place, value })
        };
        self.places.indices(choice).map(edit).collect()
    }
}
