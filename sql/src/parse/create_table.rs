//! `CREATE TABLE`.

use std::collections::HashSet;

use datafusion_sql::sqlparser::tokenizer::Token;
use stoa_plan::DataType;

use super::{Cursor, Lines, query};
use crate::bind::ROW_COLUMN;
use crate::{BitmapIndex, ColumnDef, CreateTable, SqlError, Statement, bind, types};

/// Parses what follows `CREATE [REFERENCE] TABLE`.
pub(super) fn create_table(mut cursor: Cursor<'_>, reference: bool, lines: &Lines<'_>) -> Result<Statement, SqlError> {
    let mut table = CreateTable { reference, ..CreateTable::default() };
    if cursor.take("IF") {
        cursor.expect("NOT")?;
        cursor.expect("EXISTS")?;
        table.if_not_exists = true;
    }
    table.name = cursor.name()?;
    let has_body = cursor.peek() == Some(&Token::LParen) && !starts_query(cursor.peek_at(1));
    if has_body {
        body(&mut cursor, &mut table)?;
    }
    primary_key_not_null(&mut table);
    let place = cursor.place();
    if cursor.take("AS") || starts_query(cursor.peek()) || cursor.peek() == Some(&Token::LParen) {
        check_keys(&table, false).map_err(|m| SqlError::at(m, place))?;
        return Ok(Statement::CreateTableAs { table, query: query(cursor.rest(), lines)? });
    }
    cursor.expect_end()?;
    if !has_body {
        return Err(cursor.error("expected the columns in parentheses, or AS and a query"));
    }
    check_keys(&table, true).map_err(|m| SqlError::at(m, place))?;
    Ok(Statement::CreateTable(table))
}

fn starts_query(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Word(w)) if w.quote_style.is_none()
        && ["SELECT", "WITH", "VALUES"].iter().any(|k| w.value.eq_ignore_ascii_case(k)))
}

fn body(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    cursor.expect_token(&Token::LParen)?;
    loop {
        element(cursor, table)?;
        if !cursor.take_token(&Token::Comma) {
            break;
        }
    }
    cursor.expect_token(&Token::RParen)
}

fn element(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    if cursor.take_two("SHARD", "KEY") {
        let columns = key_columns(cursor)?;
        return set_once(&mut table.shard_key, columns, "SHARD KEY", cursor);
    }
    if cursor.take_two("SORT", "KEY") {
        let columns = key_columns(cursor)?;
        return set_once(&mut table.sort_key, columns, "SORT KEY", cursor);
    }
    if cursor.take_two("PRIMARY", "KEY") {
        let columns = hash_key_columns(cursor)?;
        return set_once(&mut table.primary_key, columns, "PRIMARY KEY", cursor);
    }
    if starts_key(cursor, "UNIQUE") {
        cursor.next();
        if !cursor.take("KEY") {
            cursor.take("INDEX");
        }
        let columns = hash_key_columns(cursor)?;
        if columns.is_empty() {
            return Err(cursor.error("a UNIQUE KEY needs columns"));
        }
        table.unique_keys.push(columns);
        return Ok(());
    }
    for clause in ["KEY", "INDEX", "CONSTRAINT", "FOREIGN", "CHECK", "FULLTEXT"] {
        if is_word(cursor.peek(), clause) && (clause == "CONSTRAINT" || starts_key(cursor, clause)) {
            return Err(cursor.error(&format!("{clause} is not supported in CREATE TABLE")));
        }
    }
    column(cursor, table)
}

/// Whether `clause` is next, and not as the name of a column.
pub(super) fn starts_key(cursor: &Cursor<'_>, clause: &str) -> bool {
    let next = cursor.peek_at(1);
    is_word(cursor.peek(), clause) && (next == Some(&Token::LParen) || is_word(next, "KEY") || is_word(next, "INDEX"))
}

/// `[name] (a, b)`.
fn key_columns(cursor: &mut Cursor<'_>) -> Result<Vec<String>, SqlError> {
    if cursor.peek() != Some(&Token::LParen) {
        cursor.name()?;
    }
    cursor.names()
}

/// `[name] (a, b) [USING HASH]`: the index is Stoa's own either way.
fn hash_key_columns(cursor: &mut Cursor<'_>) -> Result<Vec<String>, SqlError> {
    let columns = key_columns(cursor)?;
    if cursor.take("USING") {
        cursor.expect("HASH")?;
    }
    Ok(columns)
}

fn set_once(key: &mut Vec<String>, columns: Vec<String>, what: &str, cursor: &Cursor<'_>) -> Result<(), SqlError> {
    if !key.is_empty() {
        return Err(cursor.error(&format!("a table has one {what}")));
    }
    *key = columns;
    Ok(())
}

fn column(cursor: &mut Cursor<'_>, table: &mut CreateTable) -> Result<(), SqlError> {
    let place = cursor.place();
    let name = column_name(cursor)?;
    if table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&name)) {
        return Err(SqlError::at(format!("column '{name}' is declared twice"), place));
    }
    if matches!(cursor.peek(), Some(Token::Comma | Token::RParen)) {
        table.columns.push(untyped_column(name));
        return Ok(());
    }
    let mut column = typed_column(cursor, name)?;
    while option(cursor, &mut column, table)? {}
    if !matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
        return Err(unknown_option(cursor, ", PRIMARY KEY, UNIQUE"));
    }
    table.columns.push(column);
    Ok(())
}

/// The name of a new column.
pub(super) fn column_name(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let place = cursor.place();
    let name = cursor.name()?;
    if name.eq_ignore_ascii_case(ROW_COLUMN) {
        return Err(SqlError::at(format!("a column cannot have the name '{name}'"), place));
    }
    Ok(name)
}

fn untyped_column(name: String) -> ColumnDef {
    ColumnDef {
        name,
        ty: DataType::Null,
        sql_type: String::new(),
        nullable: true,
        bitmap_index: BitmapIndex::Auto,
        default: None,
    }
}

/// A column whose type is next.
pub(super) fn typed_column(cursor: &mut Cursor<'_>, name: String) -> Result<ColumnDef, SqlError> {
    let place = cursor.place();
    let declared = cursor.data_type()?;
    let ty = types::from_sql(&declared).map_err(|e| SqlError::at(e.message, place))?;
    if ty == DataType::Interval {
        return Err(SqlError::at("a table column cannot be an INTERVAL", place));
    }
    Ok(ColumnDef { ty, sql_type: declared.to_string(), ..untyped_column(name) })
}

/// Takes one option of a column if there is one.
pub(super) fn option(cursor: &mut Cursor<'_>, column: &mut ColumnDef, table: &mut CreateTable) -> Result<bool, SqlError> {
    if cursor.take_two("NOT", "NULL") {
        column.nullable = false;
    } else if cursor.take("NULL") {
        column.nullable = true;
    } else if cursor.take_two("PRIMARY", "KEY") {
        set_once(&mut table.primary_key, vec![column.name.clone()], "PRIMARY KEY", cursor)?;
    } else if cursor.take("UNIQUE") {
        cursor.take("KEY");
        table.unique_keys.push(vec![column.name.clone()]);
    } else if cursor.take_two("SHARD", "KEY") {
        set_once(&mut table.shard_key, vec![column.name.clone()], "SHARD KEY", cursor)?;
    } else if cursor.take_two("SORT", "KEY") {
        set_once(&mut table.sort_key, vec![column.name.clone()], "SORT KEY", cursor)?;
    } else if is_word(cursor.peek(), "WITH") || is_word(cursor.peek(), "WITHOUT") {
        column.bitmap_index = bitmap_index(cursor)?;
    } else if cursor.take("DEFAULT") {
        let place = cursor.place();
        let value = cursor.operand()?;
        column.default = Some(bind::constant(value, column.ty).map_err(|e| SqlError::at(e.message, place))?);
    } else if cursor.take("COMMENT") {
        let Some(Token::SingleQuotedString(_)) = cursor.next() else {
            return Err(cursor.error("expected a string after COMMENT"));
        };
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// `WITH (BITMAP INDEX)`, `WITHOUT (BITMAP INDEX)`.
fn bitmap_index(cursor: &mut Cursor<'_>) -> Result<BitmapIndex, SqlError> {
    let with = cursor.take("WITH");
    if !with {
        cursor.expect("WITHOUT")?;
    }
    let parenthesis = cursor.take_token(&Token::LParen);
    cursor.expect("BITMAP")?;
    cursor.expect("INDEX")?;
    if parenthesis {
        cursor.expect_token(&Token::RParen)?;
    }
    Ok(if with { BitmapIndex::Declared } else { BitmapIndex::None })
}

/// The next token is no option of a column; `others`: what else it might be.
pub(super) fn unknown_option(cursor: &Cursor<'_>, others: &str) -> SqlError {
    let what = cursor.peek().map(ToString::to_string).unwrap_or_default();
    cursor
        .error(&format!("{what} is not supported for a column: expected NULL, NOT NULL, DEFAULT{others} or WITH (BITMAP INDEX)"))
}

/// Columns of the primary key hold no NULLs.
fn primary_key_not_null(table: &mut CreateTable) {
    for column in &mut table.columns {
        column.nullable &= !table.primary_key.contains(&column.name);
    }
}

/// Every key names columns of the table, each once, and keys of one row hold the shard key. With a query, the columns may not be
/// known yet.
fn check_keys(table: &CreateTable, complete: bool) -> Result<(), String> {
    if complete && let Some(bare) = table.columns.iter().find(|c| c.ty == DataType::Null) {
        return Err(format!("column '{}' has no type", bare.name));
    }
    let known: HashSet<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
    let unique = || table.unique_keys.iter().map(|key| ("UNIQUE KEY", key)).chain([("PRIMARY KEY", &table.primary_key)]);
    for (what, key) in [("SHARD KEY", &table.shard_key), ("SORT KEY", &table.sort_key)].into_iter().chain(unique()) {
        let mut seen = HashSet::new();
        for name in key {
            if complete && !known.contains(name.as_str()) {
                return Err(format!("{what} names '{name}', which is not a column of the table"));
            }
            if !seen.insert(name) {
                return Err(format!("{what} names '{name}' twice"));
            }
        }
    }
    for (what, key) in unique().filter(|(_, key)| !key.is_empty() && !table.reference) {
        if table.shard_key.iter().any(|name| !key.contains(name)) {
            return Err(format!("{what} ({}) must contain the shard key ({})", key.join(", "), table.shard_key.join(", ")));
        }
    }
    Ok(())
}

fn is_word(token: Option<&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
