//! Which token comes next: the likeliest, or one drawn.

use super::options::Generation;
use crate::bounds;
use crate::op::noise::uniform;
use crate::{Error, Result};

/// How tokens are chosen, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sampler {
    /// `None` is the likeliest.
    temperature: Option<f64>,
    top_k: usize,
    top_p: f64,
    seed: u64,
}

impl Sampler {
    pub(super) fn new(options: &Generation) -> Result<Self> {
        let refuse =
            |problem: String, hint: &str| Err(Error::hinted("generate", problem, Some(hint.to_owned())));
        // A temperature of 0 is the limit in which only the likeliest is left.
        let temperature = options.temperature.filter(|temperature| *temperature != 0.0);
        if let Some(temperature) = temperature.filter(|t| !(t.is_finite() && *t > 0.0)) {
            return refuse(
                format!("temperature = {temperature}, where a number above 0 fits"),
                "0, or none, takes the likeliest token",
            );
        }
        options.top_k.map(|top_k| bounds::GENERATE_TOP_K.check(top_k)).transpose()?;
        if let Some(top_p) = options.top_p.filter(|p| !(*p > 0.0 && *p <= 1.0)) {
            return refuse(
                format!("top_p = {top_p}, where a part of 1 fits, above 0"),
                "leave it out for all tokens",
            );
        }
        let sampling = [("top_k", options.top_k.is_some()), ("top_p", options.top_p.is_some())];
        if let (None, Some((name, _))) = (temperature, sampling.iter().find(|(_, given)| *given)) {
            return refuse(
                format!("{name} is for sampling, and without a temperature the likeliest token is taken"),
                "add temperature = 1.0",
            );
        }
        bounds::GENERATE_SAMPLES.check(options.samples)?;
        if temperature.is_none() && options.samples > 1 {
            return refuse(
                format!(
                    "samples = {}, which would be the same without a temperature: the likeliest token is taken",
                    options.samples
                ),
                "add temperature = 1.0",
            );
        }
        Ok(Self {
            temperature,
            top_k: options.top_k.unwrap_or(usize::MAX),
            top_p: options.top_p.unwrap_or(1.0),
            seed: options.seed,
        })
    }

    /// The token for these logits: a function of them, the seed, the stream and the step alone, so that it does not
    /// matter what else is computed.
    ///
    /// Sampling follows the usual order: logits are divided by the temperature, the `top_k` largest are kept, of these
    /// the likeliest whose probabilities together reach `top_p`, and one of them is drawn. Of equal ones the smaller
    /// id comes first.
    pub(super) fn token(&self, logits: &[f32], stream: u64, step: u64) -> u32 {
        let likelier = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let all = 0..logits.len();
        let Some(temperature) = self.temperature else {
            return number(all.min_by(likelier).unwrap_or(0));
        };
        let mut order: Vec<usize> = all.collect();
        if self.top_k < order.len() {
            order.select_nth_unstable_by(self.top_k, likelier);
            order.truncate(self.top_k);
        }
        order.sort_unstable_by(likelier);
        let most = order.first().map_or(0.0, |first| f64::from(logits[*first]));
        let weights: Vec<f64> =
            order.iter().map(|id| ((f64::from(logits[*id]) - most) / temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let mut count = 0;
        while count < weights.len() && (count == 0 || kept < self.top_p * total) {
            kept += weights[count];
            count += 1;
        }
        let mut left = uniform(self.seed, stream, step) * kept;
        for (id, weight) in order.iter().zip(&weights).take(count) {
            left -= weight;
            if left < 0.0 {
                return number(*id);
            }
        }
        // Rounding may leave a little.
        number(order[count.saturating_sub(1)])
    }
}

fn number(id: usize) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(options: &Generation) -> Sampler {
        Sampler::new(options).unwrap()
    }

    #[test]
    fn the_likeliest_is_the_first_of_equals() {
        let greedy = sampler(&Generation::default());
        assert_eq!(greedy.token(&[1.0, 3.0, 3.0, -1.0], 0, 0), 1);
        assert_eq!(greedy.token(&[f32::NEG_INFINITY, 3.0], 5, 9), 1);
    }

    /// Frequencies of 40 000 draws against their probabilities: χ² below its 99.9 % point.
    #[test]
    fn draws_have_the_probabilities_of_the_softmax() {
        let logits = [0.5f32, -1.0, 2.0, 1.5, 0.0, -3.0];
        let probabilities = |kept: &[usize], temperature: f64| -> Vec<f64> {
            let weight = |id: &usize| (f64::from(logits[*id]) / temperature).exp();
            let total: f64 = kept.iter().map(weight).sum();
            (0..logits.len()).map(|id| if kept.contains(&id) { weight(&id) / total } else { 0.0 }).collect()
        };
        let sampled = |temperature, top_k, top_p| Generation {
            temperature: Some(temperature),
            top_k,
            top_p,
            seed: 7,
            ..Generation::default()
        };
        for (options, expected) in [
            (sampled(1.0, None, None), probabilities(&[0, 1, 2, 3, 4, 5], 1.0)),
            (sampled(0.5, None, None), probabilities(&[0, 1, 2, 3, 4, 5], 0.5)),
            (sampled(1.0, Some(3), None), probabilities(&[2, 3, 0], 1.0)),
            // 0.46, 0.28, 0.10 …: the third is needed to reach 0.8.
            (sampled(1.0, None, Some(0.8)), probabilities(&[2, 3, 0], 1.0)),
            (sampled(2.0, Some(4), Some(0.5)), probabilities(&[2, 3], 2.0)),
        ] {
            let sampler = sampler(&options);
            let draws = 40_000u32;
            let mut counts = [0u32; 6];
            (0..draws).for_each(|i| {
                let (stream, step) = (u64::from(i % 50), u64::from(i / 50));
                counts[sampler.token(&logits, stream, step) as usize] += 1;
            });
            let mut squares = 0.0;
            for (count, p) in counts.iter().zip(&expected) {
                let mean = p * f64::from(draws);
                if mean == 0.0 {
                    assert_eq!(*count, 0);
                } else {
                    squares += (f64::from(*count) - mean).powi(2) / mean;
                }
            }
            // 20.5 is the point for 5 degrees of freedom, the most there are.
            assert!(squares < 20.5, "{counts:?} for {expected:?}: {squares}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let g = Generation::default;
        for (options, says) in [
            (Generation { temperature: Some(-1.0), ..g() }, "temperature = -1"),
            (Generation { temperature: Some(f64::NAN), ..g() }, "temperature = NaN"),
            (Generation { temperature: Some(1.0), top_k: Some(0), ..g() }, "`top_k` must be from 1"),
            (Generation { temperature: Some(1.0), top_p: Some(0.0), ..g() }, "top_p = 0"),
            (Generation { temperature: Some(1.0), top_p: Some(1.5), ..g() }, "top_p = 1.5"),
            (Generation { top_k: Some(5), ..g() }, "top_k is for sampling"),
            (Generation { top_p: Some(0.9), temperature: Some(0.0), ..g() }, "top_p is for sampling"),
            (Generation { samples: 3, ..g() }, "samples = 3"),
            (Generation { samples: 0, ..g() }, "`samples` must be from 1"),
            (Generation { samples: usize::MAX, temperature: Some(1.0), ..g() }, "`samples` must be from 1"),
        ] {
            let error = Sampler::new(&options).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
