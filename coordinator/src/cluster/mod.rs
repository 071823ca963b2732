//! Leaves elsewhere as a [`Store`].
//!
//! A statement sees the database as the catalog had it when it asked: which leaf is the master of each partition, which leaves there
//! are for REFERENCE tables. A query begins on the leaves that it needs and ends there when it is dropped here.

mod backup;
mod database;
mod departures;
mod fragments;
mod in_doubt;
mod load;
mod numbers;
mod outcome;
mod queries;
mod reader;
mod routing;
mod statistics;
mod transaction;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use stoa_columnstore::{AlterTable, Clock, MergeState, MergeStatus, Table, TableDef, encode_definition};
use stoa_exec::{Admission, CancelToken, Profile, Progress, QueryResult, Settings, TakeResult};
use stoa_plan::distribute::{self, Net};
use stoa_plan::{Query, TableStatistics};
use stoa_rpc::leaf::{Change, OptimizeHow, REFERENCE};
use stoa_rpc::peer::ForLeader;
use stoa_rpc::session::StatementOutcome;
use stoa_rpc::{Failure, FailureKind, LeafPool};
use stoa_sql::{ClusterStatement, Optimize, Statement, UserStatement};

use crate::access::Asker;
use crate::catalog::{Command, Definition, Privilege};
use crate::embedded::OneTable;
use crate::session::{PlanBasis, Plans};
use crate::store::existing;
use crate::{Control, Error, Outcome, Result, RetryLimit, Rows, Store, Transaction};
pub use database::Database;
pub(crate) use fragments::{at, in_parallel};
pub use in_doubt::{Transactions, Watch};
use load::ClusterRows;
pub use numbers::QueryNumbers;
pub use statistics::Summaries;
use transaction::ClusterTransaction;
pub(crate) use witness::Witness;

/// How often a table is altered or dropped on a leaf while transactions are about to commit.
const CHANGE_TRIES: u32 = 100;

/// A database of a cluster.
pub struct Cluster {
    database: String,
    user: String,
    shared: Shared,
    witness: Arc<Witness>,
}

/// What the sessions of a coordinator share.
#[derive(Clone)]
pub struct Shared {
    /// The catalog.
    pub control: Arc<Control>,
    /// Connections to the leaves.
    pub leaves: Arc<LeafPool>,
    /// Settings of queries.
    pub settings: Settings,
    /// Which queries run now, and the memory of all of them on the coordinator.
    pub admission: Arc<Admission>,
    /// Bytes that one query may hold on the coordinator.
    pub query_memory: usize,
    /// Statistics that were asked for lately.
    pub summaries: Arc<Summaries>,
    /// Numbers for queries.
    pub numbers: Arc<QueryNumbers>,
    /// Plans that were made lately.
    pub plans: Arc<Plans>,
    /// Moments at which queries see what there is, and from which transactions count.
    pub clock: Arc<Clock>,
    /// Transactions that partitions may forget.
    pub transactions: Arc<Transactions>,
    /// For how long statements are run again when leaves under them fail.
    pub retry_limit: RetryLimit,
}

impl Cluster {
    /// A database of a cluster, if there is one of this name.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(database: &str, user: &str, shared: &Shared) -> Result<Cluster> {
        shared.control.database(database)?;
        Ok(Cluster::named(database, user, shared))
    }

    /// A database that need not be there yet: what a session on it can do is to make it.
    #[must_use]
    pub fn named(database: &str, user: &str, shared: &Shared) -> Cluster {
        let witness = Arc::new(Witness::new(&shared.transactions));
        Cluster { database: database.to_lowercase(), user: user.to_owned(), shared: shared.clone(), witness }
    }

    /// The same for one transaction beside the statements of the session, which its client asks for with this number; 0: it will not ask.
    pub(crate) fn beside(&self, number: u64) -> Result<Cluster> {
        let beside = Cluster::named(&self.database, &self.user, &self.shared);
        Ok(match number {
            0 => beside,
            number => Cluster { witness: Arc::new(Witness::of(&self.shared.transactions, number)?), ..beside },
        })
    }

    /// What the client knows of the transactions.
    pub(crate) fn witness(&self) -> &Arc<Witness> {
        &self.witness
    }

    /// What came of a change of the database that was decided under one of these numbers, if it was.
    pub(crate) fn outcome(&self, transactions: &[u64], cancel: &CancelToken) -> Result<StatementOutcome> {
        self.shared.outcome(&self.database, transactions, cancel)
    }

    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { catalog: self.shared.control.catalog(), user: &self.user, database: &self.database }
    }

    fn view(&self) -> Result<Arc<Database>> {
        self.shared.control.database(&self.database)
    }

    /// A definition of a later version than any that a table of its name has had.
    fn newest(&self, def: TableDef) -> TableDef {
        def.with_version(self.shared.control.catalog().version + 1)
    }

    /// Tells the leaves how a table is now. One that cannot be told learns it when somebody meets the table there.
    pub(crate) fn tell(&self, def: &TableDef) -> Result<()> {
        let change = Change::AlterTable { database: self.database.clone(), definition: encode_definition(def) };
        Ok(self.on_leaves(self.view()?.homes(def), &change)?)
    }

    /// Does a change on leaves, again while transactions are about to commit there.
    fn on_leaves(&self, leaves: &[String], change: &Change) -> std::result::Result<(), Failure> {
        let done = in_parallel(leaves, |address| {
            let leaf = self.shared.leaves.leaf(address)?;
            let mut tries = 1;
            loop {
                match leaf.change(change.clone()) {
                    Err(failure) if failure.kind == FailureKind::Conflict && tries < CHANGE_TRIES => {
                        std::thread::sleep(Duration::from_millis(50));
                        tries += 1;
                    }
                    done => return done.map_err(|e| at(address, e)),
                }
            }
        });
        done.map(drop)
    }

    /// Makes a table on the leaves, where nobody can ask for it until the catalog has it: a try that fails may be repeated.
    fn create_on_leaves(&self, def: &TableDef) -> Result<Arc<Database>> {
        let database = self.view()?;
        let key = def.name.to_lowercase();
        if database.tables.contains_key(&key) || database.views.contains_key(&key) {
            return Err(stoa_columnstore::Error::AlreadyExists(def.name.clone()).into());
        }
        // It is made by the master of every partition; what the others have comes from there.
        database.placement()?;
        // A table of an earlier try may have another definition.
        let homes = database.homes(def);
        if def.reference {
            database.check_held()?;
        }
        self.on_leaves(homes, &Change::DropTable { database: self.database.clone(), table: def.name.clone() })?;
        let definition = encode_definition(def);
        self.on_leaves(homes, &Change::CreateTable { database: self.database.clone(), definition })?;
        let now = self.view()?;
        if def.reference && now.reference != database.reference {
            return Err(Error::retryable(format!("leaves joined or were lost while '{}' was made: try again", def.name)));
        }
        if now.masters != database.masters {
            let what = format!("partitions of '{}' got other masters while '{}' was made: try again", self.database, def.name);
            return Err(Error::retryable(what));
        }
        Ok(database)
    }
}

impl Store for Cluster {
    fn table(&self, name: &str) -> Option<Arc<TableDef>> {
        self.view().ok()?.tables.get(&name.to_lowercase()).cloned()
    }

    fn tables(&self) -> Vec<Arc<TableDef>> {
        self.view().map(|database| database.tables.values().cloned().collect()).unwrap_or_default()
    }

    fn views(&self) -> Vec<(String, String)> {
        self.view().map(|database| database.views.values().cloned().collect()).unwrap_or_default()
    }

    fn statistics(&self, table: &str) -> Option<TableStatistics> {
        let database = self.view().ok()?;
        Some(self.shared.summaries.get(&database, &self.shared.leaves).get(&table.to_lowercase())?.statistics.clone())
    }

    fn bytes(&self, table: &str) -> u64 {
        let summaries = self.view().map(|database| self.shared.summaries.get(&database, &self.shared.leaves));
        summaries.ok().and_then(|all| all.get(&table.to_lowercase()).map(|s| s.bytes)).unwrap_or(0)
    }

    fn create_table(&self, def: TableDef) -> Result<()> {
        let def = self.newest(def);
        let _claim = self.shared.control.claim(&self.database, &def.name)?;
        let _steady = def.reference.then(|| self.shared.control.steady());
        self.create_on_leaves(&def)?;
        self.shared.control.change(&Command::CreateTable { database: self.database.clone(), definition: Definition::new(def) })
    }

    fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>> {
        let def = self.newest(def);
        let claim = self.shared.control.claim(&self.database, &def.name)?;
        let database = self.create_on_leaves(&def)?;
        let rows = ClusterRows::begin(database, Arc::new(def), &self.shared, &self.witness)?;
        Ok(Box::new(rows.creating(self.shared.control.clone(), claim)))
    }

    /// First in the catalog, then on the leaves: what stays there if that fails is never asked for again.
    fn drop_table(&self, name: &str, if_exists: bool) -> Result<()> {
        if self.table(name).is_none() {
            return if if_exists { Ok(()) } else { Err(stoa_columnstore::Error::NoSuchTable(name.to_owned()).into()) };
        }
        self.shared.control.change(&Command::DropTable { database: self.database.clone(), table: name.to_owned() })?;
        self.shared.summaries.forget(&self.database);
        Ok(self.on_leaves(&self.view()?.leaves, &Change::DropTable { database: self.database.clone(), table: name.to_owned() })?)
    }

    fn create_view(&self, name: &str, sql: &str, or_replace: bool) -> Result<()> {
        let (name, sql) = (name.to_owned(), sql.to_owned());
        self.shared.control.change(&Command::CreateView { database: self.database.clone(), name, sql, or_replace })
    }

    fn drop_view(&self, name: &str, if_exists: bool) -> Result<()> {
        if if_exists && !self.view()?.views.contains_key(&name.to_lowercase()) {
            return Ok(());
        }
        self.shared.control.change(&Command::DropView { database: self.database.clone(), name: name.to_owned() })
    }

    fn cluster(&self, statement: &ClusterStatement, cancel: &CancelToken) -> Result<Outcome> {
        self.shared.control.statement(statement, &self.shared, &self.asker(), cancel)
    }

    fn users(&self, statement: &UserStatement) -> Result<Outcome> {
        self.shared.control.user_statement(statement, &self.user, &self.database)
    }

    fn check(&self, statement: &Statement) -> Result<()> {
        self.asker().check_statement(statement)
    }

    fn may_read(&self, name: &str) -> Result<()> {
        self.asker().check_table(Privilege::Select, name)
    }

    fn forward(&self, sql: &str, cancel: &CancelToken) -> Result<Option<Outcome>> {
        let statement = ForLeader { user: self.user.clone(), database: self.database.clone(), sql: sql.to_owned() };
        self.shared.control.forward(&statement, cancel)
    }

    fn version(&self) -> u64 {
        self.shared.control.catalog().version
    }

    fn catch_up(&self, known: u64) -> bool {
        self.shared.control.catch_up(known)
    }

    fn reads(&self, query: &Query) -> Option<String> {
        let all = self.view().ok()?.masters.len();
        routing::partitions_read(query, all).map(|read| format!("reads {} of {all} partitions", read.len()))
    }

    fn plans(&self) -> &Plans {
        &self.shared.plans
    }

    fn plan_basis(&self) -> Option<PlanBasis> {
        let database = self.view().ok()?;
        let statistics = self.shared.summaries.version(&database, &self.shared.leaves);
        let scope = format!("{}\n{}", self.user, self.database);
        Some(PlanBasis { scope, definitions: self.shared.control.catalog().version, statistics })
    }

    fn leaves(&self) -> usize {
        self.view().map_or(1, |database| database.spread())
    }

    fn distribute(&self, query: Query) -> Query {
        let net = Net { leaves: self.leaves(), always_shuffle: self.shared.settings.always_shuffle };
        distribute::distribute_over_leaves(query, net)
    }

    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        let once = || self.shared.run(self.view()?, query, None, cancel, progress);
        self.shared.retry_limit.persist(cancel, once)
    }

    fn stream(&self, query: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile> {
        let once = || self.shared.stream((self.view()?, None), query, cancel, progress, take);
        self.shared.retry_limit.persist(cancel, once)
    }

    fn retry_limit(&self) -> RetryLimit {
        self.shared.retry_limit
    }

    fn rows(&self, table: &str) -> Result<Box<dyn Rows>> {
        let open = || {
            let database = self.view()?;
            let def = database.tables.get(&table.to_lowercase()).cloned();
            let def = def.ok_or_else(|| stoa_columnstore::Error::NoSuchTable(table.to_owned()))?;
            if def.reference {
                database.check_held()?;
            }
            Ok((database, def))
        };
        let (database, def) = self.shared.retry_limit.persist(&CancelToken::default(), open)?;
        Ok(Box::new(ClusterRows::begin(database, def, &self.shared, &self.witness)?))
    }

    fn begin(&self) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(ClusterTransaction::new(self.view()?, &self.shared, &self.witness)))
    }

    fn execute_over(&self, query: &Query, table: Table, cancel: &CancelToken) -> Result<QueryResult> {
        let context = self.shared.context(cancel);
        Ok(stoa_exec::execute_with(query, &OneTable(Arc::new(table)), &context, &Progress::default())?)
    }

    /// First in the catalog, then on the leaves. Plans and rows name the version that they are of: where a leaf has another one they are
    /// refused, and made anew.
    fn alter_table(&self, table: &str, change: AlterTable) -> Result<()> {
        if matches!(change, AlterTable::RenameTable(_)) {
            let what = "a table of a cluster cannot be renamed yet: CREATE VIEW gives it another name";
            return Err(Error::Invalid(format!("table '{table}': {what}")));
        }
        let def = existing(self, table)?;
        let (before, def) = (def.version(), self.newest(def.altered(&change)?));
        let definition = Definition::new(def.clone());
        self.shared.control.change(&Command::AlterTable { database: self.database.clone(), before, definition })?;
        self.shared.summaries.forget(&self.database);
        if let Err(error) = self.tell(&def) {
            tracing::warn!(table, %error, "a leaf was not told that a table was altered: it will be when the table is used");
        }
        Ok(())
    }

    fn tell_tables(&self) {
        for def in self.tables() {
            if let Err(error) = self.tell(&def) {
                tracing::debug!(table = def.name, %error, "a leaf could not be told how a table is");
            }
        }
    }

    fn truncate(&self, table: &str, cancel: &CancelToken) -> Result<()> {
        self.shared.retry_limit.persist(cancel, || {
            let def = existing(self, table)?;
            let mut transaction = ClusterTransaction::blind(self.view()?, &self.shared, &self.witness);
            transaction.truncate(&def)?;
            Box::new(transaction).commit(cancel)
        })?;
        self.shared.summaries.forget(&self.database);
        Ok(())
    }

    fn optimize(&self, table: &str, how: Optimize) -> Result<()> {
        let def = existing(self, table)?;
        let how = match how {
            Optimize::Merge => OptimizeHow::Merge,
            Optimize::Full => OptimizeHow::Full,
            Optimize::Flush => OptimizeHow::Flush,
        };
        in_parallel(&self.view()?.leaves, |address| {
            self.shared.leaves.leaf(address)?.optimize(&self.database, &def.name, how).map_err(|e| at(address, e))
        })?;
        Ok(())
    }

    /// Of the masters; of REFERENCE tables, one copy.
    fn merge_status(&self) -> Result<Vec<MergeStatus>> {
        let database = self.view()?;
        let asked = in_parallel(&database.leaves, |address| {
            self.shared.leaves.leaf(address)?.merge_status(&self.database).map_err(|e| at(address, e))
        })?;
        let mut all = Vec::new();
        for (number, (address, partitions)) in database.leaves.iter().zip(asked).enumerate() {
            let shown = |ordinal: u32| match ordinal {
                REFERENCE => number == 0,
                ordinal => database.masters.get(ordinal as usize).is_some_and(|master| master.as_ref() == Some(address)),
            };
            for one in partitions.into_iter().filter(|one| shown(one.ordinal)) {
                all.push(MergeStatus {
                    table: one.table,
                    partition: if one.ordinal == REFERENCE { 0 } else { one.ordinal },
                    segments: one.segments,
                    to_merge: one.to_merge,
                    rows_in_memory: one.rows_in_memory,
                    deleted_rows: one.deleted_rows,
                    state: MergeState::named(&one.state),
                    error: Some(one.error).filter(|error| !error.is_empty()),
                });
            }
        }
        all.retain(|one| database.tables.contains_key(&one.table.to_lowercase()));
        all.sort_by_key(|one| (one.table.to_lowercase(), one.partition));
        Ok(all)
    }

    fn backup(&self, database: Option<&str>, to: &str, anew: bool, cancel: &CancelToken) -> Result<String> {
        let database = database.unwrap_or(&self.database);
        // A leaf that was away when a table was altered may not know it yet.
        Cluster::named(database, &self.user, &self.shared).tell_tables();
        backup::backup(&self.shared, database, to, anew, cancel)
    }

    fn restore(&self, database: Option<&str>, new_name: Option<&str>, from: &str, cancel: &CancelToken) -> Result<String> {
        self.shared.control.restore(database.unwrap_or(&self.database), new_name, from, cancel)
    }
}
