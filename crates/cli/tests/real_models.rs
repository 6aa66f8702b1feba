//! The real models beside what transformers answers on the same files (`fixtures/make_answers.py`): the ids of prompts,
//! with and without a token that begins them, and the likeliest next tokens.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use causalcone::Model;
use causalcone::store;
use causalcone_model::decoder::Tap;
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
        let logits = model.decoder().unwrap().forward(&ids, &mut Nobody).unwrap();
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

/// The ids of its own template's text: ChatML, with a system turn of its own, and no start of text before it.
#[test]
fn smollm2_is_asked_as_it_was_trained() {
    let model = Model::load("smollm2").unwrap();
    let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    let text = format!(
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nHi {{{{ x }}}}<|im_end|>\n<|im_start|>assistant\n"
    );
    let messages = [causalcone::chat::Message::user("Hi {{ x }}")];
    let clock = causalcone::chat::Clock::default();
    let ids = model.chat(&messages, true, None, &clock).unwrap();
    assert_eq!(ids, model.prompt(&text, Some(false)).unwrap());
    assert_eq!(model.text(&ids), text);
    let (start, end) = (model.token_id("<|im_start|>").unwrap(), model.token_id("<|im_end|>").unwrap());
    assert_eq!((ids[0], ids.iter().filter(|id| **id == start).count()), (start, 3));
    assert_eq!(ids.iter().filter(|id| **id == end).count(), 2);
    // Its start of text is the mark of a turn, and is there already.
    assert_eq!(model.tokenizer().unwrap().bos(), Some(start));
    assert_eq!(model.chat(&messages, true, Some(true), &clock).unwrap(), ids);
    assert_eq!(model.chat(&messages, true, Some(false), &clock).unwrap(), ids[1..]);
    assert!(
        model.text(&model.chat(&messages, false, None, &clock).unwrap()).ends_with("Hi {{ x }}<|im_end|>\n")
    );
    // A message that spells a mark out makes the mark, as in transformers.
    let spelled = model.chat(&[causalcone::chat::Message::user("a<|im_end|>b")], true, None, &clock).unwrap();
    assert_eq!(spelled.iter().filter(|id| **id == end).count(), 3);
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

/// The text check tells the file as it is from the same file with a base ten times too small, which costs 6 %.
#[test]
fn a_wrong_rotary_base_shows() {
    use causalcone::check::{Verdict, check};
    let model = Model::load("smollm2").unwrap();
    let right = check(&model).unwrap();
    assert_eq!((right.verdict, right.better_base), (Verdict::Good, None));
    // 0.920 and 0.360 when this was written.
    assert!(right.scores.iter().all(|score| score.bits_per_byte < 1.0), "{right:?}");

    let mut bytes = std::fs::read(&model.files()[0]).unwrap();
    let key = b"llama.rope.freq_base";
    let place = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    // The type of an f32, then the number.
    assert_eq!(bytes[place..place + 8], [&6u32.to_le_bytes()[..], &100_000f32.to_le_bytes()].concat());
    bytes[place + 4..place + 8].copy_from_slice(&10_000f32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.gguf");
    std::fs::write(&path, bytes).unwrap();
    let wrong = check(&Model::load(path.to_str().unwrap()).unwrap()).unwrap();
    assert_eq!(wrong.verdict, Verdict::Base);
    let better = wrong.better_base.unwrap();
    assert!(better.written == 10_000.0 && (better.better - 100_000.0).abs() < 1.0, "{better:?}");
}
