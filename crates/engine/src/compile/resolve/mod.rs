//! From an edit as it was written to plain indices, each checked against the model and the runs.

mod value;

use crate::error::Within;
use crate::experiment::{EditSpec, Experiment};
use crate::ids::{EditId, RunId};
use crate::op::noise::Noise;
use crate::op::{Joint, Op, OpKind, Operation, Subspace, Value};
use crate::plan::{Constant, Edit, Numbers, Place, ValueSource};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::{Error as ModelError, Indices, Layout, Site};
use std::sync::Arc;

/// [`Indices::resolve`] or [`Indices::resolve_any`].
pub(crate) type Resolve = fn(&Indices, &'static str, usize) -> Result<Vec<usize>, ModelError>;

/// An edit with every list written out. A cell of a sweep takes some of each.
#[derive(Debug, Clone)]
pub(crate) struct Expanded {
    pub(crate) run: RunId,
    pub(crate) site: Site,
    /// Layers, each with the layer its value is taken from.
    pub(crate) layers: Vec<(Option<usize>, Option<usize>)>,
    pub(crate) positions: Arc<[usize]>,
    /// Heads, where the edit names some.
    pub(crate) heads: Option<Arc<[usize]>>,
    dims: Option<Arc<[usize]>>,
    operation: Arc<Operation>,
    scale: f64,
    value: ExpandedValue,
}

#[derive(Debug, Clone)]
enum ExpandedValue {
    None,
    /// One row, or one a position; for all layers, or for each.
    Constant(Vec<Tensor>),
    /// Another one for each sample.
    Noise(Arc<Noise>),
    /// Positions and heads are one, or as many as the edit's.
    Run {
        run: RunId,
        site: Site,
        positions: Arc<[usize]>,
        heads: Option<Arc<[usize]>>,
    },
    /// The run's own activations, at a site before the edit's.
    Input(Site),
}

/// Which of an edit's lists a cell takes; `None` is all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    pub(crate) layers: Option<std::ops::Range<usize>>,
    pub(crate) position: Option<usize>,
    pub(crate) head: Option<usize>,
    pub(crate) scale: Option<f64>,
}

impl Expanded {
    /// The run the value comes from.
    pub(crate) fn source(&self) -> Option<RunId> {
        match &self.value {
            ExpandedValue::Run { run, .. } => Some(*run),
            _ => None,
        }
    }

    /// Whether the op uses the scale.
    pub(crate) fn scale(&self, choice: &Selection) -> Option<f64> {
        self.operation.info().takes_scale.then(|| choice.scale.unwrap_or(self.scale))
    }

    /// What an added constant adds to each layer, the scale counted in; nothing where it is no single row.
    pub(crate) fn added(&self, width: usize) -> Result<Vec<(usize, Option<Vec<f32>>)>> {
        let mut found = Vec::with_capacity(self.layers.len());
        for (i, (layer, _)) in self.layers.iter().enumerate() {
            let row = match &self.value {
                ExpandedValue::Constant(rows) => {
                    let row = if rows.len() == 1 { &rows[0] } else { &rows[i] };
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
    pub(crate) fn edits(
        &self,
        choice: &Selection,
        sample: usize,
        source: Option<usize>,
    ) -> Result<Vec<Arc<Edit>>> {
        let layers = choice.layers.clone().unwrap_or(0..self.layers.len());
        let positions = pick(&self.positions, choice.position);
        let heads = self.heads.as_ref().map(|heads| pick(heads, choice.head));
        // Cells that share a constant share its tensor, of which one that edits a position or head at a
        // time takes a row.
        let constant = |rows: Numbers| {
            let row = choice.position.filter(|_| rows.rows().is_some_and(|rows| rows > 1));
            let head = choice.head.filter(|_| rows.heads().is_some_and(|heads| heads > 1));
            ValueSource::Constant(Constant { rows, row, head })
        };
        let noise = match &self.value {
            ExpandedValue::Noise(noise) => Some(constant(Numbers::noise(noise.clone(), sample))),
            _ => None,
        };
        layers
            .map(|index| {
                let (layer, source_layer) = self.layers[index];
                let value = match (&self.value, source) {
                    (ExpandedValue::Constant(rows), _) => {
                        Some(constant(rows[index.min(rows.len() - 1)].clone().into()))
                    }
                    (ExpandedValue::Input(site), _) => Some(ValueSource::Own(Place {
                        site: *site,
                        ..self.place(layer, positions.clone(), heads.clone())
                    })),
                    (ExpandedValue::Run { site, positions, heads, .. }, Some(run)) => {
                        let place = Place {
                            site: *site,
                            layer: source_layer,
                            positions: pick(positions, choice.position),
                            heads: heads.as_ref().map(|heads| pick(heads, choice.head)),
                            dims: self.dims.clone(),
                        };
                        Some(ValueSource::Run(run, place))
                    }
                    _ => noise.clone(),
                };
                Ok(Arc::new(Edit {
                    op: self.operation.clone(),
                    scale: choice.scale.unwrap_or(self.scale),
                    place: self.place(layer, positions.clone(), heads.clone()),
                    value,
                }))
            })
            .collect()
    }

    /// What the edit names in one layer.
    fn place(&self, layer: Option<usize>, positions: Arc<[usize]>, heads: Option<Arc<[usize]>>) -> Place {
        Place { site: self.site, layer, positions, heads, dims: self.dims.clone() }
    }

    /// All it names, a layer each.
    pub(crate) fn places(&self) -> Vec<Place> {
        let place = |&(layer, _): &_| self.place(layer, self.positions.clone(), self.heads.clone());
        self.layers.iter().map(place).collect()
    }
}

/// The chosen one of a list (a list of one serves every choice), or all of it.
fn pick(list: &Arc<[usize]>, choice: Option<usize>) -> Arc<[usize]> {
    match choice {
        Some(i) if list.len() > 1 => [list[i]].into(),
        _ => list.clone(),
    }
}

impl Experiment<'_> {
    /// Writes out an edit, at its own site or at another in its place.
    pub(crate) fn expand(&self, id: EditId, site: Option<Site>) -> Result<Expanded> {
        let part = || self.edit_name(id);
        let edit = &self.edits[id.0];
        let info = edit.op.kind.info();
        check_scale(&edit.op, &part)?;
        let site = site.unwrap_or(edit.target.site);
        let named = named_layers(edit, site);
        let layers = self.layers(site, named.as_ref(), Indices::resolve).within(part)?;
        let (positions, taken) = match &edit.op.value {
            Some(Value::Run(source)) => self.paired_positions(edit, source, &part)?,
            _ => (self.positions(&edit.target.positions, edit.run, edit.run).within(part)?, Vec::new()),
        };
        let heads = self.heads(site, edit.target.heads.as_ref(), Indices::resolve).within(part)?;
        if site.is_attention_matrix() && (info.is_of_rows || edit.op.joint.is_some()) {
            let what = if info.is_of_rows { format!("op \"{}\"", info.name) } else { "joint".into() };
            let problem = format!("{what} is for vectors, and {} is a matrix of them", site.name());
            return Err(Error::part(part(), problem));
        }
        let width = self.width(site, self.runs[edit.run.0].ids.len());
        let (of_site, of_basis) = match info.subspace {
            Subspace::Site => (edit.target.dims.as_ref(), None),
            Subspace::Basis | Subspace::None => (None, edit.target.dims.as_ref()),
        };
        let dims = of_site.map(|dims| dims.resolve("dimension", width)).transpose().within(part)?;
        if let (true, Some(dims)) = (site.is_attention_matrix(), &dims) {
            check_visible(&positions, dims, &part)?;
        }
        let mut expanded = Expanded {
            operation: Arc::new(Operation { joint: edit.op.joint, ..Operation::plain(edit.op.kind) }),
            scale: edit.op.scale,
            run: edit.run,
            site,
            layers: layers.into_iter().map(|layer| (layer, None)).collect(),
            positions: positions.into(),
            heads,
            dims: dims.map(Into::into),
            value: ExpandedValue::None,
        };
        if let Some(joint) = edit.op.joint
            && joint != Joint::Positions
            && self.head_count(&expanded) == 0
        {
            let problem =
                format!("joint = \"{}\" is for sites by head, and not {}", joint.name(), site.name());
            return Err(Error::part(part(), problem));
        }
        let width = self.joint_width(&expanded, expanded.dims.as_ref().map_or(width, |dims| dims.len()));
        expanded.operation = Arc::new(edit.op.operation(width, of_basis).within(part)?);
        self.expand_value(&mut expanded, &edit.op, taken, &part)?;
        Ok(expanded)
    }

    /// Checks that the family has such a site.
    fn check_site(&self, site: Site) -> Result<(), ModelError> {
        let Some(why) = self.model.config().lacks(site) else { return Ok(()) };
        let problem = format!("is no site of a {}: {why}", self.model.config().family);
        Err(ModelError::Address { what: "site", given: site.name().into(), problem, hint: None })
    }

    /// The layers of a site; `[None]` outside the blocks.
    fn layers(
        &self,
        site: Site,
        layers: Option<&Indices>,
        resolve: Resolve,
    ) -> Result<Vec<Option<usize>>, ModelError> {
        self.check_site(site)?;
        let problem = match (site.is_in_block(), layers) {
            (true, Some(layers)) => {
                let found = resolve(layers, "layer", self.model.config().layers)?;
                return Ok(found.into_iter().map(Some).collect());
            }
            (false, None) => return Ok(vec![None]),
            (true, None) => format!(
                "is in every block, so it needs layers: \"all\", or some of 0 to {}",
                self.model.config().layers - 1
            ),
            (false, Some(_)) => "is outside the blocks, so it has no layers".into(),
        };
        Err(ModelError::Address { what: "site", given: site.name().into(), problem, hint: None })
    }

    /// The heads named on a site; `None` where none are, or the site has no heads to name.
    fn heads(
        &self,
        site: Site,
        heads: Option<&Indices>,
        resolve: Resolve,
    ) -> Result<Option<Arc<[usize]>>, ModelError> {
        let Some(heads) = heads else { return Ok(None) };
        match site.layout(self.model.config()) {
            Layout::Heads { heads: count, .. } | Layout::Attention { heads: count } => {
                Ok(Some(resolve(heads, "head", count)?.into()))
            }
            Layout::Rows { .. } => {
                let view = Site::all().find(|view| *view != site && view.tensor() == site);
                Err(ModelError::Address {
                    what: "site",
                    given: site.name().into(),
                    problem: "has no heads apart".into(),
                    hint: view.map(|view| format!("use \"{}\"", view.name())),
                })
            }
        }
    }

    /// How many heads an edit names on a site that has them apart, all if it names none; else 0.
    fn head_count(&self, edit: &Expanded) -> usize {
        match edit.site.layout(self.model.config()) {
            Layout::Heads { heads, .. } => edit.heads.as_ref().map_or(heads, |named| named.len()),
            Layout::Rows { .. } | Layout::Attention { .. } => 0,
        }
    }

    /// Numbers in one of the vectors that the op of an edit sees, of whose site's vectors it takes `width`.
    fn joint_width(&self, edit: &Expanded, width: usize) -> usize {
        let heads = || self.head_count(edit).max(1);
        width
            * match edit.operation.joint {
                None => 1,
                Some(Joint::Positions) => edit.positions.len(),
                Some(Joint::Heads) => heads(),
                Some(Joint::All) => heads() * edit.positions.len(),
            }
    }

    /// Numbers in one vector of a site; key columns of an attention matrix.
    fn width(&self, site: Site, positions: usize) -> usize {
        match site.layout(self.model.config()) {
            Layout::Rows { width } | Layout::Heads { width, .. } => width,
            Layout::Attention { .. } => positions,
        }
    }
}

/// The level of noise is a scale too, but one that is never negative.
fn check_scale(op: &Op, part: &dyn Fn() -> String) -> Result<()> {
    let is_noise = op.kind == OpKind::Noise;
    if !(op.scale as f32).is_finite() {
        let what = if is_noise { "level" } else { "scale" };
        return Err(Error::part(part(), format!("{what} {} is not a finite number", op.scale)));
    }
    if is_noise && op.scale < 0.0 {
        let problem = format!("level {} is negative, where a standard deviation fits", op.scale);
        return Err(Error::part(part(), problem));
    }
    Ok(())
}

/// The layers an edit names: a value for certain layers says which, where the edit does not.
fn named_layers(edit: &EditSpec, site: Site) -> Option<Indices> {
    match (&edit.target.layers, &edit.op.value) {
        (None, Some(Value::Layers(given))) if site.is_in_block() => {
            let numbers = given.keys().map(|layer| i64::try_from(*layer).unwrap_or(i64::MAX));
            Some(Indices::List(numbers.collect()))
        }
        (layers, _) => layers.clone(),
    }
}

/// That a query row of an attention matrix sees a key column among those that are edited.
fn check_visible(rows: &[usize], columns: &[usize], part: &dyn Fn() -> String) -> Result<()> {
    if rows.iter().all(|row| columns.iter().all(|column| column > row)) {
        let problem = format!(
            "no key column of {columns:?} is visible to a query row of {rows:?}: a query sees its own position and those before it"
        );
        return Err(Error::part(part(), problem));
    }
    Ok(())
}
