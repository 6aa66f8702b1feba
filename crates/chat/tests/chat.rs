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

use causalcone_chat::{ChatTemplate, Clock, Error, Message, Specials};
use common::fixture;
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
    Specials { bos: Some("<s>".into()), eos: Some("</s>".into()), clock: Clock::default() }
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
        ("{{ ''[::-1] }}{{ 'abc'[ : :-1 ] }}{{ ('a' + 'b')[::-1] }}{{ [1, 2][::-1] | join }}", "cbaba21"),
        ("{{ 'abcd'[::2] }}{{ messages[1:][::-1] | length }}{{ 'ab'[::-1][::-1] }}", "ac1ab"),
        ("{{ messages[0].content[1:][:3][::-1] }}{{ ('x' | upper | replace('X', 'yz'))[::-1] }}", "llezy"),
        ("{{ messages[0]['content'].upper()[::-1] }}{{ [[1, 2], [3]][::-1][0][::-1][0] }}", "OLLEH3"),
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
    // One of them writes everything a dozen times, as no model's does.
    for Template { name, template, .. } in all.into_iter().filter(|one| one.name != "python") {
        let text = ChatTemplate::new(template).unwrap().render(&messages, true, &specials());
        assert!(text.as_ref().is_ok_and(|text| !text.is_empty()), "{name}: {text:?}");
    }
}

/// Llama 3.2's way of asking for the date, whose fallback would be another conversation.
#[test]
fn a_template_that_asks_for_the_date_gets_that_of_the_clock() {
    let template = ChatTemplate::new(
        "{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}{%- else %}{%- set day = '26 Jul 2024' %}\
         {%- endif %}{{ 'Today Date: ' + day }}",
    );
    let template = template.unwrap();
    let mut given = specials();
    given.clock = Clock::new(Some("2026-02-09".parse().unwrap()));
    let text = template.render(&[Message::user("hi")], true, &given).unwrap();
    assert_eq!(text, "Today Date: 09 Feb 2026");
    assert_eq!(given.clock.seen().unwrap().to_string(), "2026-02-09");
    // Without a date it is today's, and the clock knows which day that was.
    let now = specials();
    let text = template.render(&[Message::user("hi")], true, &now).unwrap();
    assert_eq!(text, format!("Today Date: {}", now.clock.seen().unwrap().strftime("%d %b %Y").unwrap()));
    // Who does not ask has seen none.
    let unread = specials();
    ChatTemplate::new("{{ strftime_now is defined }}").unwrap().render(&[], true, &unread).unwrap();
    assert_eq!(unread.clock.seen(), None);
}
