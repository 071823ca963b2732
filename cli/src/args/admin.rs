//! The commands of `stoa admin`.

use clap::Subcommand;

/// The commands of `stoa admin`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Add an empty leaf
    AddLeaf {
        /// Where it listens, HOST:PORT
        address: String,
        /// Availability group, 1 or 2 [default: the smaller one]
        #[arg(long, value_name = "N")]
        group: Option<u8>,
    },
    /// Remove a leaf
    RemoveLeaf {
        /// Where it listens
        address: String,
        /// Also if it has partitions, which are off line then
        #[arg(long)]
        force: bool,
    },
    /// Add a coordinator that runs and has no part in a cluster
    AddCoordinator {
        /// Where it listens
        address: String,
    },
    /// Remove a coordinator
    RemoveCoordinator {
        /// Where it listens
        address: String,
    },
    /// Make a database
    CreateDatabase {
        /// Its name
        name: String,
        /// It is fine if it is there
        #[arg(long)]
        if_not_exists: bool,
        /// Into how many partitions its tables are cut [default: a core of the coordinator for each leaf]
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// Copies of every partition
        #[arg(long, value_name = "N")]
        redundancy: Option<u8>,
        /// Rows count before they are on disk: a crash of the machine may lose the last tenth of a second
        #[arg(long = "async")]
        asynchronous: bool,
    },
    /// Drop a database with all that is in it
    DropDatabase {
        /// Its name
        name: String,
        /// It is fine if it is not there
        #[arg(long)]
        if_exists: bool,
    },
    /// End a statement, on whichever coordinator it runs
    Kill {
        /// Its number in the list of processes
        query: u64,
    },
    /// List the leaves
    Leaves,
    /// List the coordinators
    Coordinators,
    /// List the databases
    Databases,
    /// List the partitions of a database and where they are
    Partitions {
        /// The database [default: --database]
        of: Option<String>,
    },
    /// What each leaf has beside what the catalog says that it has
    Status,
    /// List what runs on all coordinators
    Processes,
    /// Take a leaf out, to work on it: replicas take over
    DetachLeaf {
        /// Where it listens
        address: String,
        /// Also if a partition has no other copy, which is off line then
        #[arg(long)]
        force: bool,
    },
    /// Let a leaf that was taken out take part again, with the copies that it has
    AttachLeaf {
        /// Where it listens [default: all that were taken out]
        address: Option<String>,
    },
    /// Spread copies and masters evenly over the leaves, and replace lost copies
    Rebalance {
        /// The database [default: all]
        of: Option<String>,
        /// Together with the copies and masters of the other databases, so that many small ones are not all on the same leaves
        #[arg(long)]
        full: bool,
        /// Only say what would be done
        #[arg(long)]
        explain: bool,
    },
    /// Give partitions without a replica one; nothing else moves
    RestoreRedundancy {
        /// The database
        of: String,
        /// Only say what would be done
        #[arg(long)]
        explain: bool,
    },
    /// List the steps that are left of what moves copies
    RebalanceStatus {
        /// The database [default: all]
        of: Option<String>,
    },
    /// End what moves copies: no further step begins
    CancelRebalance {
        /// The database [default: all]
        of: Option<String>,
    },
    /// Copy a database, as of one moment, while writing goes on
    Backup {
        /// The database
        of: String,
        /// A folder that every node has under this path, or s3://BUCKET/PREFIX
        #[arg(long, value_name = "PLACE")]
        to: String,
        /// Copy only what the backups that are there already lack
        #[arg(long)]
        incremental: bool,
    },
    /// Make a database what it was in the newest backup of it in a place
    Restore {
        /// The database
        of: String,
        /// Where its backup is
        #[arg(long, value_name = "PLACE")]
        from: String,
        /// What it is called from now on [default: its own name]
        #[arg(long = "as", value_name = "NAME")]
        new_name: Option<String>,
    },
    /// After the loss of all coordinators: make the catalog of new ones from what leaves hold; says first what it would be
    Recover {
        /// A leaf, HOST:PORT; all that are left
        #[arg(long = "leaf", value_name = "HOST:PORT", required = true)]
        leaves: Vec<String>,
        /// Only say what would be done
        #[arg(long)]
        explain: bool,
        /// Do not ask before it is done
        #[arg(long, conflicts_with = "explain")]
        yes: bool,
    },
    /// Remove copies on leaves that the catalog does not know
    ClearOrphans {
        /// Only list them
        #[arg(long)]
        explain: bool,
    },
    /// Make a user. Once there is one, clients need a user and a password
    CreateUser {
        /// Its name
        name: String,
        /// Its password
        #[arg(long, value_name = "PASSWORD", env = "STOA_NEW_PASSWORD", default_value = "", hide_default_value = true)]
        #[arg(hide_env_values = true)]
        identified_by: String,
        /// It is fine if it is there
        #[arg(long)]
        if_not_exists: bool,
    },
    /// Drop a user with all that it may do
    DropUser {
        /// Its name
        name: String,
        /// It is fine if it is not there
        #[arg(long)]
        if_exists: bool,
    },
    /// Give a user another password; everybody may do so for himself
    SetPassword {
        /// Its name
        name: String,
        /// The new password
        #[arg(long, value_name = "PASSWORD", env = "STOA_NEW_PASSWORD", hide_env_values = true)]
        identified_by: String,
    },
    /// Allow a user something
    Grant {
        /// SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, CLUSTER, or ALL of them
        #[arg(required = true, value_delimiter = ',')]
        privileges: Vec<String>,
        /// On what: '*.*', 'DATABASE.*', DATABASE.TABLE, or TABLE of --database
        #[arg(long, value_parser = parse_scope)]
        on: Scope,
        /// The user
        #[arg(long)]
        to: String,
    },
    /// Take from a user what it was allowed
    Revoke {
        /// SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, CLUSTER, or ALL of them
        #[arg(required = true, value_delimiter = ',')]
        privileges: Vec<String>,
        /// On what: '*.*', 'DATABASE.*', DATABASE.TABLE, or TABLE of --database
        #[arg(long, value_parser = parse_scope)]
        on: Scope,
        /// The user
        #[arg(long)]
        from: String,
    },
    /// List the users
    Users,
    /// List what a user may do
    Grants {
        /// The user [default: --user]
        of: Option<String>,
    },
}

/// What privileges are on: a database or none, a table or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Empty: the session's; without a table all.
    pub database: String,
    /// Empty: all of them.
    pub table: String,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let scope = |database: &str, table: &str| Ok(Scope { database: database.to_owned(), table: table.to_owned() });
    match text.split_once('.') {
        Some(("*", "*")) => scope("", ""),
        Some(("" | "*", _) | (_, "")) => Err("expected '*.*', 'DATABASE.*', DATABASE.TABLE or TABLE".into()),
        Some((database, "*")) => scope(database, ""),
        Some((database, table)) => scope(database, table),
        None if text.is_empty() || text == "*" => Err("expected '*.*', 'DATABASE.*', DATABASE.TABLE or TABLE".into()),
        None => scope("", text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes() {
        let scope = |text: &str| parse_scope(text).map(|scope| (scope.database, scope.table));
        for (text, database, table) in
            [("*.*", "", ""), ("d.*", "d", ""), ("d.t", "d", "t"), ("t", "", "t"), ("d.t.u", "d", "t.u")]
        {
            assert_eq!(scope(text), Ok((database.to_owned(), table.to_owned())), "{text}");
        }
        for text in ["", "*", ".", "*.t", "d.", ".t"] {
            assert!(scope(text).is_err(), "{text}");
        }
    }
}
