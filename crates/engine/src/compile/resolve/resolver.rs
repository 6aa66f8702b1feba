//! From an edit as it was written to plain indices, each checked against the model and the runs.

use super::expanded::{Expanded, LayerPlaces};
use crate::error::Within;
use crate::experiment::edit::EditSpec;
use crate::experiment::{Experiment, RunSpec};
use crate::ids::EditId;
use crate::op::{Joint, OpKind, Subspace, Value};
use crate::{Error, Result};
use causalcone_model::{Error as ModelError, Indices, Layout, Model, Positions, Site};
use std::collections::BTreeMap;
use std::sync::Arc;

/// [`Indices::resolve`] or [`Indices::resolve_any`].
pub(crate) type Resolve = fn(&Indices, &'static str, usize) -> Result<Vec<usize>, ModelError>;

/// Resolves one edit. Its errors name the edit.
pub(crate) struct Resolver<'a> {
    pub(crate) model: &'a Model,
    pub(crate) runs: &'a [RunSpec],
    /// The number of the example, where there is a data set.
    pub(crate) example: Option<usize>,
    /// The positions that the example has names for.
    pub(crate) names: &'a BTreeMap<String, Indices>,
    pub(crate) edit: &'a EditSpec,
    /// The site to edit: the edit's, or another one that replaces it.
    pub(crate) site: Site,
    /// The positions to edit: the edit's, or others that replace them.
    pub(crate) positions: &'a Positions,
    /// The name of the edit in messages.
    pub(crate) part: String,
}

impl Experiment<'_> {
    /// The resolver of an edit, at its own site and positions.
    pub(crate) fn resolver(&self, id: EditId) -> Resolver<'_> {
        let edit = &self.edits[id.0];
        Resolver {
            model: self.model,
            runs: &self.runs,
            example: self.example(),
            names: &self.names,
            edit,
            site: edit.target.site,
            positions: &edit.target.positions,
            part: self.edit_name(id),
        }
    }
}

impl Resolver<'_> {
    /// Writes out every list of the edit.
    pub(crate) fn expand(&self) -> Result<Expanded> {
        let (target, op, site) = (&self.edit.target, &self.edit.op, self.site);
        self.check_scale()?;
        let layers = self.layers(site, self.named_layers().as_ref(), Indices::resolve)?;
        let (positions, taken) = match op.source() {
            Some(source) => self.paired_positions(source)?,
            None => (self.positions_in(self.positions, self.edit.run)?, Vec::new()),
        };
        let heads = self.heads(site, target.heads.as_ref(), Indices::resolve)?;
        let info = op.kind.info();
        if site.is_attention_matrix() && (info.is_of_rows || op.joint.is_some()) {
            let what = if info.is_of_rows { format!("op \"{}\"", info.name) } else { "joint".into() };
            return Err(self.wrong(format!("{what} is for vectors, and {} is a matrix of them", site.name())));
        }
        let (of_site, of_basis) = match info.subspace {
            Subspace::Site => (target.dims.as_ref(), None),
            Subspace::Basis | Subspace::None => (None, target.dims.as_ref()),
        };
        let dims =
            of_site.map(|dims| self.within(dims.resolve("dimension", self.width(site)))).transpose()?;
        if let (true, Some(dims)) = (site.is_attention_matrix(), &dims) {
            self.check_visible(&positions, dims)?;
        }
        let (positions, dims) = (positions.into(), dims.map(Into::into));
        let places = LayerPlaces { site, layers, positions, heads, dims };
        if let Some(joint @ (Joint::Heads | Joint::All)) = op.joint
            && self.head_count(&places) == 0
        {
            let (joint, site) = (joint.name(), site.name());
            return Err(self.wrong(format!("joint = \"{joint}\" is for sites by head, and not {site}")));
        }
        let operation = op.operation(self.joint_width(&places), of_basis);
        let operation = operation.map_err(|p| self.hinted(p.message, p.hint))?;
        let value = self.value(&places, taken)?;
        Ok(Expanded { run: self.edit.run, places, operation: Arc::new(operation), scale: op.scale, value })
    }

    pub(crate) fn wrong(&self, problem: impl Into<String>) -> Error {
        self.hinted(problem, None)
    }

    pub(crate) fn hinted(&self, problem: impl Into<String>, hint: Option<String>) -> Error {
        Error::hinted(&self.part, problem, hint)
    }

    /// An address that does not fit.
    pub(crate) fn address(
        &self,
        what: &'static str,
        given: impl Into<String>,
        problem: impl Into<String>,
        hint: Option<String>,
    ) -> Error {
        let (given, problem) = (given.into(), problem.into());
        let source = ModelError::Address { what, given, problem, hint };
        Error::Part { part: self.part.clone(), source }
    }

    pub(crate) fn within<T>(&self, found: Result<T, ModelError>) -> Result<T> {
        found.within(|| self.part.clone())
    }

    /// Checks that the family has such a site.
    pub(super) fn check_site(&self, site: Site) -> Result<()> {
        let Some(why) = self.model.config().lacks(site) else { return Ok(()) };
        let problem = format!("is no site of a {}: {why}", self.model.config().family);
        Err(self.address("site", site.name(), problem, None))
    }

    /// The layers of a site; `[None]` outside the blocks.
    pub(super) fn layers(
        &self,
        site: Site,
        layers: Option<&Indices>,
        resolve: Resolve,
    ) -> Result<Vec<Option<usize>>> {
        self.check_site(site)?;
        let count = self.model.config().layers;
        let problem = match (site.is_in_block(), layers) {
            (true, Some(layers)) => {
                let found = self.within(resolve(layers, "layer", count))?;
                return Ok(found.into_iter().map(Some).collect());
            }
            (false, None) => return Ok(vec![None]),
            (true, None) => {
                format!("is in every block, so it needs layers: \"all\", or some of 0 to {}", count - 1)
            }
            (false, Some(_)) => "is outside the blocks, so it has no layers".into(),
        };
        Err(self.address("site", site.name(), problem, None))
    }

    /// The heads named on a site; `None` where none are named. A site without heads refuses them.
    pub(super) fn heads(
        &self,
        site: Site,
        heads: Option<&Indices>,
        resolve: Resolve,
    ) -> Result<Option<Arc<[usize]>>> {
        let Some(heads) = heads else { return Ok(None) };
        match self.layout(site) {
            Layout::Heads { heads: count, .. } | Layout::Attention { heads: count } => {
                Ok(Some(self.within(resolve(heads, "head", count))?.into()))
            }
            Layout::Rows { .. } => {
                let view = Site::all().find(|view| *view != site && view.tensor() == site);
                let hint = view.map(|view| format!("use \"{}\"", view.name()));
                Err(self.address("site", site.name(), "has no heads apart", hint))
            }
        }
    }

    /// How many heads the op sees as an axis: those named, or all; 0 where the site has no such axis.
    pub(super) fn head_count(&self, places: &LayerPlaces) -> usize {
        match self.layout(places.site) {
            Layout::Heads { heads, .. } => places.heads.as_ref().map_or(heads, |named| named.len()),
            Layout::Rows { .. } | Layout::Attention { .. } => 0,
        }
    }

    /// Numbers in one vector of the site that are edited.
    pub(super) fn part_width(&self, places: &LayerPlaces) -> usize {
        places.dims.as_ref().map_or_else(|| self.width(places.site), |dims| dims.len())
    }

    /// Numbers in one of the vectors that the op sees.
    pub(super) fn joint_width(&self, places: &LayerPlaces) -> usize {
        let (heads, positions) = (self.head_count(places).max(1), places.positions.len());
        self.part_width(places)
            * match self.edit.op.joint {
                None => 1,
                Some(Joint::Positions) => positions,
                Some(Joint::Heads) => heads,
                Some(Joint::All) => heads * positions,
            }
    }

    pub(super) fn layout(&self, site: Site) -> Layout {
        site.layout(self.model.config())
    }

    /// Numbers in one vector of a site; key columns of an attention matrix.
    pub(super) fn width(&self, site: Site) -> usize {
        match self.layout(site) {
            Layout::Rows { width } | Layout::Heads { width, .. } => width,
            Layout::Attention { .. } => self.runs[self.edit.run.0].ids.len(),
        }
    }

    /// The level of noise is a scale too, but one that is never negative.
    fn check_scale(&self) -> Result<()> {
        let (scale, is_noise) = (self.edit.op.scale, self.edit.op.kind == OpKind::Noise);
        if !(scale as f32).is_finite() {
            let what = if is_noise { "level" } else { "scale" };
            return Err(self.wrong(format!("{what} {scale} is not a finite number")));
        }
        if is_noise && scale < 0.0 {
            return Err(self.wrong(format!("level {scale} is negative, where a standard deviation fits")));
        }
        Ok(())
    }

    /// The layers an edit names: a value for certain layers says which, where the edit does not.
    fn named_layers(&self) -> Option<Indices> {
        match (&self.edit.target.layers, &self.edit.op.value) {
            (None, Some(Value::Layers(given))) if self.site.is_in_block() => {
                let numbers = given.keys().map(|layer| i64::try_from(*layer).unwrap_or(i64::MAX));
                Some(Indices::List(numbers.collect()))
            }
            (layers, _) => layers.clone(),
        }
    }

    /// Checks that a query row of an attention matrix sees a key column among those that are edited.
    fn check_visible(&self, rows: &[usize], columns: &[usize]) -> Result<()> {
        if rows.iter().all(|row| columns.iter().all(|column| column > row)) {
            return Err(self.wrong(format!(
                "no key column of {columns:?} is visible to a query row of {rows:?}: a query sees its own position and those before it"
            )));
        }
        Ok(())
    }
}
