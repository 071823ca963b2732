//! Errors of this crate: what is wrong and where.

use std::fmt;

use datafusion_common::{DataFusionError, SchemaError, Span};
use datafusion_sql::sqlparser::parser::ParserError;
use datafusion_sql::sqlparser::tokenizer;

/// A place in the text: both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Line.
    pub line: u64,
    /// Column.
    pub column: u64,
}

/// A statement that cannot be parsed or bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlError {
    /// What is wrong, without the place.
    pub message: String,
    /// Where, if known.
    pub location: Option<Location>,
}

impl fmt::Display for SqlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.location {
            Some(place) => write!(f, " at line {}, column {}", place.line, place.column),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SqlError {}

impl From<tokenizer::Location> for Location {
    fn from(place: tokenizer::Location) -> Self {
        Location { line: place.line, column: place.column }
    }
}

impl SqlError {
    /// An error without a place.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        SqlError { message: message.into(), location: None }
    }

    /// An error at a place; line 0 stands for an unknown one.
    pub(crate) fn at(message: impl Into<String>, place: tokenizer::Location) -> Self {
        SqlError { message: message.into(), location: (place.line > 0).then(|| place.into()) }
    }

    /// Something that Stoa does not do (yet).
    pub(crate) fn unsupported(what: impl fmt::Display) -> Self {
        SqlError::new(format!("{what} is not supported"))
    }

    /// The parser's errors end in ` at Line: 1, Column: 2`.
    pub(crate) fn from_parser(error: ParserError) -> Self {
        let text = match error {
            ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
            ParserError::RecursionLimitExceeded => return SqlError::new("the statement is nested too deeply"),
        };
        let text = parser_words(&text);
        let Some((message, place)) = text.rsplit_once(" at Line: ") else { return SqlError::new(lower_first(text)) };
        let parsed = place
            .split_once(", Column: ")
            .and_then(|(line, column)| Some(Location { line: line.trim().parse().ok()?, column: column.trim().parse().ok()? }));
        match parsed {
            Some(location) => {
                let location = (location.line > 0).then_some(location);
                SqlError { message: lower_first(message.trim_end_matches(',')), location }
            }
            None => SqlError::new(text),
        }
    }

    /// The front end's errors, in Stoa's words where a user is likely to meet them.
    pub(crate) fn from_front_end(error: &DataFusionError) -> Self {
        match error {
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let mut found = SqlError::from_front_end(inner);
                if found.location.is_none() {
                    found.location = diagnostic.span.as_ref().map(start_of);
                }
                found
            }
            DataFusionError::Context(_, inner) => SqlError::from_front_end(inner),
            DataFusionError::Shared(inner) => SqlError::from_front_end(inner),
            DataFusionError::Collection(errors) => {
                errors.first().map_or_else(|| SqlError::new("unknown error"), SqlError::from_front_end)
            }
            DataFusionError::SchemaError(inner, _) => from_schema(inner),
            DataFusionError::SQL(inner, _) => SqlError::from_parser((**inner).clone()),
            DataFusionError::External(inner) => match inner.downcast_ref::<SqlError>() {
                Some(own) => own.clone(),
                None => SqlError::new(inner.to_string()),
            },
            DataFusionError::NotImplemented(message) => SqlError::new(format!("not supported: {}", first_line(message))),
            DataFusionError::ArrowError(inner, _) => arrow_message(inner),
            DataFusionError::Plan(message) | DataFusionError::Execution(message) => plan_message(message),
            DataFusionError::Internal(message) if message.contains("failed to match any signature") => plan_message(message),
            DataFusionError::Internal(message) => SqlError::new(format!("not supported: {}", first_line(message))),
            other => SqlError::new(first_line(&other.strip_backtrace())),
        }
    }
}

impl From<SqlError> for DataFusionError {
    fn from(error: SqlError) -> Self {
        DataFusionError::External(Box::new(error))
    }
}

/// The parser's messages, in the words of the others.
fn parser_words(text: &str) -> String {
    if let Some((_, rest)) = text.split_once("o infix parser for token ") {
        let word = rest.split("value: \"").nth(1).and_then(|s| s.split('"').next());
        let found = word.unwrap_or_else(|| rest.split(" at ").next().unwrap_or_default());
        let place = rest.rsplit_once(" at Line").map(|(_, place)| format!(" at Line{place}")).unwrap_or_default();
        return format!("expected an operator, found {found}{place}");
    }
    text.replace("Expected: ", "expected ")
        .replace(", found: EOF", ", found the end of the statement")
        .replace("found: ", "found ")
}

/// Messages of the planner that users meet most often, in fewer words.
fn plan_message(message: &str) -> SqlError {
    let first = first_line(message);
    if let Some(rest) = first.strip_prefix("Invalid function '")
        && let Some((name, _)) = rest.split_once('\'')
    {
        let suggestion = message.split_once("Did you mean '").and_then(|(_, s)| s.split_once('\''));
        let mut text = format!("there is no function '{name}'");
        if let Some(near) = suggestion.and_then(|(s, _)| nearest(name, std::iter::once(s))) {
            text.push_str(&format!("; did you mean '{near}'?"));
        }
        return SqlError::new(text);
    }
    if first.starts_with("Projections require unique expression names") {
        let name = first.split("the expression \"").nth(1).and_then(|s| s.split('"').next()).unwrap_or_default();
        let name = name.rsplit(" AS ").next().unwrap_or(name).rsplit('.').next().unwrap_or(name);
        return SqlError::new(format!("a subquery has two columns '{name}': name one of them anew with AS"));
    }
    if let Some((_, rest)) = first.split_once("Function '")
        && let Some((name, rest)) = rest.split_once("' failed to match any signature")
    {
        let received = rest.split("received ").nth(1).and_then(|s| s.split(" (").next());
        let kind = received.map(|kind| format!(" ({kind})")).unwrap_or_default();
        return SqlError::new(format!("the function '{name}' does not take these arguments{kind}"));
    }
    if first.contains("must appear in the GROUP BY clause")
        && let Some(column) = first.split("column \"").nth(1).and_then(|s| s.split('"').next())
    {
        return SqlError::new(format!("column '{column}' must be in GROUP BY or inside an aggregate"));
    }
    SqlError::new(lower_first(first))
}

fn arrow_message(error: &arrow_schema::ArrowError) -> SqlError {
    let text = first_line(&error.to_string());
    let text = text.split_once(" error: ").map_or(text.as_str(), |(_, rest)| rest);
    SqlError::new(lower_first(text))
}

fn start_of(span: &Span) -> Location {
    Location { line: span.start.line, column: span.start.column }
}

fn from_schema(error: &SchemaError) -> SqlError {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let mut message = format!("there is no column '{}'", field.flat_name());
            let names = valid_fields.iter().map(|c| c.name.as_str());
            if let Some(near) = nearest(&field.name, names) {
                message.push_str(&format!("; did you mean '{near}'?"));
            }
            SqlError { message, location: field.spans.first().as_ref().map(start_of) }
        }
        SchemaError::AmbiguousReference { field } => SqlError {
            message: format!("column '{}' is ambiguous: several tables have it", field.flat_name()),
            location: field.spans.first().as_ref().map(start_of),
        },
        SchemaError::DuplicateQualifiedField { qualifier, name } => {
            SqlError::new(format!("table '{qualifier}' has two columns '{name}'"))
        }
        SchemaError::DuplicateUnqualifiedField { name } => SqlError::new(format!("there are two columns '{name}'")),
    }
}

/// The candidate that differs least from `name`, if any is near enough to be a slip.
pub(crate) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = 1 + name.chars().count() / 4;
    candidates.map(|c| (edit_distance(name, c), c)).filter(|(d, _)| *d > 0 && *d <= limit).min().map(|(_, c)| c)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    if b.len() > 200 || a.len() > 800 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = corner + usize::from(ca.to_lowercase().ne(cb.to_lowercase()));
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

/// Messages of the front end may carry a backtrace and hints for its own developers below the first line.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn lower_first(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && !second.is_ascii_uppercase() => {
            let mut lowered = first.to_ascii_lowercase().to_string();
            lowered.push_str(&text[first.len_utf8()..]);
            lowered
        }
        _ => text.to_owned(),
    }
}
