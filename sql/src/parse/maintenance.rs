//! Transactions, and the statements that tend to tables and databases.

use datafusion_sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::{Optimize, SqlError, Statement};

/// `BEGIN [WORK | TRANSACTION]`, `START TRANSACTION`, `COMMIT [WORK]`, `ROLLBACK [WORK]`.
pub(super) fn transaction(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let statement = if cursor.take("START") {
        cursor.expect("TRANSACTION")?;
        Statement::Begin
    } else if cursor.take("BEGIN") {
        if !cursor.take("WORK") {
            cursor.take("TRANSACTION");
        }
        Statement::Begin
    } else {
        let commit = cursor.take("COMMIT");
        if !commit {
            cursor.expect("ROLLBACK")?;
        }
        cursor.take("WORK");
        if commit { Statement::Commit } else { Statement::Rollback }
    };
    cursor.expect_end()?;
    Ok(statement)
}

/// `TRUNCATE [TABLE] t`.
pub(super) fn truncate(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    cursor.take("TABLE");
    let table = cursor.name()?;
    cursor.expect_end()?;
    Ok(Statement::Truncate { table })
}

/// `OPTIMIZE TABLE t [FULL | FLUSH]`.
pub(super) fn optimize(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    cursor.expect("TABLE")?;
    let table = cursor.name()?;
    let how = if cursor.take("FULL") {
        Optimize::Full
    } else if cursor.take("FLUSH") {
        Optimize::Flush
    } else {
        Optimize::Merge
    };
    cursor.expect_end()?;
    Ok(Statement::Optimize { table, how })
}

/// `SHOW COLUMNAR MERGE STATUS [FOR t]`, behind COLUMNAR.
pub(super) fn merge_status(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.expect("MERGE")?;
    cursor.expect("STATUS")?;
    let table = if cursor.take("FOR") { Some(cursor.name()?) } else { None };
    cursor.expect_end()?;
    Ok(Statement::ShowMergeStatus { table })
}

/// `BACKUP [DATABASE] [d] [WITH INIT | WITH DIFFERENTIAL] TO 'path'`.
pub(super) fn backup(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    let database = database(&mut cursor, &["WITH", "TO"])?;
    let mut incremental = false;
    if cursor.take("WITH") {
        incremental = cursor.take("DIFFERENTIAL");
        if !incremental && !cursor.take("INIT") {
            return Err(cursor.error("expected INIT or DIFFERENTIAL"));
        }
    }
    cursor.expect("TO")?;
    let to = path(&mut cursor)?;
    Ok(Statement::Backup { database, to, incremental })
}

/// `RESTORE [DATABASE] [d [AS new]] FROM 'path'`.
pub(super) fn restore(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    let database = database(&mut cursor, &["FROM"])?;
    let new_name = if database.is_some() && cursor.take("AS") { Some(cursor.name()?) } else { None };
    cursor.expect("FROM")?;
    let from = path(&mut cursor)?;
    Ok(Statement::Restore { database, new_name, from })
}

/// `[DATABASE] [d]`, before one of the words `next`.
fn database(cursor: &mut Cursor<'_>, next: &[&str]) -> Result<Option<String>, SqlError> {
    cursor.take("DATABASE");
    let none = cursor.peek_word().is_some_and(|word| next.contains(&word.as_str()));
    if none { Ok(None) } else { cursor.name().map(Some) }
}

/// A path in quotes, at the end of the statement.
fn path(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let path = match cursor.peek() {
        Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) if !text.is_empty() => text.clone(),
        _ => return Err(cursor.error("expected a path in quotes")),
    };
    cursor.next();
    cursor.expect_end()?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use crate::{Optimize, Statement, parse};

    fn one(sql: &str) -> Statement {
        let mut statements = parse(sql).unwrap_or_else(|e| panic!("{e}: {sql}"));
        assert_eq!(statements.len(), 1);
        statements.remove(0)
    }

    #[test]
    fn transactions() {
        for sql in ["BEGIN", "begin work", "BEGIN TRANSACTION", "START TRANSACTION"] {
            assert_eq!(one(sql), Statement::Begin);
        }
        assert_eq!((one("COMMIT"), one("commit work")), (Statement::Commit, Statement::Commit));
        assert_eq!((one("ROLLBACK"), one("rollback work")), (Statement::Rollback, Statement::Rollback));
    }

    #[test]
    fn tables() {
        for sql in ["TRUNCATE T", "TRUNCATE TABLE t"] {
            assert_eq!(one(sql), Statement::Truncate { table: "t".into() });
        }
        for (sql, how) in [("", Optimize::Merge), (" FULL", Optimize::Full), (" FLUSH", Optimize::Flush)] {
            assert_eq!(one(&format!("OPTIMIZE TABLE t{sql}")), Statement::Optimize { table: "t".into(), how });
        }
        assert_eq!(one("SHOW COLUMNAR MERGE STATUS"), Statement::ShowMergeStatus { table: None });
        assert_eq!(one("SHOW COLUMNAR MERGE STATUS FOR t"), Statement::ShowMergeStatus { table: Some("t".into()) });
    }

    #[test]
    fn backups() {
        let backup = |database: Option<&str>, incremental| Statement::Backup {
            database: database.map(Into::into),
            to: "/b".into(),
            incremental,
        };
        assert_eq!(one("BACKUP DATABASE d TO '/b'"), backup(Some("d"), false));
        assert_eq!(one("BACKUP DATABASE TO '/b'"), backup(None, false));
        assert_eq!(one("BACKUP DATABASE d WITH INIT TO '/b'"), backup(Some("d"), false));
        assert_eq!(one("BACKUP d WITH DIFFERENTIAL TO '/b'"), backup(Some("d"), true));
        let restore = |database: Option<&str>, new_name: Option<&str>| Statement::Restore {
            database: database.map(Into::into),
            new_name: new_name.map(Into::into),
            from: "/b".into(),
        };
        assert_eq!(one("RESTORE DATABASE d FROM '/b'"), restore(Some("d"), None));
        assert_eq!(one("RESTORE DATABASE d AS e FROM '/b'"), restore(Some("d"), Some("e")));
        assert_eq!(one("RESTORE DATABASE FROM '/b'"), restore(None, None));
    }

    #[test]
    fn wrong_statements_say_where() {
        for (sql, what) in [
            ("START", "expected TRANSACTION"),
            ("ROLLBACK TO x", "expected the end"),
            ("TRUNCATE a, b", "expected the end"),
            ("OPTIMIZE t", "expected TABLE"),
            ("OPTIMIZE TABLE t NOW", "expected the end"),
            ("SHOW COLUMNAR", "expected MERGE"),
            ("BACKUP DATABASE d TO b", "expected a path in quotes"),
            ("BACKUP DATABASE d WITH LUCK TO 'b'", "expected INIT or DIFFERENTIAL"),
            ("RESTORE DATABASE d TO 'b'", "expected FROM"),
            ("RESTORE DATABASE d AS FROM 'b'", "expected"),
        ] {
            let error = parse(sql).unwrap_err().to_string();
            assert!(error.contains(what), "{sql}: {error}");
        }
    }
}
