//! The heat map of a sweep: what goes on which axis.

use crate::tidy::{common_token, span};
use causalcone_engine::plan::Coordinates;
use causalcone_engine::{Column, Metric, SweepResult, TokenLabels};
use causalcone_model::{Model, Site};
use causalcone_report::{Axis, Centre, Facet, HeatMap, Scale, Tick, text};
use std::collections::{HashMap, HashSet};

/// What runs along x: the first of these that a sweep varies, positions if it varies none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Across {
    Position,
    Head,
    Scale,
}

/// What runs along y.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Down {
    Layer,
    /// Of one layer, where positions run along x.
    Head,
}

/// One coordinate along an axis, in a form that can be compared: the scale by its bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct AxisPoint {
    layers: Vec<usize>,
    site: Option<Site>,
    head: Option<usize>,
    position: Option<usize>,
    scale: Option<u64>,
}

/// The points of an axis in order, and the place of each.
struct AxisPoints {
    list: Vec<AxisPoint>,
    places: HashMap<AxisPoint, usize>,
}

impl AxisPoints {
    fn new(points: impl Iterator<Item = AxisPoint>) -> Self {
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for point in points {
            if seen.insert(point.clone()) {
                list.push(point);
            }
        }
        Self::ordered(list)
    }

    fn ordered(list: Vec<AxisPoint>) -> Self {
        let places = list.iter().cloned().zip(0..).collect();
        Self { list, places }
    }
}

/// What is drawn at one place, a number for each column of the result.
struct Entry {
    at: Coordinates,
    values: Vec<Option<f64>>,
    /// The same without any edit.
    base: Vec<Option<f64>>,
}

/// All that is drawn: cells, or their means.
struct Entries {
    list: Vec<Entry>,
    /// Whether positions are places in the examples' lists, since these differ.
    by_place: bool,
}

impl Entries {
    fn new(result: &SweepResult) -> Self {
        if !result.has_means() {
            let cells = result.cells.iter().zip(&result.values).zip(&result.baseline_of);
            let entry = |((at, values), baseline): ((&Coordinates, &Vec<Option<f64>>), &usize)| {
                let base = result.base.get(*baseline).cloned().unwrap_or_default();
                Entry { at: at.clone(), values: values.clone(), base }
            };
            return Self { list: cells.map(entry).collect(), by_place: false };
        }
        let means = result.means();
        let groups = means.chunks(result.columns.len().max(1));
        let mut list: Vec<Entry> = groups
            .map(|group| Entry {
                at: group[0].at.clone(),
                values: group.iter().map(|mean| mean.mean).collect(),
                base: group.iter().map(|mean| mean.base).collect(),
            })
            .collect();
        let by_place = list.iter().any(|entry| entry.at.point.position > 0)
            && list.iter().any(|entry| entry.at.position.is_none());
        for entry in list.iter_mut().filter(|_| by_place) {
            entry.at.position = Some(entry.at.point.position);
        }
        Self { list, by_place }
    }
}

/// What a sweep varies, and so what goes where.
struct Axes {
    across: Across,
    down: Down,
    /// Whether heads are varied, and scales.
    heads: bool,
    scales: bool,
}

impl Axes {
    fn of(entries: &[Entry]) -> Self {
        let varied = |f: fn(&Coordinates) -> Option<f64>| {
            entries.windows(2).any(|pair| f(&pair[0].at) != f(&pair[1].at))
        };
        let (positions, heads, scales) = (
            varied(|at| at.position.map(|p| p as f64)),
            varied(|at| at.head.map(|h| h as f64)),
            varied(|at| at.scale),
        );
        let across = match (positions, heads, scales) {
            (false, true, _) => Across::Head,
            (false, false, true) => Across::Scale,
            _ => Across::Position,
        };
        let is_one_row = entries.windows(2).all(|pair| {
            let [a, b] = [&pair[0].at, &pair[1].at];
            (&a.layers, a.site) == (&b.layers, b.site)
        });
        let down = if heads && positions && is_one_row { Down::Head } else { Down::Layer };
        Self { across, down, heads, scales }
    }

    /// Where along x.
    fn x(&self, at: &Coordinates) -> AxisPoint {
        AxisPoint {
            head: at.head.filter(|_| self.across == Across::Head),
            position: at.position.filter(|_| self.across == Across::Position),
            scale: at.scale.filter(|_| self.across == Across::Scale).map(f64::to_bits),
            ..AxisPoint::default()
        }
    }

    /// Where along y.
    fn y(&self, at: &Coordinates) -> AxisPoint {
        AxisPoint {
            layers: at.layers.clone(),
            site: at.site,
            head: at.head.filter(|_| self.down == Down::Head),
            ..AxisPoint::default()
        }
    }

    /// In which facet: what is varied along neither axis.
    fn facet(&self, at: &Coordinates) -> AxisPoint {
        AxisPoint {
            head: at.head.filter(|_| self.across != Across::Head && self.down != Down::Head && self.heads),
            scale: at.scale.filter(|_| self.across != Across::Scale && self.scales).map(f64::to_bits),
            ..AxisPoint::default()
        }
    }
}

/// The heat map of a sweep's first metric: positions (or heads, or scales) along x; layers upwards,
/// the sites of a layer one above the other in the order they run, or heads where positions and heads of one
/// layer are swept; a facet a token and method, and a facet for each value of what else is swept. A difference of
/// logits is white where it is as without any edit. Of a data set, or of samples, it shows the means; where
/// examples list different positions, x counts their places in those lists.
///
/// ```
/// use causalcone_engine::{Each, Experiment, LayerAxis, Op, PreparedSweep, Runtime, Sweep};
/// use causalcone_jobs::heat_map;
/// use causalcone_model::{Model, Site};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// exp.edit(base, Site::MlpOutput.layers(..), Op::zero())?;
/// exp.set_tokens(vec![7])?;
/// exp.set_sweep(Sweep { layers: Some(LayerAxis::Each), positions: Some(Each), ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Runtime::default())?;
/// let map = heat_map(&result, &model, "zeroing the MLP");
/// assert_eq!((map.x.ticks.len(), map.y.ticks.len(), map.facets.len()), (3, 3, 1));
/// assert!(map.to_svg()?.starts_with("<svg"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn heat_map(result: &SweepResult, model: &Model, title: &str) -> HeatMap {
    let Entries { list: entries, by_place } = Entries::new(result);
    let axes = Axes::of(&entries);
    let columns = AxisPoints::new(entries.iter().map(|e| axes.x(&e.at)));
    let mut rows = AxisPoints::new(entries.iter().map(|e| axes.y(&e.at))).list;
    rows.sort_by(|a, b| (a.layers.last(), a.site, a.head).cmp(&(b.layers.last(), b.site, b.head)));
    let rows = AxisPoints::ordered(rows);
    let others = AxisPoints::new(entries.iter().map(|e| axes.facet(&e.at)));

    let metric = result.columns.first().map_or(Metric::Prob, |column| column.metric);
    // A facet each: the first metric's numbers, token by token, so that methods stand side by side.
    let mut drawn: Vec<usize> =
        (0..result.columns.len()).filter(|i| result.columns[*i].metric == metric).collect();
    drawn.sort_by_key(|i| result.columns[*i].token);
    let labels = TokenLabels::new(result.tokens.iter().flat_map(|tokens| tokens.iter().copied()), |id| {
        text::token(&model.token_text(id))
    });
    let names: Vec<[Option<String>; 2]> =
        drawn.iter().map(|i| column_title(result, model, &labels, &result.columns[*i])).collect();
    let titles = names.iter().flat_map(|name| others.list.iter().map(|o| facet_title(name, o)));
    let empty = vec![None; rows.list.len() * columns.list.len()];
    let mut facets: Vec<Facet> =
        titles.map(|title| Facet { title, values: empty.clone(), ..Facet::default() }).collect();
    for Entry { at, values: numbers, .. } in &entries {
        let place = (
            rows.places.get(&axes.y(at)),
            columns.places.get(&axes.x(at)),
            others.places.get(&axes.facet(at)),
        );
        let (Some(row), Some(column), Some(other)) = place else { continue };
        for (facet, number) in drawn.iter().enumerate() {
            facets[facet * others.list.len() + other].values[row * columns.list.len() + column] =
                numbers[*number];
        }
    }
    let tick = |point: &AxisPoint| column_tick(point, result, model, by_place);
    let cumulative = entries.iter().any(|e| e.at.layers.len() > 1 && e.at.layer.is_some());
    let mean = if result.has_means() { "mean " } else { "" };
    HeatMap {
        title: title.into(),
        subtitle: None,
        x: Axis { label: axes.across.label(by_place).into(), ticks: columns.list.iter().map(tick).collect() },
        y: row_axis(
            &rows.list,
            axes.down,
            cumulative,
            if axes.heads { None } else { entries.first().and_then(|e| e.at.head) },
        ),
        facets,
        value_label: format!("{mean}{}", value_label(metric, result, model)),
        scale: match metric {
            Metric::Prob | Metric::Kl | Metric::Accuracy | Metric::Entropy => Scale::FromZero,
            Metric::Logit | Metric::Logprob | Metric::Loss | Metric::Rank => Scale::Sequential,
            Metric::LogitDiff => Scale::Diverging(unedited(&entries, &drawn)),
        },
    }
}

impl Across {
    fn label(self, by_place: bool) -> &'static str {
        match self {
            Self::Position if by_place => "position, by its place in the list",
            Self::Position => "position",
            Self::Head => "head",
            Self::Scale => "scale",
        }
    }
}

/// The name of a column: of a position with the token there, where all prompts have the same.
fn column_tick(point: &AxisPoint, result: &SweepResult, model: &Model, by_place: bool) -> Tick {
    match (point.position, point.head, point.scale) {
        (Some(position), ..) if by_place => Tick::new(position.to_string()),
        (Some(position), ..) => match common_token(result, position) {
            Some(id) => Tick::token(position.to_string(), model.token_text(id)),
            None => Tick::new(position.to_string()),
        },
        (_, Some(head), _) => Tick::new(head.to_string()),
        (.., Some(scale)) => Tick::new(f64::from_bits(scale).to_string()),
        _ => Tick::new("all"),
    }
}

/// What the numbers are; of a difference also which tokens it is of, where all examples read the same two.
fn value_label(metric: Metric, result: &SweepResult, model: &Model) -> String {
    let tokens = result.tokens.first().and_then(|tokens| tokens.first_chunk::<2>());
    let is_same =
        |pair: &[u32; 2]| result.tokens.iter().all(|tokens| tokens.first_chunk::<2>() == Some(pair));
    if let (Metric::LogitDiff, Some(pair), Some(_)) =
        (metric, tokens.filter(|pair| is_same(pair)), model.tokenizer())
    {
        let [first, second] = pair.map(|id| text::shorten(&text::token(&model.token_text(id)), 7));
        return format!("logit {first} − {second}");
    }
    let label = match metric {
        Metric::Prob => "probability",
        Metric::Logit => "logit",
        Metric::Logprob => "log probability (nats)",
        Metric::LogitDiff => "logit difference",
        Metric::Kl => "KL divergence (nats)",
        Metric::Accuracy => "accuracy",
        Metric::Loss => "loss (nats)",
        Metric::Rank => "rank (1 is the likeliest)",
        Metric::Entropy => "entropy (nats)",
    };
    label.into()
}

/// What a column's numbers are of, and how they were found where there is more than one way.
fn column_title(
    result: &SweepResult,
    model: &Model,
    labels: &TokenLabels,
    column: &Column,
) -> [Option<String>; 2] {
    let tokens = result.tokens.first().map_or(0, |tokens| tokens.len());
    let token = column.token.map(|number| {
        if let Some(answer) = number.checked_sub(tokens) {
            let mut answers =
                (0..result.answers.len()).filter_map(|baseline| result.answer(baseline, number));
            return match answers.next() {
                Some(first) if answers.all(|other| other == first) => text::token(&model.text(first)),
                _ => format!("answers[{answer}]"),
            };
        }
        let mut ids = result.tokens.iter().filter_map(|tokens| tokens.get(number));
        match (ids.next(), model.tokenizer()) {
            (Some(first), _) if ids.any(|id| id != first) => format!("tokens[{number}]"),
            (Some(id), Some(_)) => labels.get(*id).into(),
            (Some(id), None) => format!("token {id}"),
            (None, _) => String::new(),
        }
    });
    [token, result.has_estimates().then(|| column.method.name().into())]
}

fn facet_title([token, method]: &[Option<String>; 2], other: &AxisPoint) -> String {
    let parts = [
        token.clone(),
        method.clone(),
        other.head.map(|head| format!("head {head}")),
        other.scale.map(|scale| format!("scale {}", f64::from_bits(scale))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What the drawn numbers are without any edit, on average.
fn unedited(entries: &[Entry], drawn: &[usize]) -> Centre {
    let base =
        entries.iter().flat_map(|entry| drawn.iter().filter_map(|i| entry.base.get(*i).copied().flatten()));
    let (sum, count) = base.fold((0.0, 0.0), |(sum, count), x| (sum + x, count + 1.0));
    let mean = sum / count;
    if mean.is_finite() { Centre { value: mean, name: "unedited" } } else { Centre::ZERO }
}

/// The rows: layers, or heads of one layer. One site is named beside the axis; several are in the names of rows, as in
/// the tutorial: attn_o3, mlp_o3. `head` is the only head that is edited.
fn row_axis(rows: &[AxisPoint], down: Down, cumulative: bool, head: Option<usize>) -> Axis {
    let site = rows.first().and_then(|first| first.site);
    let site = site.filter(|_| rows.iter().all(|row| row.site == site));
    let layer = |row: &AxisPoint| match (cumulative, row.layers.last()) {
        (true, Some(last)) => last.to_string(),
        _ => span(&row.layers).unwrap_or_default(),
    };
    let tick = |row: &AxisPoint| match (down, row.head, site, row.site) {
        (Down::Head, Some(head), ..) if row.layers.len() == 1 => format!("L{} H{head}", layer(row)),
        (Down::Head, Some(head), ..) => format!("H{head}"),
        (_, _, Some(_), _) if !row.layers.is_empty() => layer(row),
        (.., own) => {
            let short = own.map_or("", Site::name).replace("_output", "_o").replace("attention", "attn");
            short + &layer(row)
        }
    };
    let what = match down {
        Down::Head => "edited head",
        Down::Layer if rows.iter().all(|row| row.layers.is_empty()) => "edited site",
        Down::Layer if cumulative => "edited up to layer",
        Down::Layer => "edited layer",
    };
    let layers = rows.first().filter(|row| down == Down::Head && row.layers.len() > 1);
    let details = [
        site.filter(|_| what != "edited site").map(|site| site.name().to_owned()),
        layers.and_then(|row| span(&row.layers)).map(|layers| format!("layers {layers}")),
        head.map(|head| format!("head {head}")),
    ];
    let details: Vec<String> = details.into_iter().flatten().collect();
    let label = if details.is_empty() { what.into() } else { format!("{what} ({})", details.join(", ")) };
    Axis { label, ticks: rows.iter().map(|row| Tick::new(tick(row))).collect() }
}
