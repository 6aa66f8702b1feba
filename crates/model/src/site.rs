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
/// assert_eq!(Site::by_name("resid_pre")?, Site::BlockInput);
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
    /// What people call it who use TransformerLens.
    short: &'static str,
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
        Self { name, lens: "", short: "", width, view_of: None, is_in_block: true }
    }

    const fn lens(self, lens: &'static str, short: &'static str) -> Self {
        Self { lens, short, ..self }
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
    BlockInput = Row::in_block("block_input", Width::Model).lens("hook_resid_pre", "resid_pre");
    /// After the block's first norm. (s × d)
    AttentionInput = Row::in_block("attention_input", Width::Model);
    /// Queries with bias, before RoPE. (s × H·D)
    QueryOutput = Row::in_block("query_output", Width::Queries);
    /// Keys with bias, before RoPE. (s × K·D)
    KeyOutput = Row::in_block("key_output", Width::Keys);
    /// Values with bias. (s × K·D)
    ValueOutput = Row::in_block("value_output", Width::Keys);
    /// Queries, by head. (s × D a head)
    HeadQueryOutput = Row::in_block("head_query_output", Width::Queries).lens("attn.hook_q", "q").view_of(Site::QueryOutput);
    /// Keys, by key/value head. (s × D a head)
    HeadKeyOutput = Row::in_block("head_key_output", Width::Keys).lens("attn.hook_k", "k").view_of(Site::KeyOutput);
    /// Values, by key/value head. (s × D a head)
    HeadValueOutput = Row::in_block("head_value_output", Width::Keys).lens("attn.hook_v", "v").view_of(Site::ValueOutput);
    /// Attention scores before softmax, after scale and mask. (H × s × s)
    AttentionScore = Row::in_block("attention_score", Width::Attention).lens("attn.hook_attn_scores", "scores");
    /// Attention weights after softmax. (H × s × s)
    AttentionWeight = Row::in_block("attention_weight", Width::Attention).lens("attn.hook_pattern", "pattern");
    /// The heads' weighted values, before the output projection. (s × H·D)
    AttentionValueOutput = Row::in_block("attention_value_output", Width::Queries);
    /// The same, by head. (s × D a head)
    HeadAttentionValueOutput = Row::in_block("head_attention_value_output", Width::Queries).lens("attn.hook_z", "z").view_of(Site::AttentionValueOutput);
    /// After the output projection and its bias, before the residual add. (s × d)
    AttentionOutput = Row::in_block("attention_output", Width::Model).lens("hook_attn_out", "attn_out");
    /// The residual stream between attention and MLP. (s × d)
    BlockMiddle = Row::in_block("block_middle", Width::Model).lens("hook_resid_mid", "resid_mid");
    /// After the block's second norm. (s × d)
    MlpInput = Row::in_block("mlp_input", Width::Model);
    /// Output of the activation function; act(gate), not yet times up, in gated MLPs. (s × m)
    MlpActivation = Row::in_block("mlp_activation", Width::Mlp);
    /// Input of the down projection: act(gate)·up where gated. (s × m)
    MlpHidden = Row::in_block("mlp_hidden", Width::Mlp).lens("mlp.hook_post", "mlp_post");
    /// After the down projection and its bias, before the residual add. (s × d)
    MlpOutput = Row::in_block("mlp_output", Width::Model).lens("hook_mlp_out", "mlp_out");
    /// The residual stream leaving a block. (s × d)
    BlockOutput = Row::in_block("block_output", Width::Model).lens("hook_resid_post", "resid_post");
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

    /// The short name of the field for the same tensor, such as `resid_pre` or `z`, where there is one. It has the meaning
    /// of [`Site::lens_name`].
    pub fn short_name(self) -> Option<&'static str> {
        Some(self.0.short).filter(|short| !short.is_empty())
    }

    /// The site a text names: a public name, a short name of the field (`resid_pre`), or a TransformerLens one, with a
    /// layer (`blocks.3.hook_resid_pre`) or without (`hook_resid_pre`).
    ///
    /// # Errors
    /// When it is none of these; a misspelling gets a hint.
    pub fn parse(name: &str) -> Result<(Self, Option<usize>)> {
        if let Some(site) = Self::all().find(|site| site.name() == name || site.short_name() == Some(name)) {
            return Ok((site, None));
        }
        Self::by_lens_name(name).ok_or_else(|| {
            let names: Vec<_> = Self::all().map(Self::name).collect();
            let known = names.iter().copied().chain(Self::all().filter_map(Self::short_name));
            let hint = nearest(name, known).map(|near| format!("did you mean \"{near}\"?"));
            let problem = format!("is not a site; the sites are {}", names.join(", "));
            let given = format!("\"{}\"", printable(name, 120));
            Error::Address { what: "site", given, problem, hint }
        })
    }

    /// The site of that name.
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

    /// The site of a TransformerLens hook name, if it is in the alias table, and the layer if the name says one:
    /// `blocks.3.attn.hook_z`, or `attn.hook_z`, `hook_z` and `z` of any layer.
    fn by_lens_name(name: &str) -> Option<(Self, Option<usize>)> {
        let (rest, layer) = match name.strip_prefix("blocks.") {
            Some(rest) => {
                let (layer, rest) = rest.split_once('.')?;
                (rest, Some(layer.parse().ok()?))
            }
            None => (name, None),
        };
        let is_it = |lens: &str| {
            let end = lens.rsplit_once('.').map_or(lens, |(_, end)| end);
            let is_end = end == rest || end.strip_prefix("hook_") == Some(rest);
            !lens.is_empty() && (lens == rest || layer.is_none() && is_end)
        };
        Self::all().find(|site| is_it(site.0.lens)).map(|site| (site, layer))
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
                assert_eq!(Site::parse(&lens.replace('N', "7")).unwrap(), (site, Some(7)));
                let hook = lens.strip_prefix("blocks.N.").unwrap();
                let end = hook.rsplit_once('.').map_or(hook, |(_, end)| end);
                for name in [hook, end, site.short_name().unwrap()] {
                    assert_eq!(Site::parse(name).unwrap(), (site, None), "{name}");
                }
            }
        }
        let names = || Site::all().flat_map(|site| [Some(site.name()), site.short_name()]).flatten();
        assert_eq!(names().collect::<std::collections::HashSet<_>>().len(), names().count());
        for unknown in
            ["hook_q_input", "blocks.3.hook_z", "blocks.x.hook_resid_pre", "blocks.3.resid_pre", ""]
        {
            assert!(Site::parse(unknown).is_err(), "{unknown}");
        }
        let Err(refused) = Site::parse("resid_pst") else { panic!("accepted") };
        assert_eq!(refused.hint().unwrap(), "did you mean \"resid_post\"?");
    }
}
