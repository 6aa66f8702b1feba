//! Chat templates beside what transformers makes of the same conversations (`fixtures/make_chat.py`), and templates that
//! would go out of bounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_model::Error;
use causalcone_model::chat::{ChatTemplate, Message, Specials};
use common::{Verdict, fixture};
use serde::Deserialize;

#[derive(Deserialize)]
struct Template {
    name: String,
    template: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    messages: Vec<Message>,
    generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

fn specials() -> Specials {
    Specials { bos: Some("<s>".into()), eos: Some("</s>".into()) }
}

#[test]
fn conversations_are_written_as_transformers_writes_them() {
    let all: Vec<Template> = serde_json::from_slice(&std::fs::read(fixture("chat.json")).unwrap()).unwrap();
    assert!(all.len() >= 8);
    for Template { name, template, cases } in all {
        let template = ChatTemplate::new(template).unwrap();
        for Case { messages, generation_prompt, text, error } in cases {
            let ours = template.render(&messages, generation_prompt, &specials());
            match (ours, text, error) {
                (Ok(ours), Some(theirs), _) => assert_eq!(ours, theirs, "{name}: {messages:?}"),
                (Err(ours), None, Some(theirs)) => {
                    assert!(ours.to_string().contains(&theirs), "{name}: {ours}, not {theirs}");
                }
                (ours, text, error) => panic!("{name}: {ours:?}, not {text:?} {error:?}: {messages:?}"),
            }
        }
    }
}

fn render(template: &str) -> Result<String, Error> {
    let messages = [Message::user("hello"), Message::user("x".repeat(100))];
    ChatTemplate::new(template)?.render(&messages, true, &specials())
}

/// Item 66: within a second and some megabytes, whatever they try.
#[test]
fn templates_that_go_out_of_bounds() {
    let doubling = "{% set x = 'ab' %}".to_owned() + &"{% set x = x ~ x %}".repeat(60) + "{{ x }}";
    let adding = "{% set x = 'ab' %}".to_owned() + &"{% set x = (x + x) %}".repeat(60) + "{{ x }}";
    let lists = "{% set x = [1, 2] %}".to_owned() + &"{% set x = x + x %}".repeat(60) + "{{ x | length }}";
    let blocks =
        "{% set x = 'ab' %}".to_owned() + &"{% set x %}{{ x }}{{ x }}{% endset %}".repeat(60) + "{{ x }}";
    let macros = "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set x = 'ab' %}".to_owned()
        + &"{% set x = f(x) %}".repeat(60);
    let nested = "{% for a in range(10000) %}".repeat(8) + "x" + &"{% endfor %}".repeat(8);
    let deep = "{{ ".to_owned() + &"(".repeat(60_000) + "1" + &")".repeat(60_000) + " }}";
    let deep_lists = "{{ ".to_owned() + &"[".repeat(60_000) + &"]".repeat(60_000) + " }}";
    let many_ifs = "{% if true %}".repeat(100_000 / 13);
    let long = "x".repeat(1 << 20);
    let raw = format!("{{% for a in range(100000) %}}{}{{% endfor %}}", "y".repeat(100_000));
    let captured = format!(
        "{{% set x %}}{{% for a in range(100000) %}}{}{{% endfor %}}{{% endset %}}",
        "y".repeat(100_000)
    );
    let of_lists = "{% set x = 'abcdefgh' %}".to_owned() + &"{% set x = x | replace('a', x) %}".repeat(60);
    let of_json = "{% set x = '\"' %}".to_owned() + &"{% set x = x | tojson %}".repeat(60) + "{{ x }}";
    let letters = "{% set ns = namespace(l=[]) %}{% for a in range(10000) %}{% set ns.l = ns.l + [('a' | indent(60000)) | list] %}{% endfor %}";
    let kept = "{% set ns = namespace(l=[]) %}{% for a in range(100000) %}{% set ns.l = ns.l + ['%s'.replace('%s', 'x') | list] %}{% endfor %}";
    let cases: [(&str, &str, &str); 34] = [
        ("doubling", &doubling, "longer than"),
        ("doubling by +", &adding, "longer than"),
        ("doubling a list", &lists, "more on its way"),
        ("doubling in blocks", &blocks, "longer than"),
        ("doubling in macros", &macros, "longer than"),
        ("loops in loops", &nested, "fuel"),
        ("brackets", &deep, "recursion"),
        ("lists in lists", &deep_lists, "recursion"),
        ("blocks in blocks", &many_ifs, "recursion"),
        ("a megabyte", &long, "more than the"),
        ("a long text again and again", &raw, "longer than"),
        ("the same into a variable", &captured, "fuel"),
        ("replace", &of_lists, "longer than"),
        ("json of json", &of_json, "longer than"),
        ("lists of letters", letters, "more on its way"),
        ("lists that are kept", kept, "more on its way"),
        ("a million", "{{ range(10**9) }}", "**"),
        ("a billion", "{% for a in range(1000000000) %}{% endfor %}", "range"),
        ("times", "{{ 'x' * 1000000000 }}", "*"),
        ("times in a set", "{% set x = ['x'] * 1000000000 %}", "*"),
        ("format", "{{ '%1000000000d' | format(1) }}", "format"),
        ("width", "{{ 'a\nb' | indent(1000000000) }}", "longer than"),
        ("center", "{{ 'a' | center(1000000000) }}", "center"),
        ("a method", "{{ 'a'.center(1000000000) }}", "center"),
        ("a macro that calls itself", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("a loop that calls itself", "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}", "recursive"),
        ("include", "{% include 'template' %}", "include"),
        ("extends", "{% extends 'template' %}", "extends"),
        ("import", "{% import 'os' as os %}", "import"),
        ("no such filter", "{{ 'a' | nothing }}", "nothing"),
        ("no such variable", "{{ nothing.at.all }}", "undefined"),
        ("no such function", "{{ strftime_now('%d') }}", "strftime_now"),
        ("an open block", "line one\n{% if %}", "line 2"),
        ("half a tag", "{{ messages[", "line 1"),
    ];
    let mut verdict = Verdict::new();
    for (name, template, says) in cases {
        verdict.refused(name, template.len() as u64, says, || render(template));
    }
    verdict.check();
}

/// Rewriting what is counted changes nothing else.
#[test]
fn sums_are_what_they_were() {
    for (template, text) in [
        ("{{ 1 + 2 + 3 }}", "6"),
        ("{{ 1 + 2 * 0 if false else 1 + 2 - 1 }}", "*"),
        ("{{ (1 + 2) + (3 + (4 + 5)) }}", "15"),
        ("{{ 1.5 + 2 }}", "3.5"),
        ("{{ 'a' + 'b' ~ 1 ~ 'c' + 'd' }}", "ab1cd"),
        ("{{ ('a' ~ 'b') ~ ('c' + ('d' ~ 'e')) }}", "abcde"),
        ("{{ 'a + b' + \"~\" }}", "a + b~"),
        ("{{ ([1] + [2, 3]) | length + 1 }}", "4"),
        ("{{ 'x' if 1 + 1 == 2 and 'a' + 'b' == 'ab' else 'y' }}", "x"),
        ("{{ {'a': 1 + 1}['a'] }}{{ [1 + 1, 2 + 2][0 + 1] }}", "24"),
        ("{% set x = 'a' %}{% for i in range(3) %}{% set x = x + 'b' %}{% endfor %}{{ x }}", "a"),
        ("{%- if messages | length + 1 == 3 -%} y {%- endif -%}", "y"),
        ("{{ -1 + 2 }}{{ 3 - 1 }}", "12"),
    ] {
        match render(template) {
            Ok(ours) => assert_eq!(ours, text, "{template}"),
            Err(error) => assert!(error.to_string().contains(text) && text == "*", "{template}: {error}"),
        }
    }
    assert!(render("{{ 1 + 'a' }}").unwrap_err().to_string().contains("cannot be added"));
}

/// A long conversation is no hostile one.
#[test]
fn a_long_conversation_is_written() {
    let all: Vec<Template> = serde_json::from_slice(&std::fs::read(fixture("chat.json")).unwrap()).unwrap();
    let turn = |i: usize| Message {
        role: if i.is_multiple_of(2) { "user" } else { "assistant" }.into(),
        content: "word ".repeat(400),
    };
    let messages: Vec<Message> = (0..200).map(turn).collect();
    for Template { name, template, .. } in all {
        let text = ChatTemplate::new(template).unwrap().render(&messages, true, &specials());
        assert!(text.as_ref().is_ok_and(|text| !text.is_empty()), "{name}: {text:?}");
    }
}
