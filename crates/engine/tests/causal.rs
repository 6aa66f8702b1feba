//! Causal models beside what they say when worked out by hand, and the data sets drawn from them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::causal::{CausalFile, CausalModel, DataSet, Drawn, Setting};
use causalcone_engine::{Experiment, Runtime};
use common::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The prompts are texts of the tiny tokenizer; the labels are single tokens of it.
const FILE: &str = "
prompt = 'The {country} is'
label = '{letter}'
examples = 6
held_out = 0.4
held_out_examples = 2
[interchange]
source = ['letter']
[variables.country]
values = ['Spain', 'Italy', 'Rome', 'capital', 'of', 'is']
[variables.letter]
parents = ['country']
table = [['Spain', 'S'], ['Italy', 'I'], ['Rome', 'R'], ['capital', 'c'], ['of', 'o'], ['is', 's']]
";

fn draw(text: &str) -> Result<DataSet, String> {
    let model = model("tiny-llama-tied");
    let drawn = CausalFile::from_toml(text).and_then(|file| file.draw(model, &Runtime::default()));
    drawn.map_err(|e| format!("{e} ({})", e.hint().unwrap_or_default()))
}

fn countries(examples: &[Drawn]) -> BTreeSet<&str> {
    examples.iter().flat_map(|example| example.prompts.values().map(|prompt| country(prompt))).collect()
}

fn country(prompt: &str) -> &str {
    prompt.strip_prefix("The ").unwrap().strip_suffix(" is").unwrap()
}

#[test]
fn an_interchange_is_worked_out_through_what_depends_on_it() {
    // Two sums of two digits each, and whether their sum is odd.
    let mut model = CausalModel::new();
    for input in ["a", "b", "c"] {
        model.input(input, &["0", "1", "2"]).unwrap();
    }
    let sum = |values: &[&str]| values.iter().map(|v| v.parse::<u32>().unwrap()).sum::<u32>().to_string();
    model.variable("ab", &["0", "1", "2", "3", "4"], &["a", "b"], sum).unwrap();
    model.variable("abc", &["0", "1", "2", "3", "4", "5", "6"], &["ab", "c"], sum).unwrap();
    let odd = |values: &[&str]| (values[0].parse::<u32>().unwrap() % 2 == 1).to_string();
    model.variable("odd", &["true", "false"], &["abc"], odd).unwrap();
    let all = model.settings().unwrap();
    assert_eq!(all.len(), 27);
    let number = |setting: &Setting, name: &str| model.value(setting, name).unwrap().parse::<u32>().unwrap();
    for base in &all {
        for source in &all {
            let swapped = model.interchange(base, &[(source, &["ab"])]).unwrap();
            assert_eq!(
                number(&swapped, "abc"),
                number(source, "a") + number(source, "b") + number(base, "c")
            );
            // An input that is taken moves everything below it; one set by hand does the same.
            let swapped = model.interchange(base, &[(source, &["a", "c"])]).unwrap();
            let expected = number(source, "a") + number(base, "b") + number(source, "c");
            assert_eq!(number(&swapped, "abc"), expected);
            assert_eq!(model.value(&swapped, "odd").unwrap() == "true", expected % 2 == 1);
        }
    }
    let set = model.run_with(&[("a", "1"), ("b", "1"), ("c", "0")], &[("ab", "3")]).unwrap();
    assert_eq!((number(&set, "abc"), model.value(&set, "odd").unwrap()), (3, "true"));
    let twice = model.interchange(&all[0], &[(&all[1], &["ab"]), (&all[2], &["ab"])]);
    assert!(twice.unwrap_err().to_string().contains("two sources"));
    model.variable("bad", &["1"], &["a"], |_| "7".into()).unwrap();
    assert!(
        model.run(&[("a", "0"), ("b", "0"), ("c", "0")]).unwrap_err().to_string().contains("gives \"7\"")
    );
}

#[test]
fn a_data_set_is_what_its_file_says() {
    let drawn = draw(FILE).unwrap();
    assert_eq!((drawn.examples.len(), drawn.held_out.len(), drawn.settings), (6, 2, 6));
    let letter: BTreeMap<&str, &str> =
        [("Spain", "S"), ("Italy", "I"), ("Rome", "R"), ("capital", "c"), ("of", "o"), ("is", "s")].into();
    let model = model("tiny-llama-tied");
    for example in drawn.examples.iter().chain(&drawn.held_out) {
        let source = country(&example.prompts["source"]);
        assert_ne!(country(&example.prompts["base"]), source);
        assert_eq!(example.label, letter[source]);
        // The token at that position is the last of the country's.
        for (run, prompt) in &example.prompts {
            if let Some(position) = example.positions.get(&format!("{run}_country")) {
                let ids = model.prompt(prompt, None).unwrap();
                let before: String = ids[..=*position].iter().map(|id| model.token_text(*id)).collect();
                assert!(before.ends_with(country(prompt)), "{before:?} {prompt:?}");
            }
        }
    }
    assert!(countries(&drawn.examples).is_disjoint(&countries(&drawn.held_out)));
    let distinct: BTreeSet<_> = drawn.examples.iter().map(|example| &example.prompts).collect();
    assert_eq!(distinct.len(), 6, "no example is drawn twice");
    assert_eq!(draw(FILE).unwrap().examples, drawn.examples);
    assert_ne!(
        draw(&FILE.replace("examples = 6", "examples = 6\nseed = 1")).unwrap().examples,
        drawn.examples
    );
    // A line is what data sets are made of.
    let line = serde_json::to_string(&drawn.examples[0]).unwrap();
    let example = causalcone_engine::Example::from_json(&line).unwrap();
    assert_eq!(example.prompts.len(), 2);
}

#[test]
fn only_right_prompts_are_those_the_model_answers_so() {
    let model = model("tiny-llama-tied");
    let answer = |country: &str| {
        let mut experiment = Experiment::new(model);
        let run = experiment.run(&format!("The {country} is")).unwrap();
        let best = experiment.execute().unwrap().original(run).distribution.top_ids(1)[0];
        model.token_text(best)
    };
    // Words that are answered with a letter, four of them with that answer as the label; of two others the label is
    // of several tokens, and a wrong one.
    let letters = |c: char| ('a'..='z').map(move |d| format!("{c}{d}"));
    let is_letter = |name: &String| {
        let answer = answer(name);
        answer.len() == 1 && answer.bytes().all(|b| b.is_ascii_alphabetic()) && answer != "Z"
    };
    let names: Vec<String> = ('a'..='z').flat_map(letters).filter(is_letter).take(6).collect();
    let label = |(index, name): (usize, &String)| match index {
        4 => "Z".to_owned(),
        5 => "no token at all".to_owned(),
        _ => answer(name),
    };
    let rows: Vec<String> =
        names.iter().enumerate().map(|(i, name)| format!("[{name:?}, {:?}]", label((i, name)))).collect();
    let text = format!(
        "prompt = 'The {{country}} is'\nlabel = '{{answer}}'\nonly_right = true\nexamples = 12\n
        [interchange]\nsource = ['country']\n[variables.country]\nvalues = {names:?}\n
        [variables.answer]\nparents = ['country']\ntable = [{}]",
        rows.join(", ")
    );
    let drawn = draw(&text).unwrap();
    assert_eq!((drawn.asked, drawn.right), (6, 4));
    let used: BTreeSet<&str> = names[..4].iter().map(String::as_str).collect();
    assert_eq!(countries(&drawn.examples), used);
    // There are four right ones, so twelve pairs of two.
    let refused = draw(&text.replace("examples = 12", "examples = 13")).unwrap_err();
    assert!(refused.contains("13 are wanted") && refused.contains("4 of the 6 prompts"), "{refused}");
    let refused = draw(&text.replace("only_right = true", "")).unwrap_err();
    assert!(refused.contains("label"), "{refused}");
}

#[test]
fn bases_and_sources_are_drawn_evenly_over_what_they_say() {
    let text = std::fs::read_to_string(Path::new(ROOT).join("examples/causal/equality.toml")).unwrap();
    let text = text.replace("only_right = true\n", "").replace("examples = 200", "examples = 400");
    // Without examples of the task, which are too long for a tiny model; and with labels that are tokens of it.
    let before = text.find("tea tea").unwrap();
    let text = format!("{}{}", &text[..before], &text[text.find("{a} {b}").unwrap()..]);
    let text = text.replace("\"yes\", \"no\"", "\"y\", \"n\"").replace("\" {same}\"", "\"{same}\"");
    let drawn = draw(&text).unwrap();
    assert_eq!(drawn.settings, 12 * 12 * 12 * 12);
    let words = |example: &Drawn, run: &str| -> Vec<String> {
        let last = example.prompts[run].lines().last().unwrap().trim_end_matches(':').to_owned();
        last.split(' ').map(str::to_owned).collect()
    };
    let (mut same, mut left) = (0, 0);
    for example in &drawn.examples {
        let (base, source) = (words(example, "base"), words(example, "source"));
        same += usize::from((base[0] == base[1]) == (base[2] == base[3]));
        left += usize::from(source[0] == source[1]);
        let label = (source[0] == source[1]) == (base[2] == base[3]);
        assert_eq!(example.label, if label { "y" } else { "n" });
    }
    // Of 400, half: five standard deviations are 50.
    assert!(same.abs_diff(200) < 50 && left.abs_diff(200) < 50, "{same} {left}");
    let changed = draw(&text.replace("examples = 400", "examples = 50\nonly_changed = true")).unwrap();
    for example in &changed.examples {
        let base = words(example, "base");
        let own = if (base[0] == base[1]) == (base[2] == base[3]) { "y" } else { "n" };
        assert_ne!(example.label, own);
    }
}

#[test]
fn shipped_and_documented_models_are_whole() {
    for name in ["capitals", "equality"] {
        let file = CausalFile::load(&Path::new(ROOT).join(format!("examples/causal/{name}.toml"))).unwrap();
        let model = file.causal_model().unwrap();
        let first = &model.settings().unwrap()[0];
        assert!(file.prompt(&model, first).is_ok() && file.label(&model, first).is_ok());
    }
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/causal-model.md")).unwrap();
    let blocks: Vec<&str> =
        page.split("```toml").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 2);
    let mut keys: BTreeSet<String> = BTreeSet::new();
    for block in blocks {
        CausalFile::from_toml(block).unwrap().causal_model().unwrap().settings().unwrap();
    }
    // Every key of the schema has its row.
    let unknown = CausalFile::from_toml("nothing = 1").unwrap_err().to_string();
    let of_variable = CausalFile::from_toml("[variables.a]\nnothing = 1").unwrap_err().to_string();
    for message in [unknown, of_variable] {
        let listed = message.split("expected one of").nth(1).unwrap_or_else(|| panic!("{message}"));
        keys.extend(listed.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    assert_eq!(keys.len(), 15, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("| `{key}` |")), "{key} is not on the page");
    }
}

#[test]
fn what_is_no_model_is_refused() {
    let cases = [
        (FILE.replace("parents = ['country']", "parents = ['contry']"), "did you mean \"country\"?"),
        (FILE.replace("['Spain', 'S'], ", ""), "no row for country = \"Spain\""),
        (FILE.replace("['Spain', 'S']", "['Spain', 'S'], ['Spain', 'T']"), "two rows"),
        (FILE.replace("['Spain', 'S']", "['Spain', 'S', 'T']"), "has a row"),
        (FILE.replace("source = ['letter']", "source = ['leter']"), "did you mean \"letter\"?"),
        (FILE.replace("source = ['letter']", "base = ['letter']"), "\"base\" is the run"),
        (FILE.replace("source = ['letter']", "label = ['letter']"), "means something else"),
        (FILE.replace("source = ['letter']", "source = []"), "gives no variable"),
        (FILE.replace("source = ['letter']", ""), "no run that values are taken from"),
        (FILE.replace("{country} is", "{contry} is"), "did you mean \"country\"?"),
        (FILE.replace("{country} is", "{country is"), "brace"),
        (FILE.replace("held_out = 0.4", "held_out = 1.5"), "between 0 and 1"),
        (FILE.replace("held_out = 0.4", ""), "nothing to draw them from"),
        (FILE.replace("held_out = 0.4", "held_out = 0.99"), "no setting left to draw them from"),
        (FILE.replace("examples = 6", "examples = 0"), "must be from 1 to 65536"),
        (FILE.replace("examples = 6", "examples = 500"), "500 are wanted"),
        (FILE.replace("table", "tabel"), "did you mean `table`?"),
        (FILE.replace("'Spain', 'Italy', 'Rome'", "'Spain', 'Spain'"), "twice"),
        (
            format!(
                "{FILE}[variables.x]\nparents = ['y']\nfunction = 'not'\n[variables.y]\nparents = ['x']\nfunction = 'not'"
            ),
            "in a circle",
        ),
        (format!("{FILE}[variables.x]\nparents = ['letter']\nfunction = 'equal'"), "at least two"),
        (format!("{FILE}[variables.x]\nvalues = ['a']\nfunction = 'equal'"), "no parents"),
        (FILE.replace("{letter}", "{letter} and more"), "label"),
    ];
    for (text, says) in cases {
        let refused = draw(&text).map(|_| ()).unwrap_err();
        assert!(refused.contains(says), "{refused}\nin place of {says}\n{text}");
    }
    let mut large = String::from("prompt = '{a}'\nlabel = '{a}'\n[interchange]\nsource = ['a']\n");
    let values: Vec<String> = (0..100).map(|i| format!("'{i}'")).collect();
    for name in ["a", "b", "c"] {
        large += &format!("[variables.{name}]\nvalues = [{}]\n", values.join(", "));
    }
    assert!(draw(&large).unwrap_err().contains("1000000 settings"));
}
