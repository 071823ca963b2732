//! The statements about users.

use datafusion_sql::sqlparser::tokenizer::Token;

use super::cursor::Cursor;
use crate::{Grant, GrantScope, SqlError, Statement, UserStatement};

/// `CREATE USER [IF NOT EXISTS] u [IDENTIFIED BY 'password']`, behind CREATE USER.
pub(super) fn create(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let if_not_exists = cursor.take("IF");
    if if_not_exists {
        cursor.expect("NOT")?;
        cursor.expect("EXISTS")?;
    }
    let name = user(&mut cursor)?;
    let password = if cursor.peek().is_none() { String::new() } else { identified(&mut cursor)? };
    end(&cursor, UserStatement::Create { name, password, if_not_exists })
}

/// `DROP USER [IF EXISTS] u`, behind DROP USER.
pub(super) fn drop(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let if_exists = cursor.take("IF");
    if if_exists {
        cursor.expect("EXISTS")?;
    }
    let name = user(&mut cursor)?;
    end(&cursor, UserStatement::Drop { name, if_exists })
}

/// `ALTER USER u IDENTIFIED BY 'password'`, behind ALTER USER.
pub(super) fn alter(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let name = user(&mut cursor)?;
    let password = identified(&mut cursor)?;
    end(&cursor, UserStatement::SetPassword { name, password })
}

/// `SET PASSWORD FOR u = 'password'`, behind SET PASSWORD.
pub(super) fn set_password(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.expect("FOR")?;
    let name = user(&mut cursor)?;
    cursor.expect_token(&Token::Eq)?;
    let password = text(&mut cursor)?;
    end(&cursor, UserStatement::SetPassword { name, password })
}

/// `GRANT privileges ON scope TO u`.
pub(super) fn grant(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    let grant = granted(&mut cursor, "TO")?;
    end(&cursor, UserStatement::Grant(grant))
}

/// `REVOKE privileges ON scope FROM u`.
pub(super) fn revoke(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    cursor.next();
    let grant = granted(&mut cursor, "FROM")?;
    end(&cursor, UserStatement::Revoke(grant))
}

/// `SHOW GRANTS [FOR u]`, behind SHOW GRANTS.
pub(super) fn show_grants(mut cursor: Cursor<'_>) -> Result<Statement, SqlError> {
    let user = if cursor.take("FOR") { Some(user(&mut cursor)?) } else { None };
    end(&cursor, UserStatement::ShowGrants { user })
}

fn end(cursor: &Cursor<'_>, statement: UserStatement) -> Result<Statement, SqlError> {
    cursor.expect_end()?;
    Ok(Statement::User(statement))
}

fn identified(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    cursor.expect("IDENTIFIED")?;
    cursor.expect("BY")?;
    text(cursor)
}

fn text(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) = cursor.peek() else {
        return Err(cursor.error("expected a password in quotes"));
    };
    cursor.next();
    Ok(text.clone())
}

/// `u`, `'u'`, `u@'%'`: users may come from any host.
fn user(cursor: &mut Cursor<'_>) -> Result<String, SqlError> {
    let mut name = match cursor.peek() {
        Some(Token::SingleQuotedString(text) | Token::DoubleQuotedString(text)) => {
            cursor.next();
            text.clone()
        }
        _ => cursor.name()?,
    };
    // An unquoted word takes the sign along.
    let of_host = name.ends_with('@') || cursor.take_token(&Token::AtSign);
    if of_host {
        name.truncate(name.trim_end_matches('@').len());
        let any = matches!(cursor.peek(), Some(Token::SingleQuotedString(host) | Token::DoubleQuotedString(host)) if host == "%");
        if !any {
            return Err(cursor.error("users are not tied to hosts: expected '%'"));
        }
        cursor.next();
    }
    Ok(name)
}

fn granted(cursor: &mut Cursor<'_>, towards: &str) -> Result<Grant, SqlError> {
    let mut privileges = Vec::new();
    if cursor.take("ALL") {
        cursor.take("PRIVILEGES");
    } else {
        loop {
            privileges.push(cursor.peek_word().ok_or_else(|| cursor.error("expected a privilege"))?);
            cursor.next();
            if !cursor.take_token(&Token::Comma) {
                break;
            }
        }
    }
    cursor.expect("ON")?;
    cursor.take("TABLE");
    let on = scope(cursor)?;
    cursor.expect(towards)?;
    Ok(Grant { privileges, on, user: user(cursor)? })
}

/// `*.*`, `*`, `database.*`, `database.table`, `table`.
fn scope(cursor: &mut Cursor<'_>) -> Result<GrantScope, SqlError> {
    if cursor.take_token(&Token::Mul) {
        if cursor.take_token(&Token::Period) {
            cursor.expect_token(&Token::Mul)?;
            return Ok(GrantScope::Everywhere);
        }
        return Ok(GrantScope::Database(None));
    }
    let first = cursor.word()?;
    if !cursor.take_token(&Token::Period) {
        return Ok(GrantScope::Table(None, first));
    }
    if cursor.take_token(&Token::Mul) {
        return Ok(GrantScope::Database(Some(first)));
    }
    Ok(GrantScope::Table(Some(first), cursor.name()?))
}

#[cfg(test)]
mod tests {
    use crate::{Grant, GrantScope, Statement, UserStatement, parse};

    fn one(sql: &str) -> UserStatement {
        match parse(sql).unwrap().pop() {
            Some(Statement::User(statement)) => statement,
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn statements_about_users() {
        let create = |name: &str, password: &str, if_not_exists| UserStatement::Create {
            name: name.into(),
            password: password.into(),
            if_not_exists,
        };
        assert!(one("CREATE USER ada IDENTIFIED BY 'x y'") == create("ada", "x y", false));
        assert!(one("CREATE USER IF NOT EXISTS 'Ada'@'%'") == create("Ada", "", true));
        assert!(one("CREATE USER ada@'%'") == create("ada", "", false));
        assert!(one("DROP USER ada") == UserStatement::Drop { name: "ada".into(), if_exists: false });
        let password = UserStatement::SetPassword { name: "ada".into(), password: "z".into() };
        assert!(one("SET PASSWORD FOR 'ada'@'%' = 'z'") == password && one("ALTER USER ada IDENTIFIED BY 'z'") == password);
        let grant = |privileges: &[&str], on| Grant {
            privileges: privileges.iter().map(|p| (*p).to_owned()).collect(),
            on,
            user: "ada".into(),
        };
        assert!(one("GRANT ALL PRIVILEGES ON *.* TO ada") == UserStatement::Grant(grant(&[], GrantScope::Everywhere)));
        let table = GrantScope::Table(Some("d".into()), "t".into());
        assert!(one("GRANT select, INSERT ON d.t TO ada") == UserStatement::Grant(grant(&["SELECT", "INSERT"], table)));
        let database = GrantScope::Database(Some("d".into()));
        assert!(one("REVOKE DROP ON d.* FROM 'ada'") == UserStatement::Revoke(grant(&["DROP"], database)));
        let table = GrantScope::Table(None, "t".into());
        assert!(one("GRANT SELECT ON t TO ada") == UserStatement::Grant(grant(&["SELECT"], table)));
        assert!(one("SHOW GRANTS FOR ada") == UserStatement::ShowGrants { user: Some("ada".into()) });
        assert!(one("SHOW USERS") == UserStatement::ShowUsers);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert!(!format!("{:?}", one("CREATE USER ada IDENTIFIED BY 'secret'")).contains("secret"));
    }

    #[test]
    fn wrong_statements_about_users_say_where() {
        for (sql, what) in [
            ("CREATE USER ada IDENTIFIED BY secret", "expected a password in quotes"),
            ("CREATE USER ada@'10.0.0.1'", "not tied to hosts"),
            ("GRANT ON t TO ada", "expected ON"),
            ("GRANT SELECT ON t FROM ada", "expected TO"),
            ("REVOKE SELECT ON t FROM", "expected a name"),
        ] {
            let error = parse(sql).unwrap_err().to_string();
            assert!(error.contains(what), "{sql}: {error}");
        }
    }
}
