//! What administers a cluster, as values: each is a call of `admin.capnp`, and a statement of SQL.

pub use crate::admin_users::{Grant, Password, UserCommand};

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// `ADD LEAF`.
    AddLeaf {
        /// Where it listens, HOST:PORT.
        address: String,
        /// Its availability group; 0: the smaller one.
        group: u8,
    },
    /// `REMOVE LEAF`.
    RemoveLeaf {
        /// Where it listens.
        address: String,
        /// Also if it has partitions.
        force: bool,
    },
    /// `ADD AGGREGATOR`.
    AddCoordinator {
        /// Where it listens.
        address: String,
    },
    /// `REMOVE AGGREGATOR`.
    RemoveCoordinator {
        /// Where it listens.
        address: String,
    },
    /// `CREATE DATABASE`.
    CreateDatabase {
        /// Its name.
        name: String,
        /// Whether an existing one is fine.
        if_not_exists: bool,
        /// Partitions; 0: as many as is usual.
        partitions: u32,
        /// Copies; 0: as many as is usual.
        redundancy: u8,
        /// `DURABILITY ASYNC`.
        asynchronous: bool,
    },
    /// `DROP DATABASE`.
    DropDatabase {
        /// Its name.
        name: String,
        /// Whether a missing one is fine.
        if_exists: bool,
    },
    /// `KILL QUERY`.
    KillQuery {
        /// Its number in the process list.
        query: u64,
    },
    /// `SHOW LEAVES`.
    Leaves,
    /// `SHOW AGGREGATORS`.
    Coordinators,
    /// `SHOW DATABASES`.
    Databases,
    /// `SHOW PARTITIONS`.
    Partitions {
        /// The database; empty: the session's.
        database: String,
    },
    /// `SHOW CLUSTER STATUS`.
    ClusterStatus,
    /// `SHOW PROCESSLIST`.
    ProcessList,
    /// `DETACH LEAF`.
    DetachLeaf {
        /// Where it listens.
        address: String,
        /// Also if a partition has no other copy.
        force: bool,
    },
    /// `ATTACH LEAF`.
    AttachLeaf {
        /// Where it listens; empty: all that are detached.
        address: String,
    },
    /// `REBALANCE`.
    Rebalance {
        /// The database; empty: all.
        database: String,
        /// `FULL`.
        full: bool,
    },
    /// `RESTORE REDUNDANCY`.
    RestoreRedundancy {
        /// The database.
        database: String,
    },
    /// `CANCEL REBALANCE`.
    CancelRebalance {
        /// The database; empty: all.
        database: String,
    },
    /// `CLEAR ORPHAN DATABASES`.
    ClearOrphans,
    /// `EXPLAIN REBALANCE`.
    ExplainRebalance {
        /// The database; empty: all.
        database: String,
        /// `FULL`.
        full: bool,
    },
    /// `EXPLAIN RESTORE REDUNDANCY`.
    ExplainRestoreRedundancy {
        /// The database.
        database: String,
    },
    /// `EXPLAIN CLEAR ORPHAN DATABASES`.
    ExplainClearOrphans,
    /// `SHOW REBALANCE STATUS`.
    RebalanceStatus {
        /// The database; empty: all.
        database: String,
    },
    /// `BACKUP DATABASE`.
    Backup {
        /// The database.
        database: String,
        /// A folder that every node has, or `s3://bucket/prefix`.
        to: String,
        /// Only what the backups that are there already lack.
        incremental: bool,
    },
    /// `RESTORE DATABASE`.
    Restore {
        /// The database.
        database: String,
        /// What it is called from now on; empty: as it was.
        new_name: String,
        /// Where its backup is.
        from: String,
    },
    /// `RECOVER FROM LEAVES`.
    Recover {
        /// Where they listen.
        leaves: Vec<String>,
    },
    /// `EXPLAIN RECOVER FROM LEAVES`.
    ExplainRecover {
        /// Where they listen.
        leaves: Vec<String>,
    },
    /// What is about users.
    User(UserCommand),
}

/// What a command gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminReply {
    /// What was done, for people.
    Said(String),
    /// Rows: an Arrow IPC stream.
    Listing(Vec<u8>),
}

pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(crate) fn if_set(set: bool, words: &'static str) -> &'static str {
    if set { words } else { "" }
}

/// The end of a statement that is about a database, or all.
fn on(database: &str) -> String {
    if database.is_empty() { String::new() } else { format!(" ON {}", name(database)) }
}

fn rebalance(database: &str, full: bool) -> String {
    let what = if database.is_empty() { "ALL DATABASES".to_owned() } else { format!("PARTITIONS{}", on(database)) };
    format!("REBALANCE {what}{}", if_set(full, " FULL"))
}

fn recover(leaves: &[String]) -> String {
    let leaves: Vec<String> = leaves.iter().map(|leaf| text(leaf)).collect();
    format!("RECOVER FROM LEAVES {}", leaves.join(", "))
}

impl AdminCommand {
    /// The statement that does the same.
    #[must_use]
    pub fn sql(&self) -> String {
        match self {
            AdminCommand::AddLeaf { address, group: 0 } => format!("ADD LEAF {}", text(address)),
            AdminCommand::AddLeaf { address, group } => format!("ADD LEAF {} INTO GROUP {group}", text(address)),
            AdminCommand::RemoveLeaf { address, force } => format!("REMOVE LEAF {}{}", text(address), if_set(*force, " FORCE")),
            AdminCommand::AddCoordinator { address } => format!("ADD AGGREGATOR {}", text(address)),
            AdminCommand::RemoveCoordinator { address } => format!("REMOVE AGGREGATOR {}", text(address)),
            AdminCommand::CreateDatabase { name: database, if_not_exists, partitions, redundancy, asynchronous } => {
                let mut sql = format!("CREATE DATABASE {}{}", if_set(*if_not_exists, "IF NOT EXISTS "), name(database));
                if *partitions > 0 {
                    sql.push_str(&format!(" PARTITIONS {partitions}"));
                }
                if *redundancy > 0 {
                    sql.push_str(&format!(" REDUNDANCY {redundancy}"));
                }
                sql.push_str(if_set(*asynchronous, " DURABILITY ASYNC"));
                sql
            }
            AdminCommand::DropDatabase { name: database, if_exists } => {
                format!("DROP DATABASE {}{}", if_set(*if_exists, "IF EXISTS "), name(database))
            }
            AdminCommand::KillQuery { query } => format!("KILL QUERY {query}"),
            AdminCommand::Leaves => "SHOW LEAVES".to_owned(),
            AdminCommand::Coordinators => "SHOW AGGREGATORS".to_owned(),
            AdminCommand::Databases => "SHOW DATABASES".to_owned(),
            AdminCommand::Partitions { database } => format!("SHOW PARTITIONS{}", on(database)),
            AdminCommand::ClusterStatus => "SHOW CLUSTER STATUS".to_owned(),
            AdminCommand::ProcessList => "SHOW PROCESSLIST".to_owned(),
            AdminCommand::DetachLeaf { address, force } => format!("DETACH LEAF {}{}", text(address), if_set(*force, " FORCE")),
            AdminCommand::AttachLeaf { address } if address.is_empty() => "ATTACH LEAF ALL".to_owned(),
            AdminCommand::AttachLeaf { address } => format!("ATTACH LEAF {}", text(address)),
            AdminCommand::Rebalance { database, full } => rebalance(database, *full),
            AdminCommand::RestoreRedundancy { database } => format!("RESTORE REDUNDANCY{}", on(database)),
            AdminCommand::CancelRebalance { database } => format!("CANCEL REBALANCE{}", on(database)),
            AdminCommand::ClearOrphans => "CLEAR ORPHAN DATABASES".to_owned(),
            AdminCommand::ExplainRebalance { database, full } => format!("EXPLAIN {}", rebalance(database, *full)),
            AdminCommand::ExplainRestoreRedundancy { database } => format!("EXPLAIN RESTORE REDUNDANCY{}", on(database)),
            AdminCommand::ExplainClearOrphans => "EXPLAIN CLEAR ORPHAN DATABASES".to_owned(),
            AdminCommand::RebalanceStatus { database } => format!("SHOW REBALANCE STATUS{}", on(database)),
            AdminCommand::Backup { database, to, incremental } => {
                let how = if_set(*incremental, " WITH DIFFERENTIAL");
                format!("BACKUP DATABASE {}{how} TO {}", name(database), text(to))
            }
            AdminCommand::User(command) => command.sql(),
            AdminCommand::Recover { leaves } => recover(leaves),
            AdminCommand::ExplainRecover { leaves } => format!("EXPLAIN {}", recover(leaves)),
            AdminCommand::Restore { database, new_name, from } => {
                let new_name = if new_name.is_empty() { String::new() } else { format!(" AS {}", name(new_name)) };
                format!("RESTORE DATABASE {}{new_name} FROM {}", name(database), text(from))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_stay_what_they_are() {
        let drop = AdminCommand::DropDatabase { name: "a\"; DROP TABLE t; --".into(), if_exists: true };
        assert_eq!(drop.sql(), "DROP DATABASE IF EXISTS \"a\"\"; DROP TABLE t; --\"");
        let add = AdminCommand::AddLeaf { address: "it's:1".into(), group: 2 };
        assert_eq!(add.sql(), "ADD LEAF 'it''s:1' INTO GROUP 2");
        let (one, all) = (String::from("a\"b"), String::new());
        let rebalance = |full| AdminCommand::Rebalance { database: one.clone(), full }.sql();
        assert_eq!(rebalance(false), "REBALANCE PARTITIONS ON \"a\"\"b\"");
        assert_eq!(rebalance(true), "REBALANCE PARTITIONS ON \"a\"\"b\" FULL");
        let explain = |full| AdminCommand::ExplainRebalance { database: all.clone(), full }.sql();
        assert_eq!(explain(false), "EXPLAIN REBALANCE ALL DATABASES");
        assert_eq!(explain(true), "EXPLAIN REBALANCE ALL DATABASES FULL");
        assert_eq!(AdminCommand::CancelRebalance { database: all.clone() }.sql(), "CANCEL REBALANCE");
        assert_eq!(AdminCommand::RebalanceStatus { database: one }.sql(), "SHOW REBALANCE STATUS ON \"a\"\"b\"");
        assert_eq!(AdminCommand::AttachLeaf { address: all.clone() }.sql(), "ATTACH LEAF ALL");
        let backup = AdminCommand::Backup { database: "a\"b".into(), to: "/it's".into(), incremental: true };
        assert_eq!(backup.sql(), "BACKUP DATABASE \"a\"\"b\" WITH DIFFERENTIAL TO '/it''s'");
        let restore =
            |new_name: &str| AdminCommand::Restore { database: "d".into(), new_name: new_name.into(), from: "/p".into() };
        assert_eq!(restore("").sql(), "RESTORE DATABASE \"d\" FROM '/p'");
        let leaves = vec!["a:1".to_owned(), "b'c:2".to_owned()];
        assert_eq!(AdminCommand::ExplainRecover { leaves }.sql(), "EXPLAIN RECOVER FROM LEAVES 'a:1', 'b''c:2'");
        assert_eq!(restore("e").sql(), "RESTORE DATABASE \"d\" AS \"e\" FROM '/p'");
    }
}
