//! How well estimates tell what cells really give.

use crate::experiment::method::Method;
use crate::metric::Metric;
use crate::run::prepared::SweepResult;
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
    /// Pearson's correlation; `None` where the numbers of either method are the same in all cells, up to rounding: the
    /// exact ones where they differ by less than a change of the logits by 2⁻¹⁶ does, which is what f32 resolves of
    /// them; the estimates where they differ in the last bits.
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
            let is_its = |other: &crate::run::prepared::Column| {
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
                correlation: correlation(&pairs, column.metric),
                mean_error: pairs.iter().map(|(x, y)| (x - y).abs()).sum::<f64>() / pairs.len() as f64,
            });
        }
        found
    }
}

fn correlation(pairs: &[(f64, f64)], metric: Metric) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    // Deviations from a mean are never all 0 where the mean itself is rounded.
    let spread = |of: fn(&(f64, f64)) -> f64| {
        let (low, high) = pairs
            .iter()
            .map(of)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        high - low
    };
    if spread(|pair| pair.0) <= metric.resolution(x) || spread(|pair| pair.1) <= 4.0 * f64::EPSILON * y.abs()
    {
        return None;
    }
    let sum = |f: fn(f64, f64) -> f64| pairs.iter().map(|pair| f(pair.0 - x, pair.1 - y)).sum::<f64>();
    let scale = (sum(|x, _| x * x) * sum(|_, y| y * y)).sqrt();
    (scale > 0.0).then(|| sum(|x, y| x * y) / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn correlation_is_of_what_varies() {
        let of = |pairs: &[(f64, f64)]| correlation(pairs, Metric::LogitDiff);
        assert_eq!(of(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]), Some(1.0));
        assert_eq!(of(&[(0.0, 1.0), (1.0, 0.0)]), Some(-1.0));
        assert_eq!(of(&[(0.0, 1.0), (1.0, 1.0)]), None);
        assert_eq!(of(&[(0.0, 0.0), (0.0, 1.0)]), None);
    }

    /// The mean of ten equal numbers is rounded, which leaves equal deviations: no correlation, and certainly not 1.
    #[test]
    fn what_is_constant_up_to_rounding_has_no_correlation() {
        let (p, ln) = (0.043_272_889_904_023_885, -3.140_228_939_269_883_7);
        for (value, metric) in
            [(p, Metric::Prob), (ln, Metric::Logprob), (-ln, Metric::Loss), (ln, Metric::Logit)]
        {
            assert_eq!(correlation(&[(value, value); 10], metric), None);
            // What f32 cannot tell from another is the same; what it can is not.
            let moved = |by: f64| {
                let other = |i: usize| if i.is_multiple_of(2) { value } else { value * (1.0 + by) };
                let pairs: Vec<_> = (0..10).map(|i| (other(i), i as f64)).collect();
                correlation(&pairs, metric)
            };
            assert_eq!(moved(1e-8), None, "{metric:?}");
            assert!(moved(1e-4).is_some(), "{metric:?}");
            let estimates: Vec<_> = (0..10).map(|i| (f64::from(i), value)).collect();
            assert_eq!(correlation(&estimates, metric), None);
        }
        // Near 1 a probability moves little where the logits move much.
        let sure: Vec<_> = (0..10).map(|i| (1.0 - 1e-9 * f64::from(i), f64::from(i))).collect();
        assert!(correlation(&sure, Metric::Prob).is_some_and(|r| (r + 1.0).abs() < 1e-6));
        assert_eq!(correlation(&[(0.0, 1.0), (1.0, 2.0)], Metric::Accuracy), Some(1.0));
        assert_eq!(correlation(&[(1e-15, 1.0), (0.0, 2.0)], Metric::Kl), None);
    }
}
