//! Identifiers: their case, and where in the text they stand.

use std::collections::HashMap;

use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::{Catalog, QueryText, SqlError};

/// Unquoted identifiers are folded to lower case by the front end. Tables that were declared with quoted mixed-case names (or
/// loaded from a file with such names) are still found without quotes: where an unquoted word differs only in case from a
/// column of a table that the text names, it is replaced by the column's own name.
pub(crate) fn resolve_case(tokens: &[TokenWithSpan], catalog: &dyn Catalog) -> Vec<TokenWithSpan> {
    let mut mixed: HashMap<String, String> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for token in tokens {
        let Token::Word(word) = &token.token else { continue };
        if !seen.insert(&word.value) {
            continue;
        }
        if let Some(table) = catalog.table(&word.value) {
            for column in &table.columns {
                let lower = column.name.to_lowercase();
                if lower != column.name {
                    mixed.insert(lower, column.name.clone());
                }
            }
        }
    }
    let mut tokens = tokens.to_vec();
    if mixed.is_empty() {
        return tokens;
    }
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token
            && word.quote_style.is_none()
            && let Some(own) = mixed.get(&word.value.to_lowercase())
        {
            token.token = Token::make_word(own, Some('"'));
        }
    }
    tokens
}

/// The error of the front end with a place: its own, or that of the first quoted name in its message.
pub(crate) fn locate(error: &DataFusionError, text: &QueryText) -> SqlError {
    locate_own(SqlError::from_front_end(error), text)
}

/// The same for an error of ours.
pub(crate) fn locate_own(mut error: SqlError, text: &QueryText) -> SqlError {
    if error.location.is_none() {
        error.location = error.message.split('\'').nth(1).and_then(|name| place_of(name, text));
    }
    error
}

fn place_of(name: &str, text: &QueryText) -> Option<crate::Location> {
    let name = name.rsplit('.').next()?;
    let found = text.tokens().iter().find(|t| match &t.token {
        Token::Word(word) => word.value.eq_ignore_ascii_case(name),
        Token::SingleQuotedString(value) => value == name,
        _ => false,
    })?;
    Some(found.span.start.into())
}
