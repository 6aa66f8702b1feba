//! `collect`: activations over a data set, as shards of tensors and a table of their rows.

use crate::args::CollectArgs;
use crate::failure::Failure;
use crate::folder::{Folder, Identity, Results, Summary, shown};
use crate::loaded::Loaded;
use crate::terminal::Terminal;
use candle_core::Tensor;
use causalcone::collection::{CollectedRead, Gathered};
use causalcone::{Collection, EditId, Error, KeyReport, Refused};
use causalcone_report::{Cell, ColumnKind, Table};
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

/// What was collected, for whoever reads the shards.
#[derive(Serialize)]
struct Record<'a> {
    causalcone: &'static str,
    experiment: &'a causalcone::ExperimentFile,
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

/// `causalcone collect`.
pub(crate) fn collect(args: &CollectArgs, terminal: &Terminal) -> Result<(), Failure> {
    let folder = Folder::claim(&args.out, args.again, Results::Collection)?;
    let loaded = Loaded::new(&args.file, terminal)?.at_date_of(&folder)?;
    let report = terminal.report();
    let runtime = args.memory.runtime(&loaded.model, &report);
    let (experiment, left_out) = loaded.single(&runtime, terminal)?;
    let collection = Collection::new(&experiment, args.shard.bytes())?;
    let first = collection.first()?;
    let names = Names::new(&first);
    // Shards are cut by their size, so that of another size they are others.
    let identity = loaded.identity(&experiment)?.with(&format!("{} bytes a shard", args.shard.bytes()));
    collection.check(&runtime)?;
    folder.open(&identity)?;
    let chunks = collection.chunks();
    let shards: Vec<String> =
        (0..chunks.len()).map(|chunk| format!("shard-{chunk:05}.safetensors")).collect();
    let mut resumed = 0;
    for (chunk, shard) in shards.iter().enumerate() {
        // A shard is there whole or not at all.
        if folder.file(shard).exists() {
            resumed += chunks[chunk].len();
            continue;
        }
        let gathered = match collection.gather(chunk, &runtime) {
            Err(Error::Interrupted) => {
                terminal.clear();
                return Err(Failure::interrupted("; finished shards are kept"));
            }
            gathered => gathered?,
        };
        let tensors = stacked(&names, &collection.taken(chunk)?, gathered)?;
        let bytes = safetensors::serialize(&tensors, None).map_err(|e| Failure::run(e.to_string()))?;
        folder.write(shard, |w| w.write_all(&bytes))?;
    }
    terminal.clear();
    let index = format!("index.{}", args.format.name());
    let table = index_of(&collection, &names, &shards, &loaded)?;
    folder.write(&index, |w| table.write(args.format, w))?;
    let record = Record {
        causalcone: env!("CARGO_PKG_VERSION"),
        experiment: &loaded.file,
        identity: &identity,
        model: loaded.model.name(),
        keys: loaded.model.key_report(),
        shards: &shards,
        tensors: &records(&first, &names, &experiment),
        errors: left_out.errors(),
    };
    folder.write("collection.json", |w| Ok(serde_json::to_writer_pretty(w, &record)?))?;
    let all = shards.iter().map(String::as_str).chain([index.as_str(), "collection.json"]);
    let summary = Summary {
        model: loaded.model.name().into(),
        out: shown(&args.out),
        examples: collection.len(),
        resumed,
        files: all.map(|name| folder.shown(name)).collect(),
        errors: left_out.errors(),
    };
    terminal.result(&summary, |summary| {
        let again = summary.before();
        let (examples, shards) = (summary.examples, shards.len());
        format!(
            "{examples} examples{again} in {shards} shards; {index} says which row is what\n  {}\n",
            summary.out
        )
    })?;
    left_out.into_result()
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
) -> Result<BTreeMap<String, Tensor>, Failure> {
    let mut parts: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    let mut read = gathered.into_iter().flat_map(|one| one.collected);
    for taken in taken {
        for place in &taken.places {
            let Some(collected) = read.next() else { return Err(Failure::run("less was read than planned")) };
            parts.entry(names.tensor(taken, place.layer)).or_default().push(collected.tensor);
        }
    }
    let stack = |(name, rows): (String, Vec<Tensor>)| {
        let whole = if rows.len() == 1 { rows[0].contiguous() } else { Tensor::cat(&rows, 0) };
        Ok((name, whole.map_err(causalcone::Error::from)?))
    };
    parts.into_iter().map(stack).collect()
}

/// One row for each row of the tensors of one edit; its layers have the same.
fn index_of(
    collection: &Collection<'_>,
    names: &Names,
    shards: &[String],
    loaded: &Loaded,
) -> Result<Table, Failure> {
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
                    id.map(|id| loaded.model.token_text(id)).into(),
                ];
                table.push(row)?;
                *counter += 1;
            }
        }
    }
    Ok(table)
}

fn records(
    all: &[CollectedRead<'_>],
    names: &Names,
    experiment: &causalcone::Experiment<'_>,
) -> Vec<TensorRecord> {
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
            gradient: taken.gradient.map(causalcone::Metric::name),
            layers: taken.places.iter().filter_map(|place| place.layer).collect(),
            heads: place.heads.as_deref().map(<[usize]>::to_vec),
            dims: place.dims.as_deref().map(<[usize]>::to_vec),
            axes: match place.site.layout(experiment.model().config()) {
                causalcone::Layout::Rows { .. } => "row, dimension",
                causalcone::Layout::Heads { .. } => "row, head, dimension",
                causalcone::Layout::Attention { .. } => {
                    "head, query position, key position; a tensor an example"
                }
            },
        });
    }
    records
}
