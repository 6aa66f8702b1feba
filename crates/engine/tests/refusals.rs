//! What is wrong is refused before any work, in words that say which part, what was given, and what
//! would fit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod common;

use causalcone_engine::{Each, Error, Experiment, ExperimentFile, Op, PreparedSweep, Source, Sweep};
use causalcone_model::{Last, Site};
use common::*;
use serde_json::json;

/// The error of an experiment of tiny-gpt2 (or of the model with a tokenizer), written as TOML.
fn refuse(name: &str, text: &str) -> Error {
    let file = match ExperimentFile::from_toml(text) {
        Ok(file) => file,
        Err(e) => return e,
    };
    let run = || {
        let experiment = file.experiment(model(name))?;
        match file.sweep {
            Some(_) => PreparedSweep::new(&experiment).map(drop),
            None => experiment.execute().map(drop),
        }
    };
    run().expect_err(&format!("this is accepted:\n{text}"))
}

/// A message and hint that hold all these words.
fn says(error: &Error, words: &[&str], text: &str) {
    let said = format!("{error}\nhint: {}", error.hint().unwrap_or_default());
    assert!(error.is_bad_input(), "{said}");
    for word in words {
        assert!(said.contains(word), "no {word:?} in: {said}\n\nby:\n{text}");
    }
}

const RUNS: &str = "
    [runs.base]
    ids = [49, 28, 31, 17, 5]
    [runs.other]
    ids = [3, 14, 15]
    [runs.long]
    ids = [3, 14, 15, 9, 26, 5]
";

/// Edits (lines `key = value`, edits apart by `;`) and what comes after them.
fn check(edits: &str, rest: &str, words: &[&str]) {
    let edits: String =
        edits.split(';').map(|edit| format!("[[edit]]\n{}\n", edit.replace(" | ", "\n"))).collect();
    let text = format!("{RUNS}\n{edits}\n{}", rest.replace(" | ", "\n"));
    says(&refuse("tiny-gpt2", &text), words, &text);
}

#[test]
fn names_that_are_not_known_get_the_nearest() {
    let ok = "site = 'embedding' | op = 'zero'";
    check(
        "site = 'mlp_ouput' | op = 'zero'",
        "",
        &["edit 0", "\"mlp_ouput\" is not a site", "block_input", "did you mean \"mlp_output\"?"],
    );
    check("site = 'blocks.0.hook_q_input' | op = 'zero'", "", &["\"blocks.0.hook_q_input\" is not a site"]);
    check("site = 'blocks.x.hook_attn_out' | op = 'zero'", "", &["is not a site"]);
    check("site = 'hook_attn_in' | op = 'zero'", "", &["\"hook_attn_in\" is not a site"]);
    check("site = 'hook_attn_out' | op = 'zero'", "", &["attention_output is in every block", "layers"]);
    check("site = 'resid_pst' | op = 'zero'", "", &["is not a site", "did you mean \"resid_post\"?"]);
    check("site = 'embedding' | op = 'ablat'", "", &["is not an op", "did you mean \"ablate\"?"]);
    check(
        "site = 'embedding' | op = 'zreo'",
        "",
        &["edit 0", "op \"zreo\" is not an op", "subtract", "did you mean \"zero\"?"],
    );
    check("site = 'embedding' | op = 'custom'", "", &["op \"custom\" is not an op"]);
    // What people write by habit.
    for (written, words) in [
        ("layers = '0-2'", "write \"0..=2\" for 0 to 2"),
        ("layers = '0:2'", "write \"0..=2\" for 0 to 2"),
        ("layers = 'each'", "write \"all\" here, and \"each\" in [sweep]"),
        ("layers = 0 | positions = 'end'", "nor \"last\"; write -1"),
        ("layers = 0 | positions = 'first'", "write 0"),
    ] {
        check(&format!("site = 'block_output' | op = 'zero' | {written}"), "", &[words]);
    }
    check("site = 'block_output' | layers = 0 | op = 'mean'", "", &["needs a value", "{ mean = \"RUN\""]);
    check(
        "site = 'block_output' | layers = 0 | op = 'mean' | value = { mean = 'base' }",
        "",
        &["value = { mean = \"base\" } needs a data set", "add examples"],
    );
    check("site = 'embedding' | op = 'swap' | value = 3", "", &["{ run = \"source\" }", "the name of a run"]);
    check(
        "site = 'embedding' | op = 'zero' | postions = 1",
        "",
        &["unknown field `postions`", "did you mean `positions`?"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { runn = 'other' }",
        "",
        &["unknown field `runn`", "did you mean `run`?"],
    );
    check(
        "site = 'embedding' | op = 'swap' | run = 'bse' | value = { run = 'other' }",
        "",
        &["edit 0", "there is no run \"bse\"", "base, long, other", "did you mean \"base\"?"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { run = 'othr' }",
        "",
        &["no run \"othr\"", "did you mean \"other\"?"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { run = 'other', site = 'block_otput' }",
        "",
        &["did you mean \"block_output\"?"],
    );
    check(ok, "[read] | tokns = [1]", &["unknown field `tokns`", "did you mean `tokens`?"]);
    check(ok, "[read] | run = 'lnog'", &["read: there is no run \"lnog\"", "did you mean \"long\"?"]);
    check(ok, "[sweep] | metircs = ['prob']", &["unknown field `metircs`", "did you mean `metrics`?"]);
    check(
        ok,
        "[sweep] | metrics = ['logt']",
        &["sweep", "\"logt\" is not a metric", "prob, logit, logprob, logit_diff, kl", "did you mean"],
    );
    check(ok, "[sweep] | sites = ['embeding']", &["sweep", "did you mean \"embedding\"?"]);
    check(ok, "[sweep] | sites = ['blocks.0.hook_attn_out']", &["names a layer"]);
    check(ok, "[sweep] | edit = 1", &["there is no edit 1", "there are 1"]);
    check(
        "name = 'patch' | site = 'embedding' | op = 'zero'",
        "[sweep] | edit = 'pach'",
        &["there is no edit \"pach\"", "patch"],
    );
    check(ok, "[sweep] | positions = 'eahc'", &["each"]);
    check(ok, "[sweep] | layers = 'cumulativ'", &["cumulative"]);
    check(ok, "[sweep] | layers = { windw = 3 }", &["unknown field `windw`"]);
    check(ok, "[swep]", &["unknown field `swep`", "did you mean `sweep`?"]);
    check("site = 'embedding' | op = 'zero' | positions = { tokens = 'a' }", "", &["unknown field `tokens`"]);
    check(
        "site = 'embedding' | op = 'zero' | positions = { token = 'a', which = 'middle' }",
        "",
        &["\"middle\"", "first"],
    );
    check("site = 'embedding' | op = 'zero' | positions = 'frist'", "", &["\"frist\"", "last"]);
    check(
        "site = 'block_input' | layers = 'last' | op = 'zero'",
        "",
        &["\"last\" is neither \"all\" nor a range"],
    );
}

#[test]
fn what_is_out_of_range_is_told_the_range() {
    // 3 layers, 4 heads, 24 wide.
    check(
        "site = 'block_input' | op = 'zero' | layers = 3",
        "",
        &["edit 0", "layer 3 is out of range", "there are 3, numbered 0 to 2"],
    );
    check("site = 'block_input' | op = 'zero' | layers = -4", "", &["layer -4", "0 to 2"]);
    check("site = 'block_input' | op = 'zero' | layers = '1..5'", "", &["layer 5", "0 to 2"]);
    check("site = 'blocks.3.hook_resid_pre' | op = 'zero'", "", &["layer 3", "0 to 2"]);
    check(
        "site = 'head_value_output' | op = 'zero' | layers = 0 | heads = [0, 4]",
        "",
        &["head 4", "there are 4, numbered 0 to 3"],
    );
    check(
        "site = 'embedding' | op = 'zero' | positions = 5",
        "",
        &["position 5", "there are 5, numbered 0 to 4"],
    );
    check("site = 'embedding' | op = 'zero' | positions = [0, -6]", "", &["position -6", "0 to 4"]);
    check(
        "site = 'embedding' | op = 'zero' | dims = 24",
        "",
        &["dimension 24", "there are 24, numbered 0 to 23"],
    );
    check("site = 'attention_score' | layers = 0 | op = 'zero' | dims = 5", "", &["dimension 5", "0 to 4"]);
    check(
        "site = 'block_input' | layers = 0 | op = 'swap' | value = { run = 'other', layers = 9 } | positions = 0",
        "",
        &["layer 9", "0 to 2"],
    );
    check(
        "site = 'head_value_output' | layers = 0 | op = 'swap' | value = { run = 'long', align = 'left', heads = 9 }",
        "",
        &["head 9", "0 to 3"],
    );
    check("name = 'n' | site = 'embedding' | op = 'zero' | positions = 9", "", &["edit \"n\"", "position 9"]);
    for (model_name, text, words) in [
        ("tiny-gpt2", "[runs.base]\nids = [61]", &["run \"base\"", "token id 61", "0 to 60"][..]),
        ("tiny-gpt2", "[runs.base]\nids = [-1]", &["-1"]),
        ("tiny-gpt2", "[runs.base]\nids = []", &["run \"base\"", "prompt is empty"]),
        ("tiny-gpt2", "[runs.base]\nids = [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", &["17 tokens", "holds 16"]),
        ("tiny-gpt2", "[runs.base]\nids = [1]\n[read]\ntokens = [61]", &["read", "token id 61", "0 to 60"]),
        ("tiny-gpt2", "[runs.base]\nids = [1]\n[read]\ntokens = [' Rome']", &["no tokenizer", "token ids"]),
        ("tiny-gpt2", "[runs.base]\nprompt = 'Rome'", &["run \"base\"", "no tokenizer", "ids = ["]),
        (
            "tiny-llama-tied",
            "[runs.base]\nids = [1]\n[read]\ntokens = ['Spain']",
            &["2 tokens, not one", "\"Sp\", \"ain\"", "\" Spain\""],
        ),
    ] {
        says(&refuse(model_name, text), words, text);
    }
    let text = "[runs.base]\nprompt = 'The capital of Spain is'\n[[edit]]\nsite = 'embedding'\nop = 'zero'\npositions = { token = ";
    for (token, words) in [
        ("' Italy' }", &["token \" Italy\"", "is not in run \"base\"", "\"The\", \" capital\""][..]),
        ("'' }", &["is not in run"]),
    ] {
        let text = format!("{text}{token}");
        says(&refuse("tiny-llama-tied", &text), words, &text);
    }
    let twice = text.replace("capital of Spain", "Spain, Spain") + "' Spain' }";
    says(&refuse("tiny-llama-tied", &twice), &["more than once", "run \"base\"", "give one of them"], &twice);
}

#[test]
fn lists_are_neither_empty_nor_repeated() {
    let ok = "site = 'block_input' | layers = 'all' | op = 'zero'";
    for (key, what) in
        [("positions", "position"), ("layers", "layer"), ("dims", "dimension"), ("heads", "head")]
    {
        let edit = |form: &str| {
            let layers = if key == "layers" { "" } else { " | layers = 0" };
            format!("site = 'head_value_output' | op = 'zero'{layers} | {key} = {form}")
        };
        check(&edit("[]"), "", &[what, "empty"]);
        check(&edit("'2..2'"), "", &[what, "empty"]);
        check(&edit("'2..1'"), "", &[what, "empty"]);
        check(&edit("[1, 0, 1]"), "", &[&format!("{what} 1 is given twice")]);
        check(&edit("[1, -9]"), "", &[what, "-9"]);
    }
    check("site = 'block_input' | layers = [0, -3] | op = 'zero'", "", &["layer 0 is given twice"]);
    check("site = 'embedding' | op = 'swap' | value = { values = [] }", "", &["edit 0", "value"]);
    check("site = 'embedding' | op = 'swap' | value = { values = [[]] }", "", &["edit 0", "empty"]);
    check(
        "site = 'embedding' | op = 'swap' | value = { values = [[1], [1, 2]] }",
        "",
        &["different lengths"],
    );
    check(ok, "[sweep] | edit = []", &["names no edit"]);
    check(ok, "[sweep] | edit = [0, 0]", &["names an edit twice"]);
    check(ok, "[sweep] | scales = []", &["scales = []"]);
    check(ok, "[sweep] | sites = []", &["sites = []"]);
    check(ok, "[sweep] | metrics = []", &["metrics = []"]);
    check(ok, "[read] | tokens = [1] | [sweep] | scales = [1, 2, 1]", &["scales", "1 twice"]);
    check(ok, "[sweep] | metrics = ['kl', 'kl']", &["metrics", "twice"]);
    check(
        ok,
        "[read] | tokens = [1] | [sweep] | sites = ['block_input', 'block_input']",
        &["sites", "twice"],
    );
    check(
        "name = 'a' | site = 'embedding' | op = 'zero'; name = 'a' | site = 'embedding' | op = 'zero'",
        "",
        &["edit \"a\"", "same name"],
    );
}

#[test]
fn values_must_fit() {
    let at = "site = 'mlp_hidden' | layers = 0 | op = 'add'";
    check(
        &format!("{at} | value = {{ values = [1, 2] }}"),
        "",
        &["edit 0", "is 2 wide, where mlp_hidden needs 40"],
    );
    check(&format!("{at} | dims = '0..3' | value = {{ values = [1, 2] }}"), "", &["is 2 wide", "3 or 40"]);
    check(&format!("{at} | value = {{ embedding = 5 }}"), "", &["is 24 wide, where mlp_hidden needs 40"]);
    check(&format!("{at} | value = {{ embedding = 61 }}"), "", &["token id 61", "0 to 60"]);
    check(
        "site = 'head_value_output' | layers = 0 | op = 'add' | value = { embedding = 5 }",
        "",
        &["24 wide", "needs 6"],
    );
    check(
        "site = 'attention_score' | layers = 0 | op = 'add' | value = { values = [1, 2] }",
        "",
        &["2 wide", "needs 5"],
    );
    check(
        "site = 'mlp_hidden' | layers = 0 | op = 'add' | dims = [0] | value = { values = [[1], [2]] }",
        "",
        &["has 2 rows", "5 positions"],
    );
    check("site = 'embedding' | op = 'add'", "", &["edit 0", "op \"add\"", "needs a value"]);
    check("site = 'embedding' | op = 'zero' | value = { values = 1 }", "", &["\"zero\"", "takes no value"]);
    check(
        "site = 'embedding' | op = 'collect' | value = { values = 1 }",
        "",
        &["\"collect\"", "takes no value"],
    );
    check(
        "site = 'embedding' | op = 'swap' | scale = 2 | value = { values = 1 }",
        "",
        &["\"swap\" has no scale"],
    );
    check("site = 'embedding' | op = 'zero' | scale = 2", "", &["\"zero\" has no scale"]);
    for value in ["{}", "{ run = 'other', values = 1 }", "{ tensor = 't' }", "{ positions = 1 }"] {
        check(
            &format!("site = 'embedding' | op = 'swap' | value = {value}"),
            "",
            &["exactly one of run, mean, pca, embedding, file, values or, of a program, given"],
        );
    }
    check(
        "site = 'embedding' | op = 'swap' | value = { values = 1, positions = 1 }",
        "",
        &["value = { run = … }"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { run = 'other', tensor = 't' }",
        "",
        &["value = { file = … }"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { file = 'no-such.safetensors' }",
        "",
        &["edit 0", "no-such.safetensors"],
    );
    check(
        "site = 'embedding' | op = 'swap' | value = { values = 'x' }",
        "",
        &["a number, a list of numbers"],
    );
    // Numbers that are none.
    for number in ["nan", "inf", "-inf", "1e39"] {
        let words = &["edit 0", "where only finite numbers"][..];
        check(&format!("site = 'embedding' | op = 'swap' | value = {{ values = {number} }}"), "", words);
        check(
            &format!(
                "site = 'attention_weight' | layers = 0 | op = 'swap' | dims = [0, 1] | value = {{ values = [0, {number}] }}"
            ),
            "",
            words,
        );
        if number != "-inf" {
            check(
                &format!(
                    "site = 'attention_score' | layers = 0 | op = 'add' | value = {{ values = {number} }}"
                ),
                "",
                &["finite numbers or -inf"],
            );
        }
        check(
            &format!("site = 'embedding' | op = 'scale' | scale = {number}"),
            "",
            &["edit 0", "scale", "finite"],
        );
        check(
            "site = 'embedding' | op = 'scale'",
            &format!("[read] | tokens = [1] | [sweep] | scales = [1, {number}]"),
            &["sweep", "scale", "finite"],
        );
    }
    check(
        "site = 'attention_score' | layers = 0 | op = 'subtract' | value = { values = -inf }",
        "",
        &["where only finite numbers"],
    );
}

#[test]
fn a_value_of_a_run_must_fit() {
    let edit = |more: &str| format!("site = 'block_output' | layers = [0, 1] | op = 'swap' | {more}");
    let check = |more: &str, words: &[&str]| check(&edit(more), "", words);
    check(
        "value = { run = 'base' }",
        &["edit 0", "from the run it edits", "another run with the same prompt"],
    );
    check(
        "value = { run = 'other' }",
        &["edit 0", "positions \"all\"", "run \"other\" has 3", "align = \"tokens\""],
    );
    check("positions = 4 | value = { run = 'other' }", &["position 4", "run \"other\"", "0 to 2"]);
    check(
        "positions = [0, 1] | value = { run = 'other', positions = [0, 1, 2] }",
        &["value has 3 positions", "one for each of the edit's 2"],
    );
    check(
        "positions = [0, 1] | value = { run = 'other', positions = 3 }",
        &["position 3", "run \"other\"", "0 to 2"],
    );
    check("positions = [0, 1] | value = { run = 'other', positions = -4 }", &["position -4", "0 to 2"]);
    check("value = { run = 'long', positions = '1..3' }", &["value has 2 positions", "edit's 5"]);
    check(
        "value = { run = 'long', align = 'left', layers = [0, 1, 2] }",
        &["value has 3 layers", "edit's 2"],
    );
    check(
        "value = { run = 'long', align = 'left', site = 'mlp_hidden' }",
        &["mlp_hidden", "does not fit block_output", "40", "24"],
    );
    check(
        "value = { run = 'long', align = 'left', site = 'attention_weight' }",
        &["attention_weight", "does not fit"],
    );
    check(
        "value = { run = 'long', align = 'left', site = 'head_query_output' }",
        &["head_query_output", "does not fit"],
    );
    check("value = { run = 'long', align = 'left', heads = 1 }", &["block_output", "no heads"]);
    check(
        "value = { run = 'long', align = 'left', site = 'embedding', layers = 0 }",
        &["embedding", "no layers"],
    );
    check(
        "value = { run = 'long', align = 'left', site = 'blocks.1.hook_resid_post', layers = 0 }",
        &["layers = 0", "layer 1"],
    );
}

#[test]
fn sites_have_layers_and_heads_or_not() {
    check(
        "site = 'block_input' | op = 'zero'",
        "",
        &["edit 0", "block_input is in every block", "layers: \"all\", or some of 0 to 2"],
    );
    check(
        "site = 'embedding' | layers = 0 | op = 'zero'",
        "",
        &["embedding is outside the blocks", "no layers"],
    );
    check("site = 'logits' | layers = 'all' | op = 'zero'", "", &["logits is outside the blocks"]);
    check("site = 'blocks.1.hook_attn_out' | layers = 2 | op = 'zero'", "", &["layers = 2", "says layer 1"]);
    check(
        "site = 'embedding' | op = 'swap' | value = { run = 'long', align = 'left', site = 'block_input' }",
        "",
        &["block_input", "needs layers"],
    );
    check("site = 'block_input' | layers = 0 | heads = 0 | op = 'zero'", "", &["block_input has no heads"]);
    for (site, view) in [
        ("query_output", "head_query_output"),
        ("value_output", "head_value_output"),
        ("key_output", "head_key_output"),
        ("attention_value_output", "head_attention_value_output"),
    ] {
        check(
            &format!("site = '{site}' | layers = 0 | heads = 0 | op = 'zero'"),
            "",
            &[&format!("{site} has no heads"), &format!("use \"{view}\"")],
        );
    }
    let head = "site = 'head_key_output' | layers = 0 | op = 'swap' | value = { run = 'long', align = 'left', site = 'head_query_output'";
    let text = |edit: &str| format!("{RUNS}\n[[edit]]\n{}", edit.replace(" | ", "\n"));
    // This Llama has 4 query heads and 2 key heads.
    for (edit, words) in [
        (format!("{head} }}"), &["value has 4 heads", "edit's 2"][..]),
        (format!("{head}, heads = [0, 1, 2] }}"), &["value has 3 heads", "edit's 2"]),
        ("site = 'head_query_output' | layers = 0 | heads = 3 | op = 'swap' | value = { run = 'long', align = 'left', site = 'head_key_output' }".into(), &["head 3", "0 to 1"]),
        ("site = 'head_key_output' | layers = 0 | heads = 2 | op = 'zero'".into(), &["head 2", "0 to 1"]),
    ] {
        says(&refuse("tiny-llama", &text(&edit)), words, &edit);
    }
}

#[test]
fn attention_stays_attention() {
    let score = "site = 'attention_score' | layers = 1";
    check(
        &format!("{score} | op = 'swap' | value = {{ values = -inf }}"),
        "",
        &["query row 0", "layer 1", "head 0", "no key left"],
    );
    check(
        &format!("{score} | op = 'add' | positions = 2 | heads = 3 | value = {{ values = -inf }}"),
        "",
        &["query row 2", "layer 1", "head 3", "no key left"],
    );
    check(
        &format!("{score} | op = 'swap' | positions = 2 | dims = '0..=2' | value = {{ values = -inf }}"),
        "",
        &["query row 2"],
    );
    for op in ["zero", "scale"] {
        check(
            &format!("{score} | op = '{op}' | positions = [0, 1] | dims = [2, 4]"),
            "",
            &["edit 0", "no key column of [2, 4]", "[0, 1]"],
        );
    }
    check(
        "site = 'attention_weight' | layers = 0 | op = 'swap' | positions = 0 | dims = 1 | value = { values = 1 }",
        "",
        &["no key column"],
    );
    // Rows of runs of different lengths have different columns.
    check(
        &format!("{score} | op = 'swap' | value = {{ run = 'long', align = 'left' }}"),
        "",
        &["5 and 6 positions", "dims"],
    );
    check(
        &format!("{score} | op = 'swap' | positions = 0 | dims = 3 | value = {{ run = 'other' }}"),
        "",
        &["no key column"],
    );
    check(
        &format!(
            "{score} | op = 'swap' | positions = 3 | dims = 3 | value = {{ run = 'other', positions = 0 }}"
        ),
        "",
        &["5 and 3 positions"],
    );
    // One key left is enough.
    let text = format!(
        "{RUNS}\n[[edit]]\nsite = 'attention_score'\nlayers = 'all'\nop = 'swap'\npositions = 3\ndims = [0, 1, 3]\nvalue = {{ values = -inf }}"
    );
    let outcome =
        ExperimentFile::from_toml(&text).unwrap().experiment(model("tiny-gpt2")).unwrap().execute().unwrap();
    assert!(outcome.collected().is_empty());
}

/// Scores that are +inf, or the difference of two infinities, have no softmax either.
#[test]
fn scores_without_a_softmax_are_refused() {
    let score = "site = 'attention_score' | layers = 1 | positions = 3 | dims = 1";
    let words = &["query row 3", "layer 1"];
    check(&format!("{score} | op = 'add' | value = {{ values = -inf }} | scale = -1"), "", words);
    check(&format!("{score} | op = 'add' | value = {{ values = -inf }} | scale = 0"), "", words);
    // Row 0 of the other run is -inf in column 1.
    check(&format!("{score} | op = 'subtract' | value = {{ run = 'long', positions = 0 }}"), "", words);
    check(
        &format!("{score} | op = 'swap' | value = {{ values = -inf }}; {score} | op = 'scale' | scale = -1"),
        "",
        words,
    );
}

#[test]
fn runs_that_wait_for_each_other_are_refused() {
    let take = |run: &str, from: &str| {
        format!(
            "run = '{run}' | site = 'block_output' | layers = 0 | positions = 0 | op = 'swap' | value = {{ run = '{from}' }}"
        )
    };
    let circle = [take("base", "other"), take("other", "base")].join(";");
    for rest in ["", "[read] | tokens = [1] | [sweep]"] {
        check(&circle, rest, &["base, other", "circle"]);
        let three = [take("base", "other"), take("other", "long"), take("long", "base")].join(";");
        check(&three, rest, &["base, long, other", "circle"]);
    }
    // In other layers and at other positions as well.
    let apart = circle.replacen("layers = 0", "layers = 2", 1).replacen("positions = 0", "positions = 1", 1);
    check(&apart, "", &["circle"]);
}

#[test]
fn runs_and_reads_must_be_told_apart() {
    for (text, words) in [
        ("", &["no run", "[runs.base]"][..]),
        ("[runs.a]\nids = [1]\n[runs.b]\nids = [2]", &["read", "must name its run", "none is called base"]),
        (
            "[runs.a]\nids = [1]\n[runs.b]\nids = [2]\n[[edit]]\nsite = 'embedding'\nop = 'zero'",
            &["edit 0", "must name its run"],
        ),
        ("[runs.a]", &["run \"a\"", "one of prompt, ids and messages"]),
        ("[runs.a]\nids = [1]\nprompt = 'x'", &["run \"a\"", "one of prompt, ids and messages"]),
        ("[runs.a]\nids = [1]\nbos = true", &["run \"a\"", "bos is for prompts"]),
        ("[runs.a]\nids = [1]\nids = [2]", &["ids", "duplicate"]),
        ("runs = 3", &["runs"]),
        ("modle = 'x'", &["unknown field `modle`", "did you mean `model`?"]),
    ] {
        says(&refuse("tiny-gpt2", text), words, text);
    }
    // The same key twice, in JSON.
    let error = ExperimentFile::from_json(r#"{"runs": {"a": {"ids": [1]}, "a": {"ids": [2]}}}"#).unwrap_err();
    says(&error, &["a"], "a key given twice");
}

#[test]
fn what_breaks_the_schema_is_told_with_the_path_of_its_key() {
    let folder = tempfile::tempdir().unwrap();
    for (document, path, problem) in [
        (json!({"modle": "x"}), "", "unknown field `modle`, expected one of `model`"),
        (json!({"weights": "big"}), "weights", "unknown variant `big`"),
        (json!({"edit": [{}]}), "edit[0]", "missing field `op`"),
        (
            json!({"edit": [{"op": "zero"}, {"op": "add", "value": {"embeding": 1}}]}),
            "edit[1].value",
            "unknown field `embeding`, expected one of `run`",
        ),
        (json!({"edit": [{"op": "zero", "a`b": 1}]}), "edit[0]", "unknown field `a`b`, expected one of"),
        (json!({"edit": [{"op": "zero", "scale": "1"}]}), "edit[0].scale", "invalid type: string \"1\""),
        (json!({"edit": [{"op": "zero", "joint": "joint"}]}), "edit[0].joint", "unknown variant `joint`"),
        (
            json!({"edit": [{"op": "zero", "layers": [0, 1.5]}]}),
            "edit[0].layers[1]",
            "invalid type: floating point `1.5`",
        ),
        (
            json!({"edit": [{"op": "zero", "positions": {"positions": 1}}]}),
            "edit[0].positions",
            "unknown field `positions`, expected one of `token`",
        ),
        (json!({"sweep": {"layers": {"windw": 3}}}), "sweep.layers", "unknown field `windw`"),
        (json!({"runs": {"base": {"ids": [1, -2]}}}), "runs.base.ids[1]", "invalid value: integer `-2`"),
    ] {
        let part = if path.is_empty() { "experiment" } else { path };
        let toml = ExperimentFile::from_toml(&toml::to_string(&document).unwrap()).unwrap_err();
        let json = ExperimentFile::from_json(&document.to_string()).unwrap_err();
        let file = folder.path().join("file.json");
        std::fs::write(&file, document.to_string()).unwrap();
        let file = ExperimentFile::load(&file).unwrap_err().to_string();
        assert!(toml.to_string().starts_with(&format!("{part}: TOML parse error at line ")), "{toml}");
        assert!(toml.to_string().contains(&format!("\n{problem}")), "{toml}");
        assert!(json.to_string().starts_with(&format!("{part}: {problem}")), "{json}");
        let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
        assert!(file.contains(&format!("file.json: {path}{problem}")), "{file}");
    }
    // A path is shortened in its middle.
    let long = json!({"runs": {"x".repeat(1000): {"ids": 1}}}).to_string();
    let error = ExperimentFile::from_json(&long).unwrap_err().to_string();
    assert!(
        error.starts_with("runs.xxx") && error.contains("xxx.ids: invalid type") && error.len() < 400,
        "{error}"
    );
    let hint = ExperimentFile::from_json(r#"{"sweep": {"layers": {"windw": 3}}}"#).unwrap_err().hint();
    assert_eq!(hint.as_deref(), Some("did you mean `window`?"));
}

#[test]
fn sweeps_must_have_something_to_sweep() {
    let ok = "site = 'block_input' | layers = 'all' | op = 'zero'";
    let tokens = "[read] | tokens = [1] | [sweep]";
    let sweep = |edit: &str, rest: &str, words: &[&str]| check(edit, &format!("{tokens} | {rest}"), words);
    // Metrics need tokens.
    check(ok, "[sweep]", &["metric \"prob\" needs at least 1 token", "has 0"]);
    check(ok, "[sweep] | metrics = ['kl', 'logprob']", &["metric \"logprob\" needs at least 1"]);
    sweep(ok, "metrics = ['logit_diff']", &["metric \"logit_diff\" needs at least 2", "has 1"]);
    // What is not listed is not swept.
    sweep("site = 'embedding' | op = 'zero'", "layers = 'each'", &["embedding has no layers to sweep"]);
    sweep(ok, "heads = 'each'", &["heads = \"each\"", "heads = \"all\""]);
    sweep("site = 'attention_weight' | layers = 0 | op = 'zero'", "heads = 'each'", &["heads = \"all\""]);
    sweep(ok, "layers = { window = 4 }", &["window of 4", "the 3"]);
    sweep(ok, "layers = { window = 0 }", &["window of 0"]);
    sweep(ok, "scales = [2]", &["scales need an op with a scale"]);
    sweep(ok, "sites = ['embedding']", &["embedding is outside the blocks"]);
    sweep(
        "site = 'head_value_output' | layers = 0 | heads = 0 | op = 'zero'",
        "sites = ['mlp_output']",
        &["mlp_output has no heads"],
    );
    sweep(
        "site = 'block_input' | layers = 0 | op = 'add' | value = { embedding = 3 }",
        "sites = ['mlp_output', 'mlp_hidden']",
        &["24 wide", "mlp_hidden needs 40"],
    );
    sweep(
        &format!("{ok}; site = 'mlp_output' | layers = [0] | op = 'zero'"),
        "edit = [0, 1] | layers = 'each'",
        &["as many layers", "[3, 1]"],
    );
    sweep(
        &format!("{ok}; site = 'mlp_output' | layers = [0] | positions = 0 | op = 'zero'"),
        "edit = [0, 1] | positions = 'each'",
        &["as many positions", "[5, 1]"],
    );
    // The run read must hear of it.
    check(&format!("run = 'other' | {ok}"), tokens, &["cannot change run \"base\"", "which is read"]);
    check(
        &format!("run = 'base' | {ok}"),
        "[read] | run = 'other' | tokens = [1] | [sweep]",
        &["cannot change run \"other\""],
    );
    sweep(
        &format!("{ok}; site = 'logits' | op = 'collect'"),
        "layers = 'each'",
        &["edit 1", "collect", "sweep has no place"],
    );
    says(
        &refuse("tiny-gpt2", &format!("{RUNS}\n[read]\ntokens = [1]\n[sweep]")),
        &["no edit to sweep"],
        "no edit",
    );
    // No [sweep] is no sweep.
    let text = format!("{RUNS}\n[[edit]]\nsite = 'embedding'\nop = 'zero'");
    let experiment = ExperimentFile::from_toml(&text).unwrap().experiment(model("tiny-gpt2")).unwrap();
    says(&experiment.plan().unwrap_err(), &["no [sweep]", "`run`"], &text);
}

#[test]
fn a_sweep_too_large_is_refused_with_its_number() {
    // 3 layers × 4 heads × 16 positions × scales; all at once, a list of scales is the only long axis.
    let model = model("tiny-gpt2");
    let mut exp = Experiment::new(model);
    let base = exp.run_ids("base", vec![1; 16]).unwrap();
    exp.edit(base, Site::HeadValueOutput.layers(..).heads(..), Op::scale(1.0)).unwrap();
    exp.set_tokens(vec![1]).unwrap();
    let sweep = |scales: u32| Sweep {
        layers: Some(causalcone_engine::LayerAxis::Each),
        positions: Some(Each),
        heads: Some(Each),
        scales: (0..scales).map(f64::from).collect(),
        ..Sweep::default()
    };
    for scales in [20_834, 5_208_334] {
        exp.set_sweep(sweep(scales));
        let cells = 3 * 4 * 16 * u64::from(scales);
        says(
            &exp.plan().unwrap_err(),
            &["sweep", &cells.to_string(), "4000000", "fewer layers"],
            "too many cells",
        );
    }
    exp.set_sweep(sweep(20));
    assert_eq!(exp.plan().unwrap().cells.len(), 3 * 4 * 16 * 20);
}

#[test]
fn the_builder_refuses_the_same() {
    let model = model("tiny-gpt2");
    let mut exp = Experiment::new(model);
    let base = exp.run_ids("base", vec![1, 2, 3]).unwrap();
    let other = exp.run_ids("other", vec![4, 5]).unwrap();
    says(
        &exp.run_ids("base", vec![1]).unwrap_err(),
        &["run \"base\" is given twice".replace(" is", ": is").as_str()],
        "twice",
    );
    says(&exp.run_ids("c", vec![]).unwrap_err(), &["prompt is empty"], "empty");
    says(&exp.set_tokens(vec![3, 99]).unwrap_err(), &["token id 99"], "token");
    let mut refuse = |run, target: causalcone_model::Target, op: Op, words: &[&str]| {
        says(&exp.edit(run, target, op).unwrap_err(), words, "builder");
    };
    refuse(base, Site::MlpOutput.layers(3), Op::zero(), &["layer 3"]);
    refuse(base, Site::MlpOutput.layers(0).at(3), Op::zero(), &["position 3"]);
    refuse(base, Site::Embedding.layers(0), Op::zero(), &["outside the blocks"]);
    refuse(base, Site::Logits.at(Last), Op::scale(f64::NAN), &["scale NaN"]);
    refuse(base, Site::Logits.at(Last), Op::swap(f64::INFINITY), &["holds inf"]);
    refuse(base, Site::Embedding.into(), Op::swap(base), &["from the run it edits"]);
    refuse(
        base,
        Site::Embedding.into(),
        Op::swap(other),
        &["do not say which positions pair", "run \"other\""],
    );
    let source = Source { site: Some(Site::Logits), ..other.into() };
    refuse(base, Site::Embedding.at(0), Op::swap(source), &["does not fit embedding"]);
    let cube =
        candle_core::Tensor::zeros((1, 1, 24), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    refuse(base, Site::Embedding.into(), Op::swap(cube), &["shape [1, 1, 24]"]);
    // What was refused is not there.
    assert_eq!(
        exp.execute().unwrap().original(base).top(3).0,
        exp.execute().unwrap().counterfactual(base).top(3).0
    );
}

/// A family without a site has none for values either.
#[test]
fn values_come_from_sites_there_are() {
    for (name, site) in [("families/neox", "block_middle"), ("families/olmo2", "attention_input")] {
        let written = serde_json::json!({
            "runs": {"base": {"ids": [1, 2, 3]}, "other": {"ids": [4, 5, 6]}}, "read": {"run": "base"},
            "edit": [{"site": "block_output", "layers": 1, "op": "swap", "value": {"run": "other", "site": site}}]
        });
        let said = experiment(model(name), &written).err().unwrap().to_string();
        assert!(said.contains("edit 0") && said.contains(site) && said.contains("no site of a"), "{said}");
    }
}

/// One item needs no brackets, and a run that is named is a value; the run that is edited is the one that is read.
#[test]
fn what_is_plain_is_taken_as_it_is_meant() {
    let strict = ExperimentFile::from_toml(
        "[runs.a]\nids = [1, 2]\n[runs.b]\nids = [3, 4]\n\
         [[edit]]\nrun = 'a'\nsite = 'block_output'\nlayers = 'all'\nop = 'swap'\nvalue = { run = 'b' }\nuntil = [5]\n\
         [read]\ntokens = [7]\n[sweep]\nlayers = 'each'\nsites = ['mlp_output']\nmetrics = ['logit']\nmethods = ['exact']\n",
    );
    let lenient = ExperimentFile::from_toml(
        "[runs.a]\nids = [1, 2]\n[runs.b]\nids = [3, 4]\n\
         [edit]\nrun = 'a'\nsite = 'block_output'\nlayers = 'all'\nop = 'swap'\nvalue = 'b'\nuntil = 5\n\
         [read]\ntokens = 7\n[sweep]\nlayers = 'each'\nsites = 'mlp_output'\nmetrics = 'logit'\nmethods = 'exact'\n",
    );
    let (strict, lenient) = (strict.unwrap(), lenient.unwrap());
    assert_eq!(strict, lenient);
    let json = serde_json::to_string(&lenient).unwrap();
    assert_eq!(ExperimentFile::from_json(&json).unwrap(), strict);
    let model = model("tiny-gpt2");
    let unedited = ExperimentFile { edit: Vec::new(), ..lenient.clone() };
    refused(unedited.experiment(model), &["must name its run"]);
    let mut edit = lenient.edit[0].clone();
    edit.until.clear();
    let experiment = ExperimentFile { edit: vec![edit], ..lenient }.experiment(model).unwrap();
    assert_eq!(experiment.read_run().unwrap(), experiment.find_run("a", "read").unwrap());
    // The path of what is wrong in a list is kept.
    let wrong = ExperimentFile::from_toml("[read]\ntokens = [' a', 1.5]\n").unwrap_err();
    assert!(wrong.to_string().contains("read.tokens[1]"), "{wrong}");
}
