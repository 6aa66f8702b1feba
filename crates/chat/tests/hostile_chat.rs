//! Chat templates that are made to hurt: refused by name, within a second and some megabytes. Items 66 and 67.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_chat::{ChatTemplate, Error, Message, Specials};
use common::{Random, Verdict, fixture};

fn render(template: &str) -> Result<String, Error> {
    let messages = [Message::user("hello"), Message::user("x".repeat(100))];
    ChatTemplate::new(template)?.render(&messages, true, &Specials::default())
}

fn refuse(cases: &[(&str, &str, String)]) {
    let mut verdict = Verdict::new();
    for (name, says, template) in cases {
        verdict.refused(name, template.len() as u64, says, || render(template));
    }
    verdict.check();
}

const LONGER: &str = "longer than";
const FUEL: &str = "fuel";
const TOKENS: &str = "words and signs";

/// Sixteen letters in `a`, and then a statement so many times.
fn again(statement: &str, times: usize) -> String {
    format!("{{% set a = 'xxxxxxxxxxxxxxxx' %}}{}{{{{ a }}}}", statement.repeat(times))
}

/// Texts and lists that grow without many steps.
#[test]
fn what_grows_is_stopped_before_it_is_there() {
    let loops = |inside: &str| {
        format!(
            "{{% set ns = namespace(a='xxxxxxxxxxxxxxxx', l=[1]) %}}{{% for i in range(60) %}}{inside}{{% endfor %}}"
        )
    };
    let lists = |statement: &str| format!("{{% set a = [1] %}}{}{{{{ a | length }}}}", statement.repeat(60));
    let written = "y".repeat(5000);
    refuse(&[
        ("~ doubling", LONGER, again("{% set a = a ~ a %}", 60)),
        ("+ doubling", LONGER, again("{% set a = (a + a) %}", 60)),
        ("doubling in a loop", LONGER, loops("{% set ns.a = ns.a ~ ns.a %}")),
        ("doubling a list in a loop", LONGER, loops("{% set ns.l = ns.l + ns.l %}")),
        ("set block", LONGER, again("{% set a %}{{ a }}{{ a }}{% endset %}", 60)),
        ("set block through filters", LONGER, again("{% set a | replace('x', 'xx') | upper | lower %}{{ a }}{% endset %}", 60)),
        ("replace", LONGER, again("{% set a = a | replace('x', 'xxxxxxxx') %}", 30)),
        ("replace of nothing", LONGER, again("{% set a = a.replace('', 'xxxxxxxx') %}", 30)),
        ("join", LONGER, again("{% set a = [a, a, a, a] | join(a) %}", 30)),
        ("join by method", LONGER, again("{% set a = a.join([a, a, a]) %}", 30)),
        ("join of letters", LONGER, again("{% set a = a | join('xxxxxxxx') %}", 30)),
        ("indent", LONGER, "{{ 'a\nb' | indent(1000000000) }}".into()),
        ("json of json", LONGER, again("{% set a = ('\"' ~ a) | tojson | tojson | tojson %}", 60)),
        ("indented json", LONGER, again("{% set a = [a, a] %}", 30).replace("{{ a }}", "{{ a | tojson(indent=64) }}")),
        ("upper", LONGER, again("{% set a = ('\u{390}' ~ a ~ a) | upper %}", 40)),
        ("letters", "", again("{% set a = a ~ a %}", 12) + "{{ a | list | length }}"),
        ("split", "", again("{% set a = a ~ a %}", 12) + "{{ a.split('x') | length }}"),
        ("lists", LONGER, lists("{% set a = a + a %}")),
        ("lists of lists", LONGER, lists("{% set a = [a, a] %}")),
        ("maps of maps", LONGER, lists("{% set a = {'x': a, 'y': a} %}")),
        ("tuples of tuples", LONGER, lists("{% set a = (a, a) %}")),
        ("dicts of dicts", LONGER, lists("{% set a = dict(x=a, y=a) %}")),
        ("a range", LONGER, "{% for i in range(99999) %}{% endfor %}".into()),
        ("a long range", "range", "{% for a in range(1000000000) %}{% endfor %}".into()),
        ("ranges that are kept", "more on its way", format!("{{% set ns = namespace(l=[]) %}}{}", "{% set ns.l = range(2000) | list %}".repeat(60))),
        ("output", LONGER, format!("{{% for i in range(2000) %}}{written}{{% endfor %}}")),
        ("output into a variable", FUEL, format!("{{% set x %}}{{% for i in range(2000) %}}{written}{{% endfor %}}{{% endset %}}")),
        ("macros", LONGER, again("{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set a = f(a) %}", 60)),
        ("macros that double", "recursion", "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% else %}{{ x }}{% endif %}{% endmacro %}{{ f('xxxxxxxx', 40) }}".into()),
        ("a macro by itself twice", "", "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% else %}xxxxxxxx{% endif %}{% endmacro %}{{ f(40) }}".into()),
        ("map", LONGER, again("{% set a = [a, a, a] | map('replace', 'x', 'xxx') | join %}", 30)),
        ("lists of letters", "", "{% set ns = namespace(l=[]) %}{% for a in range(2000) %}{% set ns.l = ns.l + [('a' | indent(60000)) | list] %}{% endfor %}".into()),
    ]);
}

/// What would go on for long.
#[test]
fn what_does_not_end_is_stopped() {
    let many = "{% for i in range(2000) %}";
    let long = again("{% set a = a ~ a %}", 11);
    refuse(&[
        ("loops in loops", FUEL, format!("{}{}", many.repeat(6), "{% endfor %}".repeat(6))),
        ("loops over messages", FUEL, format!("{}{}", "{% for m in messages %}".repeat(40), "{% endfor %}".repeat(40))),
        ("lists that are compared", FUEL, format!("{{% set a = range(2000) | list %}}{{% set b = range(2000) | list %}}{many}{many}{{{{ a == b }}}}{{% endfor %}}{{% endfor %}}")),
        ("lists that are searched", FUEL, format!("{{% set a = range(2000) | list %}}{many}{many}{{{{ -1 in a }}}}{{% endfor %}}{{% endfor %}}")),
        ("lists that are sliced", FUEL, format!("{{% set a = range(2000) | list %}}{many}{many}{{% set b = a[1:] %}}{{% endfor %}}{{% endfor %}}")),
        ("long texts that are searched", FUEL, format!("{long}{many}{many}{{{{ 'y' in a }}}}{{% endfor %}}{{% endfor %}}")),
        ("long texts that are sliced", FUEL, format!("{long}{many}{many}{{% set b = a[1:] %}}{{% endfor %}}{{% endfor %}}")),
        ("long texts that are compared", FUEL, format!("{long}{{% set b = a ~ 'x' %}}{{% set b = b[1:] %}}{many}{many}{{% if a == b %}}{{% endif %}}{{% endfor %}}{{% endfor %}}")),
        ("long texts that are measured", "more on its way", format!("{long}{many}{many}{{{{ a | length }}}}{{% endfor %}}{{% endfor %}}")),
        ("long texts that are read", FUEL, format!("{long}{{% for c in a %}}{{% endfor %}}").repeat(3)),
        ("many filters", FUEL, format!("{many}{many}{{{{ 1{} }}}}{{% endfor %}}{{% endfor %}}", " | string | int".repeat(200))),
        ("tests", FUEL, format!("{{% set a = range(2000) | list %}}{many}{many}{{{{ a is eq(a) }}}}{{% endfor %}}{{% endfor %}}")),
        ("a loop that calls itself", "recursive", "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".into()),
        ("a macro that calls itself", "recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".into()),
        ("macros of each other", "recursion", "{% macro f() %}{% if 1 %}{{ g() }}{% endif %}{% endmacro %}{% macro g() %}{{ [f()] }}{% endmacro %}{{ f() }}".into()),
        ("a default that calls", "", "{% macro f(x=f()) %}{% endmacro %}{{ f() }}".into()),
    ]);
}

/// What would overflow the stack of whatever recurses, and what holds itself.
#[test]
fn what_is_nested_is_bounded() {
    let around = |open: &str, inside: &str, close: &str, n: usize| {
        format!("{}{inside}{}", open.repeat(n), close.repeat(n))
    };
    let kept = "{% set ns = namespace(a=[]) %}{% for i in range(1000) %}{% set ns.a = [ns.a] %}{% endfor %}{{ ns.a }}";
    let cycle = |then: &str| format!("{{% set ns = namespace() %}}{{% set m = namespace() %}}{then}");
    const ITSELF: &str = "may hold itself";
    refuse(&[
        ("round brackets", TOKENS, format!("{{{{ {} }}}}", around("(", "1", ")", 50_000))),
        ("some round brackets", "recursion", format!("{{{{ {} }}}}", around("(", "1", ")", 400))),
        ("square brackets", TOKENS, format!("{{{{ {} }}}}", around("[", "1", "]", 50_000))),
        ("some square brackets", "", format!("{{{{ {} }}}}", around("[", "1", "]", 100))),
        ("braces", TOKENS, format!("{{{{ {} }}}}", around("{1:", "1", "}", 30_000))),
        ("brackets that do not close", TOKENS, format!("{{{{ {} }}}}", "(".repeat(100_000))),
        ("not", TOKENS, format!("{{{{ {} 1 }}}}", "not ".repeat(30_000))),
        ("minus", TOKENS, format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
        ("else", TOKENS, format!("{{{{ {}1 }}}}", "1 if 0 else ".repeat(10_000))),
        ("a sum", TOKENS, format!("{{{{ {}1 }}}}", "1+".repeat(40_000))),
        ("some sum", "", format!("{{{{ {}1 }}}}", "1+".repeat(400))),
        ("a text", TOKENS, format!("{{{{ {}'x' }}}}", "'x'~".repeat(20_000))),
        ("attributes", TOKENS, format!("{{{{ messages{} }}}}", ".a".repeat(60_000))),
        ("filters", TOKENS, format!("{{{{ 'x'{} }}}}", "|trim".repeat(20_000))),
        (
            "or behind a string that ends a tag",
            TOKENS,
            format!("{{{{ '}}}}' or {}1 }}}}", "0 or ".repeat(20_000)),
        ),
        (
            "or behind raw",
            TOKENS,
            format!("{{% raw %}}{{{{ \" {{% endraw %}}{{{{ \" }}}} \" or {}1 }}}}", "0 or ".repeat(20_000)),
        ),
        ("if", "recursion", around("{% if 1 %}", "", "{% endif %}", 6_000)),
        ("for", "recursion", around("{% for m in messages %}", "", "{% endfor %}", 3_000)),
        ("set", "recursion", around("{% set a %}", "", "{% endset %}", 5_000)),
        ("lists in lists", "go deeper", kept.into()),
        ("a namespace in itself", ITSELF, cycle("{% set ns.a = ns %}")),
        ("in brackets", ITSELF, cycle("{%- set ns.a = ((ns)) -%}")),
        ("by a choice", ITSELF, cycle("{% set ns.a=ns if 1 else 2%}")),
        ("in its list", ITSELF, cycle("{% set ns.a = [1, ns] %}")),
        ("in its map", ITSELF, cycle("{% set ns.a = {'x': [ns]} %}")),
        ("in its tuple", ITSELF, cycle("{% set ns.a = (ns, ) %}")),
        ("in a tuple without brackets", "without brackets", cycle("{% set ns.a = ns, 1 %}")),
        ("in such a tuple of lists", "without brackets", cycle("{% set a = ns, [1] %}")),
        ("in another", ITSELF, cycle("{% set ns.a = namespace(b=ns) %}")),
        ("in one another", ITSELF, cycle("{% set ns.a = m %}{% set m.a = ns %}{{ ns == m }}")),
        ("several attributes", "several attributes", cycle("{% set ns.a, m.a = [1, 2] %}")),
        ("through a filter", ITSELF, cycle("{% set ns.a = ns | items | list %}")),
        ("through a sum", ITSELF, cycle("{% set ns.a = [1] + [ns] %}")),
        ("a namespace that is written", "no text", cycle("{{ ns }}")),
        ("a list that is written", "no text", "{{ messages }}".into()),
    ]);
    // Side by side is not nested.
    let mut verdict = Verdict::new();
    for (name, template, length) in [
        ("or", format!("{{{{ {}1 }}}}", "0 or ".repeat(450)), 1),
        ("filters", format!("{{{{ 'x'{} }}}}", "|trim".repeat(450)), 1),
        ("minus", format!("{{{{ 500{} }}}}", "-1".repeat(450)), 2),
        ("tags", "{{ 'x' }}".repeat(6_000), 6_000),
        ("not", format!("{{{{ {} 1 }}}}", "not ".repeat(900)), 4),
        ("elif", format!("{{% if 0 %}}{}{{% else %}}x{{% endif %}}", "{% elif 0 %}".repeat(8_000)), 1),
    ] {
        let text = verdict.accepted(name, template.len() as u64, || render(&template));
        assert_eq!(text.map(|text| text.len()), Some(length), "{name}");
    }
    verdict.check();
}

/// What is no template, or asks for what is not there or cannot be bounded.
#[test]
fn what_is_wrong_is_said() {
    let cases = [
        ("a megabyte", "more than the", "x".repeat(1 << 20)),
        ("times", "*", "{{ 'x' * 1000000000 }}".to_owned()),
        ("times in a set", "*", "{% set x = ['x'] * 1000000000 %}".into()),
        ("to the power", "**", "{{ range(10**9) }}".into()),
        ("format", "format", "{{ '%1000000000d' | format(1) }}".into()),
        ("format by method", "format", "{{ '{:>999999999}'.format(1) }}".into()),
        ("center", "center", "{{ 'a' | center(1000000000) }}".into()),
        ("center by method", "center", "{{ 'a'.center(1000000000) }}".into()),
        ("include", "include", "{% include 'template' %}".into()),
        ("extends", "extends", "{% extends 'template' %}".into()),
        ("import", "import", "{% import 'os' as os %}".into()),
        ("block", "block", "{% block a %}{{ self.a() }}{% endblock %}".into()),
        ("call", "call", "{% call f() %}{% endcall %}".into()),
        ("no such filter", "nothing", "{{ 'a' | nothing }}".into()),
        ("no such test", "evil", "{{ 'a' is evil }}".into()),
        ("no such variable", "undefined", "{{ nothing.at.all }}".into()),
        ("no such function", "lipsum", "{{ lipsum(5) }}".into()),
        ("no such code of a date", "\"%Q\"", "{{ strftime_now('%d %Q') }}".into()),
        ("a long date", "longer than", format!("{{{{ strftime_now('{}') }}}}", "%c".repeat(8000))),
        ("what Python has inside", "undefined", "{{ ''.__class__.__mro__[1].__subclasses__() }}".into()),
        ("a list that would change", "append", "{{ messages.append(1) }}".into()),
        ("an open block", "line 2", "line one\n{% if %}".into()),
        ("half a tag", "line 1", "{{ messages[".into()),
        ("a tag without end", "line 2", "a\n{{ 1".into()),
        ("a string without end", "line 1", "{{ 'a }}".into()),
        ("for without end", "end of block", "{% for m in messages %}".into()),
        (
            "a loop that is left and has else",
            "in a loop with else",
            "{% for m in messages %}{% if 1 %}{% break %}{% endif %}{% else %}x{% endfor %}".into(),
        ),
        ("an end alone", "endif", "{% endif %}".into()),
        ("an unknown tag", "shell", "{% shell 'rm' %}".into()),
        ("what is raised", "refuses this conversation: no!", "\n\n{{ raise_exception('no!') }}".into()),
        ("division", "line 1", "{{ 1 // 0 }}".into()),
        ("the least number", "", "{{ (0 - 9223372036854775807 - 1) // (0 - 1) * 1 }}".into()),
        ("no steps", "line 1", "{{ 'abc'[::0] }}".into()),
        ("a split at nothing", "line 1", "{{ 'abc'.split('') }}".into()),
        ("control characters", "\\u{1b}", "{{ raise_exception('\u{1b}[2J') }}".into()),
    ];
    refuse(&cases);
}

/// Item 67: what stands in a message is never run, whatever it looks like.
#[test]
fn messages_are_data() {
    let template =
        ChatTemplate::new("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}").unwrap();
    let content = "{{ 7 * 7 }}{% raw %}{# #}{% endfor %}{{ raise_exception('x') }}\r\n<bos>";
    let messages = [Message::user(content), Message { role: "{{ 1 }}".into(), content: String::new() }];
    let text = template.render(&messages, true, &Specials::default()).unwrap();
    assert_eq!(text, format!("user:{content};{{{{ 1 }}}}:;"));
    // Many messages, and one that is long.
    let mut verdict = Verdict::new();
    let long = [Message::user("x".repeat(1 << 20))];
    let many: Vec<Message> = (0..2000).map(|i| Message::user(format!("message {i}"))).collect();
    for (name, messages) in [("a long message", &long[..]), ("many messages", &many)] {
        verdict.accepted(name, 1 << 20, || template.render(messages, true, &Specials::default()));
    }
    verdict.check();
}

/// Templates that are nearly right: pieces of the fixture's, put together anyhow.
#[test]
fn what_is_cut_and_pasted_is_survived() {
    let made: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("chat.json")).unwrap()).unwrap();
    let made = made.as_array().unwrap();
    let templates: Vec<Vec<char>> =
        made.iter().map(|one| one["template"].as_str().unwrap().chars().collect()).collect();
    let mut random = Random(66);
    let (mut verdict, mut rendered) = (Verdict::new(), 0);
    for _ in 0..4000 {
        let mut template = templates[random.below(templates.len())].clone();
        for _ in 0..=random.below(3) {
            let other = &templates[random.below(templates.len())];
            let (from, at) = (random.below(other.len()), random.below(template.len() + 1));
            let piece = &other[from..(from + random.below(24)).min(other.len())];
            let until = (at + random.below(12)).min(template.len());
            template.splice(at..until, piece.iter().copied());
        }
        let template: String = template.into_iter().collect();
        let text = verdict.survived(&template, template.len() as u64, || render(&template));
        rendered += usize::from(text.is_some());
    }
    assert!((200..3600).contains(&rendered), "{rendered} were templates");
    verdict.check();
}
