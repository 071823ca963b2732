//! Checks of files line by line.

use super::{Finding, Source};

/// Lines of code that a file may have; aim at 500.
pub const MAX_FILE_LINES: usize = 700;

/// File names that say nothing.
const VAGUE: [&str; 8] = ["utils", "util", "helpers", "helper", "common", "misc", "tools", "stuff"];

/// Marks of what is unfinished. They are put together here so that this file does not contain them.
const UNFINISHED: [&str; 5] =
    [concat!("to", "do!"), concat!("unimpl", "emented!"), concat!("db", "g!"), concat!("FIX", "ME"), concat!("XX", "X")];

/// A file says in its first line what it is for.
#[must_use]
pub fn first_line(source: Source<'_>) -> Vec<Finding> {
    let good = source.text.lines().next().is_some_and(|line| line.starts_with("//! "));
    if good { vec![] } else { vec![source.finding(0, "the first line is not a `//!` that says what the file is for")] }
}

/// A file is not too long.
#[must_use]
pub fn length(source: Source<'_>) -> Vec<Finding> {
    let lines = source.code().count();
    if source.is_test() || lines <= MAX_FILE_LINES {
        return vec![];
    }
    vec![source.finding(MAX_FILE_LINES, format!("{lines} lines of code, at most {MAX_FILE_LINES}: split it"))]
}

/// A file has a name that says what is in it.
#[must_use]
pub fn name(source: Source<'_>) -> Vec<Finding> {
    let stem = source.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    let folders = source.path.split('/').rev().skip(1);
    match folders.chain([stem]).find(|name| VAGUE.contains(name)) {
        Some(name) => vec![source.finding(0, format!("{name:?} does not say what is in it"))],
        None => vec![],
    }
}

/// Nothing is left unfinished.
#[must_use]
pub fn words(source: Source<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        for word in UNFINISHED.into_iter().filter(|word| contains_word(line, word)) {
            findings.push(source.finding(number, format!("{word} is for unfinished work")));
        }
    }
    findings
}

fn contains_word(line: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word)
        .any(|(at, _)| !inside(line[..at].chars().next_back()) && !inside(line[at + word.len()..].chars().next()))
}

/// Every unsafe block says why it is sound.
#[must_use]
pub fn safety(source: Source<'_>) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let block = concat!("unsafe", " {");
    let mut findings = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let reasoned = lines[number.saturating_sub(8)..=number].iter().any(|line| line.contains("SAFETY:"));
        if contains_word(code, block) && !reasoned {
            findings.push(source.finding(number, "an unsafe block without `// SAFETY:`"));
        }
    }
    findings
}

/// Intrinsics have one home.
#[must_use]
pub fn intrinsics(source: Source<'_>) -> Vec<Finding> {
    let names = [concat!("core::", "arch"), concat!("std::", "arch"), concat!("is_x86_feature", "_detected!")];
    if source.path.starts_with("kernels/") {
        return vec![];
    }
    let used = |line: &str| !line.trim_start().starts_with("//") && names.iter().any(|name| line.contains(name));
    let found = source.text.lines().enumerate().filter(|(_, line)| used(line));
    found.map(|(number, _)| source.finding(number, "intrinsics are for kernels/ alone")).collect()
}

/// No file knows the machine that it was written on.
#[must_use]
pub fn workplace(source: Source<'_>) -> Vec<Finding> {
    let places = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let mut findings = Vec::new();
    for (number, line) in source.text.lines().enumerate() {
        let starts = |place: &str| {
            let before = |at: usize| line[..at].chars().next_back();
            line.match_indices(place).any(|(at, _)| !before(at).is_some_and(|c| c.is_alphanumeric() || "._-".contains(c)))
        };
        if let Some(place) = places.into_iter().find(|place| starts(place)) {
            findings.push(source.finding(number, format!("{place} is a path of one machine")));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source<'a>(path: &'a str, text: &'a str) -> Source<'a> {
        Source { path, text }
    }

    #[test]
    fn a_file_must_say_what_it_is_for() {
        assert!(first_line(source("a.rs", "//! Adds.\n")).is_empty());
        assert_eq!(first_line(source("a.rs", "use std::fmt;\n//! Adds.\n")).len(), 1);
        assert_eq!(first_line(source("a.rs", "")).len(), 1);
    }

    #[test]
    fn a_file_must_not_be_too_long() {
        let long = "//! A.\n".to_owned() + &"// line\n".repeat(MAX_FILE_LINES);
        assert_eq!(length(source("a/b.rs", &long)).len(), 1);
        assert!(length(source("a/tests.rs", &long)).is_empty());
        let tested = "//! A.\n#[cfg(test)]\nmod tests {\n".to_owned() + &"// line\n".repeat(MAX_FILE_LINES);
        assert!(length(source("a/b.rs", &tested)).is_empty());
    }

    #[test]
    fn a_name_must_say_something() {
        for bad in ["plan/src/utils.rs", "plan/src/common/a.rs", "misc.rs"] {
            assert_eq!(name(source(bad, "")).len(), 1, "{bad}");
        }
        assert!(name(source("plan/src/commons_clause.rs", "")).is_empty());
    }

    #[test]
    fn unfinished_work_is_found() {
        for mark in UNFINISHED {
            let text = format!("//! A.\nfn a() {{ {mark} }}\n");
            let findings = words(source("a.rs", &text));
            assert_eq!(findings.len(), 1, "{mark}");
            assert_eq!(findings[0].line, 2);
        }
        assert!(words(source("a.rs", "let size = 0xXXXL; // method")).is_empty());
    }

    #[test]
    fn unsafe_blocks_need_a_reason() {
        let bare = format!("fn a() {{\n    let b = {} c() }};\n}}", concat!("unsafe", " {"));
        assert_eq!(safety(source("a.rs", &bare)).len(), 1);
        let reasoned = bare.replace("    let", "    // SAFETY: c has no conditions.\n    let");
        assert!(safety(source("a.rs", &reasoned)).is_empty());
    }

    #[test]
    fn intrinsics_are_found_outside_of_kernels() {
        let text = format!("//! A.\nuse {}::x86_64::*;\n", concat!("core::", "arch"));
        assert_eq!(intrinsics(source("exec/src/a.rs", &text)).len(), 1);
        assert!(intrinsics(source("kernels/src/a.rs", &text)).is_empty());
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let text = format!("cd {}main", concat!("/wo", "rk/"));
        assert_eq!(workplace(source("README.md", &text)).len(), 1);
        assert!(workplace(source("README.md", &format!("https://example.org{}", concat!("/wo", "rk/")))).is_empty());
    }
}
