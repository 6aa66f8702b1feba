//! JSON that means one thing: a key given twice is an error, not "the last one wins".

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::cell::Cell;
use std::collections::HashSet;

/// A parsed value takes some hundred bytes, a written one as few as two: documents that are kept
/// as [`Value`]s are held to this many.
const MOST_VALUES: usize = 1 << 18;

/// Parses a JSON document, refusing duplicate keys at every level.
///
/// ```
/// use causalcone_model::file::json;
/// assert!(json::parse(br#"{"a": 1, "b": 2}"#).is_ok());
/// assert!(json::parse(br#"{"a": 1, "a": 2}"#).unwrap_err().to_string().contains("duplicate key \"a\""));
/// ```
///
/// # Errors
/// When the text is no JSON (nesting deeper than 128 included), has a duplicate key, or more than
/// 262 144 values.
pub fn parse(text: &[u8]) -> serde_json::Result<Value> {
    check(text, MOST_VALUES)?;
    serde_json::from_slice(text)
}

/// Checks that a text is JSON of at most so many values without duplicate keys, keeping none of it.
///
/// # Errors
/// When it is not.
pub fn check(text: &[u8], most_values: usize) -> serde_json::Result<()> {
    let left = Cell::new(most_values);
    let mut json = serde_json::Deserializer::from_slice(text);
    Checked { left: &left, most: most_values }.deserialize(&mut json)?;
    json.end()
}

/// Counts values down, and keeps only the keys of the objects it is in.
#[derive(Clone, Copy)]
struct Checked<'a> {
    left: &'a Cell<usize>,
    most: usize,
}

impl Checked<'_> {
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom(format!("more than {} values", self.most)))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Checked<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.count()?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            keys.insert(key);
            map.next_value_seed(self)?;
        }
        Ok(())
    }
}
