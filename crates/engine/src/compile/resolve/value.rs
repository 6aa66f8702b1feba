//! Where the value of an edit comes from, written out.

use super::expanded::{ExpandedValue, LayerPlaces};
use super::resolver::Resolver;
use crate::Result;
use crate::op::noise::Noise;
use crate::op::{Joint, OpKind, Source, Value};
use candle_core::{D, DType, Tensor};
use causalcone_model::{Indices, Layout, Site};
use causalcone_ops::select;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Resolver<'_> {
    /// The value of the edit; `taken` are the positions of the run that it comes from, where it comes from one.
    pub(super) fn value(&self, places: &LayerPlaces, taken: Vec<usize>) -> Result<ExpandedValue> {
        let op = &self.edit.op;
        let of_all = |value: &Tensor| Ok(ExpandedValue::Constant(vec![self.constant(places, value)?]));
        match &op.value {
            None if op.kind == OpKind::Noise => self.noise(places),
            None if op.kind == OpKind::Skip => self.module_input(),
            None => Ok(ExpandedValue::None),
            Some(Value::Number(x)) => of_all(&Tensor::new(*x as f32, self.model.device())?),
            Some(Value::Tensor(tensor)) => of_all(tensor),
            Some(Value::Layers(tensors)) => self.by_layer(places, tensors),
            Some(Value::Run(source)) => self.source(places, source, taken),
        }
    }

    /// Noise: a number for each dimension of each position, by where it stands in the site's row.
    fn noise(&self, places: &LayerPlaces) -> Result<ExpandedValue> {
        let all = |n: usize| (0..n).collect::<Vec<_>>();
        let listed =
            |list: &Option<Arc<[usize]>>, n| list.as_ref().map_or_else(|| all(n), |list| list.to_vec());
        let (width, heads) = match self.layout(places.site) {
            Layout::Rows { width } => (width, None),
            Layout::Heads { heads, width } => (width, Some((listed(&places.heads, heads), width))),
            Layout::Attention { .. } => {
                let problem = format!("noise is for vectors, and {} is a matrix of them", places.site.name());
                let hint = "put it into query_output, key_output or value_output";
                return Err(self.hinted(problem, Some(hint.into())));
            }
        };
        let (positions, dims) = (places.positions.clone(), listed(&places.dims, width));
        let (seed, example) = (self.edit.op.seed, self.example.unwrap_or(0) as u64);
        let noise = Noise { seed, example, positions, dims, heads, device: self.model.device().clone() };
        Ok(ExpandedValue::Noise(Arc::new(noise)))
    }

    /// Numbers given for each layer: those of the edit's layers.
    fn by_layer(&self, places: &LayerPlaces, given: &BTreeMap<usize, Tensor>) -> Result<ExpandedValue> {
        let row = |layer: &Option<usize>| {
            let Some(tensor) = layer.and_then(|layer| given.get(&layer)) else {
                let has: Vec<String> = given.keys().map(usize::to_string).collect();
                let of = match layer {
                    Some(layer) => format!("layer {layer}"),
                    None => format!("{}, which has no layers", places.site.name()),
                };
                let has = has.join(", ");
                return Err(self.wrong(format!("the value has nothing for {of}; it has layers {has}")));
            };
            self.constant(places, tensor)
        };
        Ok(ExpandedValue::Constant(places.layers.iter().map(row).collect::<Result<_>>()?))
    }

    /// A constant: one number, one row, or one row a position, on sites by head also one a head; as wide as
    /// the site or the subspace, or as all that is joint.
    fn constant(&self, places: &LayerPlaces, value: &Tensor) -> Result<Tensor> {
        let wrong = |problem: String| self.wrong(format!("the value {problem}"));
        let value = value.to_dtype(DType::F32)?;
        self.check_numbers(&value)?;
        if value.rank() == 0 {
            return Ok(value);
        }
        let layout = self.layout(places.site);
        let rows = match (value.dims(), layout) {
            ([_], _) => value.unsqueeze(0)?,
            ([_, _], _) => value,
            ([_, given, _], Layout::Heads { heads, .. }) => match &places.heads {
                _ if *given == self.head_count(places) => value,
                Some(named) if *given == heads => select(&value, 1, named)?,
                _ => {
                    let fit = self.head_count(places);
                    return Err(wrong(format!("is of {given} heads, where {fit} fit")));
                }
            },
            (shape, _) => {
                return Err(wrong(format!("has shape {shape:?}, where a vector or one row a position fits")));
            }
        };
        let (count, width, positions) = (rows.dim(0)?, rows.dim(D::Minus1)?, places.positions.len());
        if let (1, 2, Some(joint)) = (count, rows.rank(), self.edit.op.joint)
            && width == self.joint_width(places)
        {
            let heads = self.head_count(places);
            let (h, p) = match joint {
                Joint::Positions => (1, positions),
                Joint::Heads => (heads, 1),
                Joint::All => (heads, positions),
            };
            let part_width = self.part_width(places);
            // Heads first, as the rows of the op have them.
            let block = rows.reshape((h, p, part_width))?.transpose(0, 1)?.contiguous()?;
            return Ok(if heads == 0 { rows.reshape((p, part_width))? } else { block });
        }
        if count != 1 && count != positions {
            let fits = format!("one fits, or one for each of the {positions} positions");
            return Err(wrong(format!("has {count} rows, where {fits}")));
        }
        let full = self.width(places.site);
        let rows = match &places.dims {
            Some(dims) if width == dims.len() => rows,
            Some(dims) if width == full => select(&rows, rows.rank() - 1, dims)?,
            None if width == full => rows,
            dims => {
                let fits =
                    dims.as_ref().map_or(format!("{full}"), |dims| format!("{} or {full}", dims.len()));
                return Err(wrong(format!("is {width} wide, where {} needs {fits}", places.site.name())));
            }
        };
        // On head sites a row without heads serves every head: positions × 1 × width.
        let by_head = matches!(layout, Layout::Heads { .. });
        Ok(if by_head && rows.rank() == 2 { rows.unsqueeze(1)? } else { rows })
    }

    /// Checks that the numbers of a constant are finite, and that a direction is not zero.
    fn check_numbers(&self, value: &Tensor) -> Result<()> {
        let (kind, is_score) = (self.edit.op.kind, self.site == Site::AttentionScore);
        let may_mask = is_score && matches!(kind, OpKind::Swap | OpKind::Add);
        let numbers = value.flatten_all()?.to_vec1::<f32>()?;
        if let Some(x) = numbers.iter().find(|x| !(x.is_finite() || may_mask && **x == f32::NEG_INFINITY)) {
            let more = if is_score { " or -inf" } else { "" };
            return Err(self.wrong(format!("the value holds {x}, where only finite numbers{more} fit")));
        }
        let is_direction = matches!(kind, OpKind::Clamp | OpKind::ProjectOut);
        let row = value.dims().last().copied().unwrap_or(1).max(1);
        if is_direction && numbers.chunks(row).any(|row| row.iter().all(|x| *x == 0.0)) {
            return Err(self.wrong("the value is zero, which is no direction"));
        }
        Ok(())
    }

    /// Activations of another run at some positions: site, layers, positions and heads paired with the edit's.
    fn source(&self, places: &LayerPlaces, source: &Source, positions: Vec<usize>) -> Result<ExpandedValue> {
        if source.run == self.edit.run {
            let hint = "declare another run with the same prompt for its unedited activations";
            return Err(self.hinted("takes its value from the run it edits", Some(hint.into())));
        }
        let site = source.site.unwrap_or(places.site);
        self.check_rows(places, source, site)?;
        self.check_site(site)?;
        let layers = self.source_layers(places, source, site)?;
        self.check_count("layer", layers.len(), places.layers.len())?;
        self.check_count("position", positions.len(), places.positions.len())?;
        let heads = self.source_heads(places, source, site)?;
        let (positions, dims) = (positions.into(), places.dims.clone());
        Ok(ExpandedValue::Run(source.run, LayerPlaces { site, layers, positions, heads, dims }))
    }

    /// Checks that rows of a site of another run are as wide as those of the edit.
    fn check_rows(&self, places: &LayerPlaces, source: &Source, site: Site) -> Result<()> {
        let (ours, theirs) = (self.layout(places.site), self.layout(site));
        let same = match (ours, theirs) {
            (Layout::Rows { width: a }, Layout::Rows { width: b })
            | (Layout::Heads { width: a, .. }, Layout::Heads { width: b, .. }) => a == b,
            (Layout::Attention { .. }, Layout::Attention { .. }) => true,
            _ => false,
        };
        if !same {
            return Err(self.wrong(format!(
                "a value from {} ({}) does not fit {} ({})",
                site.name(),
                theirs.shape("s"),
                places.site.name(),
                ours.shape("s")
            )));
        }
        let [ours, theirs] = [self.edit.run, source.run].map(|run| self.runs[run.0].ids.len());
        let columns = match &places.dims {
            Some(dims) => dims.iter().max().map_or(0, |d| d + 1),
            None => ours.max(theirs),
        };
        if site.is_attention_matrix() && columns > ours.min(theirs) {
            let problem = format!(
                "the runs have {ours} and {theirs} positions, so their rows of key columns differ in length"
            );
            return Err(self.hinted(problem, Some("name the columns both have with dims".into())));
        }
        Ok(())
    }

    /// The layers that a value is from: those it names, or the edit's.
    fn source_layers(&self, places: &LayerPlaces, source: &Source, site: Site) -> Result<Vec<Option<usize>>> {
        let wrong = |why: &str| Err(self.wrong(format!("its value is from {}, {why}", site.name())));
        match (&source.layers, site.is_in_block()) {
            (Some(layers), true) => self.layers(site, Some(layers), Indices::resolve_any),
            (None, true) if places.site.is_in_block() => Ok(places.layers.clone()),
            (None, true) => wrong("so the value needs layers"),
            (None, false) => Ok(vec![None]),
            (Some(_), false) => wrong("which has no layers"),
        }
    }

    /// The heads that a value is from: those it names, or the edit's, which a site with fewer of them may lack.
    fn source_heads(
        &self,
        places: &LayerPlaces,
        source: &Source,
        site: Site,
    ) -> Result<Option<Arc<[usize]>>> {
        let ours = places.heads.as_ref().map(|heads| Indices::from(heads.to_vec()));
        let heads = match &source.heads {
            Some(heads) => self.heads(site, Some(heads), Indices::resolve_any)?,
            None => self.heads(site, ours.as_ref(), Indices::resolve)?,
        };
        let count = |heads: &Option<Arc<[usize]>>, site: Site| match (heads, self.layout(site)) {
            (Some(heads), _) => heads.len(),
            (None, Layout::Heads { heads, .. } | Layout::Attention { heads }) => heads,
            (None, Layout::Rows { .. }) => 0,
        };
        self.check_count("head", count(&heads, site), count(&places.heads, places.site))?;
        Ok(heads)
    }

    /// Checks that a value has one of something, which serves all, or as many as the edit.
    fn check_count(&self, what: &str, theirs: usize, ours: usize) -> Result<()> {
        if theirs == ours || theirs == 1 {
            return Ok(());
        }
        let fits = format!("one fits, or one for each of the edit's {ours}");
        Err(self.wrong(format!("its value has {theirs} {what}s, where {fits}")))
    }

    /// What enters the module whose output is edited: the run's own activations, at the same positions.
    fn module_input(&self) -> Result<ExpandedValue> {
        const MODULES: [Site; 3] = [Site::BlockOutput, Site::AttentionOutput, Site::MlpOutput];
        let block = &self.model.config().block;
        let input = match self.site {
            Site::BlockOutput => Some(Site::BlockInput),
            site if MODULES.contains(&site) => {
                block.find(site).and_then(|output| block[block.module_input(output)].site)
            }
            _ => None,
        };
        input.map(ExpandedValue::Input).ok_or_else(|| {
            let (outputs, site) = (MODULES.map(Site::name).join(", "), self.site.name());
            self.wrong(format!("op \"skip\" is for the output of a module: {outputs}; not {site}"))
        })
    }
}
