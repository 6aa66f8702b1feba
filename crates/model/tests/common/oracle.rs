//! The values of every site that transformers gives, and how far ours are from them.
#![allow(dead_code, reason = "each test binary uses its own part")]

use candle_core::{DType, Device, Tensor};
use causalcone_model::decoder::Tap;
use causalcone_model::{Error, Model, Site};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn load(name: &str) -> Model {
    Model::load(fixtures().join(name).to_str().unwrap()).unwrap()
}

/// Keeps the tensor of every site, under the name the fixtures give it.
#[derive(Default)]
pub struct Record(pub BTreeMap<String, Tensor>);

impl Tap for Record {
    type Error = Error;

    fn at(&mut self, site: Site, layer: Option<usize>, x: Tensor) -> Result<Tensor, Error> {
        let name = match layer {
            Some(layer) => format!("{}.{layer}", site.name()),
            None => site.name().into(),
        };
        self.0.insert(name, x.clone());
        Ok(x)
    }
}

pub type Cases = BTreeMap<String, BTreeMap<String, Vec<u32>>>;

/// What a JSON fixture holds.
pub fn json<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(fixtures().join(name)).unwrap()).unwrap()
}

pub fn expected(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixtures().join(format!("{name}.sites.safetensors")), &Device::Cpu)
        .unwrap()
}

/// The largest |Δ| / (1e-5 + 1e-5·|x|): at most 1 where we agree. Ours is f32 arithmetic, a few
/// hundred roundings of 6e-8 deep; the oracle's is f64.
pub fn distance(ours: &Tensor, theirs: &Tensor) -> f64 {
    assert_eq!(ours.dims(), theirs.dims());
    let values =
        |x: &Tensor| x.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let apart = |(a, b): (f64, f64)| {
        // −inf above the diagonal of scores: the fixtures have zeros there.
        if a == f64::NEG_INFINITY { 0.0 } else { (a - b).abs() / (1e-5 + 1e-5 * b.abs()) }
    };
    let ratios: Vec<f64> = values(ours).into_iter().zip(values(theirs)).map(apart).collect();
    assert!(ratios.iter().all(|r| !r.is_nan()));
    ratios.into_iter().fold(0.0, f64::max)
}

/// The worst distance over some cases and all their sites, with the name of the site. `name` is that of the fixtures.
pub fn worst(model: &Model, name: &str, cases: &BTreeMap<String, Vec<u32>>) -> (f64, String) {
    let expected = expected(name);
    let mut worst = (0.0, String::new());
    let mut compared = 0;
    for (case, ids) in cases {
        let mut record = Record::default();
        model.decoder().unwrap().forward(ids, &mut record).unwrap();
        // Of long cases the fixtures have some sites only.
        let is_whole = expected.contains_key(&format!("{case}/mlp_output.0"));
        for (site, ours) in &record.0 {
            let key = format!("{case}/{site}");
            let Some(theirs) = expected.get(&key) else {
                assert!(!is_whole, "no fixture for {key}");
                continue;
            };
            compared += 1;
            let distance = distance(ours, theirs);
            if distance > worst.0 {
                worst = (distance, key);
            }
        }
    }
    assert_eq!(compared, expected.len(), "{name}: every tensor of the fixture is one of our sites");
    worst
}

/// A copy of a fixture directory.
pub fn unchanged(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixtures().join(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

/// A copy of a fixture directory in which one tensor is changed, or removed for `None`.
pub fn with_tensor(
    name: &str,
    tensor: &str,
    change: impl Fn(&Tensor) -> Option<Tensor>,
) -> tempfile::TempDir {
    let folder = unchanged(name);
    let source = fixtures().join(name);
    let mut tensors = candle_core::safetensors::load(source.join("model.safetensors"), &Device::Cpu).unwrap();
    match change(&tensors[tensor]) {
        Some(changed) => tensors.insert(tensor.into(), changed),
        None => tensors.remove(tensor),
    };
    candle_core::safetensors::save(&tensors, folder.path().join("model.safetensors")).unwrap();
    folder
}

/// A copy of a fixture directory with one key of config.json changed; `Null` removes it.
pub fn with_key(name: &str, key: &str, value: serde_json::Value) -> tempfile::TempDir {
    with_config(name, |config| match value {
        serde_json::Value::Null => drop(config.remove(key)),
        value => drop(config.insert(key.into(), value)),
    })
}

/// A copy of a fixture directory with another config.json.
pub fn with_config(
    name: &str,
    change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>),
) -> tempfile::TempDir {
    let folder = unchanged(name);
    let path = folder.path().join("config.json");
    let mut config = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(&path, serde_json::to_vec(&config).unwrap()).unwrap();
    folder
}
