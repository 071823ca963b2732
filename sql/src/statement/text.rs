//! Statements as they were written.

use std::sync::{Arc, OnceLock};

use datafusion_sql::sqlparser::tokenizer::TokenWithSpan;

use crate::lexeme::Lexemes;
use crate::token;

/// A query as it was written, ready to be bound.
#[derive(Clone, PartialEq)]
pub struct QueryText {
    /// Made when they are needed, where the text was read without them.
    tokens: OnceLock<Arc<[TokenWithSpan]>>,
    sql: Arc<str>,
}

impl std::fmt::Debug for QueryText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("QueryText").field(&self.sql).finish()
    }
}

impl QueryText {
    pub(crate) fn new(tokens: Vec<TokenWithSpan>, sql: impl Into<Arc<str>>) -> Self {
        QueryText { tokens: OnceLock::from(Arc::from(tokens)), sql: sql.into() }
    }

    /// A text that is known to have tokens.
    pub(crate) fn of_text(sql: impl Into<Arc<str>>) -> Self {
        QueryText { tokens: OnceLock::new(), sql: sql.into() }
    }

    /// Its text.
    #[must_use]
    pub fn sql(&self) -> &str {
        &self.sql
    }

    pub(crate) fn tokens(&self) -> &[TokenWithSpan] {
        self.tokens.get_or_init(|| token::tokenize(&self.sql).unwrap_or_default().into())
    }

    /// Its parts, for a reader of plain statements.
    pub(crate) fn lexemes(&self) -> Lexemes<'_> {
        self.tokens.get().map_or(Lexemes::Text(&self.sql), |tokens| Lexemes::Tokens(tokens))
    }
}
