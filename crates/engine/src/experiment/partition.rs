//! Parts of the dimensions of a site, by name.

use crate::bounds::DIMS as MAX_DIMS;
use crate::{Error, Result};
use causalcone_model::{Indices, nearest};
use std::collections::BTreeMap;

/// The names of parts, and the dimensions of each.
pub(crate) type Partition = BTreeMap<String, Indices>;

/// The dimensions of some parts, by number.
pub(crate) fn dims_of(partition: &Partition, names: &[&str], part: &str) -> Result<Indices> {
    let mut found = Vec::new();
    for name in names {
        let Some(indices) = partition.get(*name) else {
            let parts: Vec<&str> = partition.keys().map(String::as_str).collect();
            let hint = nearest(name, parts.iter().copied()).map(|near| format!("did you mean \"{near}\"?"));
            let has = match parts.as_slice() {
                [] => "the edit has no partition".into(),
                parts => format!("its partition has {}", parts.join(", ")),
            };
            let problem = format!("dims \"{name}\" is neither a number or range nor a part; {has}");
            return Err(Error::hinted(part, problem, hint));
        };
        found.extend(numbers(name, indices, part)?);
    }
    Ok(Indices::List(found))
}

/// The numbers of a part: written out, so that parts can be told apart whatever they are of.
fn numbers(name: &str, indices: &Indices, part: &str) -> Result<Vec<i64>> {
    match indices {
        Indices::List(list) if list.iter().all(|i| (0..MAX_DIMS).contains(i)) => Ok(list.clone()),
        Indices::Range(start, Some(end)) if 0 <= *start && start < end && *end <= MAX_DIMS => {
            Ok((*start..*end).collect())
        }
        _ => {
            let fits = format!("numbers from 0 to {MAX_DIMS} fit, or a range with both ends");
            Err(Error::part(part, format!("part \"{name}\" of its partition is {indices}, where {fits}")))
        }
    }
}

/// That no two parts of a partition share a dimension.
pub(crate) fn check(partition: &Partition, part: &str) -> Result<()> {
    let mut all: Vec<(i64, &str)> = Vec::new();
    for (name, indices) in partition {
        let dims = numbers(name, indices, part)?;
        if i64::try_from(all.len() + dims.len()).map_or(true, |count| count > MAX_DIMS) {
            let problem = format!("the parts of its partition have more than {MAX_DIMS} dimensions");
            return Err(Error::part(part, problem));
        }
        all.extend(dims.into_iter().map(|dim| (dim, name.as_str())));
    }
    all.sort_unstable();
    let twice = all.array_windows::<2>().find(|[a, b]| a.0 == b.0);
    let Some([(dim, name), (_, other)]) = twice else { return Ok(()) };
    let problem = if name == other {
        format!("part \"{name}\" names dimension {dim} twice")
    } else {
        let both = format!("both have dimension {dim}");
        format!("the parts \"{name}\" and \"{other}\" of its partition overlap: {both}")
    };
    Err(Error::part(part, problem))
}
