//! The sites of a decoder: every place an activation can be read or edited, by its public name.

use crate::error::{nearest, printable};
use crate::{Error, Result};

/// A named activation of a decoder: a row of a table of names.
///
/// The sites of the families that there are, in the order of [`Site::all`]. A block of one's own may have others
/// ([`Site::new`]).
///
/// ```
/// use causalcone_model::Site;
/// assert_eq!(Site::by_name("mlp_output")?, Site::MlpOutput);
/// assert_eq!(Site::parse("blocks.3.hook_resid_pre")?, (Site::BlockInput, Some(3)));
/// assert!(Site::by_name("mlp_ouput").is_err() && Site::parse("blocks.3.hook_q_input").is_err());
/// # Ok::<(), causalcone_model::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Site(&'static Row);

/// A row of a table of sites.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    name: &'static str,
    /// The name TransformerLens gives to the same tensor: after `blocks.N.` for sites of a block.
    lens: &'static str,
    width: Width,
    /// The site whose tensor it is a view of, heads apart.
    view_of: Option<Site>,
    is_in_block: bool,
}

/// How many numbers a row of a tensor has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// As many as the residual stream.
    Model,
    /// Those of all query heads.
    Queries,
    /// Those of all key/value heads.
    Keys,
    /// As many as the MLP's hidden layer.
    Mlp,
    /// One for each token.
    Vocab,
    /// For each query head one for each position of the run.
    Attention,
}

impl Row {
    /// A site of every block, of that width.
    pub const fn in_block(name: &'static str, width: Width) -> Self {
        Self { name, lens: "", width, view_of: None, is_in_block: true }
    }

    const fn lens(self, lens: &'static str) -> Self {
        Self { lens, ..self }
    }

    const fn once(self) -> Self {
        Self { is_in_block: false, ..self }
    }

    const fn view_of(self, site: Site) -> Self {
        Self { view_of: Some(site), ..self }
    }
}

/// The sites as constants of that name, and a list of them all.
macro_rules! sites {
    ($($(#[$doc:meta])* $name:ident = $row:expr;)*) => {
        #[expect(non_upper_case_globals, reason = "they are read and matched like the variants of an enum")]
        impl Site {
            $($(#[$doc])* pub const $name: Self = { const ROW: &Row = &$row; Self(ROW) };)*
        }

        const ALL: &[Site] = &[$(Site::$name),*];
    };
}

sites! {
    /// What enters layer 0: token embedding, plus position embedding where it is learned. (s × d)
    Embedding = Row::in_block("embedding", Width::Model).once();
    /// The residual stream entering a block. (s × d)
    BlockInput = Row::in_block("block_input", Width::Model).lens("hook_resid_pre");
    /// After the block's first norm. (s × d)
    AttentionInput = Row::in_block("attention_input", Width::Model);
    /// Queries with bias, before RoPE. (s × H·D)
    QueryOutput = Row::in_block("query_output", Width::Queries);
    /// Keys with bias, before RoPE. (s × K·D)
    KeyOutput = Row::in_block("key_output", Width::Keys);
    /// Values with bias. (s × K·D)
    ValueOutput = Row::in_block("value_output", Width::Keys);
    /// Queries, by head. (s × D a head)
    HeadQueryOutput = Row::in_block("head_query_output", Width::Queries).lens("attn.hook_q").view_of(Site::QueryOutput);
    /// Keys, by key/value head. (s × D a head)
    HeadKeyOutput = Row::in_block("head_key_output", Width::Keys).lens("attn.hook_k").view_of(Site::KeyOutput);
    /// Values, by key/value head. (s × D a head)
    HeadValueOutput = Row::in_block("head_value_output", Width::Keys).lens("attn.hook_v").view_of(Site::ValueOutput);
    /// Attention scores before softmax, after scale and mask. (H × s × s)
    AttentionScore = Row::in_block("attention_score", Width::Attention).lens("attn.hook_attn_scores");
    /// Attention weights after softmax. (H × s × s)
    AttentionWeight = Row::in_block("attention_weight", Width::Attention).lens("attn.hook_pattern");
    /// The heads' weighted values, before the output projection. (s × H·D)
    AttentionValueOutput = Row::in_block("attention_value_output", Width::Queries);
    /// The same, by head. (s × D a head)
    HeadAttentionValueOutput = Row::in_block("head_attention_value_output", Width::Queries).lens("attn.hook_z").view_of(Site::AttentionValueOutput);
    /// After the output projection and its bias, before the residual add. (s × d)
    AttentionOutput = Row::in_block("attention_output", Width::Model).lens("hook_attn_out");
    /// The residual stream between attention and MLP. (s × d)
    BlockMiddle = Row::in_block("block_middle", Width::Model).lens("hook_resid_mid");
    /// After the block's second norm. (s × d)
    MlpInput = Row::in_block("mlp_input", Width::Model);
    /// Output of the activation function; act(gate), not yet times up, in gated MLPs. (s × m)
    MlpActivation = Row::in_block("mlp_activation", Width::Mlp);
    /// Input of the down projection: act(gate)·up where gated. (s × m)
    MlpHidden = Row::in_block("mlp_hidden", Width::Mlp).lens("mlp.hook_post");
    /// After the down projection and its bias, before the residual add. (s × d)
    MlpOutput = Row::in_block("mlp_output", Width::Model).lens("hook_mlp_out");
    /// The residual stream leaving a block. (s × d)
    BlockOutput = Row::in_block("block_output", Width::Model).lens("hook_resid_post");
    /// After the last norm. (s × d)
    // TransformerLens's ln_final.hook_normalized is after the norm's weight on GPT-2 and before it on
    // Llama, so it has no place in a table that means one thing.
    FinalNorm = Row::in_block("final_norm", Width::Model).once();
    /// After unembedding. (s × vocab)
    Logits = Row::in_block("logits", Width::Vocab).once();
}

impl std::hash::Hash for Site {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

/// The order of the table, so that figures and sets have one; sites of one's own come last, by name. When the tensors of
/// a model are computed, its block says.
impl Ord for Site {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let place = |site: &Self| ALL.iter().position(|other| other == site).unwrap_or(ALL.len());
        place(self).cmp(&place(other)).then_with(|| self.0.name.cmp(other.0.name))
    }
}

impl PartialOrd for Site {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl std::fmt::Debug for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl Site {
    /// A site with a table of its own, for a block that no family here has.
    pub const fn new(row: &'static Row) -> Self {
        Self(row)
    }

    /// All sites of the families that there are, in the order of execution.
    pub fn all() -> impl Iterator<Item = Self> {
        ALL.iter().copied()
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// The TransformerLens name of the same tensor, with `N` for the layer, where there is one.
    ///
    /// `mlp.hook_post` is what enters the down projection, gated or not, so it is `mlp_hidden`. Two aliases do not
    /// hold on families with norms after attention and MLP ([`Site::parse_for`]).
    pub fn lens_name(self) -> Option<String> {
        let lens = Some(self.0.lens).filter(|lens| !lens.is_empty())?;
        Some(if self.is_in_block() { format!("blocks.N.{lens}") } else { lens.into() })
    }

    /// The site a text names: a public name, or a TransformerLens one, which may carry a layer.
    ///
    /// # Errors
    /// When it is neither; a misspelling gets a hint.
    pub fn parse(name: &str) -> Result<(Self, Option<usize>)> {
        if let Some(site) = Self::all().find(|site| site.name() == name) {
            return Ok((site, None));
        }
        Self::by_lens_name(name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            let hint = nearest(name, names.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let problem = format!("is not a site; the sites are {}", names.join(", "));
            let given = format!("\"{}\"", printable(name, 120));
            Error::Address { what: "site", given, problem, hint }
        })
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
    fn by_lens_name(name: &str) -> Option<(Self, Option<usize>)> {
        let (rest, layer) = match name.strip_prefix("blocks.") {
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                (rest, Some(layer.parse().ok()?))
            }
            None => (name, None),
        };
        let found = Self::all().find(|site| !site.0.lens.is_empty() && site.0.lens == rest)?;
        (found.is_in_block() == layer.is_some()).then_some((found, layer))
    }

    /// Whether every block has this site (true) or the model has it once (false).
    pub fn is_in_block(self) -> bool {
        self.0.is_in_block
    }

    /// Whether the tensor is heads × query rows × key columns.
    pub fn is_attention_matrix(self) -> bool {
        self.0.width == Width::Attention
    }

    /// The site whose tensor this one is a view of: heads are views of the stacked projections.
    pub fn tensor(self) -> Self {
        self.0.view_of.unwrap_or(self)
    }

    /// How wide its rows are; those of all heads together where it is a view of heads.
    pub fn width(self) -> Width {
        self.0.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_site_once() {
        assert!(ALL.iter().enumerate().all(|(i, site)| !ALL[..i].contains(site)));
        for site in Site::all() {
            assert_eq!(Site::by_name(site.name()).unwrap(), site);
            if let Some(lens) = site.lens_name() {
                let (found, layer) = Site::by_lens_name(&lens.replace('N', "7")).unwrap();
                assert_eq!((found, layer.is_some()), (site, site.is_in_block()));
            }
        }
    }
}
