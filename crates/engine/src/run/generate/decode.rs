//! Decode steps: one more position of many texts at once, over the keys and values of those before it.

use super::compile::{Growing, TextVersion};
use super::continuation::{Continuation, End};
use super::options::Generation;
use super::text::Text;
use crate::execute::{Runtime, run_cells};
use crate::plan::{Cell, Edit, Plan, Read, TensorKey};
use crate::reading::Reading;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use causalcone_model::decoder::{Attention, Causal, Tap};
use causalcone_model::stage::Attention as Stages;
use causalcone_model::{Config, Model, Site};
use causalcone_ops::{Query, Standing, Stretch, replace, softmax};
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// A text as it grows.
pub(super) struct Live<'g, 'm> {
    pub(super) growing: &'g Growing<'m>,
    pub(super) version: TextVersion,
    pub(super) sample: usize,
    /// The new tokens.
    pub(super) ids: Vec<u32>,
    pub(super) end: Option<End>,
    pub(super) text: Text<'m>,
    logprobs: Vec<f64>,
    /// The most rows it can have.
    capacity: usize,
    /// Its first row in the tables.
    start: usize,
    taken: Taken,
}

/// What decode edits take from other runs, by the number of the edit and the tensor it is from.
type Taken = HashMap<(usize, TensorKey), Tensor>;

impl<'g, 'm> Live<'g, 'm> {
    pub(super) fn new(
        growing: &'g Growing<'m>,
        version: TextVersion,
        sample: usize,
        options: &Generation,
    ) -> Self {
        let model = growing.experiment().model;
        let prompt = growing.prompt();
        let capacity = prompt.len().saturating_add(options.max_tokens).min(model.config().context);
        Self {
            growing,
            version,
            sample,
            ids: Vec::new(),
            end: None,
            text: Text::new(model, prompt),
            logprobs: Vec::new(),
            capacity,
            start: 0,
            taken: Taken::new(),
        }
    }

    /// Of its keys and values.
    pub(super) fn bytes(&self) -> usize {
        let config = self.growing.experiment().model.config();
        let row = 2 * attentions(config).count() * config.kv_heads * config.head_dim * size_of::<f32>();
        row.saturating_mul(self.capacity)
    }

    /// Which numbers are drawn for it.
    pub(super) fn stream(&self) -> u64 {
        ((self.growing.example().unwrap_or(0) as u64) << 32) | self.sample as u64
    }

    /// Takes in the token that comes next.
    pub(super) fn push(&mut self, id: u32, logprob: f64, options: &Generation) {
        let model = self.growing.experiment().model;
        let is_eos = options.eos && model.eos_ids().is_ok_and(|ends| ends.contains(&id));
        self.ids.push(id);
        self.logprobs.push(logprob);
        let said = self.ids.len() - usize::from(is_eos);
        let is_stopped = self.text.update(&self.ids[..said], &options.stop);
        let len = self.growing.prompt().len() + self.ids.len();
        self.end = if is_eos {
            Some(End::Eos)
        } else if is_stopped {
            Some(End::Stop)
        } else if self.ids.len() == options.max_tokens {
            Some(End::MaxTokens)
        } else if len > model.config().context {
            Some(End::Context)
        } else {
            None
        };
    }

    /// Whether the next pass turns all rows by other angles than those before it did.
    pub(super) fn turns(&self) -> bool {
        self.growing.turns(self.growing.prompt().len() + self.ids.len())
    }

    pub(super) fn into_continuation(self) -> Continuation {
        Continuation {
            example: self.growing.example(),
            scale: self.growing.scale(),
            sample: self.sample,
            text: self.text.into_text(),
            ids: self.ids,
            logprobs: self.logprobs,
            end: self.end.unwrap_or(End::Interrupted),
        }
    }

    /// What is edited in the pass that takes in its last token.
    fn edits(&self) -> Result<Vec<Arc<Edit>>> {
        if self.version == TextVersion::Original {
            return Ok(Vec::new());
        }
        // A value from another run is known by the number of its edit: see `Taken`.
        self.growing.edits(&self.ids, self.ids.len() - 1, Some)
    }
}

/// Every attention of a model, by its layer.
fn attentions(config: &Config) -> impl Iterator<Item = (usize, Stages)> + '_ {
    (0..config.layers).flat_map(|layer| config.block.attentions().iter().map(move |stages| (layer, *stages)))
}

/// Keys as scores see them, and values, of all texts: a table for each attention, of which each text has a stretch.
pub(super) struct Stepper<'m> {
    model: &'m Model,
    keys: Vec<Tensor>,
    values: Vec<Tensor>,
}

impl<'m> Stepper<'m> {
    pub(super) fn new(lives: &mut [Live<'_, 'm>]) -> Result<Self> {
        let Some(first) = lives.first() else { return Err(Error::part("generate", "there is no run")) };
        let model = first.growing.experiment().model;
        let config = model.config();
        let mut rows = 0;
        for live in lives {
            live.start = rows;
            rows += live.capacity;
        }
        let table = || Tensor::zeros((rows, config.kv_heads * config.head_dim), DType::F32, &Device::Cpu);
        let tables = || attentions(config).map(|_| table()).collect::<candle_core::Result<Vec<_>>>();
        Ok(Self { model, keys: tables()?, values: tables()? })
    }

    /// Which tables are those of an attention.
    fn tables(&self, layer: usize, stages: &Stages) -> Result<usize> {
        let of_block = self.model.config().block.attentions();
        let found = of_block.iter().position(|other| other == stages);
        let found = found.map(|place| layer * of_block.len() + place);
        found.ok_or_else(|| Error::internal("a decode step names an attention that the model does not have"))
    }

    /// The logits of the next token of each of these texts, after the pass that takes in its last one.
    pub(super) fn step(&mut self, lives: &[Live<'_, 'm>], rows: &[usize]) -> Result<Vec<Vec<f32>>> {
        let mut pass = DecodePass {
            config: self.model.config(),
            positions: Vec::new(),
            taken: Vec::new(),
            edits: HashMap::new(),
            own: HashSet::new(),
            before: HashMap::new(),
        };
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        for (row, index) in rows.iter().enumerate() {
            let live = &lives[*index];
            ids.extend(live.ids.last());
            starts.push(live.start);
            pass.taken.push(&live.taken);
            pass.positions.push(live.growing.prompt().len() + live.ids.len() - 1);
            for edit in live.edits()? {
                let own = edit.source().filter(|(run, _)| run.is_none());
                pass.own.extend(own.map(|(_, place)| place.tensor()));
                pass.edits.entry(edit.place.tensor()).or_default().push((row, edit));
            }
        }
        let standing = pass.positions.iter().map(|&position| Standing { position, length: position + 1 });
        let mut cached = Cached { stepper: self, standing: standing.collect(), starts };
        let decoder = cached.stepper.model.decoder()?;
        let x = decoder.embed(&ids, &pass.positions)?;
        // Products of a few rows are short. On a thread that shares their work there is one less to wake for each of them.
        let logits = rayon::scope(|_| decoder.walk(x, &mut cached, &mut pass))?;
        Ok(logits.to_vec2()?)
    }
}

/// One decode step of many texts: a row each.
struct DecodePass<'a> {
    config: &'a Config,
    positions: Vec<usize>,
    /// By row.
    taken: Vec<&'a Taken>,
    /// By tensor, in file order for each row.
    edits: HashMap<TensorKey, Vec<(usize, Arc<Edit>)>>,
    /// What edits take from their own run.
    own: HashSet<TensorKey>,
    before: HashMap<TensorKey, Tensor>,
}

impl DecodePass<'_> {
    /// Edits one text's part of a tensor.
    fn edit(&self, row: usize, edit: &Edit, x: &Tensor) -> Result<Tensor> {
        let value = edit.value_from(|number, place| {
            let found = match number {
                Some(number) => self.taken[row].get(&(number, place.tensor())).cloned(),
                None => {
                    let before = self.before.get(&place.tensor());
                    let own = before.map(|x| place.take_of_rows(&x.narrow(0, row, 1)?, self.config));
                    own.transpose()?
                }
            };
            found.ok_or_else(|| {
                Error::internal("an edit of a decode step takes a tensor that is not there yet")
            })
        })?;
        let apply = |block: &Tensor| edit.op.apply(edit.scale, block, value.as_ref());
        edit.place.edit_of_rows(x, &self.positions[row..=row], self.config, apply)
    }

    /// The same of a matrix of its attention, heads × 1 × keys.
    fn matrix(&self, row: usize, key: Option<TensorKey>, mut x: Tensor) -> Result<Tensor> {
        let edits = key.and_then(|key| self.edits.get(&key));
        for (_, edit) in edits.into_iter().flatten().filter(|(of, _)| *of == row) {
            x = self.edit(row, edit, &x)?;
        }
        Ok(x)
    }
}

impl Tap for DecodePass<'_> {
    type Error = Error;

    fn at(&mut self, site: Site, layer: Option<usize>, mut x: Tensor) -> Result<Tensor> {
        for (row, edit) in self.edits.get(&(site, layer)).into_iter().flatten() {
            let edited = self.edit(*row, edit, &x.narrow(0, *row, 1)?)?;
            x = if self.positions.len() == 1 { edited } else { replace(&x, 0, &[*row], &edited)? };
        }
        if self.own.contains(&(site, layer)) {
            self.before.insert((site, layer), x.clone());
        }
        Ok(x)
    }
}

/// Every row sees its own text: what the tables hold of it, and itself.
struct Cached<'s, 'm> {
    stepper: &'s mut Stepper<'m>,
    standing: Vec<Standing>,
    starts: Vec<usize>,
}

impl Attention<DecodePass<'_>> for Cached<'_, '_> {
    fn mix(
        &mut self,
        layer: usize,
        stages: &Stages,
        [query, key, value]: [&Tensor; 3],
        pass: &mut DecodePass<'_>,
    ) -> Result<Tensor> {
        let (model, config) = (self.stepper.model, self.stepper.model.config());
        let decoder = model.decoder()?;
        let block = &decoder.blocks()[layer];
        let rotation = decoder.rotation(layer, &self.standing)?;
        let query = block.seen_query(stages.scores, query, config, rotation.as_ref())?;
        let key = block.seen_key(stages.scores, key, config, rotation.as_ref())?.contiguous()?;
        let value = block.seen_value(value, config)?.contiguous()?;
        let tables = self.stepper.tables(layer, stages)?;
        let (keys, values) = (&self.stepper.keys[tables], &self.stepper.values[tables]);
        for (row, (start, standing)) in self.starts.iter().zip(&self.standing).enumerate() {
            keys.slice_set(&key.narrow(0, row, 1)?, 0, start + standing.position)?;
            values.slice_set(&value.narrow(0, row, 1)?, 0, start + standing.position)?;
        }
        let window = config.window(layer);
        let sites = [stages.scores, stages.weights].map(|stage| config.block[stage].site);
        let sites = sites.map(|site| site.map(|site| (site, Some(layer))));
        let is_matrix = |row: usize| {
            let edits = sites.iter().flatten().filter_map(|key| pass.edits.get(key)).flatten();
            edits.into_iter().any(|(of, _)| *of == row)
        };
        let mut ragged = decoder.ragged(layer);
        for (row, (start, standing)) in self.starts.iter().zip(&self.standing).enumerate() {
            let len = standing.position + 1;
            let oldest = window.map_or(0, |window| len.saturating_sub(window));
            let at = number(row);
            ragged.stretches.push(Stretch { start: number(*start), len: number(len) });
            ragged.queries.push(Query { row: at, stretches: at..at + 1, keys: number(oldest)..number(len) });
        }
        let mut mixed = Arc::new(ragged).attend(&query, keys, values)?;
        for row in (0..self.starts.len()).filter(|row| is_matrix(*row)) {
            let (start, position) = (self.starts[row], self.standing[row].position);
            let (keys, values) =
                (keys.narrow(0, start, position + 1)?, values.narrow(0, start, position + 1)?);
            let causal = Causal::new(&[position], 0..=position, window)?;
            let own_scores = causal.mask(&decoder.scores(layer, &query.narrow(0, row, 1)?, &keys)?)?;
            let scores = pass.matrix(row, sites[0], own_scores.clone())?;
            causal.check(&own_scores, &scores, layer)?;
            let weights = pass.matrix(row, sites[1], softmax(&scores)?)?;
            mixed = replace(&mixed, 0, &[row], &decoder.mix(&weights, &values)?)?;
        }
        Ok(mixed)
    }
}

/// An index of the tables: their size is bounded.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Computes all rows of these texts, as far as they have grown, puts their keys and values into the tables, and gives the
/// logits of the next token of each.
pub(super) fn prefill(
    stepper: &mut Stepper<'_>,
    runtime: &Runtime<'_>,
    lives: &mut [Live<'_, '_>],
    which: &[usize],
) -> Result<Vec<Vec<f32>>> {
    let (model, config) = (stepper.model, stepper.model.config());
    let mut plan = Plan::default();
    // Samples of a prompt have the same rows.
    type Prefix<'a> = (*const (), TextVersion, &'a [u32]);
    let mut prefixes: Vec<(Prefix<'_>, Vec<usize>)> = Vec::new();
    for index in which {
        let live = &lives[*index];
        let prefix = (std::ptr::from_ref(live.growing).cast(), live.version, live.ids.as_slice());
        match prefixes.iter_mut().find(|(other, _)| *other == prefix) {
            Some((_, of)) => of.push(*index),
            None => prefixes.push((prefix, vec![*index])),
        }
    }
    let prefixes: Vec<Vec<usize>> = prefixes.into_iter().map(|(_, of)| of).collect();
    let mut taken = Vec::new();
    for of in &prefixes {
        let live = &lives[of[0]];
        let placed = live.growing.place(&mut plan, live.version, &live.ids)?;
        let len = plan.runs[placed.run].ids.len();
        let mut reads = vec![Read::Logits { run: placed.run, position: len - 1, tokens: None }];
        for (layer, stages) in attentions(config) {
            for site in [stages.key, stages.value].into_iter().filter_map(|stage| config.block[stage].site) {
                reads.push(Read::Activation {
                    run: placed.run,
                    place: plan.whole((placed.run, site, Some(layer))),
                });
            }
        }
        let mut keys = Vec::new();
        for (number, run, place) in live.growing.taken(&placed)? {
            keys.push((number, place.tensor()));
            reads.push(Read::Activation { run, place });
        }
        taken.push(keys);
        plan.cells.push(Cell { reads, ..Cell::default() });
    }
    plan.shared = plan.runs.len();
    let cells: Vec<&Cell> = plan.cells.iter().collect();
    let readings = run_cells(runtime, model, &plan, &cells, &mut |_| ControlFlow::Continue(()))?;
    let missing = || Error::internal("a prompt gave fewer readings than were asked for");
    let mut logits: HashMap<usize, Vec<f32>> = HashMap::new();
    for ((of, readings), taken) in prefixes.iter().zip(readings).zip(taken) {
        let mut readings = readings.into_iter();
        let mut next = || match readings.next() {
            Some(Reading::Logits(x) | Reading::Activation(x)) => Ok(x),
            None => Err(missing()),
        };
        let row = next()?.to_vec1::<f32>()?;
        let length = lives[of[0]].growing.prompt().len() + lives[of[0]].ids.len();
        let standing: Vec<Standing> = (0..length).map(|position| Standing { position, length }).collect();
        let decoder = model.decoder()?;
        for (tables, (layer, stages)) in attentions(config).enumerate() {
            let block = &decoder.blocks()[layer];
            let rotation = decoder.rotation(layer, &standing)?;
            let key = block.seen_key(stages.scores, &next()?, config, rotation.as_ref())?.contiguous()?;
            let value = block.seen_value(&next()?, config)?.contiguous()?;
            for index in of {
                stepper.keys[tables].slice_set(&key, 0, lives[*index].start)?;
                stepper.values[tables].slice_set(&value, 0, lives[*index].start)?;
            }
        }
        let values = taken.into_iter().map(|key| Ok((key, next()?))).collect::<Result<Taken>>()?;
        for index in of {
            lives[*index].taken = values.clone();
            logits.insert(*index, row.clone());
        }
    }
    which.iter().map(|index| logits.remove(index).ok_or_else(missing)).collect()
}
