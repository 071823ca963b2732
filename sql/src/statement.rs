//! The statements that a text may hold.

mod change;
mod text;

use stoa_plan::{DataType, Value};

use crate::{SqlError, TableColumn, TableInfo};
pub use change::{Alter, AlterTable, Delete, Insert, OnDuplicate, Optimize, Update};
pub use text::QueryText;

/// A statement. Names are lower-case unless they were quoted.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    /// `SELECT`, `WITH`, `VALUES`, `TABLE`.
    Query(QueryText),
    /// `EXPLAIN query`; with `analyze`, `EXPLAIN ANALYZE query` or `PROFILE query`.
    Explain {
        /// Whether the query is run.
        analyze: bool,
        /// The query.
        query: QueryText,
    },
    /// `CREATE TABLE`.
    CreateTable(CreateTable),
    /// `CREATE TABLE ... AS query`: names and types of the columns come from the query.
    CreateTableAs {
        /// The rest of the definition; `columns` is empty, or holds only names in place of the query's.
        table: CreateTable,
        /// The rows.
        query: QueryText,
    },
    /// `DROP TABLE`.
    DropTable {
        /// The tables.
        names: Vec<String>,
        /// Whether a missing table is fine.
        if_exists: bool,
    },
    /// `CREATE VIEW`.
    CreateView {
        /// The view.
        name: String,
        /// Whether an existing view of that name gives way.
        or_replace: bool,
        /// What it stands for; its text is what the catalog keeps.
        query: QueryText,
    },
    /// `DROP VIEW`.
    DropView {
        /// The views.
        names: Vec<String>,
        /// Whether a missing view is fine.
        if_exists: bool,
    },
    /// `INSERT INTO`, `REPLACE INTO`.
    Insert(Insert),
    /// `UPDATE`.
    Update(Update),
    /// `DELETE FROM`.
    Delete(Delete),
    /// `TRUNCATE [TABLE]`.
    Truncate {
        /// The table.
        table: String,
    },
    /// `ALTER TABLE`.
    Alter(Alter),
    /// `OPTIMIZE TABLE`.
    Optimize {
        /// The table.
        table: String,
        /// What is done to it.
        how: Optimize,
    },
    /// `BEGIN`, `START TRANSACTION`.
    Begin,
    /// `COMMIT`.
    Commit,
    /// `ROLLBACK`.
    Rollback,
    /// `SHOW COLUMNAR MERGE STATUS [FOR table]`.
    ShowMergeStatus {
        /// The table; otherwise all.
        table: Option<String>,
    },
    /// `BACKUP DATABASE`.
    Backup {
        /// The database; otherwise that of the session.
        database: Option<String>,
        /// The directory that it goes to.
        to: String,
        /// Only what the backups that are there already lack: `WITH DIFFERENTIAL`.
        incremental: bool,
    },
    /// `RESTORE DATABASE`.
    Restore {
        /// The database; otherwise that of the session.
        database: Option<String>,
        /// What it is called from now on; otherwise as it was.
        new_name: Option<String>,
        /// The directory that a backup is in.
        from: String,
    },
    /// `SHOW TABLES`.
    ShowTables,
    /// `DESCRIBE table`, `SHOW COLUMNS FROM table`.
    Describe {
        /// The table or view.
        name: String,
    },
    /// A statement that manages a cluster.
    Cluster(ClusterStatement),
    /// A statement about users and what they may do.
    User(UserStatement),
}

impl Statement {
    /// Whether it changes the definitions or the nodes of a cluster, or needs that they stay; rows are no part of those.
    #[must_use]
    pub fn changes_catalog(&self) -> bool {
        match self {
            Statement::CreateTable(_)
            | Statement::CreateTableAs { .. }
            | Statement::DropTable { .. }
            | Statement::CreateView { .. }
            | Statement::DropView { .. }
            | Statement::Truncate { .. }
            | Statement::Backup { .. }
            | Statement::Restore { .. }
            | Statement::Alter(_) => true,
            Statement::Cluster(statement) => statement.changes_catalog(),
            Statement::User(statement) => !matches!(statement, UserStatement::ShowUsers | UserStatement::ShowGrants { .. }),
            Statement::Query(_)
            | Statement::Explain { .. }
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::Optimize { .. }
            | Statement::Begin
            | Statement::Commit
            | Statement::Rollback
            | Statement::ShowMergeStatus { .. }
            | Statement::ShowTables
            | Statement::Describe { .. } => false,
        }
    }
}

impl ClusterStatement {
    fn changes_catalog(&self) -> bool {
        match self {
            ClusterStatement::CreateDatabase { .. }
            | ClusterStatement::DropDatabase { .. }
            | ClusterStatement::AddLeaf { .. }
            | ClusterStatement::RemoveLeaf { .. }
            | ClusterStatement::AddCoordinator { .. }
            | ClusterStatement::RemoveCoordinator { .. }
            | ClusterStatement::AttachLeaf { .. }
            | ClusterStatement::DetachLeaf { .. }
            | ClusterStatement::Move { explain: false, .. }
            | ClusterStatement::CancelMove { .. }
            | ClusterStatement::ClearOrphans { explain: false }
            | ClusterStatement::Recover { explain: false, .. } => true,
            ClusterStatement::ShowLeaves
            | ClusterStatement::ShowAggregators
            | ClusterStatement::ShowDatabases
            | ClusterStatement::ShowPartitions { .. }
            | ClusterStatement::ShowClusterStatus
            | ClusterStatement::ShowProcesslist
            | ClusterStatement::Move { explain: true, .. }
            | ClusterStatement::ShowMoves { .. }
            | ClusterStatement::ClearOrphans { explain: true }
            | ClusterStatement::Recover { explain: true, .. }
            | ClusterStatement::Kill { .. } => false,
        }
    }
}

/// How the copies of a database's partitions are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveKind {
    /// `REBALANCE PARTITIONS`: redundancy is restored, copies and masters are spread evenly.
    Rebalance,
    /// `REBALANCE PARTITIONS ... FULL`: they are spread evenly together with those of the other databases.
    RebalanceFull,
    /// `RESTORE REDUNDANCY`: partitions without a replica get one.
    RestoreRedundancy,
}

/// Where a change is when it is reported as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk.
    Sync,
    /// In memory, and soon on disk.
    Async,
}

/// Statements that manage a cluster. Addresses are HOST:PORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterStatement {
    /// `CREATE DATABASE`.
    CreateDatabase {
        /// Its name.
        name: String,
        /// Whether an existing database of that name is fine.
        if_not_exists: bool,
        /// Into how many partitions its tables are cut.
        partitions: Option<u32>,
        /// Copies of every partition.
        redundancy: Option<u32>,
        /// Where a change is when it is reported as done; otherwise what the cluster does by default.
        durability: Option<Durability>,
    },
    /// `DROP DATABASE`, with all that is in it.
    DropDatabase {
        /// Its name.
        name: String,
        /// Whether a missing database is fine.
        if_exists: bool,
    },
    /// `ADD LEAF`.
    AddLeaf {
        /// Where it listens.
        address: String,
        /// Its availability group.
        group: Option<u8>,
    },
    /// `REMOVE LEAF`.
    RemoveLeaf {
        /// Where it listens.
        address: String,
        /// Also if it has partitions, which are lost to the cluster then.
        force: bool,
    },
    /// `RECOVER FROM LEAVES`: the catalog of a cluster that lost its coordinators, from what leaves hold.
    Recover {
        /// Where they listen.
        leaves: Vec<String>,
        /// Only what would be done.
        explain: bool,
    },
    /// `ADD AGGREGATOR`, `ADD COORDINATOR`.
    AddCoordinator {
        /// Where it listens.
        address: String,
    },
    /// `REMOVE AGGREGATOR`, `REMOVE COORDINATOR`.
    RemoveCoordinator {
        /// Where it listens.
        address: String,
    },
    /// `ATTACH LEAF`.
    AttachLeaf {
        /// Where it listens; none: all leaves that are detached.
        address: Option<String>,
    },
    /// `DETACH LEAF`.
    DetachLeaf {
        /// Where it listens.
        address: String,
        /// Also if partitions are off line then.
        force: bool,
    },
    /// `REBALANCE PARTITIONS ON`, `RESTORE REDUNDANCY ON`, `REBALANCE ALL DATABASES`.
    Move {
        /// How.
        kind: MoveKind,
        /// The database; none: all of them.
        database: Option<String>,
        /// The steps are only shown.
        explain: bool,
    },
    /// `CANCEL REBALANCE`: steps that have begun end, no others begin.
    CancelMove {
        /// The database; none: all of them.
        database: Option<String>,
    },
    /// `SHOW REBALANCE STATUS`.
    ShowMoves {
        /// The database; none: all of them.
        database: Option<String>,
    },
    /// `CLEAR ORPHAN DATABASES`: copies that the catalog does not know are removed.
    ClearOrphans {
        /// They are only shown.
        explain: bool,
    },
    /// `SHOW LEAVES`.
    ShowLeaves,
    /// `SHOW AGGREGATORS`.
    ShowAggregators,
    /// `SHOW DATABASES`.
    ShowDatabases,
    /// `SHOW PARTITIONS [ON database]`.
    ShowPartitions {
        /// The database; otherwise that of the session.
        database: Option<String>,
    },
    /// `SHOW CLUSTER STATUS`: what each leaf has beside what the catalog says.
    ShowClusterStatus,
    /// `SHOW PROCESSLIST`.
    ShowProcesslist,
    /// `KILL QUERY`.
    Kill {
        /// Its number in the process list.
        query: u64,
    },
}

/// Statements about users. Names of privileges are in upper case and not checked here.
#[derive(Clone, PartialEq, Eq)]
pub enum UserStatement {
    /// `CREATE USER`.
    Create {
        /// The user.
        name: String,
        /// Its password; without one, empty.
        password: String,
        /// Whether an existing user of that name is fine.
        if_not_exists: bool,
    },
    /// `DROP USER`.
    Drop {
        /// The user.
        name: String,
        /// Whether a missing user is fine.
        if_exists: bool,
    },
    /// `ALTER USER ... IDENTIFIED BY`, `SET PASSWORD FOR`.
    SetPassword {
        /// The user.
        name: String,
        /// The new password.
        password: String,
    },
    /// `GRANT`.
    Grant(Grant),
    /// `REVOKE`.
    Revoke(Grant),
    /// `SHOW USERS`.
    ShowUsers,
    /// `SHOW GRANTS [FOR user]`.
    ShowGrants {
        /// The user; otherwise that of the session.
        user: Option<String>,
    },
}

/// Passwords do not get into logs by accident.
impl std::fmt::Debug for UserStatement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            UserStatement::Create { .. } => "Create",
            UserStatement::Drop { .. } => "Drop",
            UserStatement::SetPassword { .. } => "SetPassword",
            UserStatement::Grant(_) => "Grant",
            UserStatement::Revoke(_) => "Revoke",
            UserStatement::ShowUsers => "ShowUsers",
            UserStatement::ShowGrants { .. } => "ShowGrants",
        })
    }
}

/// What GRANT gives or REVOKE takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The privileges; empty: ALL.
    pub privileges: Vec<String>,
    /// On what.
    pub on: GrantScope,
    /// To or from whom.
    pub user: String,
}

/// What privileges are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantScope {
    /// `*.*`
    Everywhere,
    /// `database.*`; `*` is the session's.
    Database(Option<String>),
    /// `database.table`; without a database the session's.
    Table(Option<String>, String),
}

/// The definition of a table.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct CreateTable {
    /// Its name.
    pub name: String,
    /// Whether an existing table of that name is fine.
    pub if_not_exists: bool,
    /// Whether every leaf has a copy.
    pub reference: bool,
    /// Its columns.
    pub columns: Vec<ColumnDef>,
    /// Column names of `SHARD KEY (...)`.
    pub shard_key: Vec<String>,
    /// Column names of `SORT KEY (...)`.
    pub sort_key: Vec<String>,
    /// Column names of `PRIMARY KEY (...)`; they are NOT NULL.
    pub primary_key: Vec<String>,
    /// Column names of each `UNIQUE KEY (...)`.
    pub unique_keys: Vec<Vec<String>>,
}

impl CreateTable {
    /// The table as the binder sees it.
    ///
    /// # Errors
    /// If the shard key names a column that there is none of.
    pub fn info(&self) -> Result<TableInfo, SqlError> {
        let column = |c: &ColumnDef| TableColumn { name: c.name.clone(), ty: c.ty, nullable: c.nullable, default: None };
        Ok(TableInfo {
            name: self.name.clone(),
            columns: self.columns.iter().map(column).collect(),
            shard_key: self.ordinals("SHARD KEY", &self.shard_key)?,
            reference: self.reference,
            revision: 0,
        })
    }

    /// The ordinals of the columns that `key` names.
    ///
    /// # Errors
    /// If there is no such column, with the name of the key.
    pub fn ordinals(&self, key: &str, names: &[String]) -> Result<Vec<u32>, SqlError> {
        let missing =
            |name: &str| SqlError::new(format!("{key} of table '{}' names column '{name}', which it does not have", self.name));
        let find = |name: &String| self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        names.iter().map(|name| find(name).map(|i| i as u32).ok_or_else(|| missing(name))).collect()
    }
}

/// A column of a [`CreateTable`].
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its type; [`DataType::Null`] if the query of `CREATE TABLE AS` decides.
    pub ty: DataType,
    /// The type as it was written, e.g. `VARCHAR(25)`.
    pub sql_type: String,
    /// Whether it may hold NULLs.
    pub nullable: bool,
    /// Whether it has a bitmap index.
    pub bitmap_index: BitmapIndex,
    /// What it holds where nothing else is said, as a value of its type; without one, NULL.
    pub default: Option<Value>,
}

/// What a definition says about a column's bitmap index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BitmapIndex {
    /// Nothing: the writer decides.
    #[default]
    Auto,
    /// `WITH (BITMAP INDEX)`.
    Declared,
    /// `WITHOUT (BITMAP INDEX)`.
    None,
}
