//! The repository keeps to its style.

#[test]
fn the_repository_is_tidy() {
    let findings = xtask::tidy::repository(&xtask::repository()).unwrap();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} findings:\n{}", text.len(), text.join("\n"));
}

#[test]
fn the_test_command_is_the_same_everywhere() {
    let root = xtask::repository();
    for path in [".ci/run", "README.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root.join(path)).unwrap();
        let stated = text.lines().any(|line| line.split(" 2>&1").next() == Some("cargo test --workspace"));
        assert!(stated, "{path} does not have `cargo test --workspace` on a line of its own");
    }
}
