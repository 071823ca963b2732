//! Statements with parameters: values that are written as `?` and come later.
//!
//! A value takes the place of its `?` among the tokens of the statement, as a literal of its type. What it holds is never read as SQL.

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use stoa_plan::{DataType, Literal, Value};

use crate::{Delete, Insert, QueryText, SqlError, Statement, Update, token};

/// A statement, parsed once, and how many values it takes.
#[derive(Clone, Debug)]
pub struct PreparedStatement {
    statement: Statement,
    parameters: usize,
}

/// Parses a text that is one statement; only queries, EXPLAIN, INSERT, UPDATE and DELETE may have parameters.
///
/// # Errors
/// If the text cannot be parsed, is not one statement, or has parameters where they cannot be.
pub fn prepare(sql: &str) -> Result<PreparedStatement, SqlError> {
    let mut statements = crate::parse(sql)?;
    let (Some(statement), true) = (statements.pop(), statements.is_empty()) else {
        return Err(SqlError::new("expected exactly one statement to prepare"));
    };
    let takes = matches!(
        statement,
        Statement::Query(_) | Statement::Explain { .. } | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
    );
    let mut parameters = 0;
    for token in token::tokenize(sql)? {
        let Token::Placeholder(written) = &token.token else { continue };
        let message = match written.as_str() {
            "?" if takes => {
                parameters += 1;
                continue;
            }
            "?" => "only queries, EXPLAIN, INSERT, UPDATE and DELETE have parameters".to_owned(),
            other => format!("a parameter is written as ?, found {other}"),
        };
        return Err(SqlError::at(message, token.span.start));
    }
    Ok(PreparedStatement { statement, parameters })
}

impl PreparedStatement {
    /// How many values it takes.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// The statement with these values in place of its parameters, in their order.
    ///
    /// # Errors
    /// If there are more or fewer values than parameters, or one has no form as a literal.
    pub fn bind(&self, values: &[Literal]) -> Result<Statement, SqlError> {
        if values.len() != self.parameters {
            let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
            let (takes, given) = (count(self.parameters, "parameter"), count(values.len(), "value"));
            return Err(SqlError::new(format!("the statement has {takes}, but got {given}")));
        }
        Ok(match &self.statement {
            Statement::Query(query) => Statement::Query(substitute(query, values)?),
            Statement::Explain { analyze, query } => Statement::Explain { analyze: *analyze, query: substitute(query, values)? },
            Statement::Insert(insert) => {
                Statement::Insert(Insert { source: substitute(&insert.source, values)?, ..insert.clone() })
            }
            Statement::Update(update) => {
                Statement::Update(Update { source: substitute(&update.source, values)?, ..update.clone() })
            }
            Statement::Delete(delete) => {
                Statement::Delete(Delete { source: substitute(&delete.source, values)?, ..delete.clone() })
            }
            other => other.clone(),
        })
    }
}

fn substitute(text: &QueryText, values: &[Literal]) -> Result<QueryText, SqlError> {
    let mut tokens = Vec::with_capacity(text.tokens().len() + values.len());
    let mut values = (1..).zip(values);
    for token in text.tokens() {
        if !matches!(token.token, Token::Placeholder(_)) {
            tokens.push(token.clone());
        } else if let Some((number, value)) = values.next() {
            let missing = || SqlError::at(format!("the value of parameter {number} has no literal"), token.span.start);
            let literal = literal(value).ok_or_else(missing)?;
            tokens.extend(literal.into_iter().map(|part| TokenWithSpan::new(part, token.span)));
        }
    }
    Ok(QueryText::new(tokens, text.sql()))
}

/// A value as a literal; `None` if it has no such form.
fn literal(literal: &Literal) -> Option<Vec<Token>> {
    Some(match (&literal.value, literal.ty) {
        (Value::Null, _) => vec![Token::make_keyword("NULL")],
        (Value::Bool(v), _) => vec![Token::make_keyword(if *v { "TRUE" } else { "FALSE" })],
        (Value::Int(v), DataType::Date) => {
            let day = chrono::DateTime::from_timestamp(v.checked_mul(86_400)?, 0)?;
            typed("DATE", day.format("%Y-%m-%d").to_string())
        }
        (Value::Int(v), DataType::Timestamp) => {
            let moment = chrono::DateTime::from_timestamp_micros(*v)?;
            typed("TIMESTAMP", moment.format("%Y-%m-%d %H:%M:%S%.6f").to_string())
        }
        (Value::Int(v), _) => number(*v < 0, v.unsigned_abs().to_string()),
        (Value::UInt(v), _) => number(false, v.to_string()),
        // With an exponent it is a DOUBLE.
        (Value::Float(v), _) if v.is_finite() => number(v.is_sign_negative(), format!("{:e}", v.abs())),
        (Value::Float(v), _) => {
            let words = [Token::make_keyword("CAST"), Token::LParen, Token::SingleQuotedString(v.to_string())];
            let ty = [Token::make_keyword("AS"), Token::make_keyword("DOUBLE"), Token::RParen];
            words.into_iter().chain(ty).collect()
        }
        (Value::Decimal(v), DataType::Decimal { scale, .. }) => {
            let scale = usize::try_from(scale).ok()?;
            let mut digits = format!("{:0>width$}", v.unsigned_abs(), width = scale + 1);
            if scale > 0 {
                digits.insert(digits.len() - scale, '.');
            }
            number(*v < 0, digits)
        }
        (Value::Str(v), _) => vec![Token::SingleQuotedString(v.clone())],
        (Value::Bytes(v), _) => vec![Token::HexStringLiteral(v.iter().map(|b| format!("{b:02X}")).collect())],
        (Value::Decimal(_) | Value::Interval { .. }, _) => return None,
    })
}

fn typed(ty: &str, text: String) -> Vec<Token> {
    vec![Token::make_keyword(ty), Token::SingleQuotedString(text)]
}

/// A number; in parentheses if it has a sign, as another may stand before it.
fn number(negative: bool, digits: String) -> Vec<Token> {
    let digits = Token::Number(digits, false);
    if negative { vec![Token::LParen, Token::Minus, digits, Token::RParen] } else { vec![digits] }
}
