//! What administers users, as values: part of [`crate::admin`].

use crate::admin::{if_set, name, text};

/// A command about users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserCommand {
    /// `CREATE USER`.
    Create {
        /// Its name.
        name: String,
        /// Its password.
        password: Password,
        /// Whether an existing one is fine.
        if_not_exists: bool,
    },
    /// `DROP USER`.
    Drop {
        /// Its name.
        name: String,
        /// Whether a missing one is fine.
        if_exists: bool,
    },
    /// `ALTER USER`.
    SetPassword {
        /// Whose.
        name: String,
        /// The new one.
        password: Password,
    },
    /// `GRANT`.
    Grant(Grant),
    /// `REVOKE`.
    Revoke(Grant),
    /// `SHOW USERS`.
    List,
    /// `SHOW GRANTS`.
    Grants {
        /// The user; empty: the session's.
        user: String,
    },
}

/// What a user gets, or loses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// `SELECT` and so on; none: all.
    pub privileges: Vec<String>,
    /// On what is in it; empty: in the session's, or, without a table, in all.
    pub database: String,
    /// On it alone; empty: on all of the database.
    pub table: String,
    /// The user.
    pub user: String,
}

/// A password, which gets into no log by accident.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(pub String);

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a password)")
    }
}

impl Grant {
    /// `what` is done by `towards`, GRANT TO for example.
    fn sql(&self, what: &str, towards: &str) -> String {
        // They are words; whatever else is in them makes none that there is.
        let word = |privilege: &String| privilege.chars().filter(char::is_ascii_alphabetic).collect::<String>();
        let privileges = match &self.privileges[..] {
            [] => "ALL".to_owned(),
            some => some.iter().map(word).collect::<Vec<_>>().join(", "),
        };
        let scope = match (&self.database[..], &self.table[..]) {
            ("", "") => "*.*".to_owned(),
            (database, "") => format!("{}.*", name(database)),
            ("", table) => name(table),
            (database, table) => format!("{}.{}", name(database), name(table)),
        };
        format!("{what} {privileges} ON {scope} {towards} {}", text(&self.user))
    }
}

impl UserCommand {
    /// The statement that does the same.
    pub(crate) fn sql(&self) -> String {
        match self {
            UserCommand::Create { name, password, if_not_exists } => {
                let name = format!("{}{}", if_set(*if_not_exists, "IF NOT EXISTS "), text(name));
                format!("CREATE USER {name} IDENTIFIED BY {}", text(&password.0))
            }
            UserCommand::Drop { name, if_exists } => {
                format!("DROP USER {}{}", if_set(*if_exists, "IF EXISTS "), text(name))
            }
            UserCommand::SetPassword { name, password } => {
                format!("ALTER USER {} IDENTIFIED BY {}", text(name), text(&password.0))
            }
            UserCommand::Grant(grant) => grant.sql("GRANT", "TO"),
            UserCommand::Revoke(grant) => grant.sql("REVOKE", "FROM"),
            UserCommand::List => "SHOW USERS".to_owned(),
            UserCommand::Grants { user } if user.is_empty() => "SHOW GRANTS".to_owned(),
            UserCommand::Grants { user } => format!("SHOW GRANTS FOR {}", text(user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_privileges_stay_what_they_are() {
        let create = |if_not_exists| UserCommand::Create { name: "a'b".into(), password: Password("it's".into()), if_not_exists };
        assert_eq!(create(false).sql(), "CREATE USER 'a''b' IDENTIFIED BY 'it''s'");
        assert_eq!(create(true).sql(), "CREATE USER IF NOT EXISTS 'a''b' IDENTIFIED BY 'it''s'");
        assert!(!format!("{:?}", create(true)).contains("it's"));
        let grant = |privileges: &[&str], database: &str, table: &str| {
            let privileges = privileges.iter().map(|privilege| (*privilege).to_owned()).collect();
            let (database, table) = (database.to_owned(), table.to_owned());
            UserCommand::Grant(Grant { privileges, database, table, user: "ada".into() }).sql()
        };
        assert_eq!(grant(&[], "", ""), "GRANT ALL ON *.* TO 'ada'");
        assert_eq!(grant(&["SELECT", "insert"], "d", ""), "GRANT SELECT, insert ON \"d\".* TO 'ada'");
        assert_eq!(grant(&["SELECT"], "", "t\""), "GRANT SELECT ON \"t\"\"\" TO 'ada'");
        assert_eq!(grant(&["SELECT ON *.* TO eve; --"], "d", "t"), "GRANT SELECTONTOeve ON \"d\".\"t\" TO 'ada'");
        let revoke = UserCommand::Revoke(Grant { user: "ada".into(), ..Grant::default() });
        assert_eq!(revoke.sql(), "REVOKE ALL ON *.* FROM 'ada'");
        assert_eq!(UserCommand::Grants { user: "a'b".into() }.sql(), "SHOW GRANTS FOR 'a''b'");
    }
}
