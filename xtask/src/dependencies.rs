//! What the project's crates make their dependents depend on.

/// A program may need another version of minijinja than the one that templates need.
#[test]
fn without_the_feature_chat_no_version_of_minijinja_is_pinned() {
    let tree = "tree --package causalcone --no-default-features --locked \
                --edges normal --prefix none --format {p}|{f}";
    let output = std::process::Command::new(env!("CARGO"))
        .args(tree.split_whitespace())
        .current_dir(crate::step::root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let features = |package: &str| {
        let line = tree.lines().find(|line| line.starts_with(package));
        line.and_then(|line| line.split_once('|')).map(|(_, features)| features)
    };
    assert_eq!(features("causalcone-chat "), Some(""), "{tree}");
    assert!(features("minijinja ").is_some_and(|all| !all.contains("unstable")), "{tree}");
}
