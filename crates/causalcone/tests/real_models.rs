//! The real models beside what transformers answers on the same files (`fixtures/make_answers.py`): the ids of prompts,
//! with and without a token that begins them, and the likeliest next tokens.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use causalcone::Model;
use causalcone::decoder::Tap;
use causalcone::store;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

#[derive(Deserialize)]
struct Case {
    prompt: String,
    bos: bool,
    ids: Vec<u32>,
    top: Vec<(u32, f64)>,
}

/// Nobody looks.
struct Nobody;

impl Tap for Nobody {
    type Error = causalcone::ModelError;
    fn at(
        &mut self,
        _: causalcone::Site,
        _: Option<usize>,
        x: candle_core::Tensor,
    ) -> Result<candle_core::Tensor, Self::Error> {
        Ok(x)
    }
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/answers.json");
    let mut all: BTreeMap<String, Vec<Case>> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let model = Model::load(name).unwrap();
    for Case { prompt, bos, ids, top } in all.remove(name).unwrap() {
        let say = format!("{name}, bos = {bos}: {:?}", prompt.chars().take(30).collect::<String>());
        assert_eq!(model.prompt(&prompt, Some(bos)).unwrap(), ids, "{say}");
        let logits = model.decoder().forward(&ids, &mut Nobody).unwrap();
        let answer = causalcone::Distribution::new(logits.get(ids.len() - 1).unwrap().to_vec1().unwrap());
        let best = answer.top_ids(10);
        for (place, (id, prob)) in top.iter().enumerate() {
            // Both compute in f32: their probabilities differ by rounding, and those that are equal to it may change
            // places.
            assert!(
                (answer.prob(*id) - prob).abs() <= 1e-3,
                "{say}: {id} has {}, not {prob}",
                answer.prob(*id)
            );
            let ours = answer.prob(best[place]);
            assert!(
                best[place] == *id || (ours - prob).abs() <= 2e-5,
                "{say}: {best:?} at {place}, not {id}"
            );
        }
    }
}

#[test]
fn smollm2_answers_as_transformers_does() {
    check("smollm2");
}

/// Its terms are for whoever fetches it to accept, so it is not fetched here.
#[test]
fn gemma3_answers_as_transformers_does() {
    let name = "gemma3-270m";
    match store::cached(store::known(name).unwrap()).unwrap() {
        Some(_) => check(name),
        None => println!("skipped: {name} is not on this machine (causalcone models pull {name})"),
    }
}
