//! From values to fractions of a colour map, and the ticks beside it.

use crate::colour::{ColourMap, DIVERGING, Rgb, SEQUENTIAL};
use crate::text;

/// How values become colours; one scale for all facets of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Scale {
    /// Dark to light, from 0 to the greatest value (from the least one, if there are negative values): probabilities.
    #[default]
    FromZero,
    /// Dark to light, from the least to the greatest value: logits.
    Sequential,
    /// White for the centre, blue for values below it, red for values above it, as far to both sides: differences.
    Diverging(Centre),
}

/// The middle of a diverging scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Centre {
    /// The value that is white; finite.
    pub value: f64,
    /// What the value is, for the legend of the colour bar; nothing is written there if it is empty.
    pub name: &'static str,
}

impl Centre {
    /// 0, which needs no legend.
    pub const ZERO: Self = Self { value: 0.0, name: "" };

    /// The legend, if the centre has one.
    pub(crate) fn legend(self) -> Option<String> {
        (!self.name.is_empty()).then(|| format!("{}: {}", text::prose(self.name), text::number(self.value)))
    }
}

impl Scale {
    /// The legend of the middle of the scale, if it has one.
    pub(crate) fn legend(self) -> Option<String> {
        match self {
            Self::Diverging(centre) => centre.legend(),
            Self::FromZero | Self::Sequential => None,
        }
    }
}

/// The values that the two ends of a colour map stand for, low < high, both finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) colours: ColourMap,
}

impl Range {
    /// The range of finite values; there may be none.
    pub(crate) fn of(scale: Scale, values: impl Iterator<Item = f64>) -> Self {
        let ends = values.fold(None, |ends: Option<(f64, f64)>, value| {
            let (low, high) = ends.unwrap_or((value, value));
            Some((low.min(value), high.max(value)))
        });
        let middle = if let Scale::Diverging(centre) = scale { centre.value } else { 0.0 };
        let (low, high) = ends.unwrap_or((middle, middle));
        let (low, high, colours) = match scale {
            Scale::FromZero => (low.min(0.0), high.max(0.0), SEQUENTIAL),
            Scale::Sequential => (low, high, SEQUENTIAL),
            Scale::Diverging(_) => {
                let most = (high - middle).max(middle - low);
                ((middle - most).max(f64::MIN), (middle + most).min(f64::MAX), DIVERGING)
            }
        };
        let (low, high) = widened(scale, low, high);
        Range { low, high, colours }
    }

    /// Where between low (0) and high (1) a value is.
    pub(crate) fn fraction(&self, value: f64) -> f64 {
        // Halves, since high − low may be infinite.
        let part = (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0);
        if part.is_nan() { 0.5 } else { part.clamp(0.0, 1.0) }
    }

    pub(crate) fn colour(&self, value: f64) -> Rgb {
        self.colours.at(self.fraction(value))
    }
}

/// Ends whose halves differ, where there is one value only: it is then in the middle, or at the high end of a scale from 0.
fn widened(scale: Scale, low: f64, high: f64) -> (f64, f64) {
    if low / 2.0 < high / 2.0 {
        return (low, high);
    }
    let by = if low.abs() < f64::MIN_POSITIVE { 1.0 } else { low.abs() / 2.0 };
    match scale {
        Scale::FromZero => (0.0, 1.0),
        _ => ((low - by).max(f64::MIN), (high + by).min(f64::MAX)),
    }
}

/// A place on a colour bar and what is written there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BarTick {
    pub(crate) value: f64,
    pub(crate) label: String,
}

/// Multiples of 1, 2 or 5 times a power of ten within the range, two to `most` of them, which is always possible
/// from 5 on; the two ends, if the range is too narrow for floats.
pub(crate) fn ticks(low: f64, high: f64, most: usize) -> Vec<BarTick> {
    let tenth = ((high / 2.0 - low / 2.0) / 50.0).log10().floor();
    let exponents = (0..4).map(|up| tenth as i32 + up);
    let steps = exponents.flat_map(|exponent| [1, 2, 5].map(|digit| (digit, exponent)));
    steps
        .map(|(digit, exponent)| multiples(low, high, digit, exponent, most))
        .find(|ticks| (2..=most).contains(&ticks.len()))
        .unwrap_or_else(|| [low, high].map(|value| BarTick { value, label: text::number(value) }).to_vec())
}

/// Ticks of a logarithmic axis from 10^low to 10^high, their values exponents: 1, 2 and 5 times powers of ten, or only
/// powers, or only some of these, until there are at most `most`.
pub(crate) fn log_ticks(low: f64, high: f64, most: usize) -> Vec<BarTick> {
    let (first, last) = (low.floor() as i32, high.ceil() as i32);
    let within = |digits: &[i64], stride: i32| -> Vec<BarTick> {
        let exponents = (first..=last).filter(|exponent| exponent.rem_euclid(stride) == 0);
        let numbers = exponents.flat_map(|exponent| digits.iter().map(move |digit| (*digit, exponent)));
        let ticks = numbers.map(|(digit, exponent)| {
            let number = decimal(digit, exponent);
            BarTick { value: number.log10(), label: label(number, exponent) }
        });
        ticks.filter(|tick| (low..=high).contains(&tick.value)).collect()
    };
    let choices = [(&[1, 2, 5][..], 1), (&[1], 1), (&[1], 2), (&[1], 5), (&[1], 20), (&[1], 100)];
    let mut found = choices.into_iter().map(|(digits, stride)| within(digits, stride));
    match found.find(|ticks| ticks.len() <= most) {
        Some(ticks) if ticks.len() >= 2 => ticks,
        // A factor of two or so, which is almost a linear axis.
        _ => {
            let linear = ticks(10f64.powf(low), 10f64.powf(high), most.max(5)).into_iter();
            let placed = linear.map(|tick| BarTick { value: tick.value.log10().clamp(low, high), ..tick });
            let placed: Vec<BarTick> = placed.filter(|tick| tick.value.is_finite()).collect();
            let ends = || [low, high].map(|value| BarTick { value, label: text::number(10f64.powf(value)) });
            if placed.len() >= 2 { placed } else { ends().to_vec() }
        }
    }
}

/// Multiples of digit · 10^exponent within the range; one more than `most` stand for too many.
fn multiples(low: f64, high: f64, digit: i64, exponent: i32, most: usize) -> Vec<BarTick> {
    let step = decimal(digit, exponent);
    let first = (low / step).ceil();
    if step == 0.0 || first.abs() > 1e15 {
        return Vec::new();
    }
    (first as i64..)
        .map(|count| decimal(count * digit, exponent))
        .skip_while(|value| *value < low) // low / step has underflowed
        .take_while(|value| *value <= high)
        .take(most + 1)
        .map(|value| BarTick { value, label: label(value, exponent) })
        .collect()
}

/// The float nearest to count · 10^exponent, so that a tick is 0.3 and not 0.30000000000000004.
fn decimal(count: i64, exponent: i32) -> f64 {
    format!("{count}e{exponent}").parse().unwrap_or(f64::NAN)
}

/// A multiple of 10^exponent with just the decimals it needs.
fn label(value: f64, exponent: i32) -> String {
    match exponent {
        -5..=5 => {
            let decimals = usize::try_from(-exponent).unwrap_or(0);
            format!("{value:.decimals$}")
        }
        _ if value == 0.0 => "0".to_owned(),
        _ => format!("{value:e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(scale: Scale, values: &[f64]) -> (f64, f64) {
        let range = Range::of(scale, values.iter().copied());
        (range.low, range.high)
    }

    #[test]
    fn ranges() {
        use Scale::{FromZero, Sequential};
        let zero = Scale::Diverging(Centre::ZERO);
        let three = Scale::Diverging(Centre { value: 3.0, name: "base" });
        assert_eq!(ends(FromZero, &[0.2, 0.5]), (0.0, 0.5));
        assert_eq!(ends(FromZero, &[-0.2, 0.5]), (-0.2, 0.5));
        assert_eq!(ends(FromZero, &[0.0]), (0.0, 1.0));
        assert_eq!(ends(FromZero, &[]), (0.0, 1.0));
        assert_eq!(ends(Sequential, &[0.2, 0.5, 0.3]), (0.2, 0.5));
        assert_eq!(ends(Sequential, &[4.0]), (2.0, 6.0));
        assert_eq!(ends(Sequential, &[-4.0]), (-6.0, -2.0));
        assert_eq!(ends(Sequential, &[]), (-1.0, 1.0));
        assert_eq!(ends(zero, &[0.2, -0.5]), (-0.5, 0.5));
        assert_eq!(ends(zero, &[0.5]), (-0.5, 0.5));
        assert_eq!(ends(zero, &[0.0]), (-1.0, 1.0));
        assert_eq!(ends(three, &[2.0, 3.5]), (2.0, 4.0));
        assert_eq!(ends(three, &[7.0]), (-1.0, 7.0));
        assert_eq!(ends(three, &[3.0]), (1.5, 4.5));
        assert_eq!(ends(three, &[]), (1.5, 4.5));
    }

    #[test]
    fn the_centre_is_white_on_a_diverging_scale() {
        let centre = Centre { value: 4.2, name: "" };
        let range = Range::of(Scale::Diverging(centre), [0.1, 5.0].into_iter());
        assert_eq!(range.colour(4.2), Rgb([0xf7; 3]));
        let range = Range::of(Scale::Diverging(Centre::ZERO), [0.001, 7.0].into_iter());
        assert_eq!(range.colour(0.0), Rgb([0xf7; 3]));
        assert_eq!(range.colour(7.0), DIVERGING.at(1.0));
        assert_eq!(range.colour(-7.0), DIVERGING.at(0.0));
    }

    #[test]
    fn extreme_ranges_have_fractions() {
        let range = Range::of(Scale::Sequential, [f64::MIN, f64::MAX].into_iter());
        assert_eq!([f64::MIN, 0.0, f64::MAX].map(|value| range.fraction(value)), [0.0, 0.5, 1.0]);
        let range = Range::of(Scale::Sequential, [f64::MAX].into_iter());
        assert!(range.high.is_finite() && range.low < range.high);
        for values in [[5e-324; 2], [0.0, 5e-324], [-5e-324, 5e-324]] {
            let (low, high) = ends(Scale::Sequential, &values);
            assert!(low / 2.0 < high / 2.0, "{values:?}");
        }
    }

    fn labels(low: f64, high: f64) -> Vec<String> {
        ticks(low, high, 6).into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.0, 0.38), ["0.0", "0.1", "0.2", "0.3"]);
        assert_eq!(labels(-3.0, 3.0), ["-2", "0", "2"]);
        assert_eq!(labels(-0.5, 0.5), ["-0.4", "-0.2", "0.0", "0.2", "0.4"]);
        assert_eq!(labels(0.0, 2.5e-9), ["0", "5e-10", "1e-9", "1.5e-9", "2e-9", "2.5e-9"]);
        assert_eq!(labels(17.0, 1234.0), ["200", "400", "600", "800", "1000", "1200"]);
        assert_eq!(labels(0.0, 3e7), ["0", "1e7", "2e7", "3e7"]);
        assert_eq!(labels(4e-89, 1.4e245), ["5e244", "1e245"]);
    }

    #[test]
    fn logarithmic_ticks_are_round() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            log_ticks(low.log10(), high.log10(), 6).into_iter().map(|tick| tick.label).collect()
        };
        assert_eq!(labels(3.0, 60.0), ["5", "10", "20", "50"]);
        assert_eq!(labels(0.3, 4.0), ["0.5", "1", "2"]);
        assert_eq!(labels(3.0, 90_000.0), ["10", "100", "1000", "10000"]);
        assert_eq!(labels(1.0, 1e9), ["1", "100", "10000", "1e6", "1e8"]);
        assert_eq!(labels(3.0, 4.0), ["3.0", "3.2", "3.4", "3.6", "3.8", "4.0"]);
    }

    proptest! {
        #[test]
        fn any_logarithmic_range_has_ticks(a in -300.0..300.0_f64, b in -300.0..300.0_f64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assume!(low < high);
            let ticks = log_ticks(low, high, 6);
            prop_assert!((2..=6).contains(&ticks.len()), "{ticks:?}");
            prop_assert!(ticks.iter().all(|tick| (low..=high).contains(&tick.value)), "{ticks:?}");
        }

        #[test]
        fn ticks_are_few_even_and_within(low in -1e6..1e6_f64, size in 1e-6..1e6_f64, most in 5..9_usize) {
            let ticks = ticks(low, low + size, most);
            prop_assert!((2..=most).contains(&ticks.len()), "{ticks:?}");
            let step = ticks[1].value - ticks[0].value;
            let digit = step / 10_f64.powf((step * 1.0001).log10().floor());
            prop_assert!([1.0, 2.0, 5.0].iter().any(|d| (digit - d).abs() < 0.01), "{digit}");
            for pair in ticks.windows(2) {
                prop_assert!((pair[1].value - pair[0].value - step).abs() < step * 1e-3);
            }
            prop_assert!(ticks[0].value >= low && ticks[0].value - step < low);
            let last = &ticks[ticks.len() - 1].value;
            prop_assert!(*last <= low + size && last + step > low + size);
            for tick in &ticks {
                let read: f64 = tick.label.parse().unwrap();
                prop_assert!((read - tick.value).abs() <= step * 1e-6, "{tick:?}");
            }
        }

        #[test]
        fn any_range_has_ticks(a in any::<f64>(), b in any::<f64>()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assume!(low < high && low.is_finite() && high.is_finite());
            let ticks = ticks(low, high, 6);
            prop_assert!((2..=6).contains(&ticks.len()));
            prop_assert!(ticks.iter().all(|tick| (low..=high).contains(&tick.value)), "{ticks:?}");
        }
    }
}
