//! Where the value of an edit comes from, written out.

use super::{Expanded, ExpandedValue};
use crate::error::Within;
use crate::experiment::Experiment;
use crate::op::noise::Noise;
use crate::op::{Joint, Op, OpKind, Source, Value};
use crate::{Error, Result};
use candle_core::{D, DType, Tensor};
use causalcone_model::{Indices, Layout, Site};
use causalcone_ops::select;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Experiment<'_> {
    /// The value of an op; `taken` are the positions of the run that it comes from, where it comes from one.
    pub(super) fn expand_value(
        &self,
        edit: &mut Expanded,
        op: &Op,
        taken: Vec<usize>,
        part: &dyn Fn() -> String,
    ) -> Result<()> {
        match &op.value {
            None if op.kind == OpKind::Noise => self.expand_noise(edit, op.seed, part),
            None if op.kind == OpKind::Skip => self.expand_input(edit, part),
            None => Ok(()),
            Some(Value::Number(x)) => {
                let x = Tensor::new(*x as f32, self.model.device())?;
                self.expand_constant(edit, &x, part)
            }
            Some(Value::Tensor(tensor)) => self.expand_constant(edit, tensor, part),
            Some(Value::Layers(tensors)) => self.expand_by_layer(edit, tensors, part),
            Some(Value::Run(source)) => self.expand_source(edit, source, taken, part),
        }
    }

    /// Noise: a number for each dimension of each position, by where it stands in the site's row.
    fn expand_noise(&self, edit: &mut Expanded, seed: u64, part: &dyn Fn() -> String) -> Result<()> {
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
        let device = self.model.device().clone();
        let noise = Noise::new(seed, example, edit.positions.clone(), dims, heads, device);
        edit.value = ExpandedValue::Noise(Arc::new(noise));
        Ok(())
    }

    /// Numbers given for each layer: those of the edit's layers.
    fn expand_by_layer(
        &self,
        edit: &mut Expanded,
        given: &BTreeMap<usize, Tensor>,
        part: &dyn Fn() -> String,
    ) -> Result<()> {
        let mut rows = Vec::with_capacity(edit.layers.len());
        for (layer, _) in &edit.layers {
            let Some(tensor) = layer.and_then(|layer| given.get(&layer)) else {
                let has: Vec<String> = given.keys().map(usize::to_string).collect();
                let of = match layer {
                    Some(layer) => format!("layer {layer}"),
                    None => format!("{}, which has no layers", edit.site.name()),
                };
                let problem = format!("the value has nothing for {of}; it has layers {}", has.join(", "));
                return Err(Error::part(part(), problem));
            };
            rows.push(self.constant(edit, tensor, part)?);
        }
        edit.value = ExpandedValue::Constant(rows);
        Ok(())
    }

    /// The same numbers for every layer.
    fn expand_constant(&self, edit: &mut Expanded, value: &Tensor, part: &dyn Fn() -> String) -> Result<()> {
        edit.value = ExpandedValue::Constant(vec![self.constant(edit, value, part)?]);
        Ok(())
    }

    /// A constant: one number, one row, or one row a position, on sites by head also one a head; as wide as
    /// the site or the subspace, or as all that is joint.
    fn constant(&self, edit: &Expanded, value: &Tensor, part: &dyn Fn() -> String) -> Result<Tensor> {
        let wrong = |problem: String| Error::part(part(), format!("the value {problem}"));
        let kind = edit.operation.kind;
        let value = value.to_dtype(DType::F32)?;
        let may_mask = edit.site == Site::AttentionScore && matches!(kind, OpKind::Swap | OpKind::Add);
        let numbers = value.flatten_all()?.to_vec1::<f32>()?;
        if let Some(x) = numbers.iter().find(|x| !(x.is_finite() || may_mask && **x == f32::NEG_INFINITY)) {
            let more = if edit.site == Site::AttentionScore { " or -inf" } else { "" };
            return Err(wrong(format!("holds {x}, where only finite numbers{more} fit")));
        }
        let is_direction = matches!(kind, OpKind::Clamp | OpKind::ProjectOut);
        let row = value.dims().last().copied().unwrap_or(1).max(1);
        if is_direction && numbers.chunks(row).any(|row| row.iter().all(|x| *x == 0.0)) {
            return Err(wrong("is zero, which is no direction".into()));
        }
        if value.rank() == 0 {
            return Ok(value);
        }
        let layout = edit.site.layout(self.model.config());
        let rows = match (value.dims(), layout) {
            ([_], _) => value.unsqueeze(0)?,
            ([_, _], _) => value,
            ([_, given, _], Layout::Heads { heads, .. }) => match &edit.heads {
                _ if *given == self.head_count(edit) => value,
                Some(named) if *given == heads => select(&value, 1, named)?,
                _ => {
                    let problem = format!("is of {given} heads, where {} fit", self.head_count(edit));
                    return Err(wrong(problem));
                }
            },
            (shape, _) => {
                return Err(wrong(format!("has shape {shape:?}, where a vector or one row a position fits")));
            }
        };
        let (count, width) = (rows.dim(0)?, rows.dim(D::Minus1)?);
        let full = self.width(edit.site, self.runs[edit.run.0].ids.len());
        let part_width = edit.dims.as_ref().map_or(full, |dims| dims.len());
        if let (1, 2, Some(joint)) = (count, rows.rank(), edit.operation.joint)
            && width == self.joint_width(edit, part_width)
        {
            let heads = self.head_count(edit);
            let (h, p) = match joint {
                Joint::Positions => (1, edit.positions.len()),
                Joint::Heads => (heads, 1),
                Joint::All => (heads, edit.positions.len()),
            };
            // Heads first, as the rows of the op have them.
            let block = rows.reshape((h, p, part_width))?.transpose(0, 1)?.contiguous()?;
            return Ok(if heads == 0 { rows.reshape((p, part_width))? } else { block });
        }
        if count != 1 && count != edit.positions.len() {
            let n = edit.positions.len();
            return Err(wrong(format!(
                "has {count} rows, where one fits, or one for each of the {n} positions"
            )));
        }
        let rows = match &edit.dims {
            Some(dims) if width == dims.len() => rows,
            Some(dims) if width == full => select(&rows, rows.rank() - 1, dims)?,
            None if width == full => rows,
            dims => {
                let fits =
                    dims.as_ref().map_or(format!("{full}"), |dims| format!("{} or {full}", dims.len()));
                return Err(wrong(format!("is {width} wide, where {} needs {fits}", edit.site.name())));
            }
        };
        // On head sites a row without heads serves every head: positions × 1 × width.
        let by_head = matches!(layout, Layout::Heads { .. });
        Ok(if by_head && rows.rank() == 2 { rows.unsqueeze(1)? } else { rows })
    }

    /// Activations of another run at some positions: site, layers, positions and heads paired with the edit's.
    fn expand_source(
        &self,
        edit: &mut Expanded,
        source: &Source,
        positions: Vec<usize>,
        part: &dyn Fn() -> String,
    ) -> Result<()> {
        let wrong = |problem: String| Error::part(part(), problem);
        if source.run == edit.run {
            let hint = "declare another run with the same prompt for its unedited activations".to_string();
            return Err(Error::hinted(part(), "takes its value from the run it edits", Some(hint)));
        }
        let site = source.site.unwrap_or(edit.site);
        self.check_rows(edit, source, site, part)?;
        self.check_site(site).within(part)?;
        let layers = self.source_layers(edit, source, site, part)?;
        let layers = paired("layer", &layers, edit.layers.len()).map_err(wrong)?;
        edit.layers = edit.layers.iter().zip(layers).map(|((ours, _), theirs)| (*ours, theirs)).collect();

        check_count("position", positions.len(), edit.positions.len()).map_err(wrong)?;
        let heads = self.source_heads(edit, source, site, part)?;
        edit.value = ExpandedValue::Run { run: source.run, site, positions: positions.into(), heads };
        Ok(())
    }

    /// That rows of a site of another run are as wide as those of the edit.
    fn check_rows(
        &self,
        edit: &Expanded,
        source: &Source,
        site: Site,
        part: &dyn Fn() -> String,
    ) -> Result<()> {
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
            return Err(Error::part(part(), problem));
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
        Ok(())
    }

    /// The layers that a value is from: those it names, or the edit's.
    fn source_layers(
        &self,
        edit: &Expanded,
        source: &Source,
        site: Site,
        part: &dyn Fn() -> String,
    ) -> Result<Vec<Option<usize>>> {
        let wrong = |why: &str| Err(Error::part(part(), format!("its value is from {}, {why}", site.name())));
        match (&source.layers, site.is_in_block()) {
            (Some(layers), true) => self.layers(site, Some(layers), Indices::resolve_any).within(part),
            (None, true) if edit.site.is_in_block() => {
                Ok(edit.layers.iter().map(|(layer, _)| *layer).collect())
            }
            (None, true) => wrong("so the value needs layers"),
            (None, false) => Ok(vec![None]),
            (Some(_), false) => wrong("which has no layers"),
        }
    }

    /// The heads that a value is from: those it names, or the edit's.
    fn source_heads(
        &self,
        edit: &Expanded,
        source: &Source,
        site: Site,
        part: &dyn Fn() -> String,
    ) -> Result<Option<Arc<[usize]>>> {
        let check = |theirs: usize, ours: usize| {
            check_count("head", theirs, ours).map_err(|problem| Error::part(part(), problem))
        };
        match (&source.heads, &edit.heads) {
            (Some(heads), _) => {
                let heads = self.heads(site, Some(heads), Indices::resolve_any).within(part)?;
                let all = self.heads(edit.site, Some(&Indices::All), Indices::resolve).within(part)?;
                let count = edit.heads.as_ref().or(all.as_ref()).map_or(0, |heads| heads.len());
                check(heads.as_ref().map_or(0, |heads| heads.len()), count)?;
                Ok(heads)
            }
            // The same heads, which a site with fewer of them may lack.
            (None, Some(heads)) => {
                let list = Indices::from(heads.to_vec());
                self.heads(site, Some(&list), Indices::resolve).within(part)
            }
            (None, None) => {
                let count = |site: Site| match site.layout(self.model.config()) {
                    Layout::Heads { heads, .. } | Layout::Attention { heads } => heads,
                    Layout::Rows { .. } => 0,
                };
                check(count(site), count(edit.site))?;
                Ok(None)
            }
        }
    }

    /// What enters the module whose output is edited: the run's own activations, at the same positions.
    fn expand_input(&self, edit: &mut Expanded, part: &dyn Fn() -> String) -> Result<()> {
        const MODULES: [Site; 3] = [Site::BlockOutput, Site::AttentionOutput, Site::MlpOutput];
        let block = &self.model.config().block;
        let input = match edit.site {
            Site::BlockOutput => Some(Site::BlockInput),
            site if MODULES.contains(&site) => {
                block.find(site).and_then(|output| block[block.module_input(output)].site)
            }
            _ => None,
        };
        match input {
            Some(input) => {
                edit.value = ExpandedValue::Input(input);
                Ok(())
            }
            None => {
                let outputs = MODULES.map(Site::name).join(", ");
                let problem =
                    format!("op \"skip\" is for the output of a module: {outputs}; not {}", edit.site.name());
                Err(Error::part(part(), problem))
            }
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
