//! The tensors of a run that the lens looks at.

use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::Site;
use std::collections::HashMap;

/// Tensors of one run, by site and layer.
pub(super) struct Stream(pub(super) HashMap<(Site, Option<usize>), Tensor>);

impl Stream {
    pub(super) fn at(&self, site: Site, layer: Option<usize>) -> Result<&Tensor> {
        let missing = || {
            let layer = layer.map_or_else(String::new, |layer| format!(" of layer {layer}"));
            Error::internal(format!("{}{layer} was not read", site.name()))
        };
        self.0.get(&(site, layer)).ok_or_else(missing)
    }

    /// The last row.
    pub(super) fn last(&self, site: Site, layer: Option<usize>) -> Result<Tensor> {
        let rows = self.at(site, layer)?;
        Ok(rows.narrow(0, rows.dim(0)? - 1, 1)?)
    }
}
