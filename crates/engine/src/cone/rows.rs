//! Sets of positions, as ranges.

use std::ops::Range;

/// A set of positions, kept as ascending ranges that do not touch.
///
/// ```
/// use causalcone_engine::cone::Rows;
/// let rows = Rows::from(2..5).union(&Rows::from_iter([7, 3]));
/// assert_eq!(rows.iter().collect::<Vec<_>>(), [2, 3, 4, 7]);
/// assert_eq!(rows.minus(&Rows::from(3..9)), Rows::from(2..3));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(Ranges);

/// One range is by far the commonest case, and a plan holds many sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Ranges {
    #[default]
    None,
    One(Range<usize>),
    Many(Box<[Range<usize>]>),
}

impl From<Range<usize>> for Rows {
    fn from(range: Range<usize>) -> Self {
        Self(if range.is_empty() { Ranges::None } else { Ranges::One(range) })
    }
}

impl FromIterator<usize> for Rows {
    fn from_iter<I: IntoIterator<Item = usize>>(rows: I) -> Self {
        let mut rows: Vec<usize> = rows.into_iter().collect();
        rows.sort_unstable();
        rows.dedup();
        Self::joined(rows.into_iter().map(|row| row..row + 1))
    }
}

impl Rows {
    /// Ascending ranges, some of which may touch or overlap, made a set.
    fn joined(ranges: impl Iterator<Item = Range<usize>>) -> Self {
        let mut one: Option<Range<usize>> = None;
        let mut many: Vec<Range<usize>> = Vec::new();
        for range in ranges.filter(|range| !range.is_empty()) {
            match &mut one {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                Some(last) => many.push(std::mem::replace(last, range)),
                None => one = Some(range),
            }
        }
        Self(match (one, many.is_empty()) {
            (None, _) => Ranges::None,
            (Some(one), true) => Ranges::One(one),
            (Some(one), false) => {
                many.push(one);
                Ranges::Many(many.into())
            }
        })
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[Range<usize>] {
        match &self.0 {
            Ranges::None => &[],
            Ranges::One(one) => std::slice::from_ref(one),
            Ranges::Many(many) => many,
        }
    }

    /// The positions, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.ranges().iter().flat_map(Clone::clone)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges().iter().map(ExactSizeIterator::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0 == Ranges::None
    }

    /// The first.
    pub fn first(&self) -> Option<usize> {
        self.ranges().first().map(|range| range.start)
    }

    /// One past the last; 0 where there is none.
    pub fn end(&self) -> usize {
        self.ranges().last().map_or(0, |range| range.end)
    }

    /// Whether a position is among them.
    pub fn contains(&self, row: usize) -> bool {
        self.ranges().iter().any(|range| range.contains(&row))
    }

    /// How many come before a position; for one of them its place in order.
    pub fn rank(&self, row: usize) -> usize {
        self.ranges()
            .iter()
            .take_while(|range| range.start < row)
            .map(|range| range.end.min(row) - range.start)
            .sum()
    }

    /// These and the `count` after each, all of them where there is no such number; none from `end` on.
    #[must_use]
    pub fn spread(&self, count: Option<usize>, end: usize) -> Self {
        let Some(count) = count else {
            return Self::from(self.first().unwrap_or(end)..end);
        };
        let wider = |range: &Range<usize>| range.start..range.end.saturating_add(count).min(end);
        Self::joined(self.ranges().iter().map(wider))
    }

    /// What rows see through a window: themselves and the rows before them, as far back as it lets them.
    #[must_use]
    pub fn seen(&self, window: Option<usize>) -> Self {
        let Some(window) = window else { return Self::from(0..self.end()) };
        let wider = |range: &Range<usize>| (range.start + 1).saturating_sub(window)..range.end;
        Self::joined(self.ranges().iter().map(wider))
    }

    /// Those in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if other.is_empty() || self == other {
            return self.clone();
        }
        if self.is_empty() {
            return other.clone();
        }
        let mut ranges: Vec<Range<usize>> = self.ranges().iter().chain(other.ranges()).cloned().collect();
        ranges.sort_unstable_by_key(|range| range.start);
        Self::joined(ranges.into_iter())
    }

    /// Makes these the union with others.
    pub(crate) fn add(&mut self, other: &Self) {
        *self = self.union(other);
    }

    /// Those in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let both = |a: &Range<usize>, b: &Range<usize>| a.start.max(b.start)..a.end.min(b.end);
        match (self.ranges(), other.ranges()) {
            ([], _) | (_, []) => Self::default(),
            ([a], [b]) => both(a, b).into(),
            (ours, theirs) => Self::joined(ours.iter().flat_map(|a| theirs.iter().map(move |b| both(a, b)))),
        }
    }

    /// Those that are not in the other.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return self.clone();
        }
        let mut left = Vec::new();
        for range in self.ranges() {
            let mut from = range.start;
            for gone in other.ranges() {
                left.push(from..gone.start.clamp(from, range.end));
                from = from.max(gone.end.min(range.end));
            }
            left.push(from..range.end);
        }
        Self::joined(left.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of the first few positions, by its bits.
    fn sets() -> impl Iterator<Item = (u32, Rows)> {
        (0..64u32).map(|bits| (bits, (0..6).filter(|i| bits >> i & 1 == 1).collect()))
    }

    #[test]
    fn sets_do_what_bits_do() {
        let of = |bits: u32| sets().nth(bits as usize).unwrap().1;
        for (a, x) in sets() {
            assert_eq!(x.len(), a.count_ones() as usize);
            assert_eq!(x.first().unwrap_or(32), a.trailing_zeros() as usize);
            assert_eq!(x.end(), 32 - a.leading_zeros() as usize);
            assert_eq!(x.iter().fold(0, |bits, row| bits | 1 << row), a);
            for row in 0..6 {
                assert_eq!(x.contains(row), a >> row & 1 == 1);
                assert_eq!(x.rank(row), (a & ((1 << row) - 1)).count_ones() as usize);
            }
            for (b, y) in sets() {
                assert_eq!(x.union(&y), of(a | b));
                assert_eq!(x.and(&y), of(a & b));
                assert_eq!(x.minus(&y), of(a & !b));
            }
        }
    }
}
