//! The tidy tables of a sweep: one row a cell, token and metric; and their means over examples.

use causalcone_engine::plan::Coordinates;
use causalcone_engine::{MeanToken, SweepResult};
use causalcone_model::{Model, Site};
use causalcone_report::{Cell, ColumnKind, Error, Table};

/// The columns every table has, in this order.
const COLUMNS: [(&str, ColumnKind); 12] = [
    ("example", ColumnKind::Integer),
    ("site", ColumnKind::Text),
    ("layer", ColumnKind::Integer),
    ("head", ColumnKind::Integer),
    ("position", ColumnKind::Integer),
    ("scale", ColumnKind::Number),
    ("sample", ColumnKind::Integer),
    ("token", ColumnKind::Text),
    ("id", ColumnKind::Integer),
    ("metric", ColumnKind::Text),
    ("value", ColumnKind::Number),
    ("base_value", ColumnKind::Number),
];

/// The table of a sweep's result.
///
/// A column that is not one value in a cell is empty there. `layers` lists all layers edited
/// together; `fixed_value` is there only where edits besides the swept ones are, `method` only where some
/// numbers are estimates.
///
/// ```
/// use causalcone_engine::{Experiment, LayerAxis, Op, PreparedSweep, Runtime, Sweep};
/// use causalcone_jobs::table;
/// use causalcone_model::{Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// exp.edit(base, Site::MlpOutput.layers(..), Op::zero())?;
/// exp.tokens(vec![7])?;
/// exp.sweep(Sweep { layers: Some(LayerAxis::Cumulative), ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Runtime::default())?;
/// let mut csv = Vec::new();
/// table(&result, &model)?.write_csv(&mut csv)?;
/// assert!(String::from_utf8(csv)?.starts_with("example,site,layer,head,position,scale,sample,token,id,metric,value,"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Never for a result of this library; the table checks its own rows.
pub fn table(result: &SweepResult, model: &Model) -> Result<Table, Error> {
    let mut columns = COLUMNS.to_vec();
    if result.has_fixed() {
        columns.push(("fixed_value", ColumnKind::Number));
    }
    columns.push(("layers", ColumnKind::Text));
    let has_estimates = result.has_estimates();
    if has_estimates {
        columns.push(("method", ColumnKind::Text));
    }
    let mut table = Table::new(columns)?;
    for row in result.rows() {
        let [site, layer, head, position, scale] = place(row.at);
        let mut cells = vec![
            row.at.example.into(),
            site,
            layer,
            head,
            position,
            scale,
            row.at.sample.into(),
            row.token.map(|id| model.token_text(id)).or_else(|| row.answer.map(|ids| model.text(ids))).into(),
            row.token.or_else(|| row.answer.and_then(|ids| only(ids))).into(),
            row.metric.name().into(),
            row.value.into(),
            row.base.into(),
        ];
        if result.has_fixed() {
            cells.push(row.fixed.into());
        }
        cells.push(span(&row.at.layers).into());
        if has_estimates {
            cells.push(row.method.name().into());
        }
        table.push(cells)?;
    }
    Ok(table)
}

/// The columns every table of means has, in this order.
const MEANS: [(&str, ColumnKind); 12] = [
    ("site", ColumnKind::Text),
    ("layer", ColumnKind::Integer),
    ("head", ColumnKind::Integer),
    ("position", ColumnKind::Integer),
    ("scale", ColumnKind::Number),
    ("token", ColumnKind::Text),
    ("id", ColumnKind::Integer),
    ("metric", ColumnKind::Text),
    ("n", ColumnKind::Integer),
    ("mean", ColumnKind::Number),
    ("standard_error", ColumnKind::Number),
    ("base_mean", ColumnKind::Number),
];

/// The table of [`SweepResult::means`]: one row for each choice of the axes, metric and token.
///
/// A column that is not the same in all the cells of a mean is empty; a token that is not is
/// `tokens[i]`, by its number among those read.
///
/// # Errors
/// As [`table`].
pub fn means_table(result: &SweepResult, model: &Model) -> Result<Table, Error> {
    let mut columns = MEANS.to_vec();
    if result.has_fixed() {
        columns.push(("fixed_mean", ColumnKind::Number));
    }
    columns.push(("layers", ColumnKind::Text));
    let has_estimates = result.has_estimates();
    if has_estimates {
        columns.push(("method", ColumnKind::Text));
    }
    let mut table = Table::new(columns)?;
    for mean in result.means() {
        let (token, id) = match &mean.token {
            Some(MeanToken::Same(id)) => (Some(model.token_text(*id)), Some(*id)),
            Some(MeanToken::Numbered(number)) => (Some(format!("tokens[{number}]")), None),
            Some(MeanToken::SameAnswer(ids)) => (Some(model.text(ids)), only(ids)),
            Some(MeanToken::NumberedAnswer(number)) => (Some(format!("answers[{number}]")), None),
            None => (None, None),
        };
        let mut cells = place(&mean.at).to_vec();
        cells.extend([
            token.into(),
            id.into(),
            mean.metric.name().into(),
            mean.n.into(),
            mean.mean.into(),
            mean.standard_error.into(),
            mean.base.into(),
        ]);
        if result.has_fixed() {
            cells.push(mean.fixed.into());
        }
        cells.push(span(&mean.at.layers).into());
        if has_estimates {
            cells.push(mean.method.name().into());
        }
        table.push(cells)?;
    }
    Ok(table)
}

/// The columns that say what was edited.
fn place(at: &Coordinates) -> [Cell; 5] {
    [at.site.map(Site::name).into(), at.layer.into(), at.head.into(), at.position.into(), at.scale.into()]
}

/// The id of an answer of one token.
fn only(ids: &[u32]) -> Option<u32> {
    match ids {
        [id] => Some(*id),
        _ => None,
    }
}

/// Layers edited together: "3", "0..=5", "0 3 7".
pub(crate) fn span(layers: &[usize]) -> Option<String> {
    let consecutive = layers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    match layers {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] if consecutive => Some(format!("{first}..={last}")),
        several => Some(several.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
    }
}
