//! Which work a folder holds results of.

use causalcone_model::Precision;
use causalcone_model::chat::Date;
use causalcone_model::store::sha256_of;
use serde::{Deserialize, Serialize};

/// What must be the same for work to resume what was interrupted: `resume.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Hash of the experiment file's content, of its examples, and of the files it takes values from.
    pub file: String,
    /// Hash of the model.
    pub model: String,
    /// Version of causalcone.
    pub version: String,
    /// Seed of the first edit that is noise.
    pub seed: Option<u64>,
    /// How the weights are kept: packed ones give numbers that differ in the last digits.
    pub weights: Option<Precision>,
    /// The date that chat templates wrote into prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
}

/// The first field in which two identities differ, with both contents.
pub(crate) struct Difference {
    pub(crate) field: &'static str,
    pub(crate) now: String,
    pub(crate) earlier: String,
}

impl Identity {
    /// The first field in which this differs from an earlier one.
    pub(crate) fn difference(&self, earlier: &Self) -> Option<Difference> {
        let seed = |seed: Option<u64>| seed.map_or_else(|| "none".into(), |seed| seed.to_string());
        let weights =
            |weights: Option<Precision>| weights.map_or_else(|| "none".into(), |form| form.to_string());
        let date = |date: Option<Date>| date.map_or_else(|| "none".into(), |date| date.to_string());
        let fields = [
            ("file", self.file.clone(), earlier.file.clone()),
            ("model", self.model.clone(), earlier.model.clone()),
            ("version", self.version.clone(), earlier.version.clone()),
            ("seed", seed(self.seed), seed(earlier.seed)),
            ("weights", weights(self.weights), weights(earlier.weights)),
            ("date", date(self.date), date(earlier.date)),
        ];
        let mut differs = fields.into_iter().filter(|(_, now, earlier)| now != earlier);
        differs.next().map(|(field, now, earlier)| Difference { field, now, earlier })
    }

    /// The same work with something else that must be the same.
    pub(crate) fn with(self, more: &str) -> Self {
        Self { file: sha256_of(format!("{} {more}", self.file)), ..self }
    }

    pub(crate) fn hash(&self) -> String {
        let Self { file, model, version, seed, weights, date } = self;
        let mut text = format!("{file}\n{model}\n{version}\n{seed:?}\n{weights:?}");
        text.extend(date.iter().map(|date| format!("\n{date}")));
        sha256_of(text)
    }
}
