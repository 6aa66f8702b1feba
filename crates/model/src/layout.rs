//! Sites and stages in a model of a given configuration: what a name means there, how the numbers of a site are laid
//! out, how wide a stage is, and how much work.

use crate::config::Config;
use crate::site::{Site, Width};
use crate::stage::{ENTERING, Kernel, Stage, Stages};
use crate::{Error, Result};

/// How the numbers of a site are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One vector of this width a position.
    Rows {
        /// Numbers in the vector.
        width: usize,
    },
    /// One vector of this width for each head and position; the tensor itself is s × heads·width.
    Heads {
        /// Number of heads.
        heads: usize,
        /// Numbers of one head.
        width: usize,
    },
    /// For each head a matrix of query rows by key columns.
    Attention {
        /// Number of heads.
        heads: usize,
    },
}

impl Layout {
    /// How many numbers there are, for so many rows.
    pub fn numbers(self, rows: usize) -> usize {
        match self {
            Self::Rows { width } => rows * width,
            Self::Heads { heads, width } => rows * heads * width,
            Self::Attention { heads } => heads * rows * rows,
        }
    }

    /// The shape in words, for so many rows: `5 × 576`, `5 × 9 heads × 64`, `9 heads × 5 × 5`.
    pub fn shape(self, rows: impl std::fmt::Display) -> String {
        match self {
            Self::Rows { width } => format!("{rows} × {width}"),
            Self::Heads { heads, width } => format!("{rows} × {heads} heads × {width}"),
            Self::Attention { heads } => format!("{heads} heads × {rows} × {rows}"),
        }
    }
}

impl Width {
    /// The number in a model of that configuration; 0 where it depends on the run.
    pub fn of(self, config: &Config) -> usize {
        match self {
            Self::Model => config.width,
            Self::Queries => config.heads * config.head_dim,
            Self::Keys => config.kv_heads * config.head_dim,
            Self::Mlp => config.mlp_width,
            Self::Vocab => config.vocab,
            Self::Attention => 0,
        }
    }
}

impl Site {
    /// [`Site::parse`] for a model of that configuration: a name of TransformerLens or the field must mean there what it
    /// says.
    ///
    /// # Errors
    /// As [`Site::parse`]; where TransformerLens means another tensor on this family.
    pub fn parse_for(name: &str, config: &Config) -> Result<(Self, Option<usize>)> {
        if let Some(own) = config.sites().find(|site| site.name() == name) {
            return Ok((own, None));
        }
        let (site, layer) = Self::parse(name)?;
        if config.block.is_normed_after(site) && site.name() != name {
            let family = config.family;
            let problem = format!("means what comes after another norm in a {family}, which is no site");
            let hint = Some(format!("\"{}\" is what comes before that norm", site.name()));
            return Err(Error::Address { what: "site", given: format!("\"{name}\""), problem, hint });
        }
        Ok((site, layer))
    }

    /// The layout of this site in a model of that configuration.
    pub fn layout(self, config: &Config) -> Layout {
        let heads = if self.width() == Width::Keys { config.kv_heads } else { config.heads };
        match self.width() {
            Width::Attention => Layout::Attention { heads },
            _ if self.tensor() != self => Layout::Heads { heads, width: config.head_dim },
            width => Layout::Rows { width: width.of(config) },
        }
    }
}

impl Stages {
    /// Numbers in a row of a stage; none in a matrix of attention, whose rows are as long as the run.
    pub fn width(&self, stage: usize, config: &Config) -> usize {
        let Stage { site, kernel, .. } = &self[stage];
        match (site, kernel.matrix(), kernel) {
            (Some(site), ..) => site.width().of(config),
            _ if stage == ENTERING => Width::Model.of(config),
            (None, Some(matrix), _) => config.matrix(*matrix).1,
            (None, None, Kernel::Mix) => Width::Queries.of(config),
            _ if self[stage].is_matrix() => Width::Attention.of(config),
            _ => self.width(self[stage].goes_on_from(), config),
        }
    }

    /// Multiplications and additions for a row of a stage, and more for each key that the row sees.
    pub fn flops(&self, stage: usize, config: &Config) -> (u64, u64) {
        let width = self.width(stage, config) as u64;
        match self[stage].factor() {
            Some(factor) => (2 * self.width(factor, config) as u64 * width, 0),
            // The scores and the sum of values.
            None if self[stage].kernel == Kernel::Mix => (0, 4 * width),
            None => (0, 0),
        }
    }
}
