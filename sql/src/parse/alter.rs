//! `ALTER TABLE`.

use super::create_table;
use super::cursor::Cursor;
use crate::{Alter, AlterTable, CreateTable, SqlError, Statement};

/// `ALTER TABLE t change`, behind ALTER.
pub(super) fn alter(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.expect("TABLE")?;
    let table = cursor.name()?;
    let change = change(&mut cursor)?;
    cursor.expect_end()?;
    Ok(Statement::Alter(Alter { table, change }))
}

fn change(cursor: &mut Cursor<'_>) -> Result<AlterTable, SqlError> {
    if cursor.take("ADD") {
        cursor.take("COLUMN");
        return add_column(cursor);
    }
    if cursor.take("DROP") {
        cursor.take("COLUMN");
        return Ok(AlterTable::DropColumn(cursor.name()?));
    }
    if cursor.take("CHANGE") {
        cursor.take("COLUMN");
        let from = cursor.name()?;
        return Ok(AlterTable::RenameColumn { from, to: create_table::column_name(cursor)? });
    }
    if !cursor.take("RENAME") {
        return Err(cursor.error("expected ADD, DROP, RENAME or CHANGE"));
    }
    if cursor.take("COLUMN") {
        let from = cursor.name()?;
        cursor.expect("TO")?;
        return Ok(AlterTable::RenameColumn { from, to: create_table::column_name(cursor)? });
    }
    if !cursor.take("TO") {
        cursor.take("AS");
    }
    Ok(AlterTable::RenameTable(cursor.name()?))
}

/// `c INT [NOT NULL] [DEFAULT literal]`.
fn add_column(cursor: &mut Cursor<'_>) -> Result<AlterTable, SqlError> {
    if let Some(key) = ["SHARD", "SORT", "PRIMARY", "UNIQUE"].into_iter().find(|key| create_table::starts_key(cursor, key)) {
        return Err(cursor.error(&format!("ALTER TABLE cannot add a {key} KEY")));
    }
    let name = create_table::column_name(cursor)?;
    let mut column = create_table::typed_column(cursor, name)?;
    let mut keys = CreateTable::default();
    loop {
        let place = cursor.place();
        if !create_table::option(cursor, &mut column, &mut keys)? {
            break;
        }
        if keys != CreateTable::default() {
            return Err(SqlError::at("ALTER TABLE cannot add a key", place));
        }
    }
    if cursor.peek().is_some() {
        return Err(create_table::unknown_option(cursor, ""));
    }
    Ok(AlterTable::AddColumn(column))
}
