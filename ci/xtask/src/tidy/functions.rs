//! The length of functions, counted as clippy's `too_many_lines` counts: lines of the body that are neither blank nor comment.

use super::{Finding, Source};

/// Lines that the body of a function may have; aim at 50.
pub const MAX_FUNCTION_LINES: usize = 70;

/// No function is too long. Relies on rustfmt: a body ends at the first `}` of the indentation that its `fn` has.
#[must_use]
pub fn length(source: Source<'_>) -> Vec<Finding> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut findings = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", &line[..indent]);
        let Some(opening) = lines[start..].iter().position(|l| l.ends_with('{') || l.ends_with(';') || l.ends_with('}')) else {
            continue;
        };
        if !lines[start + opening].ends_with('{') {
            continue;
        }
        let body = lines[start + opening + 1..].iter().take_while(|l| **l != closing);
        let count = body.filter(|l| !l.trim().is_empty() && !l.trim_start().starts_with("//")).count();
        if count > MAX_FUNCTION_LINES {
            findings.push(source.finding(start, format!("{name} has {count} lines, at most {MAX_FUNCTION_LINES}: split it")));
        }
    }
    findings
}

/// The name of the function that begins on a line.
fn function_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    for word in words.by_ref() {
        match word {
            "fn" => break,
            "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"" | "default" => {}
            word if word.starts_with("pub(") || word == "super)" || word == "crate)" => {}
            _ => return None,
        }
    }
    words.next()?.split(['(', '<']).next().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found() {
        assert_eq!(function_name("    pub(crate) const fn size<T>(a: T) -> usize {"), Some("size"));
        assert_eq!(function_name("unsafe fn a() {"), Some("a"));
        assert_eq!(function_name("let fn_name = 1;"), None);
        assert_eq!(function_name("// fn a() {"), None);
    }

    #[test]
    fn a_long_function_is_found_and_its_neighbour_is_not() {
        let body = |n: usize| "        let a = 1;\n".repeat(n) + "        // a comment\n\n";
        let text = format!(
            "impl A {{\n    fn short(\n        &self,\n    ) {{\n{}    }}\n    fn long() {{\n{}    }}\n}}\n",
            body(MAX_FUNCTION_LINES),
            body(MAX_FUNCTION_LINES + 1)
        );
        let findings = length(Source { path: "a.rs", text: &text });
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].problem.starts_with("long has 71 lines"));
    }
}
