//! How well estimates tell what cells really give.

use super::Method;
use crate::metric::Metric;
use crate::sweep::SweepResult;
use serde::Serialize;

/// The estimates of one method beside the exact numbers, over all cells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Agreement {
    /// The method.
    pub method: Method,
    /// The metric.
    #[serde(serialize_with = "name")]
    pub metric: Metric,
    /// Which of the tokens read, for metrics of one.
    pub token: Option<usize>,
    /// How many cells have both numbers.
    pub cells: usize,
    /// Pearson's correlation; `None` where either is the same everywhere.
    pub correlation: Option<f64>,
    /// The mean of |estimate − exact|.
    pub mean_error: f64,
}

fn name<S: serde::Serializer>(metric: &Metric, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(metric.name())
}

impl SweepResult {
    /// Each estimate beside its exact numbers; nothing where there are not both.
    pub fn agreement(&self) -> Vec<Agreement> {
        let mut found = Vec::new();
        for (i, column) in self.columns.iter().enumerate().filter(|(_, c)| c.method != Method::Exact) {
            let is_its = |other: &crate::sweep::Column| {
                other.method == Method::Exact && (other.metric, other.token) == (column.metric, column.token)
            };
            let Some(exact) = self.columns.iter().position(is_its) else { continue };
            let number = |values: &[Option<f64>], i: usize| values.get(i).copied().flatten();
            let pairs: Vec<(f64, f64)> =
                self.values.iter().filter_map(|v| number(v, exact).zip(number(v, i))).collect();
            if pairs.is_empty() {
                continue;
            }
            found.push(Agreement {
                method: column.method,
                metric: column.metric,
                token: column.token,
                cells: pairs.len(),
                correlation: correlation(&pairs),
                mean_error: pairs.iter().map(|(x, y)| (x - y).abs()).sum::<f64>() / pairs.len() as f64,
            });
        }
        found
    }
}

fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    let sum = |f: fn(f64, f64) -> f64| pairs.iter().map(|pair| f(pair.0 - x, pair.1 - y)).sum::<f64>();
    let scale = (sum(|x, _| x * x) * sum(|_, y| y * y)).sqrt();
    (scale > 0.0).then(|| sum(|x, y| x * y) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_is_of_what_varies() {
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 0.0)]), Some(-1.0));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 1.0)]), None);
    }
}
