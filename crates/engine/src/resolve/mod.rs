//! From an edit as it was written to plain indices, each checked against the model and the runs.

use crate::error::Within;
use crate::experiment::{EditId, EditSpec, Experiment, RunId};
use crate::noise::Noise;
use crate::op::{OpKind, Source, Value};
use crate::plan::{Constant, Edit, Place, Taken};
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use causalcone_model::{Error as ModelError, Indices, Layout, Site};
use causalcone_ops::select;
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
    op: crate::op::Op,
    value: ExpandedValue,
}

#[derive(Debug, Clone)]
enum ExpandedValue {
    None,
    /// One row, or one a position.
    Constant(Tensor),
    /// Drawn for each sample.
    Noise(Noise),
    /// Positions and heads are one, or as many as the edit's.
    Run {
        run: RunId,
        site: Site,
        positions: Arc<[usize]>,
        heads: Option<Arc<[usize]>>,
    },
}

/// Which of an edit's lists a cell takes; `None` is all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
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
    pub(crate) fn scale(&self, choice: &Choice) -> Option<f64> {
        self.op.kind.info().takes_scale.then(|| choice.scale.unwrap_or(self.op.scale))
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
        choice: &Choice,
        sample: usize,
        source: Option<usize>,
    ) -> Result<Vec<Arc<Edit>>> {
        let layers = choice.layers.clone().unwrap_or(0..self.layers.len());
        let positions = pick(&self.positions, choice.position);
        let heads = self.heads.as_ref().map(|heads| pick(heads, choice.head));
        // Cells that share a constant share its tensor, of which one that edits a position at a time
        // takes a row.
        let constant = |rows: Tensor| {
            let row = choice.position.filter(|_| rows.rank() > 0 && rows.dims()[0] > 1);
            Taken::Constant(Constant { rows, row })
        };
        let constant = match &self.value {
            ExpandedValue::Constant(rows) => Some(constant(rows.clone())),
            ExpandedValue::Noise(noise) => Some(constant(noise.tensor(sample, choice.head)?)),
            _ => None,
        };
        self.layers[layers]
            .iter()
            .map(|&(layer, source_layer)| {
                let value = match (&self.value, source) {
                    (ExpandedValue::Run { site, positions, heads, .. }, Some(run)) => {
                        let place = Place {
                            site: *site,
                            layer: source_layer,
                            positions: pick(positions, choice.position),
                            heads: heads.as_ref().map(|heads| pick(heads, choice.head)),
                            dims: self.dims.clone(),
                        };
                        Some(Taken::Run(run, place))
                    }
                    _ => constant.clone(),
                };
                Ok(Arc::new(Edit {
                    op: self.op.kind,
                    scale: choice.scale.unwrap_or(self.op.scale),
                    custom: self.op.custom.clone(),
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
        if !(edit.op.scale as f32).is_finite() {
            return Err(Error::part(
                part(),
                format!(
                    "{} {} is not a finite number",
                    if edit.op.kind == OpKind::Noise { "level" } else { "scale" },
                    edit.op.scale
                ),
            ));
        }
        if edit.op.kind == OpKind::Noise && edit.op.scale < 0.0 {
            let problem = format!("level {} is negative, where a standard deviation fits", edit.op.scale);
            return Err(Error::part(part(), problem));
        }
        if info.takes_value != edit.op.value.is_some() {
            let problem = if info.takes_value { "needs a value" } else { "takes no value" };
            return Err(Error::part(part(), format!("op \"{}\" ({}) {problem}", info.name, info.formula)));
        }
        let site = site.unwrap_or(edit.target.site);
        let ids = &self.runs[edit.run.0].ids;
        let layers = self.layers(site, edit.target.layers.as_ref(), Indices::resolve).within(part)?;
        let positions = self.positions(&edit.target.positions, edit.run, edit.run).within(part)?;
        let heads = self.heads(site, edit.target.heads.as_ref(), Indices::resolve).within(part)?;
        let dims = edit
            .target
            .dims
            .as_ref()
            .map(|dims| dims.resolve("dimension", self.width(site, ids.len())))
            .transpose();
        let dims = dims.within(part)?;
        if let (true, Some(dims)) = (site.is_attention_matrix(), &dims)
            && positions.iter().all(|row| dims.iter().all(|column| column > row))
        {
            let problem = format!(
                "no key column of {dims:?} is visible to a query row of {positions:?}: a query sees its own position and those before it"
            );
            return Err(Error::part(part(), problem));
        }
        let mut expanded = Expanded {
            run: edit.run,
            site,
            layers: layers.into_iter().map(|layer| (layer, None)).collect(),
            positions: positions.into(),
            heads,
            dims: dims.map(Into::into),
            op: edit.op.clone(),
            value: ExpandedValue::None,
        };
        match &edit.op.value {
            None if edit.op.kind == OpKind::Noise => self.expand_noise(&mut expanded, &part)?,
            None => {}
            Some(Value::Number(x)) => {
                let x = Tensor::new(*x as f32, self.model.decoder().device())?;
                self.expand_constant(&mut expanded, &x, &part)?;
            }
            Some(Value::Tensor(tensor)) => self.expand_constant(&mut expanded, tensor, &part)?,
            Some(Value::Run(source)) => self.expand_source(&mut expanded, edit, source, &part)?,
        }
        Ok(expanded)
    }

    /// Noise: a number for each dimension of each position, by where it stands in the site's row.
    fn expand_noise(&self, edit: &mut Expanded, part: &dyn Fn() -> String) -> Result<()> {
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        let (width, heads) = match edit.site.layout(self.model.config()) {
            Layout::Rows { width } => (width, None),
            Layout::Heads { heads, width } => {
                (width, Some((edit.heads.as_ref().map_or_else(|| all(heads), |h| h.to_vec()), width)))
            }
            Layout::Attention { .. } => {
                let problem = format!("noise is for vectors, and {} is a matrix of them", edit.site.name());
                let hint = Some("put it into query_output, key_output or value_output".into());
                return Err(Error::hinted(part(), problem, hint));
            }
        };
        let dims = edit.dims.as_ref().map_or_else(|| all(width), |dims| dims.to_vec());
        let example = self.origin.as_ref().map_or(0, |origin| origin.number);
        let device = self.model.decoder().device().clone();
        let noise = Noise::new(edit.op.seed, example, edit.positions.clone(), dims, heads, device);
        edit.value = ExpandedValue::Noise(noise);
        Ok(())
    }

    /// A constant: one number, one row, or one row a position; as wide as the site or the subspace.
    fn expand_constant(&self, edit: &mut Expanded, value: &Tensor, part: &dyn Fn() -> String) -> Result<()> {
        let wrong = |problem: String| Error::part(part(), format!("the value {problem}"));
        let value = value.to_dtype(DType::F32)?;
        let may_mask =
            edit.site == Site::AttentionScore && matches!(edit.op.kind, OpKind::Swap | OpKind::Add);
        let numbers = value.flatten_all()?.to_vec1::<f32>()?;
        if let Some(x) = numbers.iter().find(|x| !(x.is_finite() || may_mask && **x == f32::NEG_INFINITY)) {
            let more = if edit.site == Site::AttentionScore { " or -inf" } else { "" };
            return Err(wrong(format!("holds {x}, where only finite numbers{more} fit")));
        }
        if value.rank() == 0 {
            edit.value = ExpandedValue::Constant(value);
            return Ok(());
        }
        let rows = match value.dims() {
            [_] => value.unsqueeze(0)?,
            [_, _] => value,
            shape => {
                return Err(wrong(format!("has shape {shape:?}, where a vector or one row a position fits")));
            }
        };
        let (count, width) = rows.dims2()?;
        let full = self.width(edit.site, self.runs[edit.run.0].ids.len());
        if count != 1 && count != edit.positions.len() {
            let n = edit.positions.len();
            return Err(wrong(format!(
                "has {count} rows, where one fits, or one for each of the {n} positions"
            )));
        }
        let rows = match &edit.dims {
            Some(dims) if width == dims.len() => rows,
            Some(dims) if width == full => select(&rows, 1, dims)?,
            None if width == full => rows,
            dims => {
                let fits =
                    dims.as_ref().map_or(format!("{full}"), |dims| format!("{} or {full}", dims.len()));
                return Err(wrong(format!("is {width} wide, where {} needs {fits}", edit.site.name())));
            }
        };
        // On head sites the same row serves every head: positions × 1 × width.
        let by_head = matches!(edit.site.layout(self.model.config()), Layout::Heads { .. });
        edit.value = ExpandedValue::Constant(if by_head { rows.unsqueeze(1)? } else { rows });
        Ok(())
    }

    /// Activations of another run: site, layers, positions and heads paired with the edit's.
    fn expand_source(
        &self,
        edit: &mut Expanded,
        spec: &EditSpec,
        source: &Source,
        part: &dyn Fn() -> String,
    ) -> Result<()> {
        let wrong = |problem: String| Error::part(part(), problem);
        if source.run == edit.run {
            let hint = "declare another run with the same prompt for its unedited activations".to_string();
            return Err(Error::hinted(part(), "takes its value from the run it edits", Some(hint)));
        }
        let site = source.site.unwrap_or(edit.site);
        let (ours, theirs) = (edit.site.layout(self.model.config()), site.layout(self.model.config()));
        let same = match (ours, theirs) {
            (Layout::Rows { width: a }, Layout::Rows { width: b }) => a == b,
            (Layout::Heads { width: a, .. }, Layout::Heads { width: b, .. }) => a == b,
            (Layout::Attention { .. }, Layout::Attention { .. }) => true,
            _ => false,
        };
        if !same {
            let problem = format!(
                "a value from {} ({}) does not fit {} ({})",
                site.name(),
                theirs.shape("s"),
                edit.site.name(),
                ours.shape("s")
            );
            return Err(wrong(problem));
        }
        let (base_len, source_len) = (self.runs[edit.run.0].ids.len(), self.runs[source.run.0].ids.len());
        if site.is_attention_matrix() {
            let columns = edit
                .dims
                .as_ref()
                .map_or(base_len.max(source_len), |dims| dims.iter().max().map_or(0, |d| d + 1));
            if columns > source_len || columns > base_len {
                let problem = format!(
                    "the runs have {base_len} and {source_len} positions, so their rows of key columns differ in length"
                );
                return Err(Error::hinted(
                    part(),
                    problem,
                    Some("name the columns both have with dims".into()),
                ));
            }
        }

        let layers: Vec<Option<usize>> = match (&source.layers, site.is_in_block()) {
            (Some(layers), true) => self.layers(site, Some(layers), Indices::resolve_any).within(part)?,
            (None, true) if edit.site.is_in_block() => edit.layers.iter().map(|(layer, _)| *layer).collect(),
            (None, true) => {
                return Err(wrong(format!("its value is from {}, so the value needs layers", site.name())));
            }
            (None, false) => vec![None],
            (Some(_), false) => {
                return Err(wrong(format!("its value is from {}, which has no layers", site.name())));
            }
        };
        let layers = paired("layer", &layers, edit.layers.len()).map_err(wrong)?;
        edit.layers = edit.layers.iter().zip(layers).map(|((ours, _), theirs)| (*ours, theirs)).collect();

        let written = source.positions.as_ref().unwrap_or(&spec.target.positions);
        let positions = self.positions(written, source.run, edit.run).within(part)?;
        check_count("position", positions.len(), edit.positions.len()).map_err(wrong)?;
        let heads = match (&source.heads, &edit.heads) {
            (Some(heads), _) => {
                let heads = self.heads(site, Some(heads), Indices::resolve_any).within(part)?;
                let all = self.heads(edit.site, Some(&Indices::All), Indices::resolve).within(part)?;
                let count = edit.heads.as_ref().or(all.as_ref()).map_or(0, |heads| heads.len());
                check_count("head", heads.as_ref().map_or(0, |heads| heads.len()), count).map_err(wrong)?;
                heads
            }
            // The same heads, which a site with fewer of them may lack.
            (None, Some(heads)) => {
                let list = Indices::from(heads.to_vec());
                self.heads(site, Some(&list), Indices::resolve).within(part)?
            }
            (None, None) => {
                let count = |layout| match layout {
                    Layout::Heads { heads, .. } | Layout::Attention { heads } => heads,
                    Layout::Rows { .. } => 0,
                };
                check_count("head", count(theirs), count(ours)).map_err(wrong)?;
                None
            }
        };
        edit.value = ExpandedValue::Run { run: source.run, site, positions: positions.into(), heads };
        Ok(())
    }

    /// The layers of a site; `[None]` outside the blocks.
    fn layers(
        &self,
        site: Site,
        layers: Option<&Indices>,
        resolve: Resolve,
    ) -> Result<Vec<Option<usize>>, ModelError> {
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

    /// Numbers in one vector of a site; key columns of an attention matrix.
    fn width(&self, site: Site, positions: usize) -> usize {
        match site.layout(self.model.config()) {
            Layout::Rows { width } | Layout::Heads { width, .. } => width,
            Layout::Attention { .. } => positions,
        }
    }
}

fn check_count(what: &str, theirs: usize, ours: usize) -> Result<(), String> {
    if theirs == ours || theirs == 1 {
        return Ok(());
    }
    Err(format!("its value has {theirs} {what}s, where one fits, or one for each of the edit's {ours}"))
}

/// As many as the edit has: one serves all.
fn paired<T: Copy>(what: &str, theirs: &[T], ours: usize) -> Result<Vec<T>, String> {
    check_count(what, theirs.len(), ours)?;
    Ok(if theirs.len() == ours { theirs.to_vec() } else { vec![theirs[0]; ours] })
}
