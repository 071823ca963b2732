//! `CREATE TABLE`.

use std::collections::HashSet;

use datafusion_sql::sqlparser::tokenizer::Token;
use stoa_plan::DataType;

use super::{Cursor, Lines, query};
use crate::{BitmapIndex, ColumnDef, CreateTable, SqlError, Statement, types};

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
        let columns = key_columns(cursor)?;
        return set_once(&mut table.primary_key, columns, "PRIMARY KEY", cursor);
    }
    let followed = |next: Option<&Token>| matches!(next, Some(Token::LParen)) || is_word(next, "KEY") || is_word(next, "INDEX");
    for clause in ["KEY", "INDEX", "UNIQUE", "CONSTRAINT", "FOREIGN", "CHECK", "FULLTEXT"] {
        if is_word(cursor.peek(), clause) && (clause == "CONSTRAINT" || followed(cursor.peek_at(1))) {
            return Err(cursor.error(&format!("{clause} is not supported in CREATE TABLE")));
        }
    }
    column(cursor, table)
}

/// `[name] (a, b)`.
fn key_columns(cursor: &mut Cursor<'_>) -> Result<Vec<String>, SqlError> {
    if cursor.peek() != Some(&Token::LParen) {
        cursor.name()?;
    }
    cursor.names()
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
    let name = cursor.name()?;
    if table.columns.iter().any(|c| c.name.eq_ignore_ascii_case(&name)) {
        return Err(SqlError::at(format!("column '{name}' is declared twice"), place));
    }
    let mut column =
        ColumnDef { name, ty: DataType::Null, sql_type: String::new(), nullable: true, bitmap_index: BitmapIndex::Auto };
    if !matches!(cursor.peek(), Some(Token::Comma | Token::RParen)) {
        let place = cursor.place();
        let declared = cursor.data_type()?;
        column.ty = types::from_sql(&declared).map_err(|e| SqlError::at(e.message, place))?;
        if column.ty == DataType::Interval {
            return Err(SqlError::at("a table column cannot be an INTERVAL", place));
        }
        column.sql_type = declared.to_string();
        options(cursor, &mut column, table)?;
    }
    table.columns.push(column);
    Ok(())
}

fn options(cursor: &mut Cursor<'_>, column: &mut ColumnDef, table: &mut CreateTable) -> Result<(), SqlError> {
    loop {
        if cursor.take_two("NOT", "NULL") {
            column.nullable = false;
        } else if cursor.take("NULL") {
            column.nullable = true;
        } else if cursor.take_two("PRIMARY", "KEY") {
            column.nullable = false;
            set_once(&mut table.primary_key, vec![column.name.clone()], "PRIMARY KEY", cursor)?;
        } else if cursor.take_two("SHARD", "KEY") {
            set_once(&mut table.shard_key, vec![column.name.clone()], "SHARD KEY", cursor)?;
        } else if cursor.take_two("SORT", "KEY") {
            set_once(&mut table.sort_key, vec![column.name.clone()], "SORT KEY", cursor)?;
        } else if is_word(cursor.peek(), "WITH") || is_word(cursor.peek(), "WITHOUT") {
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
            column.bitmap_index = if with { BitmapIndex::Declared } else { BitmapIndex::None };
        } else if cursor.take("COMMENT") {
            let Some(Token::SingleQuotedString(_)) = cursor.next() else {
                return Err(cursor.error("expected a string after COMMENT"));
            };
        } else if matches!(cursor.peek(), None | Some(Token::Comma | Token::RParen)) {
            return Ok(());
        } else {
            let what = cursor.peek().map(ToString::to_string).unwrap_or_default();
            return Err(cursor.error(&format!(
                "{what} is not supported for a column: expected NULL, NOT NULL, PRIMARY KEY or WITH (BITMAP INDEX)"
            )));
        }
    }
}

/// Every key names columns of the table, each once. With a query, the columns may not be known yet.
fn check_keys(table: &CreateTable, complete: bool) -> Result<(), String> {
    if complete && let Some(bare) = table.columns.iter().find(|c| c.ty == DataType::Null) {
        return Err(format!("column '{}' has no type", bare.name));
    }
    let known: HashSet<&str> = table.columns.iter().map(|c| c.name.as_str()).collect();
    for (what, key) in [("SHARD KEY", &table.shard_key), ("SORT KEY", &table.sort_key), ("PRIMARY KEY", &table.primary_key)] {
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
    Ok(())
}

fn is_word(token: Option<&Token>, word: &str) -> bool {
    matches!(token, Some(Token::Word(w)) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}
