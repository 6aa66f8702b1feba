//! The tidy tables of a sweep: one row a cell, token and metric; and their means over examples.

use causalcone_engine::plan::Coordinates;
use causalcone_engine::{Mean, MeanToken, Row, SweepResult};
use causalcone_model::{Model, Site};
use causalcone_report::{ColumnOf, Table};

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
/// exp.set_tokens(vec![7])?;
/// exp.set_sweep(Sweep { layers: Some(LayerAxis::Cumulative), ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Runtime::default())?;
/// let mut csv = Vec::new();
/// table(&result, &model).write_csv(&mut csv)?;
/// assert!(String::from_utf8(csv)?.starts_with("example,site,layer,head,position,scale,sample,token,id,metric,value,"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn table(result: &SweepResult, model: &Model) -> Table {
    let mut columns = vec![ColumnOf::integer("example", |row: &Row<'_>| row.at.example)];
    columns.extend(place(|row: &Row<'_>| row.at));
    columns.extend([
        ColumnOf::integer("sample", |row: &Row<'_>| row.at.sample),
        ColumnOf::text("token", |row: &Row<'_>| {
            row.token.map(|id| model.token_text(id)).or_else(|| row.answer.map(|ids| model.text(ids)))
        }),
        ColumnOf::integer("id", |row: &Row<'_>| row.token.or_else(|| row.answer.and_then(|ids| only(ids)))),
        ColumnOf::text("metric", |row: &Row<'_>| Some(row.metric.name())),
        ColumnOf::number("value", |row: &Row<'_>| row.value),
        ColumnOf::number("base_value", |row: &Row<'_>| row.base),
    ]);
    if result.has_fixed() {
        columns.push(ColumnOf::number("fixed_value", |row: &Row<'_>| row.fixed));
    }
    columns.push(ColumnOf::text("layers", |row: &Row<'_>| span(&row.at.layers)));
    if result.has_estimates() {
        columns.push(ColumnOf::text("method", |row: &Row<'_>| Some(row.method.name())));
    }
    Table::of(columns, result.rows())
}

/// The table of [`SweepResult::means`]: one row for each choice of the axes, metric and token.
///
/// A column that is not the same in all the cells of a mean is empty; a token that is not is
/// `tokens[i]`, by its number among those read.
#[must_use]
pub fn means_table(result: &SweepResult, model: &Model) -> Table {
    let mut columns = Vec::from(place(|mean: &Mean| &mean.at));
    columns.extend([
        ColumnOf::text("token", |mean: &Mean| {
            mean.token.as_ref().map(|token| match token {
                MeanToken::Same(id) => model.token_text(*id),
                MeanToken::Numbered(number) => format!("tokens[{number}]"),
                MeanToken::SameAnswer(ids) => model.text(ids),
                MeanToken::NumberedAnswer(number) => format!("answers[{number}]"),
            })
        }),
        ColumnOf::integer("id", |mean: &Mean| match &mean.token {
            Some(MeanToken::Same(id)) => Some(*id),
            Some(MeanToken::SameAnswer(ids)) => only(ids),
            _ => None,
        }),
        ColumnOf::text("metric", |mean: &Mean| Some(mean.metric.name())),
        ColumnOf::integer("n", |mean: &Mean| Some(mean.n)),
        ColumnOf::number("mean", |mean: &Mean| mean.mean),
        ColumnOf::number("standard_error", |mean: &Mean| mean.standard_error),
        ColumnOf::number("base_mean", |mean: &Mean| mean.base),
    ]);
    if result.has_fixed() {
        columns.push(ColumnOf::number("fixed_mean", |mean: &Mean| mean.fixed));
    }
    columns.push(ColumnOf::text("layers", |mean: &Mean| span(&mean.at.layers)));
    if result.has_estimates() {
        columns.push(ColumnOf::text("method", |mean: &Mean| Some(mean.method.name())));
    }
    Table::of(columns, result.means())
}

/// The columns that say what was edited.
fn place<R>(at: impl Fn(&R) -> &Coordinates + Copy + 'static) -> [ColumnOf<'static, R>; 5] {
    [
        ColumnOf::text("site", move |row| at(row).site.map(Site::name)),
        ColumnOf::integer("layer", move |row| at(row).layer),
        ColumnOf::integer("head", move |row| at(row).head),
        ColumnOf::integer("position", move |row| at(row).position),
        ColumnOf::number("scale", move |row| at(row).scale),
    ]
}

/// The id of an answer of one token.
fn only(ids: &[u32]) -> Option<u32> {
    match ids {
        [id] => Some(*id),
        _ => None,
    }
}

/// The token at a position, if all prompts have the same token there.
pub(crate) fn common_token(result: &SweepResult, position: usize) -> Option<u32> {
    let mut there = result.prompts.iter().filter_map(|prompt| prompt.get(position));
    let first = there.next()?;
    there.all(|id| id == first).then_some(*first)
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
