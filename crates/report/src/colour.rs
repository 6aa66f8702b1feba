//! Two colour maps, each a few anchors with straight lines between them in sRGB, and a ladder of xterm's colours.

/// A colour of sRGB: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rgb(pub(crate) [u8; 3]);

impl Rgb {
    const fn from_hex(hex: u32) -> Self {
        let [_, red, green, blue] = hex.to_be_bytes();
        Rgb([red, green, blue])
    }

    /// Whether white letters on it are easier to read than black ones.
    pub(crate) fn is_dark(self) -> bool {
        let [red, green, blue] = self.0.map(f64::from);
        0.299 * red + 0.587 * green + 0.114 * blue < 140.0
    }

    /// As `#rrggbb`.
    pub(crate) fn hex(self) -> String {
        let [red, green, blue] = self.0;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }
}

/// Colours for fractions of a scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColourMap {
    /// Colours at equal distances, from the low end to the high end.
    anchors: &'static [Rgb],
    /// The colours of a terminal that has 256, chosen by hand: the nearest ones do not get lighter evenly.
    xterm: &'static [u8],
}

/// Viridis, of matplotlib (CC0): lightness rises evenly from dark violet to yellow.
pub(crate) const SEQUENTIAL: ColourMap = ColourMap {
    anchors: &[
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
    ],
    xterm: &[53, 54, 24, 30, 36, 77, 149, 226],
};

/// Blue, white, red: opposite values are equally light.
pub(crate) const DIVERGING: ColourMap = ColourMap {
    anchors: &[
        Rgb::from_hex(0x08_30_6b),
        Rgb::from_hex(0x21_66_ac),
        Rgb::from_hex(0x5b_9b_cb),
        Rgb::from_hex(0xac_cf_e4),
        Rgb::from_hex(0xf7_f7_f7),
        Rgb::from_hex(0xf8_bf_a6),
        Rgb::from_hex(0xe0_7b_62),
        Rgb::from_hex(0xb9_2b_35),
        Rgb::from_hex(0x67_00_1f),
    ],
    xterm: &[17, 25, 68, 110, 153, 255, 224, 174, 167, 124, 52],
};

impl ColourMap {
    /// The colour of a fraction of the way from the low end (0) to the high end (1).
    pub(crate) fn at(self, fraction: f64) -> Rgb {
        let last = self.anchors.len() - 1;
        let place = fraction.clamp(0.0, 1.0) * last as f64;
        let Some(first) = (0..last).rev().find(|index| *index as f64 <= place) else {
            return self.anchors[0];
        };
        let (Rgb(from), Rgb(to)) = (self.anchors[first], self.anchors[first + 1]);
        let part = place - first as f64;
        let mut mixed = [0; 3];
        for (channel, (from, to)) in mixed.iter_mut().zip(from.into_iter().zip(to)) {
            *channel = mix(from, to, part);
        }
        Rgb(mixed)
    }

    /// The anchors, from the low end to the high end.
    pub(crate) fn anchors(self) -> &'static [Rgb] {
        self.anchors
    }

    /// The index, among xterm's colours, of that of a fraction of the way from the low end (0) to the high end (1).
    pub(crate) fn xterm_at(self, fraction: f64) -> u8 {
        let count = self.xterm.len() as f64;
        let reached = |index: &usize| *index as f64 <= fraction * count;
        let index = (0..self.xterm.len()).rev().find(reached);
        self.xterm[index.unwrap_or(0)]
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

    /// One of the 216 colours of xterm's cube, or one of its greys.
    fn xterm(index: u8) -> Rgb {
        const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        match index {
            16..=231 => {
                Rgb([(index - 16) / 36, (index - 16) / 6 % 6, (index - 16) % 6]
                    .map(|i| LEVELS[usize::from(i)]))
            }
            grey => Rgb([8 + 10 * (grey - 232); 3]),
        }
    }

    #[test]
    fn xterm_ladders_rise_and_match() {
        let light =
            |map: ColourMap| map.xterm.iter().map(|index| lightness(xterm(*index))).collect::<Vec<_>>();
        assert!(light(SEQUENTIAL).is_sorted_by(|a, b| a < b));
        let diverging = light(DIVERGING);
        let (blue, red) = diverging.split_at(diverging.len() / 2);
        assert!(blue.is_sorted_by(|a, b| a < b) && red.is_sorted_by(|a, b| a > b), "{diverging:?}");
        assert_eq!(DIVERGING.xterm_at(0.5), 255);
        for map in [SEQUENTIAL, DIVERGING] {
            let last = map.xterm.len() - 1;
            assert_eq!(
                [-1.0, 0.0, 1.0, 2.0].map(|f| map.xterm_at(f)),
                [0, 0, last, last].map(|i| map.xterm[i])
            );
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
