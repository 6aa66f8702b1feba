//! Two colour maps, each a few anchors with straight lines between them in sRGB.

/// A colour of sRGB: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) [u8; 3]);

impl Rgb {
    const fn from_hex(hex: u32) -> Self {
        let [_, red, green, blue] = hex.to_be_bytes();
        Rgb([red, green, blue])
    }

    /// As `#rrggbb`.
    pub(crate) fn hex(self) -> String {
        let [red, green, blue] = self.0;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// Anchors at equal distances, from the low end to the high end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColourMap(&'static [Rgb]);

/// Viridis, of matplotlib (CC0): lightness rises evenly from dark violet to yellow.
pub(crate) const SEQUENTIAL: ColourMap = ColourMap(&[
    Rgb::from_hex(0x44_01_54),
    Rgb::from_hex(0x48_24_75),
    Rgb::from_hex(0x41_44_87),
    Rgb::from_hex(0x35_5f_8d),
    Rgb::from_hex(0x2a_78_8e),
    Rgb::from_hex(0x21_91_8c),
    Rgb::from_hex(0x22_a8_84),
    Rgb::from_hex(0x44_bf_70),
    Rgb::from_hex(0x7a_d1_51),
    Rgb::from_hex(0xbd_df_26),
    Rgb::from_hex(0xfd_e7_25),
]);

/// Blue, white, red: opposite values are equally light.
pub(crate) const DIVERGING: ColourMap = ColourMap(&[
    Rgb::from_hex(0x08_30_6b),
    Rgb::from_hex(0x21_66_ac),
    Rgb::from_hex(0x5b_9b_cb),
    Rgb::from_hex(0xac_cf_e4),
    Rgb::from_hex(0xf7_f7_f7),
    Rgb::from_hex(0xf8_bf_a6),
    Rgb::from_hex(0xe0_7b_62),
    Rgb::from_hex(0xb9_2b_35),
    Rgb::from_hex(0x67_00_1f),
]);

impl ColourMap {
    /// The colour of a fraction of the way from the low end (0) to the high end (1).
    pub(crate) fn at(self, fraction: f64) -> Rgb {
        let last = self.0.len() - 1;
        let place = fraction.clamp(0.0, 1.0) * last as f64;
        let Some(first) = (0..last).rev().find(|index| *index as f64 <= place) else {
            return self.0[0];
        };
        let (Rgb(from), Rgb(to)) = (self.0[first], self.0[first + 1]);
        let part = place - first as f64;
        let mut mixed = [0; 3];
        for (channel, (from, to)) in mixed.iter_mut().zip(from.into_iter().zip(to)) {
            *channel = mix(from, to, part);
        }
        Rgb(mixed)
    }

    /// The anchors, from the low end to the high end.
    pub(crate) fn anchors(self) -> &'static [Rgb] {
        self.0
    }
}

/// The byte that is `part` of the way between two others.
fn mix(from: u8, to: u8, part: f64) -> u8 {
    let mixed = f64::from(from) + (f64::from(to) - f64::from(from)) * part;
    u8::try_from(mixed.round() as i32).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CIE L*, 0 to 100.
    fn lightness(Rgb(channels): Rgb) -> f64 {
        let linear = channels.map(|byte| {
            let s = f64::from(byte) / 255.0;
            if s <= 0.04045 { s / 12.92 } else { ((s + 0.055) / 1.055).powf(2.4) }
        });
        let y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
        116.0 * y.cbrt() - 16.0
    }

    #[test]
    fn anchors_are_met() {
        assert_eq!(SEQUENTIAL.at(0.0).hex(), "#440154");
        assert_eq!(SEQUENTIAL.at(0.5).hex(), "#21918c");
        assert_eq!(SEQUENTIAL.at(1.0).hex(), "#fde725");
        assert_eq!(SEQUENTIAL.at(-9.0), SEQUENTIAL.at(0.0));
        assert_eq!(SEQUENTIAL.at(9.0), SEQUENTIAL.at(1.0));
        assert_eq!(DIVERGING.at(0.5).hex(), "#f7f7f7");
        assert_eq!(DIVERGING.at(1.0 / 16.0).0, [0x15, 0x4b, 0x8c]);
    }

    #[test]
    fn sequential_rises_evenly() {
        let light: Vec<f64> = (0..=50).map(|i| lightness(SEQUENTIAL.at(f64::from(i) / 50.0))).collect();
        let step = (light[50] - light[0]) / 50.0;
        for pair in light.windows(2) {
            let rise = pair[1] - pair[0];
            assert!(rise > 0.5 * step && rise < 1.6 * step, "{rise} of {step}");
        }
    }

    #[test]
    fn diverging_is_symmetric() {
        for i in 0..=50 {
            let away = f64::from(i) / 100.0;
            let (low, high) = (DIVERGING.at(0.5 - away), DIVERGING.at(0.5 + away));
            let (blue, red) = (lightness(low), lightness(high));
            assert!((blue - red).abs() < 4.0, "{away}: {blue} and {red}");
            assert!(i == 0 || (low.0[2] > low.0[0] && high.0[0] > high.0[2]), "{away}");
        }
    }
}
