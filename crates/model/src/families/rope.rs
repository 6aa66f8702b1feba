//! Rotary positions as config.json files of all versions of transformers write them.
//!
//! The base of the frequencies is `rope_theta` (in the first NeoX files `rotary_emb_base`), beside the other keys or inside
//! `rope_parameters`; the scaling for long prompts is in `rope_scaling`, or in `rope_parameters` too. A file may have
//! several of these: equal ones are accepted, different ones are refused with both values.

use crate::Result;
use crate::config::{Rotary, Scaling};
use crate::file::keys::Keys;
use std::f64::consts::PI;

/// The base of the frequencies.
const THETA: &str = "rope_theta";
/// The part of a head that turns.
const PART: &str = "partial_rotary_factor";
/// The objects that may hold the settings of rotary positions, the newer one first.
const OBJECTS: [&str; 2] = ["rope_parameters", "rope_scaling"];

/// The rotation in families where all `width` dimensions of a head rotate.
pub(super) fn rotary(keys: &Keys, width: usize) -> Result<Rotary> {
    let objects = objects(keys)?;
    objects.iter().try_for_each(all_turns)?;
    of_objects(keys, &[THETA], &objects, width)
}

/// The rotation in families where only the first `width` dimensions of a head rotate ([`turning`]). `bases` are the names
/// that the base has at the top level.
pub(super) fn rotary_of_part(keys: &Keys, bases: &[&str], width: usize) -> Result<Rotary> {
    of_objects(keys, bases, &objects(keys)?, width)
}

/// The rotations of Gemma 3's full and windowed layers. Older files have two bases and the scaling of full layers; newer
/// ones have an object for each kind of layer.
pub(super) fn by_kind_of_layer(keys: &Keys, width: usize) -> Result<(Rotary, Rotary)> {
    let objects = objects(keys)?;
    let own = |kind: &str| -> Result<Vec<Keys>> {
        objects.iter().filter_map(|object| object.object(kind).transpose()).collect()
    };
    let (full, sliding) = (own("full_attention")?, own("sliding_attention")?);
    [&full, &sliding].into_iter().flatten().try_for_each(all_turns)?;
    // An object without a kind of layer is an older one, which describes full layers.
    let is_general =
        |object: &Keys| !object.is_written("full_attention") && !object.is_written("sliding_attention");
    let general: Vec<Keys> = objects.into_iter().filter(is_general).collect();
    general.iter().try_for_each(all_turns)?;
    let full: Vec<Keys> = full.into_iter().chain(general).collect();
    Ok((
        of_objects(keys, &[THETA], &full, width)?,
        of_objects(keys, &["rope_local_base_freq"], &sliding, width)?,
    ))
}

fn objects(keys: &Keys) -> Result<Vec<Keys>> {
    OBJECTS.iter().filter_map(|name| keys.object(name).transpose()).collect()
}

fn of_objects(keys: &Keys, bases: &[&str], objects: &[Keys], width: usize) -> Result<Rotary> {
    let theta = match agreed(objects, THETA, keys, bases)? {
        Some(theta) => theta,
        // The class's default, if it has one.
        None => keys.positive(bases.first().unwrap_or(&THETA))?,
    };
    let scalings = objects.iter().filter_map(|object| scaling(keys, object, width, theta).transpose());
    let mut scalings = scalings.collect::<Result<Vec<Scaling>>>()?;
    scalings.dedup();
    match scalings.len() {
        0 | 1 => Ok(Rotary { width, theta, scaling: scalings.pop().unwrap_or(Scaling::None) }),
        _ => Err(keys.bad(OBJECTS[0], "and rope_scaling describe different scalings")),
    }
}

/// The number that is written as `in_objects` in an object, or under one of the names `top` at the top level. All that
/// are written must be equal.
fn agreed(objects: &[Keys], in_objects: &str, keys: &Keys, top: &[&str]) -> Result<Option<f64>> {
    let mut agreed: Option<(f64, String)> = None;
    let places =
        objects.iter().map(|object| (object, in_objects)).chain(top.iter().map(|name| (keys, *name)));
    for (place, name) in places.filter(|(place, name)| place.is_written(name)) {
        match (&agreed, place.optional_positive(name)?) {
            (Some((one, first)), Some(other)) if *one != other => {
                return Err(place
                    .bad(name, format!("is {other}, but the file also has {first} = {one} for the same")));
            }
            (None, Some(own)) => agreed = Some((own, place.full(name))),
            _ => {}
        }
    }
    Ok(agreed.map(|(value, _)| value))
}

/// Refuses parameters by which only a part of a head turns.
fn all_turns(parameters: &Keys) -> Result<()> {
    match parameters.optional_positive(PART)?.filter(|share| *share != 1.0) {
        Some(share) => {
            Err(parameters.bad(PART, format!("is {share}, but in this family all of a head turns")))
        }
        None => Ok(()),
    }
}

/// How many numbers of a head turn: the part that one of these keys gives, or one in `rope_parameters` or
/// `rope_scaling`; those that are written must be equal.
pub(super) fn turning(keys: &Keys, names: &[&str], head_dim: usize) -> Result<usize> {
    let share = match agreed(&objects(keys)?, PART, keys, names)? {
        Some(share) => share,
        None => keys.positive(names.first().unwrap_or(&PART))?,
    };
    if share > 1.0 {
        return Err(keys.bad(names.first().unwrap_or(&PART), format!("{share} is more than all of a head")));
    }
    let most = head_dim as f64 * share;
    Ok((0..=head_dim).rev().find(|width| *width as f64 <= most).unwrap_or(0))
}

/// The scaling an object describes by its `rope_type`, or `type` in older files; `None` where it describes none.
fn scaling(keys: &Keys, parameters: &Keys, width: usize, theta: f64) -> Result<Option<Scaling>> {
    let (new, old) = (parameters.get("rope_type"), parameters.get("type"));
    if new.is_some() && old.is_some() && new != old {
        return Err(parameters.bad("rope_type", "differs from type, an older name of the same"));
    }
    let key = if new.is_some() { "rope_type" } else { "type" };
    if new.is_none() && old.is_none() {
        // An object of the base alone. One with settings of a scaling fails for lack of a type.
        return if parameters.get("factor").is_some() {
            Err(parameters.missing("rope_type"))
        } else {
            Ok(None)
        };
    }
    let scaling = match parameters.text(key)? {
        "default" => Scaling::None,
        "linear" => Scaling::Factors(vec![parameters.positive("factor")?; width / 2]),
        "llama3" => Scaling::Factors(llama3(parameters, width, theta)?),
        // "su" is what it was called first.
        "longrope" | "su" => longrope(keys, parameters, width)?,
        other => {
            let problem = format!("{other:?} is not supported; supported: default, linear, llama3, longrope");
            return Err(parameters.bad(key, problem));
        }
    };
    Ok(Some(scaling))
}

/// Llama 3.1's factors: waves that fit often into the original context keep their length, those that do not fit once
/// become longer by the factor, and what is between goes smoothly from one to the other.
fn llama3(parameters: &Keys, width: usize, theta: f64) -> Result<Vec<f64>> {
    let number = |key: &str| parameters.positive(key);
    let (factor, low, high) = (number("factor")?, number("low_freq_factor")?, number("high_freq_factor")?);
    let original = number("original_max_position_embeddings")?;
    if low >= high {
        return Err(parameters.bad("low_freq_factor", format!("{low} is not below high_freq_factor, {high}")));
    }
    let of = |i: usize| {
        let wave = 2.0 * PI * theta.powf(2.0 * i as f64 / width as f64);
        // How much of the frequency stays as it is.
        let share = ((original / wave - low) / (high - low)).clamp(0.0, 1.0);
        1.0 / (share + (1.0 - share) / factor)
    };
    Ok((0..width / 2).map(of).collect())
}

/// Phi-3's: a factor a frequency, and others in long prompts.
fn longrope(keys: &Keys, parameters: &Keys, width: usize) -> Result<Scaling> {
    let key = "original_max_position_embeddings";
    let context = keys.size("max_position_embeddings")?;
    let original = match (parameters.optional_size(key)?, keys.optional_size(key)?) {
        (Some(own), Some(other)) if own != other => {
            return Err(keys.bad(key, format!("{other} is not {own}, which the file has for the same")));
        }
        (Some(original), _) => original,
        (None, _) => keys.size(key)?,
    };
    let stretch = context as f64 / original as f64;
    let magnitude = match parameters.optional_positive("attention_factor")? {
        Some(magnitude) => magnitude,
        None if stretch > 1.0 => (1.0 + stretch.ln() / (original as f64).ln()).sqrt(),
        None => 1.0,
    };
    if let Some(factor) = parameters.optional_positive("factor")?.filter(|factor| *factor != stretch) {
        let problem = format!("{factor} is not {context} / {original}, the context beside the original one");
        return Err(parameters.bad("factor", problem));
    }
    let factors = |key: &str| parameters.positives(key, width / 2);
    Ok(Scaling::ByLength {
        original,
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        magnitude,
    })
}
