//! The repository keeps to its style.

#[test]
fn the_repository_is_tidy() {
    let findings = xtask::tidy::repository(&xtask::repository()).unwrap();
    let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert!(text.is_empty(), "{} findings:\n{}", text.len(), text.join("\n"));
}
