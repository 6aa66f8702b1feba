//! Addresses as experiment files write them.

use super::{Indices, Positions, Which};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

impl Serialize for Indices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::List(list) => match list.as_slice() {
                [one] => one.serialize(serializer),
                several => several.serialize(serializer),
            },
            other => serializer.collect_str(other),
        }
    }
}

impl<'de> Deserialize<'de> for Indices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(AddressVisitor::<false>)? {
            Positions::Indices(indices) => Ok(indices),
            _ => Err(de::Error::custom("only positions can be named, or given by a token or as \"last\"")),
        }
    }
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Last => serializer.serialize_str("last"),
            Self::Indices(indices) => indices.serialize(serializer),
            Self::Token { text, which } => {
                let end = match which {
                    Which::All => None,
                    Which::First => Some(("which", "first")),
                    Which::Last => Some(("which", "last")),
                };
                serializer.collect_map([("token", text.as_str())].into_iter().chain(end))
            }
            Self::Name(name) => serializer.collect_map([("name", name)]),
        }
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressVisitor::<true>)
    }
}

/// Reads every written form of an address; `POSITIONS` says whether those of positions fit too.
struct AddressVisitor<const POSITIONS: bool>;

impl<'de, const POSITIONS: bool> Visitor<'de> for AddressVisitor<POSITIONS> {
    type Value = Positions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"all\", an index, a list of indices, or a range like \"0..5\"")?;
        if POSITIONS { f.write_str(", \"last\", { token = \"…\" }, or { name = \"…\" }") } else { Ok(()) }
    }

    fn visit_i64<E>(self, i: i64) -> Result<Positions, E> {
        Ok(Indices::from(i).into())
    }

    fn visit_u64<E: de::Error>(self, i: u64) -> Result<Positions, E> {
        i64::try_from(i)
            .map(|i| Indices::from(i).into())
            .map_err(|_| E::custom(format!("index {i} is too large")))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Positions, E> {
        if POSITIONS && text == "last" {
            return Ok(Positions::Last);
        }
        let else_fits = if POSITIONS { ", nor \"last\"" } else { "" };
        let parsed = text.parse::<Indices>().map(Positions::Indices);
        parsed.map_err(|_| E::custom(super::unreadable(text, else_fits)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Positions, A::Error> {
        let list = Vec::deserialize(de::value::SeqAccessDeserializer::new(seq))?;
        Ok(Positions::Indices(Indices::List(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Positions, A::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Written {
            token: Option<String>,
            which: Option<String>,
            name: Option<String>,
        }
        let Written { token, which, name } =
            Written::deserialize(de::value::MapAccessDeserializer::new(map))?;
        let text = match (token, name, &which) {
            (Some(text), None, _) => text,
            (None, Some(name), None) => return Ok(Positions::Name(name)),
            (None, Some(_), Some(_)) => {
                return Err(de::Error::custom("which goes with token; a name means all its positions"));
            }
            _ => return Err(de::Error::custom("needs either token or name")),
        };
        let which = match which.as_deref() {
            None => Which::All,
            Some("first") => Which::First,
            Some("last") => Which::Last,
            Some(other) => {
                let problem = format!("which = {other:?} is neither \"first\" nor \"last\"");
                return Err(de::Error::custom(problem));
            }
        };
        Ok(Positions::Token { text, which })
    }
}
