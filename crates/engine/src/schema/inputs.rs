//! What a program gives beside an experiment that it writes: tensors and closures by name, and examples.

use crate::experiment::dataset::Example;
use crate::op::{Custom, Op, OpKind};
use crate::{Error, Result};
use candle_core::Tensor;
use causalcone_model::nearest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Tensors and closures that edits name: `value = { given = "v" }`, `parameters = { rotation = { given = "r" } }`,
/// `op = { given = "f" }`. No file can hold them: they are in the memory of the program that wrote the experiment.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use causalcone_engine::ExperimentFile;
/// use causalcone_model::Model;
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut file = ExperimentFile::from_json(r#"{
///     "runs": {"base": {"ids": [3, 1, 4]}},
///     "edit": [{"site": "mlp_output", "layers": 0, "op": "add", "value": {"given": "v"}}]
/// }"#)?;
/// let error = file.experiment(&model).unwrap_err().to_string();
/// assert!(error.contains("no tensor \"v\" is given"), "{error}");
/// file.inputs.tensors.insert("v".into(), Tensor::ones(model.config().width, candle_core::DType::F32, &Device::Cpu)?);
/// file.experiment(&model)?.execute()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct Inputs {
    /// Values and parameters.
    pub tensors: BTreeMap<String, Tensor>,
    /// Ops.
    pub closures: BTreeMap<String, Custom>,
    /// The data set, in place of a file's.
    pub examples: Option<Vec<Example>>,
}

/// `{ given = "NAME" }`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenFile {
    /// The name by which the program gives it.
    pub given: String,
}

impl Inputs {
    /// The tensor of that name.
    pub(crate) fn tensor(&self, name: &str, part: &str) -> Result<Tensor> {
        self.tensors.get(name).cloned().ok_or_else(|| lacks("tensor", name, self.tensors.keys(), part))
    }

    /// The op that is the closure of that name.
    pub(crate) fn op(&self, name: &str, part: &str) -> Result<Op> {
        let found = self.closures.get(name).cloned();
        let custom = found.ok_or_else(|| lacks("closure", name, self.closures.keys(), part))?;
        Ok(Op { custom: Some(custom), ..Op::new(OpKind::Custom) })
    }
}

fn lacks<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a String> + Clone, part: &str) -> Error {
    let hint = match nearest(name, known.clone().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None => {
            "given is for programs, which hold what they give in memory; write file = \"…\" in a file".into()
        }
    };
    let known: Vec<&str> = known.map(String::as_str).collect();
    let has = if known.is_empty() { "none is".to_owned() } else { format!("given: {}", known.join(", ")) };
    Error::hinted(part, format!("no {what} \"{name}\" is given; {has}"), Some(hint))
}

impl fmt::Debug for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        let (tensors, closures) =
            (names(self.tensors.keys().collect()), names(self.closures.keys().collect()));
        let examples = self.examples.as_ref().map(Vec::len);
        let mut given = f.debug_struct("Inputs");
        given.field("tensors", &tensors).field("closures", &closures).field("examples", &examples).finish()
    }
}

/// The same objects under the same names.
impl PartialEq for Inputs {
    fn eq(&self, other: &Self) -> bool {
        let tensors =
            |given: &Self| given.tensors.iter().map(|(n, t)| (n.clone(), t.id())).collect::<Vec<_>>();
        let same = |(a, b): (&Custom, &Custom)| Arc::ptr_eq(a, b);
        tensors(self) == tensors(other)
            && self.examples == other.examples
            && self.closures.keys().eq(other.closures.keys())
            && self.closures.values().zip(other.closures.values()).all(same)
    }
}
