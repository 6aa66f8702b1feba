//! The axes of a sweep: which part of the swept edits each cell takes, and where it stands.

use crate::bounds;
use crate::compile::resolve::{Expanded, LayerPlaces, Resolver, Selection};
use crate::experiment::Experiment;
use crate::experiment::sweep::{Each, LayerAxis, Sweep};
use crate::ids::EditId;
use crate::op::Op;
use crate::plan::{AxisChoices, Coordinates, Place};
use crate::{Error, Result};
use std::collections::HashSet;
use std::ops::Range;

/// The axes at one site. `None` on an axis is everything the edits list, together.
pub(crate) struct Axes {
    /// The swept edits at this site.
    pub(crate) moving: Vec<Expanded>,
    accumulates: bool,
    layers: Vec<Option<Range<usize>>>,
    heads: Vec<Option<usize>>,
    positions: Vec<Option<usize>>,
    scales: Vec<Option<f64>>,
}

impl Experiment<'_> {
    /// The axes of a sweep, site by site, checked.
    pub(crate) fn axes(&self, sweep: &Sweep, edits: &[EditId], expanded: &[Expanded]) -> Result<Vec<Axes>> {
        distinct("sites", sweep.sites.iter().map(|site| format!("\"{}\"", site.name())))?;
        distinct("scales", sweep.scales.iter().map(f64::to_string))?;
        distinct("metrics", sweep.metrics.iter().map(|metric| format!("\"{}\"", metric.name())))?;
        self.check_scales(sweep, edits)?;
        let at_sites: Vec<Vec<Expanded>> = if sweep.sites.is_empty() {
            vec![edits.iter().map(|edit| expanded[edit.0].clone()).collect()]
        } else {
            let at = |site| {
                let at_site = |edit: &EditId| Resolver { site, ..self.resolver(*edit) }.expand();
                edits.iter().map(at_site).collect::<Result<_>>()
            };
            sweep.sites.iter().copied().map(at).collect::<Result<_>>()?
        };
        at_sites.into_iter().map(|moving| Axes::new(sweep, moving)).collect()
    }

    /// That scales can be set, and that an edit they move uses them.
    pub(crate) fn check_scales(&self, sweep: &Sweep, edits: &[EditId]) -> Result<()> {
        let (scales, ops) = (&sweep.scales, || edits.iter().map(|edit| &self.edits[edit.0].op));
        // Arithmetic is f32: a scale must be finite there.
        if let Some(scale) = scales.iter().find(|scale| !(**scale as f32).is_finite()) {
            return Err(Error::part("sweep", format!("scale {scale} is not a finite number")));
        }
        let is_noise = ops().any(Op::is_drawn_noise);
        if let (Some(level), true) = (scales.iter().find(|s| **s < 0.0), is_noise) {
            let problem =
                format!("scale {level} is negative, where the level of noise is a standard deviation");
            return Err(Error::part("sweep", problem));
        }
        if !scales.is_empty() && ops().all(|op| !op.kind.info().takes_scale) {
            return Err(Error::part(
                "sweep",
                "scales need an op with a scale: add, subtract, noise or scale",
            ));
        }
        Ok(())
    }

    /// How many samples of noise there are; `None` where samples are not swept.
    pub(crate) fn samples(&self, sweep: &Sweep) -> Result<Option<usize>> {
        let has_noise = self.edits.iter().any(|edit| edit.op.is_drawn_noise());
        match sweep.samples {
            Some(_) if !has_noise => {
                let hint = Some("add an edit with op = \"noise\", or leave samples out".into());
                Err(Error::hinted("sweep", "samples are of noise, and no edit has any", hint))
            }
            samples => samples.map(|samples| bounds::SWEEP_SAMPLES.check(samples)).transpose(),
        }
    }
}

/// Checks how many cells there are over all examples.
pub(crate) fn check_size(cells: u128) -> Result<usize> {
    let most = bounds::CELLS;
    match usize::try_from(cells) {
        Ok(count) if cells <= most => Ok(count),
        _ => {
            let problem = format!("has {cells} cells, which is past the {most} one sweep may have");
            let hint = "sweep fewer layers, positions, heads, scales, samples or examples".into();
            Err(Error::hinted("sweep", problem, Some(hint)))
        }
    }
}

impl Axes {
    fn new(sweep: &Sweep, moving: Vec<Expanded>) -> Result<Self> {
        let head_count = |places: &LayerPlaces| places.heads.as_ref().map_or(0, |heads| heads.len());
        let heads = choices("heads", sweep.heads, &moving, head_count)?;
        let positions = choices("positions", sweep.positions, &moving, |places| places.positions.len())?;
        let layers = layer_choices(sweep.layers, &moving)?;
        let scales = match sweep.scales.as_slice() {
            [] => vec![None],
            scales => scales.iter().copied().map(Some).collect(),
        };
        let accumulates = sweep.layers == Some(LayerAxis::Cumulative);
        Ok(Self { moving, accumulates, layers, heads, positions, scales })
    }

    pub(crate) fn count(&self) -> u128 {
        let lens = [self.layers.len(), self.heads.len(), self.positions.len(), self.scales.len()];
        lens.iter().map(|n| *n as u128).product()
    }

    /// The cell of that number at the site of that number: layers outermost, then heads, positions, scales.
    pub(crate) fn choice(&self, site: usize, number: usize) -> (Selection, AxisChoices) {
        let (rest, scale) = (number / self.scales.len(), number % self.scales.len());
        let (rest, position) = (rest / self.positions.len(), rest % self.positions.len());
        let (rest, head) = (rest / self.heads.len(), rest % self.heads.len());
        let layers = rest % self.layers.len();
        let choice = Selection {
            layers: self.layers[layers].clone(),
            position: self.positions[position],
            head: self.heads[head],
            scale: self.scales[scale],
        };
        (choice, AxisChoices { site, layers, head, position, scale })
    }

    /// Where a cell stands among those of its example and sample: a column holds a value only if it
    /// is the same for all that is edited.
    pub(crate) fn coordinates(&self, choice: &Selection, point: AxisChoices) -> Coordinates {
        let moving: Vec<Vec<Place>> = self.moving.iter().map(|edit| edit.places.chosen(choice)).collect();
        let all = || moving.iter().flatten();
        let layers_of = |places: &Vec<Place>| places.iter().filter_map(|place| place.layer).collect();
        Coordinates {
            example: None,
            sample: None,
            point,
            site: one(all().map(|place| place.site)),
            layer: if self.accumulates {
                one(moving.iter().filter_map(|places| places.last()?.layer))
            } else {
                one(all().filter_map(|place| place.layer))
            },
            layers: moving.first().map(layers_of).unwrap_or_default(),
            head: one(all().filter_map(|place| place.heads.as_deref()).flatten().copied()),
            position: one(all().flat_map(|place| &*place.positions).copied()),
            scale: one(self.moving.iter().filter_map(|edit| edit.scale(choice))),
        }
    }
}

/// What all of these are.
pub(crate) fn one<T: PartialEq + Clone>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values = values.into_iter();
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// Two equal points of an axis would be two rows for one cell.
pub(crate) fn distinct(key: &str, mut names: impl Iterator<Item = String>) -> Result<()> {
    let mut seen = HashSet::new();
    match names.find(|name| !seen.insert(name.clone())) {
        Some(name) => Err(Error::part("sweep", format!("{key} lists {name} twice"))),
        None => Ok(()),
    }
}

/// The layers of each cell, as a stretch of the edits' lists.
fn layer_choices(axis: Option<LayerAxis>, moving: &[Expanded]) -> Result<Vec<Option<Range<usize>>>> {
    let Some(axis) = axis else { return Ok(vec![None]) };
    if let Some(edit) = moving.iter().find(|edit| !edit.places.site.is_in_block()) {
        return Err(Error::part("sweep", format!("{} has no layers to sweep", edit.places.site.name())));
    }
    let n = common("layers", moving, |places| places.layers.len())?;
    Ok(match axis {
        LayerAxis::Each => (0..n).map(|i| Some(i..i + 1)).collect(),
        LayerAxis::Cumulative => (0..n).map(|i| Some(0..i + 1)).collect(),
        LayerAxis::Window(width) if (1..=n).contains(&width) => {
            (0..=n - width).map(|i| Some(i..i + width)).collect()
        }
        LayerAxis::Window(width) => {
            let problem = format!("a window of {width} layers does not fit the {n} the edit lists");
            return Err(Error::part("sweep", problem));
        }
    })
}

/// An axis over positions or heads: each in turn, or all together.
fn choices(
    what: &str,
    each: Option<Each>,
    moving: &[Expanded],
    len: impl Fn(&LayerPlaces) -> usize,
) -> Result<Vec<Option<usize>>> {
    if each.is_none() {
        return Ok(vec![None]);
    }
    match common(what, moving, len)? {
        0 => {
            let problem =
                format!("{what} = \"each\" needs an edit that lists {what}, such as {what} = \"all\"");
            Err(Error::part("sweep", problem))
        }
        n => Ok((0..n).map(Some).collect()),
    }
}

/// The length all moving edits' lists have.
fn common(what: &str, moving: &[Expanded], len: impl Fn(&LayerPlaces) -> usize) -> Result<usize> {
    let lens: Vec<usize> = moving.iter().map(|edit| len(&edit.places)).collect();
    if lens.iter().all(|n| *n == lens[0]) {
        return Ok(lens[0]);
    }
    let problem = format!("edits that move together must list as many {what}; these list {lens:?}");
    Err(Error::part("sweep", problem))
}
