//! Leaves elsewhere as a [`Store`].
//!
//! A statement sees the database as the catalog had it when it asked: which leaf is the master of each partition, which leaves there
//! are for REFERENCE tables. A query begins on the leaves that it needs and ends there when it is dropped here.

mod fragments;
mod load;
mod routing;
mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stoa_columnstore::{AlterTable, MergeStatus, Table, TableDef, encode_definition};
use stoa_exec::{Admission, CancelToken, Progress, QueryContext, QueryResult, Settings, execute_on_leaves};
use stoa_plan::distribute::{self, Net};
use stoa_plan::{Query, TableStatistics};
use stoa_rpc::LeafPool;
use stoa_rpc::leaf::Change;
use stoa_rpc::peer::ForLeader;
use stoa_sql::{ClusterStatement, Optimize, Statement, UserStatement};

use crate::access::Asker;
use crate::catalog::{Command, Definition, Privilege};
use crate::session::{PlanBasis, Plans};
use crate::{Control, Error, Outcome, Result, Rows, Store, Transaction};
use fragments::QueryOnLeaves;
use load::ClusterRows;
pub use statistics::Summaries;

/// What the catalog knows of one database at one moment.
#[derive(Clone, Debug, Default)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The address of the master of each partition, by ordinal; `None` where it is offline.
    pub masters: Vec<Option<String>>,
    /// The addresses of all leaves that are online: each has a copy of the REFERENCE tables.
    pub leaves: Vec<String>,
    /// Tables, by name in lower case.
    pub tables: BTreeMap<String, Arc<TableDef>>,
    /// Views, by name in lower case: name as written and text.
    pub views: BTreeMap<String, (String, String)>,
    /// The partitions that a query reads; `None`: all.
    pub read: Option<BTreeSet<usize>>,
}

impl Database {
    /// The database for a query that reads these partitions alone.
    fn only(&self, read: &BTreeSet<usize>) -> Database {
        Database { read: Some(read.clone()), ..self.clone() }
    }

    /// The leaves that are masters, with the ordinals of each, in the order of the addresses.
    ///
    /// # Errors
    /// If a partition has no master that is online.
    pub fn placement(&self) -> Result<BTreeMap<String, Vec<u32>>> {
        let mut leaves: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let all = (0u32..).zip(&self.masters);
        for (ordinal, master) in
            all.filter(|(ordinal, _)| self.read.as_ref().is_none_or(|read| read.contains(&(*ordinal as usize))))
        {
            let master = master.as_ref().ok_or_else(|| {
                Error::Invalid(format!("partition {ordinal} of database '{}' is offline: no leaf that has it is", self.name))
            })?;
            leaves.entry(master.clone()).or_default().push(ordinal);
        }
        Ok(leaves)
    }
}

/// A database of a cluster.
pub struct Cluster {
    database: String,
    user: String,
    shared: Shared,
}

/// Numbers for queries, unique among the coordinators of a cluster as long as their nodes' numbers are.
pub struct QueryNumbers(AtomicU64);

impl Default for QueryNumbers {
    /// Numbers of a coordinator that starts now. Two starts never share one: the time of the start is in it.
    fn default() -> QueryNumbers {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        QueryNumbers(AtomicU64::new((since.as_millis() as u64 & 0xffff_ffff) << 24))
    }
}

impl QueryNumbers {
    fn next(&self, node: u64) -> u64 {
        (node & 0xff) << 56 | self.0.fetch_add(1, Ordering::Relaxed) & (u64::MAX >> 8)
    }
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
        Cluster { database: database.to_lowercase(), user: user.to_owned(), shared: shared.clone() }
    }

    pub(crate) fn asker(&self) -> Asker<'_> {
        Asker { catalog: self.shared.control.catalog(), user: &self.user, database: &self.database }
    }

    fn view(&self) -> Result<Arc<Database>> {
        self.shared.control.database(&self.database)
    }

    /// Makes a table on the leaves, where nobody can ask for it until the catalog has it: a try that fails may be repeated.
    fn create_on_leaves(&self, def: &TableDef) -> Result<Arc<Database>> {
        let database = self.view()?;
        let key = def.name.to_lowercase();
        if database.tables.contains_key(&key) || database.views.contains_key(&key) {
            return Err(stoa_columnstore::Error::AlreadyExists(def.name.clone()).into());
        }
        // A table of an earlier try may have another definition.
        self.on_all_leaves(&database, &Change::DropTable { database: self.database.clone(), table: def.name.clone() })?;
        let definition = encode_definition(def);
        self.on_all_leaves(&database, &Change::CreateTable { database: self.database.clone(), definition })?;
        Ok(database)
    }

    fn on_all_leaves(&self, database: &Database, change: &Change) -> Result<()> {
        for address in &database.leaves {
            self.shared.leaves.leaf(address)?.change(change.clone())?;
        }
        Ok(())
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
        Some(self.shared.summaries.get(&database, &self.shared.leaves).ok()?.get(&table.to_lowercase())?.statistics.clone())
    }

    fn bytes(&self, table: &str) -> u64 {
        let summaries = self.view().and_then(|database| self.shared.summaries.get(&database, &self.shared.leaves));
        summaries.ok().and_then(|all| all.get(&table.to_lowercase()).map(|s| s.bytes)).unwrap_or(0)
    }

    fn create_table(&self, def: TableDef) -> Result<()> {
        let _claim = self.shared.control.claim(&self.database, &def.name)?;
        self.create_on_leaves(&def)?;
        self.shared.control.change(&Command::CreateTable { database: self.database.clone(), definition: Definition::new(def) })
    }

    fn create_table_rows(&self, def: TableDef) -> Result<Box<dyn Rows>> {
        let claim = self.shared.control.claim(&self.database, &def.name)?;
        let database = self.create_on_leaves(&def)?;
        let rows = ClusterRows::begin(&database, Arc::new(def), &self.shared.leaves, self.shared.summaries.clone())?;
        Ok(Box::new(rows.creating(self.shared.control.clone(), claim)))
    }

    /// First in the catalog, then on the leaves: what stays there if that fails is never asked for again.
    fn drop_table(&self, name: &str, if_exists: bool) -> Result<()> {
        if self.table(name).is_none() {
            return if if_exists { Ok(()) } else { Err(stoa_columnstore::Error::NoSuchTable(name.to_owned()).into()) };
        }
        self.shared.control.change(&Command::DropTable { database: self.database.clone(), table: name.to_owned() })?;
        self.shared.summaries.forget(&self.database);
        self.on_all_leaves(&*self.view()?, &Change::DropTable { database: self.database.clone(), table: name.to_owned() })
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

    fn cluster(&self, statement: &ClusterStatement) -> Result<Outcome> {
        self.shared.control.statement(statement, &self.shared, &self.asker())
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
        Ok(self.shared.control.forward(&statement, cancel)?.map(Outcome::Done))
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
        let statistics = self.shared.summaries.version(&database, &self.shared.leaves).ok()?;
        let scope = format!("{}\n{}", self.user, self.database);
        Some(PlanBasis { scope, definitions: self.shared.control.catalog().version, statistics })
    }

    fn distribute(&self, query: Query) -> Query {
        let leaves = self.view().and_then(|database| database.placement()).map_or(1, |leaves| leaves.len());
        let net = Net { leaves, always_shuffle: self.shared.settings.always_shuffle };
        distribute::distribute_over_leaves(query, net)
    }

    fn execute(&self, query: &Query, cancel: &CancelToken, progress: &Progress) -> Result<QueryResult> {
        let _pass = self.shared.admission.enter(cancel)?;
        let context = QueryContext {
            settings: self.shared.settings.clone(),
            cancel: cancel.clone(),
            memory: self.shared.admission.memory().part(self.shared.query_memory),
        };
        let mut database = self.view()?;
        if let Some(read) = routing::partitions_read(query, database.masters.len()) {
            database = Arc::new(database.only(&read));
        }
        let number = self.shared.numbers.next(self.shared.control.node());
        let leaves = QueryOnLeaves::new(database, self.shared.leaves.clone(), number);
        let result = execute_on_leaves(query, &leaves, &context, progress);
        // The leaves log the same number.
        match &result {
            Ok(result) => tracing::debug!(query = number, wall = ?result.profile.wall, "query done"),
            Err(error) => tracing::debug!(query = number, %error, "query failed"),
        }
        Ok(result?)
    }

    fn rows(&self, table: &str) -> Result<Box<dyn Rows>> {
        let database = self.view()?;
        let def = database.tables.get(&table.to_lowercase()).cloned();
        let def = def.ok_or_else(|| stoa_columnstore::Error::NoSuchTable(table.to_owned()))?;
        Ok(Box::new(ClusterRows::begin(&database, def, &self.shared.leaves, self.shared.summaries.clone())?))
    }

    fn begin(&self) -> Result<Box<dyn Transaction>> {
        Err(unsupported("a transaction"))
    }

    fn execute_over(&self, _query: &Query, _table: Table, _cancel: &CancelToken) -> Result<QueryResult> {
        Err(unsupported("this statement"))
    }

    fn alter_table(&self, _table: &str, _change: AlterTable) -> Result<()> {
        Err(unsupported("ALTER TABLE"))
    }

    fn truncate(&self, _table: &str) -> Result<()> {
        Err(unsupported("TRUNCATE"))
    }

    fn optimize(&self, _table: &str, _how: Optimize) -> Result<()> {
        Err(unsupported("OPTIMIZE TABLE"))
    }

    fn merge_status(&self) -> Result<Vec<MergeStatus>> {
        Err(unsupported("SHOW COLUMNAR MERGE STATUS"))
    }

    fn database(&self) -> Option<String> {
        Some(self.database.clone())
    }

    /// Rows go to segments on the leaves.
    fn insert_rows(&self) -> usize {
        0
    }
}

fn unsupported(what: &str) -> Error {
    Error::Invalid(format!("{what} is not supported on a cluster yet"))
}
