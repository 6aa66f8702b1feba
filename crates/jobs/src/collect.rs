//! Collections: activations over a data set, as shards of tensors and a table of their rows.
//!
//! ```
//! use causalcone_engine::{ExperimentFile, Runtime};
//! use causalcone_jobs::{Again, Folder, Results, Silent, Source, collect};
//! use causalcone_model::Model;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
//! # let place = tempfile::tempdir()?;
//! let model = Model::load(path)?;
//! let file = ExperimentFile::from_toml("
//!     [runs.base]
//!     ids = [3, 1, 4]
//!     [[edit]]
//!     site = 'block_output'
//!     layers = 0
//!     op = 'collect'
//! ")?;
//! let folder = Folder::claim(&place.path().join("out"), Results::Collection, Again::Refuse)?;
//! let options = collect::Options::default();
//! let collected = collect::run(&Source::new(&model, file), &folder, &options, &Runtime::default(), &Silent)?;
//! assert_eq!(collected.shards, ["shard-00000.safetensors"]);
//! assert!(std::fs::read_to_string(folder.file("index.csv"))?.contains("block_output"));
//! # Ok(())
//! # }
//! ```

use crate::error::{Error, Result};
use crate::folder::{Folder, shown};
use crate::identity::Identity;
use crate::observer::Observer;
use crate::record::Summary;
use crate::results::Results;
use crate::source::{LeftOut, Source};
use candle_core::Tensor;
use causalcone_engine::collection::{CollectedRead, Gathered};
use causalcone_engine::{
    Collection, EditId, Error as EngineError, Experiment, ExperimentFile, Metric, Refused, Runtime,
};
use causalcone_model::{KeyReport, Layout, Model};
use causalcone_report::{Cell, ColumnKind, Format, Table};
use serde::Serialize;
use std::collections::BTreeMap;

/// The columns of the index.
const COLUMNS: [(&str, ColumnKind); 7] = [
    ("shard", ColumnKind::Text),
    ("name", ColumnKind::Text),
    ("row", ColumnKind::Integer),
    ("example", ColumnKind::Integer),
    ("position", ColumnKind::Integer),
    ("id", ColumnKind::Integer),
    ("token", ColumnKind::Text),
];

/// What a tensor of the shards is.
#[derive(Debug, Clone, Serialize)]
struct TensorRecord {
    /// Its name, but for the layer and, of attention matrices, the example.
    name: String,
    run: String,
    site: &'static str,
    /// The metric it is the gradient of; left out for activations.
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient: Option<&'static str>,
    layers: Vec<usize>,
    heads: Option<Vec<usize>>,
    dims: Option<Vec<usize>>,
    /// What its axes are.
    axes: &'static str,
}

/// What was collected, for whoever reads the shards: `collection.json`.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a ExperimentFile,
    identity: &'a Identity,
    model: &'a str,
    /// Defaults that were taken, keys that were ignored.
    #[serde(skip_serializing_if = "KeyReport::is_empty")]
    keys: &'a KeyReport,
    shards: &'a [String],
    tensors: &'a [TensorRecord],
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Refused>>,
}

/// How activations are collected.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// About how many bytes a shard has, and what is held of it in memory.
    pub shard: u64,
    /// The format of the index.
    pub format: Format,
}

impl Default for Options {
    /// Shards of 64 MB, and an index in CSV.
    fn default() -> Self {
        Self { shard: 64_000_000, format: Format::default() }
    }
}

/// A finished collection.
#[derive(Debug)]
pub struct Outcome {
    /// What was done.
    pub summary: Summary,
    /// The names of the shards.
    pub shards: Vec<String>,
    /// The name of the index.
    pub index: String,
    /// The examples that were left out.
    pub left_out: LeftOut,
}

/// Collects into a folder that was claimed for it.
///
/// # Errors
/// When the experiment or the folder is refused, the work fails, or the caller asks to stop; finished shards are then in the
/// folder.
pub fn run(
    source: &Source<'_>,
    folder: &Folder,
    options: &Options,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<Outcome> {
    folder.must_be_for(Results::Collection)?;
    let source = source.at_date_of(folder)?;
    let (experiment, left_out) = source.single(runtime, observer)?;
    let collection = Collection::new(&experiment, options.shard)?;
    let first = collection.first()?;
    let names = Names::new(&first);
    // Shards are cut by their size, so that of another size they are others.
    let identity = source.identity(&experiment)?.with(&format!("{} bytes a shard", options.shard));
    collection.check(runtime)?;
    folder.open(&identity, observer)?;
    let shards: Vec<String> =
        (0..collection.chunks().len()).map(|chunk| format!("shard-{chunk:05}.safetensors")).collect();
    let resumed = write_shards(&collection, &names, &shards, folder, runtime, observer)?;
    let index = format!("index.{}", options.format.name());
    let table = index_of(&collection, &names, &shards, source.model)?;
    folder.write(&index, |w| table.write(options.format, w))?;
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &source.file,
        identity: &identity,
        model: source.model.name(),
        keys: source.model.key_report(),
        shards: &shards,
        tensors: &records(&first, &names, &experiment),
        errors: left_out.errors(),
    };
    folder.write_json(Results::Collection.last(), &record)?;
    let all = shards.iter().map(String::as_str).chain([index.as_str(), Results::Collection.last()]);
    let summary = Summary {
        model: source.model.name().into(),
        out: shown(folder.path()),
        examples: collection.len(),
        resumed,
        files: all.map(|name| folder.shown(name)).collect(),
        errors: left_out.errors(),
    };
    Ok(Outcome { summary, shards, index, left_out })
}

/// Writes the shards that are missing; returns how many examples the others are of.
fn write_shards(
    collection: &Collection<'_>,
    names: &Names,
    shards: &[String],
    folder: &Folder,
    runtime: &Runtime<'_>,
    observer: &dyn Observer,
) -> Result<usize> {
    let mut resumed = 0;
    for (chunk, shard) in shards.iter().enumerate() {
        // A shard is there whole or not at all.
        if folder.file(shard).exists() {
            resumed += collection.chunks()[chunk].len();
            continue;
        }
        let gathered = collection.gather(chunk, runtime).map_err(|error| {
            observer.finished();
            Error::keeping(error, "; finished shards are kept")
        })?;
        let tensors = stacked(names, &collection.taken(chunk)?, gathered)?;
        let bytes = safetensors::serialize(&tensors, None).map_err(Error::failed)?;
        folder.write(shard, |w| w.write_all(&bytes))?;
    }
    observer.finished();
    Ok(resumed)
}

/// What the edits' tensors are called: as the edit, or as its site where it has no name.
struct Names(BTreeMap<usize, String>);

impl Names {
    /// Of what one example, or more, has taken from it.
    fn new(all: &[CollectedRead<'_>]) -> Self {
        let mut names: BTreeMap<usize, String> = BTreeMap::new();
        for taken in all {
            let site = taken.places.first().map_or("", |place| place.site.name());
            let of_site = match taken.gradient {
                Some(_) => format!("{site}_gradient"),
                None => site.to_owned(),
            };
            let name = taken.name.unwrap_or(&of_site);
            let is_taken = names.values().any(|other| other == name);
            let name = if is_taken { format!("{name}.edit{}", taken.edit.index()) } else { name.into() };
            names.insert(taken.edit.index(), name);
        }
        Self(names)
    }

    fn of(&self, edit: EditId) -> &str {
        self.0.get(&edit.index()).map_or("", String::as_str)
    }

    /// The name of a tensor; attention matrices of each example are apart, since they differ in size.
    fn tensor(&self, taken: &CollectedRead<'_>, layer: Option<usize>) -> String {
        let mut name = self.of(taken.edit).to_owned();
        if let Some(layer) = layer {
            name += &format!(".{layer}");
        }
        if is_matrix(taken) {
            name += &format!(".{}", taken.example);
        }
        name
    }
}

fn is_matrix(taken: &CollectedRead<'_>) -> bool {
    taken.places.iter().any(|place| place.site.is_attention_matrix())
}

/// The tensors of a shard: rows of all its examples under one another.
fn stacked(
    names: &Names,
    taken: &[CollectedRead<'_>],
    gathered: Vec<Gathered>,
) -> Result<BTreeMap<String, Tensor>> {
    let mut parts: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    let mut read = gathered.into_iter().flat_map(|one| one.collected);
    for taken in taken {
        for place in &taken.places {
            let Some(collected) = read.next() else {
                return Err(Error::failed("less was read than planned"));
            };
            parts.entry(names.tensor(taken, place.layer)).or_default().push(collected.tensor);
        }
    }
    let stack = |(name, rows): (String, Vec<Tensor>)| {
        let whole = if rows.len() == 1 { rows[0].contiguous() } else { Tensor::cat(&rows, 0) };
        Ok((name, whole.map_err(EngineError::from)?))
    };
    parts.into_iter().map(stack).collect()
}

/// One row for each row of the tensors of one edit; its layers have the same.
fn index_of(collection: &Collection<'_>, names: &Names, shards: &[String], model: &Model) -> Result<Table> {
    let mut table = Table::new(COLUMNS.to_vec())?;
    for (chunk, shard) in shards.iter().enumerate() {
        let mut next: BTreeMap<String, usize> = BTreeMap::new();
        for taken in collection.taken(chunk)? {
            let Some(place) = taken.places.first() else { continue };
            let counter = next.entry(names.tensor(&taken, None)).or_default();
            for position in place.positions.iter() {
                let id = taken.ids.get(*position).copied();
                let row: Vec<Cell> = vec![
                    Some(shard.clone()).into(),
                    Some(names.tensor(&taken, None)).into(),
                    Some(*counter).into(),
                    Some(taken.example).into(),
                    Some(*position).into(),
                    id.map(|id| id as usize).into(),
                    id.map(|id| model.token_text(id)).into(),
                ];
                table.push(row)?;
                *counter += 1;
            }
        }
    }
    Ok(table)
}

fn records(all: &[CollectedRead<'_>], names: &Names, experiment: &Experiment<'_>) -> Vec<TensorRecord> {
    let mut records: Vec<TensorRecord> = Vec::new();
    for taken in all {
        let Some(place) = taken.places.first() else { continue };
        let name = names.of(taken.edit).to_owned();
        if records.iter().any(|other| other.name == name) {
            continue;
        }
        records.push(TensorRecord {
            name,
            run: experiment.run_name_of(taken.edit).to_owned(),
            site: place.site.name(),
            gradient: taken.gradient.map(Metric::name),
            layers: taken.places.iter().filter_map(|place| place.layer).collect(),
            heads: place.heads.as_deref().map(<[usize]>::to_vec),
            dims: place.dims.as_deref().map(<[usize]>::to_vec),
            axes: match place.site.layout(experiment.model().config()) {
                Layout::Rows { .. } => "row, dimension",
                Layout::Heads { .. } => "row, head, dimension",
                Layout::Attention { .. } => "head, query position, key position; a tensor an example",
            },
        });
    }
    records
}
