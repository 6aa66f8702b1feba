//! How the positions of two runs of different lengths pair.

use crate::compile::resolve::Resolver;
use crate::experiment::Experiment;
use crate::experiment::edit::EditSpec;
use crate::ids::EditId;
use crate::labels::visible;
use crate::op::{Align, Source};
use crate::{Error, Result};
use causalcone_model::Model;
use serde::Serialize;
use std::fmt;

/// Columns of tokens that an error shows, and characters of each token.
const SHOWN: usize = 10;
const TOKEN_CHARS: usize = 14;
const NAME_CHARS: usize = 24;
/// Columns of equal tokens shown before the first difference.
const BEFORE: usize = 2;
/// Tokens of each run, from the first column shown on, that are matched to show them.
const LOOKED_AT: usize = 64;
/// The most tokens that are compared to match two runs: some seconds. Two texts of 8192 words take half of it.
const MOST_COMPARISONS: usize = 1 << 29;

/// The positions that an edit with [`Align`] pairs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alignment {
    /// The number of the example; left out where there is no data set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub example: Option<usize>,
    /// The edit, by its name or its number from 0.
    pub edit: String,
    /// How positions pair.
    pub align: Align,
    /// The run that is edited.
    pub run: String,
    /// The run that the value comes from.
    pub source: String,
    /// Each edited position with the position of the source run that its value comes from.
    pub pairs: Vec<(usize, usize)>,
}

/// Stretches of neighbours: `0..=2 from 0..=2, 4 from 5`.
impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let follows = |a: &(usize, usize), b: &(usize, usize)| b.0 == a.0 + 1 && b.1 == a.1 + 1;
        let span = |first: usize, last: usize| match last - first {
            0 => first.to_string(),
            _ => format!("{first}..={last}"),
        };
        let stretches = self.pairs.chunk_by(follows).filter_map(|stretch| {
            let ((a, b), (c, d)) = (stretch.first()?, stretch.last()?);
            Some(format!("{} from {}", span(*a, *c), span(*b, *d)))
        });
        let stretches: Vec<String> = stretches.collect();
        let example = self.example.map(|number| format!(", example {number}")).unwrap_or_default();
        write!(
            f,
            "{}{example}: run {} takes from run {} at positions {}",
            self.edit,
            self.run,
            self.source,
            stretches.join(", ")
        )
    }
}

/// Pairs positions with equal tokens, in order: the tokens that both begin with, the tokens that both end with, and
/// between these the longest run of tokens that both have, then the same to the left and to the right of that run. Of
/// several longest runs the one that starts first in `ours` is taken, and of those the one that starts first in
/// `theirs`. `None` where that takes too long: the time grows with the product of the lengths, and more where runs have
/// many single tokens in common.
///
/// ```
/// use causalcone_engine::align::matching;
///
/// // The capital of Spain is, The capital of South Korea is
/// let pairs = matching(&[1, 2, 3, 4, 5], &[1, 2, 3, 6, 7, 5]);
/// assert_eq!(pairs.unwrap(), [(0, 0), (1, 1), (2, 2), (4, 5)]);
/// ```
pub fn matching(ours: &[u32], theirs: &[u32]) -> Option<Vec<(usize, usize)>> {
    let same = |(a, b): &(&u32, &u32)| a == b;
    let start = ours.iter().zip(theirs).take_while(same).count();
    let (a, b) = (&ours[start..], &theirs[start..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(same).count();
    let mut pairs: Vec<(usize, usize)> = (0..start).map(|i| (i, i)).collect();
    pairs.extend((0..end).map(|i| (ours.len() - 1 - i, theirs.len() - 1 - i)));
    let mut left = vec![(start..ours.len() - end, start..theirs.len() - end)];
    let mut comparisons = MOST_COMPARISONS;
    while let Some((a, b)) = left.pop() {
        comparisons = comparisons.checked_sub(a.len().checked_mul(b.len())?)?;
        let (i, j, len) = longest_run(&ours[a.clone()], &theirs[b.clone()]);
        if len > 0 {
            let (i, j) = (a.start + i, b.start + j);
            pairs.extend((0..len).map(|k| (i + k, j + k)));
            left.push((a.start..i, b.start..j));
            left.push((i + len..a.end, j + len..b.end));
        }
    }
    pairs.sort_unstable();
    Some(pairs)
}

/// Where the longest run of tokens that both have starts in each, and its length.
fn longest_run(a: &[u32], b: &[u32]) -> (usize, usize, usize) {
    let mut best = (0, 0, 0);
    // By position in b, one past: the length of the equal run that ends there and at the token of a before.
    let mut ending = vec![0; b.len() + 1];
    for (i, x) in a.iter().enumerate() {
        for j in (0..b.len()).rev() {
            let len = if *x == b[j] { ending[j] + 1 } else { 0 };
            ending[j + 1] = len;
            let is_earlier = len > 0 && len == best.2 && i + 1 - len == best.0;
            if len > best.2 || is_earlier {
                best = (i + 1 - len, j + 1 - len, len);
            }
        }
    }
    best
}

impl Resolver<'_> {
    /// The positions of an edit whose value comes from another run, and those of that run that pair with them.
    pub(crate) fn paired_positions(&self, source: &Source) -> Result<(Vec<usize>, Vec<usize>)> {
        let written = source.positions.as_ref().unwrap_or(&self.edit.target.positions);
        let is_all = self.is_all(written)?;
        let [ours, theirs] = [self.edit.run, source.run].map(|run| &self.runs[run.0]);
        let (n, m) = (ours.ids.len(), theirs.ids.len());
        let lengths = || format!("run \"{}\" has {n} tokens and run \"{}\" has {m}", ours.name, theirs.name);
        let rows = || tokens_side_by_side(self.model, [(&ours.name, &ours.ids), (&theirs.name, &theirs.ids)]);
        let Some(align) = source.align else {
            if is_all && n != m {
                let problem =
                    format!("positions \"all\" do not say which positions pair: {}\n{}", lengths(), rows());
                if self.is_all(self.positions)? {
                    let hint = "set align = \"tokens\", \"left\" or \"right\" in value = { run = … }, or give positions";
                    return Err(Error::unaligned(&self.part, problem, hint));
                }
                return Err(self.hinted(problem, Some("give the positions of the value".into())));
            }
            let positions = self.positions_in(self.positions, self.edit.run)?;
            return Ok((positions, self.positions_in(written, source.run)?));
        };
        let name = align.name();
        if !is_all || !self.is_all(self.positions)? {
            let problem = format!(
                "align = \"{name}\" only applies where the positions of the edit and of its value are \"all\""
            );
            return Err(self.hinted(problem, Some("leave out align, or the positions".into())));
        }
        let pairs = match align {
            Align::Tokens => matching(&ours.ids, &theirs.ids).ok_or_else(|| {
                let problem = format!("align = \"{name}\" would take too long: {}", lengths());
                self.hinted(problem, Some("give positions, or align = \"left\" or \"right\"".into()))
            })?,
            Align::Left | Align::Right if m < n => {
                let (without, fits) = match align {
                    Align::Left => (m..n, format!("..{m}")),
                    _ => (0..n - m, format!("-{m}..")),
                };
                let problem = format!(
                    "align = \"{name}\" leaves positions {} to {} of run \"{}\" without a partner: {}\n{}",
                    without.start,
                    without.end - 1,
                    ours.name,
                    lengths(),
                    rows()
                );
                let hint =
                    format!("set align = \"tokens\", or leave out align and set positions = \"{fits}\"");
                return Err(self.hinted(problem, Some(hint)));
            }
            Align::Left => (0..n).map(|i| (i, i)).collect(),
            Align::Right => (0..n).map(|i| (i, i + m - n)).collect(),
        };
        if pairs.is_empty() {
            let rows = rows();
            return Err(self.wrong(format!(
                "align = \"{name}\" pairs no positions: the runs have no token in common\n{rows}"
            )));
        }
        Ok(pairs.into_iter().unzip())
    }
}

impl Experiment<'_> {
    /// The pairs of positions of all edits with an align, example by example.
    pub(crate) fn alignments(&self) -> Result<Vec<Alignment>> {
        let align_of = |edit: &EditSpec| edit.op.source()?.align;
        if !self.edits.iter().any(|edit| align_of(edit).is_some()) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for one in self.by_example() {
            let one = one?;
            for (index, edit) in one.edits.iter().enumerate() {
                let (Some(source), Some(align)) = (edit.op.source(), align_of(edit)) else { continue };
                let resolver = one.resolver(EditId(index));
                let pairs = resolver.paired_positions(source);
                let (ours, theirs) = pairs.map_err(|error| one.blame(error))?;
                found.push(Alignment {
                    example: one.example(),
                    edit: resolver.part,
                    align,
                    run: one.runs[edit.run.0].name.to_string(),
                    source: one.runs[source.run.0].name.to_string(),
                    pairs: ours.into_iter().zip(theirs).collect(),
                });
            }
        }
        Ok(found)
    }
}

/// Two rows of tokens with their positions, equal tokens below each other, around where they differ.
fn tokens_side_by_side(model: &Model, runs: [(&str, &[u32]); 2]) -> String {
    let all = runs.map(|(_, ids)| ids);
    let equal = all[0].iter().zip(all[1]).take_while(|(a, b)| a == b).count();
    let from = equal.saturating_sub(BEFORE);
    let [ours, theirs] = all.map(|ids| &ids[from..ids.len().min(from + LOOKED_AT)]);
    let mut columns: Vec<[Option<usize>; 2]> = Vec::new();
    let (mut i, mut j) = (0, 0);
    // One pair more ends what follows the last.
    let pairs = matching(ours, theirs).unwrap_or_default();
    for (a, b) in pairs.into_iter().chain([(ours.len(), theirs.len())]) {
        while i < a || j < b {
            columns.push([(i < a).then_some(i), (j < b).then_some(j)]);
            (i, j) = ((i + 1).min(a), (j + 1).min(b));
        }
        if a < ours.len() {
            columns.push([Some(a), Some(b)]);
        }
        (i, j) = (a + 1, b + 1);
    }
    let end = SHOWN.min(columns.len());
    let cell = |ids: &[u32], at: Option<usize>| {
        at.and_then(|at| Some((at, ids.get(at)?))).map_or_else(String::new, |(at, id)| {
            format!("{} {}", from + at, clipped(&visible(&model.token_text(*id)), TOKEN_CHARS))
        })
    };
    let mut lines = runs.map(|(name, _)| format!("  {}", clipped(&visible(name), NAME_CHARS)));
    let mut add = |cells: [String; 2]| {
        let wide = lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        for (line, cell) in lines.iter_mut().zip(cells) {
            let blank = wide - line.chars().count() + 2;
            line.extend(std::iter::repeat_n(' ', blank));
            line.push_str(&cell);
        }
    };
    let more = || ["…", "…"].map(String::from);
    if from > 0 {
        add(more());
    }
    for [a, b] in &columns[..end] {
        add([cell(ours, *a), cell(theirs, *b)]);
    }
    if end < columns.len() || all.iter().any(|ids| ids.len() > from + LOOKED_AT) {
        add(more());
    }
    lines.map(|line| line.trim_end().to_owned()).join("\n")
}

fn clipped(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stretches_pair() {
        let check = |a: &[u32], b: &[u32], expected: &[(usize, usize)]| {
            assert_eq!(matching(a, b).unwrap(), expected, "{a:?} {b:?}");
        };
        check(&[], &[1], &[]);
        check(&[1, 2], &[3, 4, 5], &[]);
        check(&[1, 2, 3], &[1, 2, 3], &[(0, 0), (1, 1), (2, 2)]);
        check(&[1, 9, 2, 3], &[1, 2, 3], &[(0, 0), (2, 1), (3, 2)]);
        // A token more at the start, which is the same as the next.
        check(&[1, 1, 2], &[1, 2], &[(0, 0), (2, 1)]);
        // Between what both begin and end with the longest run goes first: 5 6 7, and then 3 has no partner.
        check(&[1, 3, 5, 6, 7, 4, 2], &[1, 5, 6, 7, 3, 8, 2], &[(0, 0), (2, 1), (3, 2), (4, 3), (6, 6)]);
        // Of equally long runs the first in ours, then the first in theirs.
        check(&[7, 5, 8, 5, 9], &[1, 5, 2, 5, 3, 4], &[(1, 1), (3, 3)]);
    }

    /// Every second token is the same, so that each longest run is a single token, and the next one its neighbour.
    #[test]
    fn what_takes_too_long_is_given_up() {
        let tokens =
            |n: u32, own: u32| (0..n).map(|i| if i % 2 == 0 { own + i } else { 1 }).collect::<Vec<_>>();
        assert!(matching(&tokens(256, 1_000), &tokens(256, 2_000)).is_some());
        assert!(matching(&tokens(4_000, 10_000), &tokens(4_000, 20_000)).is_none());
        let long: Vec<u32> = (0..50_000).collect();
        assert_eq!(matching(&long, &long).map(|pairs| pairs.len()), Some(long.len()));
    }

    #[test]
    fn pairs_are_equal_tokens_in_order() {
        // All sequences of up to four of three tokens.
        let sequences: Vec<Vec<u32>> = (0..5)
            .flat_map(|len| (0..3u32.pow(len)).map(move |n| (0..len).map(|i| n / 3u32.pow(i) % 3).collect()))
            .collect();
        for a in &sequences {
            for b in &sequences {
                let pairs = matching(a, b).unwrap();
                assert!(pairs.iter().all(|(i, j)| a[*i] == b[*j]), "{a:?} {b:?} {pairs:?}");
                assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
                assert_eq!(pairs.is_empty(), !a.iter().any(|x| b.contains(x)), "{a:?} {b:?}");
                if a == b {
                    assert_eq!(pairs.len(), a.len());
                }
            }
        }
    }
}
