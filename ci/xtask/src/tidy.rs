//! The style of the repository, as checks that run with the tests.
//!
//! Each check takes text and returns what is wrong with it, one [`Finding`] a place, so that its own tests can show it failing.
//! [`repository`] runs all of them over the tracked files.

pub mod dependencies;
pub mod functions;
pub mod lines;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fmt, fs};

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Path from the root of the repository.
    pub path: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.problem)
    }
}

/// A file to check.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Path from the root of the repository, with `/`.
    pub path: &'a str,
    /// Content.
    pub text: &'a str,
}

impl<'a> Source<'a> {
    /// Whether it is Rust that people write.
    #[must_use]
    pub fn is_rust(self) -> bool {
        self.extension("rs") && !self.path.contains("/generated/")
    }

    /// Whether all of it is test code.
    #[must_use]
    pub fn is_test(self) -> bool {
        let mut folders = self.path.split('/').rev();
        let name = folders.next().unwrap_or_default();
        name.ends_with("tests.rs") || folders.any(|folder| folder == "tests")
    }

    /// Whether the file's name ends in `.extension`.
    #[must_use]
    pub fn extension(self, extension: &str) -> bool {
        Path::new(self.path).extension().is_some_and(|e| e == extension)
    }

    /// Something wrong at a line, counted from 0.
    #[must_use]
    pub fn finding(self, line: usize, problem: impl Into<String>) -> Finding {
        Finding { path: self.path.to_owned(), line: line + 1, problem: problem.into() }
    }

    /// Its lines before an inline `#[cfg(test)] mod tests {`, with their numbers from 0.
    pub fn code(self) -> impl Iterator<Item = (usize, &'a str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let inline = lines.windows(2).position(|w| w[0] == "#[cfg(test)]" && w[1].starts_with("mod ") && w[1].ends_with('{'));
        let end = inline.unwrap_or(lines.len());
        lines.into_iter().take(end).enumerate()
    }
}

/// Everything that is wrong with the tracked files under `root`.
///
/// # Errors
/// When the files cannot be listed.
pub fn repository(root: &Path) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for path in tracked(root)? {
        // What is no text (golden segments, plans) has no style.
        let Ok(text) = fs::read_to_string(root.join(&path)) else { continue };
        findings.extend(check(Source { path: &path, text: &text }));
    }
    Ok(findings)
}

/// Every check over one file.
#[must_use]
pub fn check(source: Source<'_>) -> Vec<Finding> {
    let mut findings = lines::workplace(source);
    if source.is_rust() {
        for check in [lines::first_line, lines::length, lines::name, lines::words, lines::safety, lines::intrinsics] {
            findings.extend(check(source));
        }
        findings.extend(functions::length(source));
    }
    if source.path.ends_with("Cargo.toml") {
        findings.extend(dependencies::table(source));
    }
    findings
}

/// The paths of the files that git tracks, and of new ones that it does not ignore.
fn tracked(root: &Path) -> Result<Vec<String>, String> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    match Command::new("git").arg("-C").arg(root).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()),
        _ => walk(root),
    }
}

/// Without git (an unpacked archive): everything but build output and hidden folders.
fn walk(root: &Path) -> Result<Vec<String>, String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).map_err(|e| format!("{}: {e}", folder.display()))?;
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = folder.join(&name);
            if !entry.path().is_dir() {
                found.push(path.to_string_lossy().into_owned());
            } else if name != "target" && !name.starts_with('.') {
                folders.push(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_code_is_told_from_code() {
        let source = |path, text| Source { path, text };
        assert!(source("plan/src/codec/hostile_tests.rs", "").is_test());
        assert!(source("cli/tests/sql.rs", "").is_test());
        assert!(!source("plan/src/contests/mod.rs", "").is_test());
        let inline = source("a.rs", "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(inline.code().count(), 1);
        assert_eq!(source("a.rs", "#[cfg(test)]\nmod tests;\nfn a() {}\n").code().count(), 3);
    }

    #[test]
    fn a_bad_repository_has_findings_without_git_too() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("target")).unwrap();
        fs::write(root.path().join("target/a.rs"), "no doc").unwrap();
        fs::write(root.path().join("b.rs"), "no doc").unwrap();
        assert_eq!(walk(root.path()).unwrap(), ["b.rs"]);
        assert_eq!(repository(root.path()).unwrap().len(), 1);
    }
}
