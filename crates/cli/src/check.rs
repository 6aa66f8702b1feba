//! `tour --check`: our numbers beside the published ones.

use crate::failure::Failure;
use causalcone::{Model, SweepResult, TokenRecord};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// pyvene's own answers on the same file of SmolLM2.
const SMOLLM2: &str = include_str!("../fixtures/smollm2_spain_italy.json");
/// What the tutorial's page shows for GPT-2. Its heat map was read back from the picture's colours,
/// to within 0.005; smaller values are given as 0.
const GPT2: &str = include_str!("../fixtures/gpt2_tutorial.json");

/// Numbers to compare with.
pub(crate) struct Published {
    base: Prompt,
    source: Prompt,
    add_all_mlp_last: Vec<Known>,
    cells: Vec<KnownCell>,
    /// How far a probability of a list may be off, and one of a heat map.
    tolerance: (f64, f64),
}

#[derive(Deserialize)]
struct Prompt {
    #[serde(default)]
    ids: Vec<u32>,
    top: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    token: String,
    prob: f64,
}

/// A published probability of one cell.
struct KnownCell {
    sweep: &'static str,
    site: String,
    layer: usize,
    position: usize,
    token: String,
    prob: f64,
}

/// How the comparison went.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    compared: usize,
    worst: f64,
    wrong: Vec<String>,
}

impl Check {
    pub(crate) fn failure(&self) -> Option<Failure> {
        let first = self.wrong.first()?;
        Some(Failure::run(format!(
            "{} of {} published numbers differ; the first: {first}",
            self.wrong.len(),
            self.compared
        )))
    }

    fn number(&mut self, what: &str, ours: Option<f64>, theirs: f64, tolerance: f64) {
        self.compared += 1;
        let ours = ours.unwrap_or(f64::NAN);
        let off = (ours - theirs).abs();
        self.worst = self.worst.max(off);
        if off.is_nan() || off > tolerance {
            self.wrong.push(format!("{what}: {ours:.6}, published {theirs:.6}"));
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict =
            if self.wrong.is_empty() { "all agree".into() } else { format!("{} differ", self.wrong.len()) };
        write!(
            f,
            "{} published numbers compared: {verdict}, the largest difference {:.1e}",
            self.compared, self.worst
        )
    }
}

impl Published {
    /// What is published for a model.
    pub(crate) fn for_model(name: &str) -> Result<Self, Failure> {
        let parsed = match name {
            "smollm2" => Self::smollm2(),
            "gpt2" | "openai-community/gpt2" => Self::gpt2(),
            other => {
                return Err(Failure::input(format!(
                    "--check: nothing is published for \"{other}\", only for smollm2 and gpt2"
                )));
            }
        };
        parsed.map_err(|e| Failure::run(format!("the published numbers cannot be read: {e}")))
    }

    fn smollm2() -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Grid {
            layers: Vec<usize>,
            /// By component and token: one row a layer, one number a position.
            prob: BTreeMap<String, BTreeMap<String, Vec<Vec<f64>>>>,
        }
        #[derive(Deserialize)]
        struct File {
            base: Prompt,
            source: Prompt,
            add_all_mlp_last: Vec<Known>,
            cumulative: Grid,
            swap: Grid,
        }
        let file: File = serde_json::from_str(SMOLLM2)?;
        let mut cells = Vec::new();
        for (sweep, grid) in [("cumulative", file.cumulative), ("swap", file.swap)] {
            for (site, tokens) in grid.prob {
                for (token, rows) in tokens {
                    for (layer, row) in grid.layers.iter().zip(rows) {
                        for (position, prob) in row.into_iter().enumerate() {
                            let (site, token, layer) = (site.clone(), token.clone(), *layer);
                            cells.push(KnownCell { sweep, site, layer, position, token, prob });
                        }
                    }
                }
            }
        }
        let (base, source, add_all_mlp_last) = (file.base, file.source, file.add_all_mlp_last);
        Ok(Self { base, source, add_all_mlp_last, cells, tolerance: (1e-4, 1e-4) })
    }

    fn gpt2() -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Cell {
            site: String,
            layer: usize,
            position: usize,
            token: String,
            prob: f64,
        }
        #[derive(Deserialize)]
        struct Added {
            top: Vec<Known>,
        }
        #[derive(Deserialize)]
        struct File {
            base: Prompt,
            source: Prompt,
            add_all_mlp_last: Added,
            cumulative: Vec<Cell>,
        }
        let file: File = serde_json::from_str(GPT2)?;
        let cell = |cell: Cell| KnownCell {
            sweep: "cumulative",
            site: cell.site,
            layer: cell.layer,
            position: cell.position,
            token: cell.token,
            prob: cell.prob,
        };
        let cells = file.cumulative.into_iter().map(cell).collect();
        let (base, source, add_all_mlp_last) = (file.base, file.source, file.add_all_mlp_last.top);
        Ok(Self { base, source, add_all_mlp_last, cells, tolerance: (1e-4, 0.005) })
    }

    /// Compares everything the tour computed that is published.
    pub(crate) fn check(
        &self,
        ids: &[u32],
        base: &[TokenRecord],
        source: &[TokenRecord],
        added: &[TokenRecord],
        sweeps: &[(&str, SweepResult)],
        model: &Model,
    ) -> Check {
        let mut check = Check { compared: 0, worst: 0.0, wrong: Vec::new() };
        if self.base.ids != ids {
            check.wrong.push(format!("token ids: {ids:?}, published {:?}", self.base.ids));
        }
        let lists = [
            ("base", base, &self.base.top),
            ("source", source, &self.source.top),
            ("added", added, &self.add_all_mlp_last),
        ];
        for (name, ours, theirs) in lists {
            for (rank, known) in theirs.iter().enumerate() {
                let prob = ours
                    .get(rank)
                    .filter(|record| record.token == known.token)
                    .and_then(|record| record.prob);
                check.number(&format!("{name}, {:?}", known.token), prob, known.prob, self.tolerance.0);
            }
        }
        let mut ours = BTreeMap::new();
        for (sweep, result) in sweeps {
            for row in result.rows() {
                let site = row.at.site.map_or("", causalcone::Site::name);
                let token = row.token.map(|id| model.token_text(id)).unwrap_or_default();
                ours.insert((*sweep, site, row.at.layer, row.at.position, token), row.value);
            }
        }
        // The tour sweeps some of the sites that are published; a test compares them all.
        let swept: BTreeSet<(&str, &str)> = ours.keys().map(|(sweep, site, ..)| (*sweep, *site)).collect();
        for known in self.cells.iter().filter(|known| swept.contains(&(known.sweep, known.site.as_str()))) {
            let key = (
                known.sweep,
                known.site.as_str(),
                Some(known.layer),
                Some(known.position),
                known.token.clone(),
            );
            let value = ours.get(&key).copied().flatten();
            let what = format!(
                "{} {} layer {} position {} {:?}",
                known.sweep, known.site, known.layer, known.position, known.token
            );
            check.number(&what, value, known.prob, self.tolerance.1);
        }
        check
    }
}
