//! The heat map of a sweep: what goes on which axis.

use crate::tidy::span;
use causalcone_engine::plan::Coordinates;
use causalcone_engine::{Metric, SweepResult};
use causalcone_model::{Model, Site};
use causalcone_report::{Axis, Facet, HeatMap, Scale, Tick, text};
use std::collections::{HashMap, HashSet};

/// What runs along x: the first of these that a sweep varies, positions if it varies none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Across {
    Position,
    Head,
    Scale,
}

/// One coordinate along an axis, in a form that can be compared: the scale by its bits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Point {
    layers: Vec<usize>,
    site: Option<Site>,
    head: Option<usize>,
    position: Option<usize>,
    scale: Option<u64>,
}

/// The points of an axis in order, and the place of each.
struct Points {
    list: Vec<Point>,
    places: HashMap<Point, usize>,
}

impl Points {
    fn new(points: impl Iterator<Item = Point>) -> Self {
        let (mut list, mut seen) = (Vec::new(), HashSet::new());
        for point in points {
            if seen.insert(point.clone()) {
                list.push(point);
            }
        }
        Self::ordered(list)
    }

    fn ordered(list: Vec<Point>) -> Self {
        let places = list.iter().cloned().zip(0..).collect();
        Self { list, places }
    }
}

/// The heat map of a sweep's first metric: positions (or heads, or scales) along x; layers upwards,
/// the sites of a layer one above the other in the order they run; a facet a token, and a facet
/// for each value of what else is swept.
///
/// ```
/// use causalcone::{Experiment, LayerAxis, Model, Op, PreparedSweep, Cone, Site, Sweep, heat_map};
///
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/tiny-gpt2");
/// let model = Model::load(path)?;
/// let mut exp = Experiment::new(&model);
/// let base = exp.run_ids("base", vec![3, 1, 4])?;
/// exp.edit(base, Site::MlpOutput.layers(..), Op::zero())?;
/// exp.tokens(vec![7])?;
/// exp.sweep(Sweep { layers: Some(LayerAxis::Each), positions: true, ..Sweep::default() });
/// let result = PreparedSweep::new(&exp)?.run(&Cone::default())?;
/// let map = heat_map(&result, &model, "zeroing the MLP");
/// assert_eq!((map.x.ticks.len(), map.y.ticks.len(), map.facets.len()), (3, 3, 1));
/// assert!(map.to_svg()?.starts_with("<svg"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn heat_map(result: &SweepResult, model: &Model, title: &str) -> HeatMap {
    let varied =
        |f: fn(&Coordinates) -> Option<f64>| result.cells.windows(2).any(|pair| f(&pair[0]) != f(&pair[1]));
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
    let x_of = |at: &Coordinates| Point {
        head: at.head.filter(|_| across == Across::Head),
        position: at.position.filter(|_| across == Across::Position),
        scale: at.scale.filter(|_| across == Across::Scale).map(f64::to_bits),
        ..Point::default()
    };
    let y_of = |at: &Coordinates| Point { layers: at.layers.clone(), site: at.site, ..Point::default() };
    let facet_of = |at: &Coordinates| Point {
        head: at.head.filter(|_| across != Across::Head && heads),
        scale: at.scale.filter(|_| across != Across::Scale && scales).map(f64::to_bits),
        ..Point::default()
    };
    let columns = Points::new(result.cells.iter().map(x_of));
    let mut rows = Points::new(result.cells.iter().map(y_of)).list;
    rows.sort_by(|a, b| (a.layers.last(), a.site).cmp(&(b.layers.last(), b.site)));
    let rows = Points::ordered(rows);
    let others = Points::new(result.cells.iter().map(facet_of));

    let metric = result.columns.first().map_or(Metric::Prob, |(metric, _)| *metric);
    let tokens: Vec<Option<u32>> =
        result.columns.iter().filter(|(m, _)| *m == metric).map(|(_, token)| *token).collect();
    let titles = tokens.iter().flat_map(|token| others.list.iter().map(|o| facet_title(model, *token, o)));
    let empty = vec![None; rows.list.len() * columns.list.len()];
    let mut facets: Vec<Facet> = titles.map(|title| Facet { title, values: empty.clone() }).collect();
    for (at, numbers) in result.cells.iter().zip(&result.values) {
        let place =
            (rows.places.get(&y_of(at)), columns.places.get(&x_of(at)), others.places.get(&facet_of(at)));
        let (Some(row), Some(column), Some(other)) = place else { continue };
        // The first metric's columns come first, a token each.
        for (token, number) in numbers.iter().enumerate().take(tokens.len()) {
            facets[token * others.list.len() + other].values[row * columns.list.len() + column] = *number;
        }
    }
    let tick = |point: &Point| match (point.position, point.head, point.scale) {
        (Some(position), ..) => {
            let token = result.prompt.get(position).map_or_else(String::new, |&id| model.token_text(id));
            Tick::token(position.to_string(), token)
        }
        (_, Some(head), _) => Tick::new(head.to_string()),
        (.., Some(scale)) => Tick::new(f64::from_bits(scale).to_string()),
        _ => Tick::new("all"),
    };
    let cumulative = result.cells.iter().any(|at| at.layers.len() > 1 && at.layer.is_some());
    HeatMap {
        title: title.into(),
        subtitle: None,
        x: Axis { label: across.label().into(), ticks: columns.list.iter().map(tick).collect() },
        y: Axis {
            label: if cumulative { "edited up to layer".into() } else { "edited layer".into() },
            ticks: rows.list.iter().map(|point| Tick::new(row_label(point, cumulative))).collect(),
        },
        facets,
        value_label: value_label(metric).into(),
        scale: match metric {
            Metric::Prob | Metric::Kl => Scale::FromZero,
            Metric::Logit | Metric::Logprob => Scale::Sequential,
            Metric::LogitDiff => Scale::Diverging,
        },
    }
}

impl Across {
    fn label(self) -> &'static str {
        match self {
            Self::Position => "position",
            Self::Head => "head",
            Self::Scale => "scale",
        }
    }
}

fn value_label(metric: Metric) -> &'static str {
    match metric {
        Metric::Prob => "probability",
        Metric::Logit => "logit",
        Metric::Logprob => "log probability (nats)",
        Metric::LogitDiff => "logit difference",
        Metric::Kl => "KL divergence (nats)",
    }
}

fn facet_title(model: &Model, token: Option<u32>, other: &Point) -> String {
    let parts = [
        token.map(|id| match model.tokenizer() {
            Some(tokenizer) => text::token(&tokenizer.token(id)),
            None => format!("token {id}"),
        }),
        other.head.map(|head| format!("head {head}")),
        other.scale.map(|scale| format!("scale {}", f64::from_bits(scale))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The tutorial's names: attn_o3, mlp_o3; the last layer of those edited where layers accumulate.
fn row_label(point: &Point, cumulative: bool) -> String {
    let site = point.site.map_or("", Site::name);
    let short = site.replace("_output", "_o").replace("attention", "attn");
    match (cumulative, point.layers.last()) {
        (true, Some(last)) => format!("{short}{last}"),
        _ => format!("{short}{}", span(&point.layers).unwrap_or_default()),
    }
}
