//! Slopes of a number with respect to whole tensors of runs.

use crate::op::{OpKind, Operation};
use crate::plan::{Edit, Place, Plan};
use crate::{Error, Result};
use candle_core::{DType, Tensor, Var};
use causalcone_model::{Layout, Model, Site};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Examples share a pass up to so many rows: enough for products at full speed, and a graph that fits
/// anywhere the model does.
pub(super) const MAX_ROWS: usize = 256;
/// … and up to so many bytes of slopes, over all metrics.
pub(super) const MAX_BYTES: usize = 256 << 20;

/// A tensor of a run: the run's number in the plan, the site (never a view of heads), the layer.
pub(crate) type ProbeKey = (usize, Site, Option<usize>);

/// The tensor a place is of.
pub(crate) fn key(run: usize, place: &Place) -> ProbeKey {
    (run, place.site.tensor(), place.layer)
}

/// Zeros added to tensors of runs, after all other edits of theirs. They change nothing; the slope of a
/// number that is read with respect to such a zero is that with respect to the tensor.
pub(crate) struct Probes(Vec<(ProbeKey, Var)>);

impl Probes {
    /// Adds them to the runs of a plan, one a tensor.
    pub(crate) fn add(model: &Model, plan: &mut Plan, keys: impl Iterator<Item = ProbeKey>) -> Result<Self> {
        let op = Arc::new(Operation::plain(OpKind::Add));
        let (mut probes, mut seen) = (Vec::new(), HashSet::new());
        for key in keys.filter(|key| seen.insert(*key)) {
            let place = plan.whole(key);
            let rows = place.positions.len();
            let shape = match place.site.layout(model.config()) {
                Layout::Rows { width } => vec![rows, width],
                Layout::Heads { heads, width } => vec![rows, heads * width],
                Layout::Attention { heads } => vec![heads, rows, rows],
            };
            let zero = Var::zeros(shape, DType::F32, model.device())?;
            let value = Some(zero.as_tensor().clone().into());
            plan.runs[key.0].edits.push(Arc::new(Edit { op: op.clone(), scale: 1.0, place, value }));
            probes.push((key, zero));
        }
        Ok(Self(probes))
    }

    /// Zeros of the shape of a tensor that was probed.
    pub(crate) fn zero(&self, key: ProbeKey) -> Result<Tensor> {
        let found = self.0.iter().find(|(other, _)| *other == key);
        let zero = found.ok_or_else(|| Error::internal("a tensor was not probed"))?;
        Ok(zero.1.as_detached_tensor())
    }

    /// The slopes of a number computed from what was read. A tensor that cannot change it has none.
    pub(crate) fn slopes(&self, number: &Tensor) -> Result<HashMap<ProbeKey, Tensor>> {
        if !number.track_op() {
            return Ok(HashMap::new());
        }
        let mut found = number.backward()?;
        let slopes = self.0.iter().filter_map(|(key, zero)| Some((*key, found.remove(zero.as_tensor())?)));
        Ok(slopes.collect())
    }
}
