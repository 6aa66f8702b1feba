//! High-level causal models, and the counterfactual data they make.
//!
//! A [`CausalModel`] says how a task might be solved: variables with a few values each, inputs among them,
//! and every other one a function of its parents (Geiger et al. 2021). Interchange takes some variables'
//! values from another input; what the model then says is the label that a language model with the same
//! interchange made in its activations should give, if it solves the task so. [`CausalFile`] is a model in
//! writing with a prompt for its inputs, and draws data sets for `train` and `sweep`.
//!
//! ```
//! use causalcone_engine::causal::CausalModel;
//!
//! // Are the first two the same, and the last two; and are these two answers the same?
//! let mut model = CausalModel::new();
//! for input in ["a", "b", "c", "d"] {
//!     model.input(input, &["red", "blue"])?;
//! }
//! let same = |values: &[&str]| if values[0] == values[1] { "yes".into() } else { "no".into() };
//! model.variable("left", &["yes", "no"], &["a", "b"], same)?;
//! model.variable("right", &["yes", "no"], &["c", "d"], same)?;
//! model.variable("answer", &["yes", "no"], &["left", "right"], same)?;
//!
//! let base = model.run(&[("a", "red"), ("b", "red"), ("c", "red"), ("d", "red")])?;
//! let source = model.run(&[("a", "red"), ("b", "blue"), ("c", "red"), ("d", "red")])?;
//! assert_eq!(model.value(&base, "answer")?, "yes");
//! let swapped = model.interchange(&base, &[(&source, &["left"])])?;
//! assert_eq!((model.value(&swapped, "left")?, model.value(&swapped, "answer")?), ("no", "no"));
//! # Ok::<(), causalcone_engine::Error>(())
//! ```

mod data;
mod file;
mod model;

pub use data::{DataSet, Drawn};
pub use file::{CausalFile, FunctionFile, VariableFile};
pub use model::{CausalModel, Function, Setting};
