//! The sites of a decoder: every place an activation can be read or edited, by its public name.

use crate::config::Config;
use crate::error::{nearest, printable};
use crate::{Error, Result};

/// A named activation of the decoder. Variants stand in the order of execution.
///
/// ```
/// use causalcone_model::Site;
/// assert_eq!(Site::by_name("mlp_output")?, Site::MlpOutput);
/// assert_eq!(Site::parse("blocks.3.hook_resid_pre")?, (Site::BlockInput, Some(3)));
/// assert!(Site::by_name("mlp_ouput").is_err());
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Site {
    /// What enters layer 0: token embedding, plus position embedding where it is learned. (s × d)
    Embedding,
    /// The residual stream entering a block. (s × d)
    BlockInput,
    /// After the block's first norm. (s × d)
    AttentionInput,
    /// Queries with bias, before RoPE. (s × H·D)
    QueryOutput,
    /// Keys with bias, before RoPE. (s × K·D)
    KeyOutput,
    /// Values with bias. (s × K·D)
    ValueOutput,
    /// Queries, by head. (s × D a head)
    HeadQueryOutput,
    /// Keys, by key/value head. (s × D a head)
    HeadKeyOutput,
    /// Values, by key/value head. (s × D a head)
    HeadValueOutput,
    /// Attention scores before softmax, after scale and mask. (H × s × s)
    AttentionScore,
    /// Attention weights after softmax. (H × s × s)
    AttentionWeight,
    /// The heads' weighted values, before the output projection. (s × H·D)
    AttentionValueOutput,
    /// The same, by head. (s × D a head)
    HeadAttentionValueOutput,
    /// After the output projection and its bias, before the residual add. (s × d)
    AttentionOutput,
    /// The residual stream between attention and MLP. (s × d)
    BlockMiddle,
    /// After the block's second norm. (s × d)
    MlpInput,
    /// Output of the activation function; act(gate), not yet times up, in gated MLPs. (s × m)
    MlpActivation,
    /// Input of the down projection: act(gate)·up where gated. (s × m)
    MlpHidden,
    /// After the down projection and its bias, before the residual add. (s × d)
    MlpOutput,
    /// The residual stream leaving a block. (s × d)
    BlockOutput,
    /// After the last norm. (s × d)
    FinalNorm,
    /// After unembedding. (s × vocab)
    Logits,
}

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

/// One row of the table of sites.
struct Row {
    site: Site,
    name: &'static str,
    /// The name TransformerLens gives to the same tensor: after `blocks.N.` for sites of a block.
    lens: &'static str,
}

const fn row(site: Site, name: &'static str, lens: &'static str) -> Row {
    Row { site, name, lens }
}

const TABLE: [Row; 22] = [
    row(Site::Embedding, "embedding", ""),
    row(Site::BlockInput, "block_input", "hook_resid_pre"),
    row(Site::AttentionInput, "attention_input", ""),
    row(Site::QueryOutput, "query_output", ""),
    row(Site::KeyOutput, "key_output", ""),
    row(Site::ValueOutput, "value_output", ""),
    row(Site::HeadQueryOutput, "head_query_output", "attn.hook_q"),
    row(Site::HeadKeyOutput, "head_key_output", "attn.hook_k"),
    row(Site::HeadValueOutput, "head_value_output", "attn.hook_v"),
    row(Site::AttentionScore, "attention_score", "attn.hook_attn_scores"),
    row(Site::AttentionWeight, "attention_weight", "attn.hook_pattern"),
    row(Site::AttentionValueOutput, "attention_value_output", ""),
    row(Site::HeadAttentionValueOutput, "head_attention_value_output", "attn.hook_z"),
    row(Site::AttentionOutput, "attention_output", "hook_attn_out"),
    row(Site::BlockMiddle, "block_middle", "hook_resid_mid"),
    row(Site::MlpInput, "mlp_input", ""),
    row(Site::MlpActivation, "mlp_activation", ""),
    row(Site::MlpHidden, "mlp_hidden", "mlp.hook_post"),
    row(Site::MlpOutput, "mlp_output", "hook_mlp_out"),
    row(Site::BlockOutput, "block_output", "hook_resid_post"),
    // TransformerLens's ln_final.hook_normalized is after the norm's weight on GPT-2 and before it on
    // Llama, so it has no place in a table that means one thing.
    row(Site::FinalNorm, "final_norm", ""),
    row(Site::Logits, "logits", ""),
];

impl Site {
    /// All sites, in the order of execution.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(|row| row.site)
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|row| row.site == self).map_or("", |row| row.name)
    }

    /// The TransformerLens name of the same tensor, with `N` for the layer, where there is one.
    ///
    /// `mlp.hook_post` is what enters the down projection, gated or not, so it is `mlp_hidden`. Two aliases do not
    /// hold on families with norms after attention and MLP ([`Site::parse_for`]).
    pub fn lens_name(self) -> Option<String> {
        let row = TABLE.iter().find(|row| row.site == self && !row.lens.is_empty())?;
        Some(if self.is_in_block() { format!("blocks.N.{}", row.lens) } else { row.lens.into() })
    }

    /// The site a text names: a public name, or a TransformerLens one, which may carry a layer.
    ///
    /// # Errors
    /// When it is neither; a misspelling gets a hint.
    pub fn parse(name: &str) -> Result<(Self, Option<usize>)> {
        if let Some(row) = TABLE.iter().find(|row| row.name == name) {
            return Ok((row.site, None));
        }
        Self::by_lens_name(name).ok_or_else(|| {
            let names = TABLE.iter().map(|row| row.name);
            let hint = nearest(name, names.clone()).map(|near| format!("did you mean \"{near}\"?"));
            let names: Vec<_> = names.collect();
            let problem = format!("is not a site; the sites are {}", names.join(", "));
            let given = format!("\"{}\"", printable(name, 120));
            Error::Address { what: "site", given, problem, hint }
        })
    }

    /// [`Site::parse`] for a model of that configuration: a TransformerLens name must mean there what it says.
    ///
    /// # Errors
    /// As [`Site::parse`]; where TransformerLens means another tensor on this family.
    pub fn parse_for(name: &str, config: &Config) -> Result<(Self, Option<usize>)> {
        let (site, layer) = Self::parse(name)?;
        let is_after_norm = config.norms_after() && matches!(site, Self::AttentionOutput | Self::MlpOutput);
        if is_after_norm && site.name() != name {
            let family = config.family;
            let problem = format!("means what comes after another norm in a {family}, which is no site");
            let hint = Some(format!("\"{}\" is what comes before that norm", site.name()));
            return Err(Error::Address { what: "site", given: format!("\"{name}\""), problem, hint });
        }
        Ok((site, layer))
    }

    /// The site of that public name.
    ///
    /// # Errors
    /// When there is none, or the name carries a layer as well.
    pub fn by_name(name: &str) -> Result<Self> {
        match Self::parse(name)? {
            (site, None) => Ok(site),
            (site, Some(layer)) => {
                let problem = format!("names layer {layer} as well, where only a site fits");
                let hint = Some(format!("write \"{}\"", site.name()));
                Err(Error::Address { what: "site", given: format!("\"{name}\""), problem, hint })
            }
        }
    }

    /// The site and layer of a TransformerLens hook name, if it is in the alias table.
    ///
    /// ```
    /// use causalcone_model::Site;
    /// assert_eq!(Site::by_lens_name("blocks.3.attn.hook_z"), Some((Site::HeadAttentionValueOutput, Some(3))));
    /// assert_eq!(Site::by_lens_name("blocks.3.hook_q_input"), None);
    /// ```
    pub fn by_lens_name(name: &str) -> Option<(Self, Option<usize>)> {
        let (rest, layer) = match name.strip_prefix("blocks.") {
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                (rest, Some(layer.parse().ok()?))
            }
            None => (name, None),
        };
        let found = TABLE.iter().find(|row| !row.lens.is_empty() && row.lens == rest)?;
        (found.site.is_in_block() == layer.is_some()).then_some((found.site, layer))
    }

    /// Whether every block has this site (true) or the model has it once (false).
    pub fn is_in_block(self) -> bool {
        !matches!(self, Self::Embedding | Self::FinalNorm | Self::Logits)
    }

    /// Whether the tensor is heads × query rows × key columns.
    pub fn is_attention_matrix(self) -> bool {
        matches!(self, Self::AttentionScore | Self::AttentionWeight)
    }

    /// The site whose tensor this one is a view of: heads are views of the stacked projections.
    pub fn tensor(self) -> Self {
        match self {
            Self::HeadQueryOutput => Self::QueryOutput,
            Self::HeadKeyOutput => Self::KeyOutput,
            Self::HeadValueOutput => Self::ValueOutput,
            Self::HeadAttentionValueOutput => Self::AttentionValueOutput,
            other => other,
        }
    }

    /// The layout of this site in a model of that configuration.
    pub fn layout(self, config: &Config) -> Layout {
        let (heads, kv_heads, width) = (config.heads, config.kv_heads, config.head_dim);
        match self {
            Self::QueryOutput | Self::AttentionValueOutput => Layout::Rows { width: heads * width },
            Self::KeyOutput | Self::ValueOutput => Layout::Rows { width: kv_heads * width },
            Self::HeadQueryOutput | Self::HeadAttentionValueOutput => Layout::Heads { heads, width },
            Self::HeadKeyOutput | Self::HeadValueOutput => Layout::Heads { heads: kv_heads, width },
            Self::AttentionScore | Self::AttentionWeight => Layout::Attention { heads },
            Self::MlpActivation | Self::MlpHidden => Layout::Rows { width: config.mlp_width },
            Self::Logits => Layout::Rows { width: config.vocab },
            _ => Layout::Rows { width: config.width },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_site_once_in_order() {
        assert!(TABLE.windows(2).all(|pair| pair[0].site < pair[1].site));
        for site in Site::all() {
            assert_eq!(Site::by_name(site.name()).unwrap(), site);
            if let Some(lens) = site.lens_name() {
                let (found, layer) = Site::by_lens_name(&lens.replace('N', "7")).unwrap();
                assert_eq!((found, layer.is_some()), (site, site.is_in_block()));
            }
        }
    }
}
