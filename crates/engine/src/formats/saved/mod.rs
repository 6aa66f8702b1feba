//! Interventions in folders: saved once, loaded anywhere the model is the same.
//!
//! A folder holds `intervention.json` ([`Description`]: what model it is for, the edits in the schema of
//! experiment files, how it was made, a self-test), `weights.safetensors` (the tensors the edits name, and no
//! others) and `README.md`, made from the first. An edit takes it by `op = { load = "FOLDER", name = "…" }`.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use causalcone_engine::{Runtime, Experiment, Op, OpKind, Saved};
//! use causalcone_model::{Last, Model, Site};
//!
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-llama-tied");
//! let model = Model::load(path)?;
//! let mut exp = Experiment::new(&model);
//! let base = exp.run("The capital of Spain is")?;
//! let direction = Tensor::arange(0f32, 32.0, &Device::Cpu)?;
//! exp.edit(base, Site::BlockOutput.layers(0).at(Last), Op::new(OpKind::ProjectOut).value(direction))?;
//!
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("ablation");
//! Saved::of(&exp, "an example", &Runtime::default())?.save(&path)?;
//! let test = Saved::open(&path)?.test(&model, &Runtime::default())?;
//! assert!(test.passed());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod card;
mod describe;
mod folder;
mod format;
mod intervention;
mod merge;
mod pyvene;
mod test;

pub use format::{BaseModel, DESCRIPTION, Description, Made, TestFile, Top, WEIGHTS};
pub use intervention::Saved;
pub(crate) use merge::merged;
pub use test::Tested;
pub(crate) use test::answer;
