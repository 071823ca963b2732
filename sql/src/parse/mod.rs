//! Texts to [`Statement`]s.
//!
//! Queries are only checked here; they are bound later, from their tokens. Definitions are parsed by hand, clause by clause,
//! because their clauses (SHARD KEY, SORT KEY, bitmap indexes) are Stoa's own.

mod alter;
pub(crate) mod change;
mod cluster;
mod create_table;
mod cursor;
mod maintenance;
mod users;

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::token::{self, Lines, on_deep_stack};
use crate::{QueryText, SqlError, Statement, UserStatement};
use cursor::Cursor;

/// Splits a text at its semicolons and parses each statement.
///
/// # Errors
/// The first statement that cannot be parsed, with line and column.
pub fn parse(sql: &str) -> Result<Vec<Statement>, SqlError> {
    Ok(split(sql)?.into_iter().map(|(statement, _)| statement).collect())
}

/// As [`parse`], with the text of each statement.
///
/// # Errors
/// As [`parse`].
pub fn split(sql: &str) -> Result<Vec<(Statement, String)>, SqlError> {
    if let Some(insert) = change::insert_in_text(sql) {
        return Ok(vec![insert]);
    }
    let tokens = token::tokenize(sql)?;
    let lines = Lines::new(sql);
    let parts = || tokens.split(|t| t.token == Token::SemiColon).filter(|part| !part.is_empty());
    let with_text = |part, statement| (statement, lines.slice(part).to_owned());
    let plain: Option<Vec<_>> = parts().map(|part| Some(with_text(part, change::insert_of_literals(part, &lines)?))).collect();
    match plain {
        Some(statements) => Ok(statements),
        None => on_deep_stack(|| parts().map(|part| Ok(with_text(part, statement(part, &lines)?))).collect()),
    }
}

fn statement(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Result<Statement, SqlError> {
    let mut cursor = Cursor::new(tokens);
    let first = cursor.peek_word().unwrap_or_default();
    match first.as_str() {
        "SELECT" | "WITH" | "VALUES" | "(" => Ok(Statement::Query(query(tokens, lines)?)),
        "EXPLAIN" => {
            cursor.next();
            if let Some(statement) = cluster::explain(&mut cursor) {
                return statement;
            }
            let analyze = cursor.take("ANALYZE") || cursor.take("ANALYSE");
            cursor.take("VERBOSE");
            Ok(Statement::Explain { analyze, query: query(cursor.rest(), lines)? })
        }
        "PROFILE" => Ok(Statement::Explain { analyze: true, query: query(&tokens[1..], lines)? }),
        "CREATE" => create(cursor, lines),
        "DROP" => drop(cursor),
        "INSERT" | "REPLACE" => change::insert(tokens, lines),
        "UPDATE" => change::update(tokens, lines),
        "DELETE" => change::delete(tokens, lines),
        "TRUNCATE" => maintenance::truncate(cursor),
        "OPTIMIZE" => maintenance::optimize(cursor),
        "BACKUP" => maintenance::backup(cursor),
        "RESTORE" if cursor.take_two("RESTORE", "REDUNDANCY") => cluster::restore_redundancy(cursor, false),
        "RESTORE" => maintenance::restore(cursor),
        "REBALANCE" => cluster::rebalance(cursor, false),
        "RECOVER" => cluster::recover(cursor, false),
        "CANCEL" => cluster::cancel(cursor),
        "CLEAR" => cluster::clear_orphans(cursor, false),
        "ATTACH" | "DETACH" => cluster::attach_or_detach(cursor),
        "BEGIN" | "START" | "COMMIT" | "ROLLBACK" => maintenance::transaction(cursor),
        "SHOW" => show(cursor),
        "ADD" => cluster::add(cursor),
        "REMOVE" => cluster::remove(cursor),
        "KILL" => cluster::kill(cursor),
        "GRANT" => users::grant(cursor),
        "REVOKE" => users::revoke(cursor),
        "ALTER" if cursor.take_two("ALTER", "USER") => users::alter(cursor),
        "ALTER" => {
            cursor.next();
            alter::alter(cursor)
        }
        "SET" if cursor.take_two("SET", "PASSWORD") => users::set_password(cursor),
        "DESCRIBE" | "DESC" => {
            cursor.next();
            cursor.take("TABLE");
            describe(cursor)
        }
        _ => {
            let token = &tokens[0];
            let message = match &token.token {
                Token::Word(word) => match crate::error::nearest(&first, STATEMENTS.into_iter()) {
                    Some(near) => format!("'{}' does not start a statement; did you mean {near}?", word.value),
                    None if OTHER_STATEMENTS.contains(&first.as_str()) => format!("the statement {first} is not supported"),
                    None => format!("'{}' does not start a statement", word.value),
                },
                other => format!("a statement cannot start with {other}"),
            };
            Err(SqlError::at(message, token.span.start))
        }
    }
}

const STATEMENTS: [&str; 33] = [
    "RECOVER",
    "SELECT",
    "WITH",
    "VALUES",
    "EXPLAIN",
    "PROFILE",
    "CREATE",
    "DROP",
    "INSERT",
    "SHOW",
    "DESCRIBE",
    "ADD",
    "REMOVE",
    "KILL",
    "GRANT",
    "REVOKE",
    "REPLACE",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "ALTER",
    "OPTIMIZE",
    "BEGIN",
    "START",
    "COMMIT",
    "ROLLBACK",
    "BACKUP",
    "RESTORE",
    "REBALANCE",
    "CANCEL",
    "CLEAR",
    "ATTACH",
    "DETACH",
];

const OTHER_STATEMENTS: [&str; 7] = ["MERGE", "COPY", "LOAD", "SET", "USE", "ANALYZE", "CALL"];

/// Checks the syntax of a query and keeps its tokens.
fn query(tokens: &[TokenWithSpan], lines: &Lines<'_>) -> Result<QueryText, SqlError> {
    if tokens.is_empty() {
        return Err(SqlError::new("expected a query, found the end of the statement"));
    }
    token::parse_query(tokens)?;
    Ok(QueryText::new(tokens.to_vec(), lines.slice(tokens)))
}

fn create(mut cursor: Cursor<'_>, lines: &Lines<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    if cursor.take("DATABASE") {
        return cluster::create_database(cursor);
    }
    if cursor.take("USER") {
        return users::create(cursor);
    }
    let or_replace = cursor.take("OR");
    if or_replace {
        cursor.expect("REPLACE")?;
    }
    if cursor.take("VIEW") {
        return create_view(cursor, or_replace, lines);
    }
    if or_replace {
        return Err(cursor.error("only views can be replaced: expected VIEW"));
    }
    let mut reference = false;
    loop {
        if cursor.take("REFERENCE") {
            reference = true;
        } else if !cursor.take("COLUMNSTORE") {
            break;
        }
    }
    if !cursor.take("TABLE") {
        return Err(cursor.error("expected TABLE or VIEW"));
    }
    create_table::create_table(cursor, reference, lines)
}

fn create_view(mut cursor: Cursor<'_>, or_replace: bool, lines: &Lines<'_>) -> Result<Statement, SqlError> {
    let name = cursor.name()?;
    let mut columns = Vec::new();
    if cursor.take_token(&Token::LParen) {
        loop {
            columns.push(cursor.name()?);
            if !cursor.take_token(&Token::Comma) {
                break;
            }
        }
        cursor.expect_token(&Token::RParen)?;
    }
    cursor.expect("AS")?;
    let mut query = query(cursor.rest(), lines)?;
    if !columns.is_empty() {
        let quoted: Vec<String> = columns.iter().map(|c| format!("\"{}\"", c.replace('"', "\"\""))).collect();
        let sql = format!("SELECT * FROM ({}) AS v ({})", query.sql(), quoted.join(", "));
        query = QueryText::new(token::tokenize(&sql)?, sql);
    }
    Ok(Statement::CreateView { name, or_replace, query })
}

fn drop(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    if cursor.take("DATABASE") {
        return cluster::drop_database(cursor);
    }
    if cursor.take("USER") {
        return users::drop(cursor);
    }
    let view = cursor.take("VIEW");
    if !view {
        cursor.expect("TABLE")?;
    }
    let if_exists = cursor.take("IF");
    if if_exists {
        cursor.expect("EXISTS")?;
    }
    let mut names = vec![cursor.name()?];
    while cursor.take_token(&Token::Comma) {
        names.push(cursor.name()?);
    }
    cursor.expect_end()?;
    Ok(if view { Statement::DropView { names, if_exists } } else { Statement::DropTable { names, if_exists } })
}

fn show(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    if cursor.take("GRANTS") {
        return users::show_grants(cursor);
    }
    if cursor.take("USERS") {
        cursor.expect_end()?;
        return Ok(Statement::User(UserStatement::ShowUsers));
    }
    if cursor.take("COLUMNAR") {
        return maintenance::merge_status(cursor);
    }
    cursor.take("FULL");
    if cursor.take("TABLES") {
        cursor.expect_end()?;
        return Ok(Statement::ShowTables);
    }
    if cursor.take("COLUMNS") || cursor.take("FIELDS") {
        if !cursor.take("FROM") {
            cursor.expect("IN")?;
        }
        return describe(cursor);
    }
    match cluster::show(&mut cursor)? {
        Some(statement) => Ok(statement),
        None => Err(cursor.error("expected SHOW TABLES or SHOW COLUMNS FROM table")),
    }
}

fn describe(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let name = cursor.name()?;
    cursor.expect_end()?;
    Ok(Statement::Describe { name })
}
