//! What a recipe goes over, as people write it: `each`, `cumulative`, `last`, `0..10`, `3,5,7`.

use causalcone_engine::{Each, LayerAxis};
use causalcone_model::{Indices, Positions};
use std::str::FromStr;

/// Which layers, and how a sweep goes over them.
///
/// ```
/// use causalcone_engine::LayerAxis;
/// use causalcone_jobs::recipes::LayerChoice;
/// use causalcone_model::Indices;
/// assert_eq!("each".parse(), Ok(LayerChoice { layers: Indices::All, axis: Some(LayerAxis::Each) }));
/// assert_eq!("3,5".parse::<LayerChoice>()?.layers, Indices::List(vec![3, 5]));
/// assert_eq!("all".parse::<LayerChoice>()?.axis, None, "all layers together");
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct LayerChoice {
    /// The layers.
    pub layers: Indices,
    /// How the sweep goes over them; `None` edits all of them together.
    pub axis: Option<LayerAxis>,
}

impl FromStr for LayerChoice {
    type Err = String;

    /// `each`, `cumulative`, `window=3`, `all` together, or some, one at a time.
    fn from_str(text: &str) -> Result<Self, String> {
        let (layers, axis) = match text {
            "each" => (Indices::All, Some(LayerAxis::Each)),
            "cumulative" => (Indices::All, Some(LayerAxis::Cumulative)),
            "all" => (Indices::All, None),
            _ => match text.strip_prefix("window=") {
                Some(width) => {
                    let width = width.parse().map_err(|_| "a window is a number of layers: window=3")?;
                    (Indices::All, Some(LayerAxis::Window(width)))
                }
                None => (indices(text)?, Some(LayerAxis::Each)),
            },
        };
        Ok(Self { layers, axis })
    }
}

/// Which positions, and whether a sweep goes over them.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionChoice {
    /// The positions.
    pub positions: Positions,
    /// One at a time; `None` edits all of them together.
    pub axis: Option<Each>,
}

impl FromStr for PositionChoice {
    type Err = String;

    /// `each`, `all` together, `last`, or some, one at a time.
    fn from_str(text: &str) -> Result<Self, String> {
        let (positions, axis) = match text {
            "each" => (Positions::Indices(Indices::All), Some(Each)),
            "all" => (Positions::Indices(Indices::All), None),
            "last" => (Positions::Last, None),
            some => (Positions::Indices(indices(some)?), Some(Each)),
        };
        Ok(Self { positions, axis })
    }
}

/// Which heads, and whether a sweep goes over them.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadChoice {
    /// The heads.
    pub heads: Indices,
    /// One at a time; `None` edits all of them together.
    pub axis: Option<Each>,
}

impl FromStr for HeadChoice {
    type Err = String;

    /// `each`, `all` together, or some, one at a time.
    fn from_str(text: &str) -> Result<Self, String> {
        let (heads, axis) = match text {
            "each" => (Indices::All, Some(Each)),
            "all" => (Indices::All, None),
            some => (indices(some)?, Some(Each)),
        };
        Ok(Self { heads, axis })
    }
}

/// A number, several, or a range.
fn indices(text: &str) -> Result<Indices, String> {
    let list: Result<Vec<i64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    match list {
        Ok(list) => Ok(Indices::List(list)),
        Err(_) => text.parse().map_err(|_| "give numbers or a range: 3, 3,5,7, 0..10 or -5..".into()),
    }
}
