//! A position in a list of tokens, for the clauses that are parsed by hand.

use datafusion_sql::sqlparser::ast::{DataType as SqlType, Expr, ObjectName};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan};

use crate::{SqlError, token};

/// See the module.
#[derive(Clone)]
pub(super) struct Cursor<'a> {
    tokens: &'a [TokenWithSpan],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(tokens: &'a [TokenWithSpan]) -> Self {
        Cursor { tokens, at: 0 }
    }

    /// The tokens that are left.
    pub(super) fn rest(&self) -> &'a [TokenWithSpan] {
        self.tokens.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at).map(|t| &t.token)
    }

    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead).map(|t| &t.token)
    }

    /// The next token in upper case if it is an unquoted word; `(` stands for itself.
    pub(super) fn peek_word(&self) -> Option<String> {
        match self.peek()? {
            Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
            Token::LParen => Some("(".to_owned()),
            _ => None,
        }
    }

    pub(super) fn next(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.at += usize::from(token.is_some());
        token
    }

    /// Moves past an unquoted word if it is next.
    pub(super) fn take(&mut self, word: &str) -> bool {
        let found = is_word(self.peek(), word);
        self.at += usize::from(found);
        found
    }

    /// Moves past two words if they are next.
    pub(super) fn take_two(&mut self, first: &str, second: &str) -> bool {
        let found = is_word(self.peek(), first) && is_word(self.peek_at(1), second);
        self.at += if found { 2 } else { 0 };
        found
    }

    pub(super) fn take_token(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, word: &str) -> Result<(), SqlError> {
        if self.take(word) { Ok(()) } else { Err(self.error(&format!("expected {word}"))) }
    }

    pub(super) fn expect_token(&mut self, token: &Token) -> Result<(), SqlError> {
        if self.take_token(token) { Ok(()) } else { Err(self.error(&format!("expected {token}"))) }
    }

    pub(super) fn expect_end(&self) -> Result<(), SqlError> {
        if self.peek().is_none() { Ok(()) } else { Err(self.error("expected the end of the statement")) }
    }

    /// An identifier: lower-case unless quoted.
    pub(super) fn name(&mut self) -> Result<String, SqlError> {
        if matches!(self.peek(), Some(Token::Word(_))) && self.peek_at(1) == Some(&Token::Period) {
            return Err(self.error("expected a plain name: tables have no schema prefix"));
        }
        self.word()
    }

    /// As [`Cursor::name`], whatever follows.
    pub(super) fn word(&mut self) -> Result<String, SqlError> {
        let Some(Token::Word(word)) = self.peek() else { return Err(self.error("expected a name")) };
        self.at += 1;
        Ok(if word.quote_style.is_some() { word.value.clone() } else { word.value.to_lowercase() })
    }

    /// `(a, b, ...)`; ASC is accepted after each.
    pub(super) fn names(&mut self) -> Result<Vec<String>, SqlError> {
        self.expect_token(&Token::LParen)?;
        let mut names = Vec::new();
        if self.take_token(&Token::RParen) {
            return Ok(names);
        }
        loop {
            names.push(self.name()?);
            self.take("ASC");
            if is_word(self.peek(), "DESC") {
                return Err(self.error("a key in descending order is not supported"));
            }
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        Ok(names)
    }

    /// A type name.
    pub(super) fn data_type(&mut self) -> Result<SqlType, SqlError> {
        let rest = self.rest();
        // A type is a few words and a parenthesis: the parser need not copy all of a long definition.
        let mut parser = token::parser(&rest[..rest.len().min(32)]);
        let ty = parser.parse_data_type().map_err(SqlError::from_parser)?;
        self.at += parser.index();
        Ok(ty)
    }

    /// An expression without operators outside of parentheses.
    pub(super) fn operand(&mut self) -> Result<Expr, SqlError> {
        let mut parser = token::parser(self.rest());
        let expr = parser.parse_prefix().map_err(SqlError::from_parser)?;
        self.at += parser.index();
        Ok(expr)
    }

    /// Where the next token, or else the last, stands.
    pub(super) fn place(&self) -> Location {
        match self.tokens.get(self.at) {
            Some(token) => token.span.start,
            None => self.tokens.last().map(|t| t.span.end).unwrap_or(Location { line: 0, column: 0 }),
        }
    }

    /// An error at the next token.
    pub(super) fn error(&self, message: &str) -> SqlError {
        let found = self.peek().map_or_else(|| "the end of the statement".to_owned(), ToString::to_string);
        SqlError::at(format!("{message}, found {found}"), self.place())
    }
}

fn is_word(token: Option<&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

/// The name of a table without a schema prefix, lower-case unless quoted.
pub(super) fn plain_name(name: &ObjectName, place: Location) -> Result<String, SqlError> {
    let [part] = &name.0[..] else {
        return Err(SqlError::at(format!("there is no table '{name}': tables have no schema prefix"), place));
    };
    let Some(ident) = part.as_ident() else {
        return Err(SqlError::at(format!("'{name}' is not a table name"), place));
    };
    Ok(token::folded(ident))
}
