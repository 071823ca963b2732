//! Editing of one statement: when it is complete, and what Tab offers.

use rustyline::completion::Completer;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper, Highlighter, Hinter};

use crate::connection::Connection;

const KEYWORDS: &[&str] = &[
    "ALL",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "COUNT",
    "CREATE",
    "CROSS JOIN",
    "CUBE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "GROUPING SETS",
    "HAVING",
    "IN",
    "INNER JOIN",
    "INSERT INTO",
    "INTERSECT",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "NULLS FIRST",
    "NULLS LAST",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "PROFILE",
    "REFERENCE TABLE",
    "RIGHT JOIN",
    "ROLLUP",
    "SELECT",
    "SHARD KEY",
    "SHOW TABLES",
    "SORT KEY",
    "TABLE",
    "THEN",
    "UNION",
    "UNION ALL",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHERE",
    "WITH",
];

/// Editing help over the names that the engine knows.
#[derive(Helper, Highlighter, Hinter)]
pub(super) struct Input<'a> {
    connection: &'a Connection,
}

impl<'a> Input<'a> {
    pub(super) fn new(connection: &'a Connection) -> Input<'a> {
        Input { connection }
    }
}

impl Completer for Input<'_> {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let start = line[..position].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |i| i + 1);
        Ok((start, candidates(&line[start..position], &self.connection.names())))
    }
}

/// Names and keywords that start with `word`; keywords in the case that the user types.
fn candidates(word: &str, names: &[String]) -> Vec<String> {
    if word.is_empty() {
        return names.to_vec();
    }
    let starts = |name: &str| name.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    let lower = word.chars().all(|c| !c.is_uppercase());
    let keywords = KEYWORDS.iter().filter(|k| starts(k)).map(|k| if lower { k.to_lowercase() } else { (*k).to_owned() });
    names.iter().filter(|n| starts(n)).cloned().chain(keywords).collect()
}

impl Validator for Input<'_> {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let complete = text.is_empty() || text.starts_with('\\') || ends_statement(text);
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether the text ends with a semicolon that is in no quotes and no comment.
fn ends_statement(text: &str) -> bool {
    let mut rest = text.chars().peekable();
    let mut last = ' ';
    while let Some(c) = rest.next() {
        match c {
            '\'' | '"' | '`' => {
                if !rest.by_ref().any(|d| d == c) {
                    return false;
                }
                last = c;
            }
            '-' if rest.peek() == Some(&'-') => {
                rest.by_ref().find(|d| *d == '\n');
            }
            '/' if rest.peek() == Some(&'*') => {
                rest.next();
                let mut star = false;
                if !rest.by_ref().any(|d| std::mem::replace(&mut star, d == '*') && d == '/') {
                    return false;
                }
            }
            c if c.is_whitespace() => {}
            c => last = c,
        }
    }
    last == ';'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_a_semicolon_outside_quotes_and_comments() {
        assert!(ends_statement("select 1;"));
        assert!(ends_statement("select ';' ; -- done;"));
        assert!(!ends_statement("select 1"));
        assert!(!ends_statement("select ';"));
        assert!(!ends_statement("select 1 -- ;"));
        assert!(ends_statement("select 1 /* don't; */; /**/"));
        assert!(!ends_statement("select 1 /* ; */"));
        assert!(!ends_statement("select 1; /*/"));
    }

    #[test]
    fn completion_knows_names_and_keywords() {
        let names = vec!["lineitem".to_owned(), "orders".to_owned()];
        assert_eq!(candidates("line", &names), ["lineitem"]);
        assert_eq!(candidates("OR", &names), ["orders", "OR", "ORDER BY"]);
        assert!(candidates("sel", &names).contains(&"select".to_owned()));
        assert!(candidates("é", &names).is_empty());
    }
}
