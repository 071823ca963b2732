//! Tokens: from text, with their places, and into the parser.

use datafusion_sql::sqlparser::ast::{Ident, Query, Statement as Ast};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::SqlError;
use crate::dialect::StoaDialect;

static DIALECT: StoaDialect = StoaDialect;

/// How deep parentheses and subqueries may nest.
const MAX_NESTING: usize = 100;
/// How many AND, OR and NOT may follow each other at one level.
const MAX_CONDITIONS: u32 = 4000;
/// How many other operators may: `a + b + ...`.
const MAX_OPERATORS: u32 = 400;
/// How many SELECTs and JOINs may: `... UNION ... UNION ...`.
const MAX_RELATIONS: u32 = 1000;
/// Parsing, binding and rewriting recurse over the expression; only what is touched of this costs memory.
const STACK_BYTES: usize = 1 << 30;

/// Runs `work` on a stack that is deep enough for what the limits above let through.
pub(crate) fn on_deep_stack<T: Send>(work: impl FnOnce() -> Result<T, SqlError> + Send) -> Result<T, SqlError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("stoa-sql".to_owned()).stack_size(STACK_BYTES).spawn_scoped(scope, work);
        let running = thread.map_err(|e| SqlError::new(format!("cannot start a thread: {e}")))?;
        running.join().unwrap_or_else(|_| Err(SqlError::new("the front end failed on this statement: please report it")))
    })
}

/// The tokens of a text, white space and comments left out.
pub(crate) fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, SqlError> {
    let tokens = Tokenizer::new(&DIALECT, sql).tokenize_with_location().map_err(|e| SqlError::at(e.message, e.location))?;
    let tokens: Vec<TokenWithSpan> = tokens.into_iter().filter(|t| !matches!(t.token, Token::Whitespace(_))).collect();
    check_chains(&tokens)?;
    Ok(tokens)
}

/// The longest chains at one level of parentheses so far.
#[derive(Default, Clone, Copy)]
struct Chains {
    conditions: u32,
    operators: u32,
    relations: u32,
}

/// Chains of operators, set operations and joins become trees as deep as the chain is long.
fn check_chains(tokens: &[TokenWithSpan]) -> Result<(), SqlError> {
    let mut levels = vec![Chains::default()];
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => levels.push(Chains::default()),
            Token::RParen | Token::RBracket if levels.len() > 1 => {
                levels.pop();
            }
            _ => {}
        }
        let Some(level) = levels.last_mut() else { continue };
        match &token.token {
            Token::SemiColon => *level = Chains::default(),
            Token::Comma => (level.operators, level.conditions) = (0, 0),
            Token::Word(w) if matches!(w.keyword, Keyword::AND | Keyword::OR | Keyword::NOT) => {
                level.operators = 0;
                level.conditions += 1;
            }
            other if is_operator(other) => level.operators += 1,
            Token::Word(w) if w.keyword == Keyword::SELECT => {
                (level.operators, level.conditions) = (0, 0);
                level.relations += 1;
            }
            Token::Word(w) if w.keyword == Keyword::JOIN => level.relations += 1,
            _ => {}
        }
        let message = match level {
            Chains { conditions, .. } if *conditions > MAX_CONDITIONS => {
                format!("more than {MAX_CONDITIONS} conditions in a row; use IN or a table")
            }
            Chains { operators, .. } if *operators > MAX_OPERATORS => format!("more than {MAX_OPERATORS} operators in a row"),
            Chains { relations, .. } if *relations > MAX_RELATIONS => {
                format!("more than {MAX_RELATIONS} SELECTs and joins in a row; use VALUES or a table")
            }
            _ => continue,
        };
        return Err(SqlError::at(message, token.span.start));
    }
    Ok(())
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(w) => {
            matches!(w.keyword, Keyword::IS | Keyword::LIKE)
        }
        Token::Number(..) | Token::SingleQuotedString(_) | Token::Period | Token::Placeholder(_) | Token::EOF => false,
        Token::LBrace | Token::RBrace | Token::LParen | Token::RParen | Token::LBracket | Token::RBracket => false,
        _ => true,
    }
}

/// A parser over tokens.
pub(crate) fn parser(tokens: &[TokenWithSpan]) -> Parser<'static> {
    Parser::new(&DIALECT).with_recursion_limit(MAX_NESTING).with_tokens_with_locations(tokens.to_vec())
}

/// Parses tokens that must be one query.
pub(crate) fn parse_query(tokens: &[TokenWithSpan]) -> Result<Query, SqlError> {
    let mut parser = parser(tokens);
    let query = parser.parse_query().map_err(|e| parser_error(e, tokens))?;
    expect_end(&parser)?;
    Ok(*query)
}

/// Parses tokens that must be one statement.
pub(crate) fn parse_statement(tokens: &[TokenWithSpan]) -> Result<Ast, SqlError> {
    let mut parser = parser(tokens);
    let statement = parser.parse_statement().map_err(|e| parser_error(e, tokens))?;
    expect_end(&parser)?;
    Ok(statement)
}

/// An error at the end of the text has no place of its own: it is that of the last token.
fn parser_error(error: ParserError, tokens: &[TokenWithSpan]) -> SqlError {
    let mut error = SqlError::from_parser(error);
    if error.location.is_none() {
        error.location = tokens.last().map(|t| t.span.end.into());
    }
    error
}

/// An error unless the parser is at the end.
pub(crate) fn expect_end(parser: &Parser<'_>) -> Result<(), SqlError> {
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(()),
        token => Err(SqlError::at(format!("expected the end of the statement, found {token}"), next.span.start)),
    }
}

/// Finds the part of a text that lies between two places.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Lines { text, starts }
    }

    /// The byte offset of a place.
    fn offset(&self, place: Location) -> usize {
        let line = usize::try_from(place.line.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(&start) = self.starts.get(line) else { return self.text.len() };
        let column = usize::try_from(place.column.saturating_sub(1)).unwrap_or(usize::MAX);
        let rest = &self.text[start..];
        start + rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i)
    }

    /// The text from the first to the last of `tokens`.
    pub(crate) fn slice(&self, tokens: &[TokenWithSpan]) -> &'a str {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return "" };
        let (start, end) = (self.offset(first.span.start), self.offset(last.span.end));
        self.text.get(start..end.max(start)).unwrap_or_default().trim()
    }
}

/// The name that an identifier stands for: lower-case unless quoted.
pub(crate) fn folded(ident: &Ident) -> String {
    fold(&ident.value, ident.quote_style)
}

/// As [`folded`], of the parts of a name.
pub(crate) fn fold(name: &str, quote: Option<char>) -> String {
    if quote.is_some() { name.to_owned() } else { name.to_lowercase() }
}
