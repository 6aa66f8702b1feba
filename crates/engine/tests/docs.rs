//! docs/experiment-file.md is true: its examples are experiment files, and it has every name there is.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

use causalcone_engine::op::OPS;
use causalcone_engine::op::Takes;
use causalcone_engine::{ExperimentFile, Metric, OpKind};
use causalcone_model::Site;
use std::path::Path;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiment-file.md");
    std::fs::read_to_string(path).unwrap()
}

/// The blocks fenced as TOML.
fn examples(page: &str) -> Vec<&str> {
    page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

#[test]
fn every_example_is_an_experiment_file() {
    let page = page();
    let examples = examples(&page);
    assert!(examples.len() >= 5);
    for text in examples {
        let file = ExperimentFile::from_toml(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert!(!file.edit.is_empty() && file.model.is_some());
        // The same in JSON is the same, where JSON can say it: it has no -inf.
        if !text.contains("-inf") {
            let json = serde_json::to_string(&file).unwrap();
            assert_eq!(ExperimentFile::from_json(&json).unwrap(), file);
        }
        for edit in &file.edit {
            assert!(edit.site.iter().all(|site| Site::parse(site).is_ok()));
            assert!(edit.op.name().is_none_or(|name| OPS.iter().any(|op| op.name == name)));
        }
    }
}

/// The first cells of the rows of the table under a heading, quotes removed.
fn first_cells<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let section = page.split(heading).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split('`').next()).collect()
}

#[test]
fn every_name_of_the_code_is_in_its_table_and_no_other() {
    let page = page();
    let sites: Vec<&str> = Site::all().map(Site::name).collect();
    assert_eq!(first_cells(&page, "\n## Sites\n"), sites);
    let ops: Vec<&str> = OPS.iter().filter(|op| op.kind != OpKind::Custom).map(|op| op.name).collect();
    assert_eq!(first_cells(&page, "\n## Ops\n"), ops);
    assert_eq!(first_cells(&page, "\n## Metrics\n"), Metric::ALL.map(|(name, _)| name));
    let row = |name: &str| {
        let start = format!("| `{name}` |");
        page.lines().filter(|line| line.starts_with(&start)).collect::<Vec<_>>()
    };
    for site in Site::all() {
        let code = |name: Option<String>| name.map(|name| format!("`{name}`")).unwrap_or_default();
        let names = [code(site.short_name().map(Into::into)), code(site.lens_name())];
        let rows = row(site.name());
        let has_names = |row: &&str| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            matches!(cells[..], ["", .., short, lens, ""] if names == [short, lens])
        };
        assert!(rows.iter().any(has_names), "{site:?}: {names:?} in {rows:?}");
    }
    for (op, alias) in OPS.iter().filter_map(|op| Some((op.name, op.alias?))) {
        assert!(page.replace('\n', " ").contains(&format!("`{alias}` is `{op}`")), "{alias}");
    }
    for op in &OPS {
        assert!(
            page.contains(op.formula.split(", ").next().unwrap())
                || matches!(op.kind, OpKind::Collect | OpKind::Skip),
            "{}",
            op.formula
        );
        let value = match op.value {
            Takes::No => "no",
            Takes::Maybe => "may",
            Takes::Must => "yes",
        };
        let columns = format!("| {value} | {} |", if op.takes_scale { "yes" } else { "no" });
        let rows = row(op.name);
        assert!(op.kind == OpKind::Custom || rows.iter().any(|row| row.contains(&columns)), "{}", op.name);
    }
    for (name, metric) in Metric::ALL {
        let columns = format!(
            "| {} | {} |",
            if metric.is_per_token() { "one a token" } else { "one" },
            metric.needs_tokens()
        );
        assert!(row(name).iter().any(|row| row.ends_with(&columns)), "{name}: {columns}");
    }
}

/// The keys of each table of the schema, as an unknown one is told of.
#[test]
fn every_key_of_the_schema_is_in_its_table_and_no_other() {
    let page = page();
    for (heading, text) in [
        ("\n## Top level\n", "nothing = 1"),
        ("\n## `[runs.NAME]`\n", "[runs.a]\nnothing = 1"),
        ("\n## `[[edit]]`\n", "[[edit]]\nnothing = 1"),
        ("\n## `value`\n", "[[edit]]\nvalue = { nothing = 1 }"),
        ("\n## `[read]`\n", "[read]\nnothing = 1"),
        ("\n## `[sweep]`\n", "[sweep]\nnothing = 1"),
        ("\n## `[generate]`\n", "[generate]\nnothing = 1"),
        ("\n## `[train]`\n", "[train]\nnothing = 1"),
    ] {
        let error = ExperimentFile::from_toml(text).unwrap_err().to_string();
        let message = error.lines().find(|line| line.contains("unknown field")).unwrap();
        let mut keys: Vec<&str> = message.split('`').skip(3).step_by(2).collect();
        let mut told = first_cells(&page, heading);
        keys.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, keys, "{heading}");
    }
}
