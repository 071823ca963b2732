//! Statements over a [`Store`].
//!
//! A statement goes one way: text, [`stoa_sql::Statement`], plan, optimized and distributed plan, rows. DDL and INSERT end in calls of
//! the store.

mod change;
mod ddl;
mod effect;
mod explain;
mod insert;
mod misfit;
mod open;
mod plans;
mod prepared;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parking_lot::Mutex;
use stoa_exec::{CancelToken, Profile, Progress, QueryResult, TakeResult};
use stoa_plan::{DataType, Node, Phase, Plan, Query, Scan, StatisticsSource, TableStatistics, optimizer};
use stoa_sql::{Catalog, QueryText, SqlError, Statement, TableColumn, TableInfo};

use crate::store::existing;
use crate::{Error, Result, Store};
use open::Open;

pub(crate) use ddl::text_table;
pub use ddl::{definition, sql_type_name};
pub(crate) use effect::Effect;
pub use plans::{PlanBasis, Plans};
pub use prepared::Prepared;

/// What a statement gave.
pub enum Outcome {
    /// Rows.
    Rows {
        /// Names and types of the columns.
        schema: SchemaRef,
        /// The rows, or the first of them.
        batches: Vec<RecordBatch>,
    },
    /// More rows of the last [`Outcome::Rows`].
    More(Vec<RecordBatch>),
    /// A plan, a line an operator and its notes.
    Plan(String),
    /// Nothing but a word for people.
    Done(String),
}

/// Runs statements over a store.
#[derive(Clone)]
pub struct Session {
    store: Arc<dyn Store>,
    /// The transaction that BEGIN opened.
    open: Arc<Mutex<Option<Open>>>,
}

impl Session {
    /// A session over a store.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Session {
        Session { store, open: Arc::default() }
    }

    /// Runs statements in order and hands each one's outcome to `each`, rows as they come; another thread may watch `progress`.
    ///
    /// # Errors
    /// The first error of a statement or of `each`; what ran before it stays done.
    pub fn run<E: From<Error>>(
        &self,
        sql: &str,
        cancel: &CancelToken,
        progress: &Progress,
        each: &mut dyn FnMut(Outcome) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        telling(each, |out| self.run_all(sql, cancel, progress, out))
    }

    fn run_all(&self, sql: &str, cancel: &CancelToken, progress: &Progress, out: &mut Out<'_>) -> Result<()> {
        let basis = self.store.plan_basis();
        if let Some(plan) = basis.and_then(|basis| self.store.plans().get(sql, &basis)) {
            match self.guarded(|| self.rows(&plan, cancel, progress, out)) {
                Err(error) if error.is_altered() => {}
                done => return done,
            }
        }
        let statements = stoa_sql::split(sql)?;
        if let [(Statement::Query(query), _)] = &statements[..] {
            let mut run = || self.rows(&*self.plan_to_keep(query, sql)?, cancel, progress, out);
            return self.planned(cancel, || self.informed(&mut run));
        }
        for (statement, text) in statements {
            self.planned(cancel, || self.anywhere(&statement, &text, cancel, progress, out))?;
        }
        Ok(())
    }

    /// Runs one query.
    ///
    /// # Errors
    /// If the text is not exactly one query, or it fails.
    pub fn query(&self, sql: &str, cancel: &CancelToken) -> Result<QueryResult> {
        match stoa_sql::parse(sql)?.as_slice() {
            [Statement::Query(query)] => {
                self.planned(cancel, || self.store.execute(&self.plan(query)?, cancel, &Progress::default()))
            }
            _ => Err(Error::Invalid("expected exactly one query".into())),
        }
    }

    /// Runs a plan that is neither optimized nor distributed, as clients submit it, and hands its rows to `each`.
    ///
    /// # Errors
    /// Those of the query or of `each`.
    pub fn run_plan<E: From<Error>>(
        &self,
        query: &Query,
        cancel: &CancelToken,
        progress: &Progress,
        each: &mut dyn FnMut(Outcome) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        telling(each, |out| {
            let mut run = || {
                let mut query = query.clone();
                self.check_submitted(&mut query)?;
                self.rows(&self.physical(query)?, cancel, progress, &mut *out)
            };
            self.planned(cancel, || self.informed(&mut run))
        })
    }

    /// A submitted plan says what, not where: its tables are those that are there and may be read.
    fn check_submitted(&self, query: &mut Query) -> Result<()> {
        let mut plans: Vec<&mut Plan> = query.plans_mut();
        while let Some(plan) = plans.pop() {
            let not_whole = match &mut plan.node {
                Node::Scan(scan) => {
                    self.check_scan(scan)?;
                    None
                }
                Node::Exchange { .. } => Some("exchanges"),
                Node::Aggregate(aggregate) if aggregate.phase != Phase::Single => Some("partial aggregates"),
                _ => None,
            };
            if let Some(what) = not_whole {
                let way_out = "leave them out, the coordinator adds its own";
                return Err(Error::Invalid(format!("a plan that is submitted has no {what}: {way_out}")));
            }
            plans.extend(plan.inputs_mut());
        }
        Ok(())
    }

    /// Where the rows of a table are is what its definition says; one of no definition in particular is read as it is now.
    fn check_scan(&self, scan: &mut Scan) -> Result<()> {
        self.store.may_read(&scan.table)?;
        let def = existing(&*self.store, &scan.table)?;
        scan.reference = def.reference;
        scan.shard_key.clone_from(&def.shard_key);
        if scan.revision == 0 {
            scan.revision = def.revision();
        }
        Ok(())
    }

    /// Names of tables and views.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        View(&*self.store).names()
    }

    /// Where the tables are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// A defect in one statement is that statement's error: the process and the others live on, and all they share is immutable.
    fn guarded<T>(&self, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let defect = || stoa_exec::Error::Internal("a defect stopped this query; please report it with its text".into()).into();
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| Err(defect()))
    }

    /// Runs what plans a statement and has no effect if it fails: again when a table is altered under it.
    fn planned<T>(&self, cancel: &CancelToken, mut run: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = self.store.retry_limit().tries();
        loop {
            match self.guarded(&mut run) {
                Err(error) if error.is_altered() => {
                    if tries.after_alter(error, cancel)? {
                        self.store.tell_tables();
                    }
                }
                done => return done,
            }
        }
    }

    /// Runs what leaves the catalog as it is and has no effect if it lacks something there: again if another coordinator had made or
    /// allowed that before. In a transaction it goes by what that has seen.
    pub(crate) fn informed<T>(&self, mut run: impl FnMut() -> Result<T>) -> Result<T> {
        let (known, free) = (self.store.version(), self.open.try_lock().is_some_and(|open| open.is_none()));
        match run() {
            Err(error) if free && error.is_of_catalog() && self.store.catch_up(known) => run(),
            done => done,
        }
    }

    /// Runs a statement here, or where the store says.
    fn anywhere(
        &self,
        statement: &Statement,
        text: &str,
        cancel: &CancelToken,
        progress: &Progress,
        out: &mut Out<'_>,
    ) -> Result<()> {
        self.informed(|| self.store.check(statement))?;
        if !statement.changes_catalog() {
            return self.informed(|| self.execute(statement, cancel, progress, &mut *out));
        }
        if self.open.lock().is_some() {
            let way_out = "COMMIT or ROLLBACK first";
            return Err(Error::Invalid(format!("a transaction is open, and this statement cannot be part of one: {way_out}")));
        }
        match self.store.forward(text, cancel)? {
            Some(outcome) => out(outcome),
            None => self.execute(statement, cancel, progress, out),
        }
    }

    fn execute(&self, statement: &Statement, cancel: &CancelToken, progress: &Progress, out: &mut Out<'_>) -> Result<()> {
        let done = |message: String| Ok(Outcome::Done(message));
        let outcome = match statement {
            Statement::Query(query) => return self.rows(&self.plan(query)?, cancel, progress, out),
            Statement::Explain { query, analyze } => explain::run(self, query, *analyze, cancel),
            Statement::CreateTable(create) => done(ddl::create_table(self, create)?),
            Statement::CreateTableAs { table, query } => done(insert::create_table_as(self, table, query, cancel)?),
            Statement::DropTable { names, if_exists } => done(ddl::drop_tables(self, names, *if_exists)?),
            Statement::CreateView { name, or_replace, query } => done(ddl::create_view(self, name, query, *or_replace)?),
            Statement::DropView { names, if_exists } => done(ddl::drop_views(self, names, *if_exists)?),
            Statement::Insert(insert) => done(insert::insert(self, insert, cancel)?),
            Statement::ShowTables => ddl::show_tables(self),
            Statement::Describe { name } => ddl::describe(self, name),
            Statement::Cluster(statement) => self.store.cluster(statement, cancel),
            Statement::User(statement) => self.store.users(statement),
            Statement::Update(update) => done(change::update(self, update, cancel)?),
            Statement::Delete(delete) => done(change::delete(self, delete, cancel)?),
            Statement::Begin | Statement::Commit | Statement::Rollback => done(open::statement(self, statement, cancel)?),
            Statement::Truncate { table } => done(ddl::truncate(self, table, cancel)?),
            Statement::Optimize { table, how } => done(ddl::optimize(self, table, *how)?),
            Statement::ShowMergeStatus { table } => ddl::show_merge_status(self, table.as_deref()),
            Statement::Backup { database, to, incremental } => {
                done(self.store.backup(database.as_deref(), to, !incremental, cancel)?)
            }
            Statement::Restore { database, new_name, from } => {
                done(self.store.restore(database.as_deref(), new_name.as_deref(), from, cancel)?)
            }
            Statement::Alter(alter) => done(ddl::alter_table(self, alter)?),
        };
        out(outcome?)
    }

    fn rows(&self, plan: &Query, cancel: &CancelToken, progress: &Progress, out: &mut Out<'_>) -> Result<()> {
        stream(out, |take| self.read(plan, cancel, progress, take))
    }

    /// Runs a query in the transaction that is open, or else over what is committed.
    fn read(&self, plan: &Query, cancel: &CancelToken, progress: &Progress, take: &mut TakeResult<'_>) -> Result<Profile> {
        let mut open = self.open.lock();
        match &mut *open {
            Some(open) => open.run(&*self.store, cancel, &mut |transaction| transaction.stream(plan, cancel, progress, take)),
            None => {
                drop(open);
                self.store.stream(plan, cancel, progress, take)
            }
        }
    }

    /// The plan of a query that is all of a text: kept for the next time if it will be right then.
    fn plan_to_keep(&self, query: &QueryText, sql: &str) -> Result<Arc<Query>> {
        let basis = self.store.plan_basis();
        let (bound, timeless) = stoa_sql::bind_query_once(query, &View(&*self.store))?;
        let plan = Arc::new(self.physical(bound)?);
        if let (true, Some(basis)) = (timeless, basis) {
            self.store.plans().put(sql, basis, plan.clone());
        }
        Ok(plan)
    }

    /// The optimized and distributed plan of a query.
    fn plan(&self, query: &QueryText) -> Result<Query> {
        self.physical(stoa_sql::bind_query(query, &View(&*self.store))?)
    }

    /// Optimizes and distributes a bound query.
    fn physical(&self, query: Query) -> Result<Query> {
        let query = optimizer::optimize(query, &View(&*self.store), self.store.leaves())?;
        Ok(self.store.distribute(query))
    }
}

/// Takes what a statement gave.
type Out<'a> = dyn FnMut(Outcome) -> Result<()> + 'a;

/// Runs what hands outcomes on: an error of who takes them ends it, and is what is told.
fn telling<E: From<Error>>(
    each: &mut dyn FnMut(Outcome) -> std::result::Result<(), E>,
    run: impl FnOnce(&mut Out<'_>) -> Result<()>,
) -> std::result::Result<(), E> {
    let mut refused = None;
    let ran = run(&mut |outcome| {
        each(outcome).map_err(|error| {
            refused = Some(error);
            stoa_exec::Error::Cancelled.into()
        })
    });
    match refused {
        Some(error) => Err(error),
        None => Ok(ran?),
    }
}

/// Runs a query whose rows are handed on as they come.
fn stream<T>(out: &mut Out<'_>, run: impl FnOnce(&mut TakeResult<'_>) -> Result<T>) -> Result<()> {
    let mut begun = false;
    let ran = run(&mut |schema, batches| {
        let first = !std::mem::replace(&mut begun, true);
        let outcome = if first { Outcome::Rows { schema: schema.clone(), batches } } else { Outcome::More(batches) };
        // Who refused knows why.
        out(outcome).map_err(|_| stoa_exec::Error::Cancelled)
    });
    ran.map(drop)
}

/// A store as the front end and the optimizer see it.
struct View<'a>(&'a dyn Store);

impl Catalog for View<'_> {
    fn table(&self, name: &str) -> Option<TableInfo> {
        let def = self.0.table(name)?;
        let columns = def.columns.iter().enumerate().map(|(i, c)| TableColumn {
            name: c.name.clone(),
            // The catalog only ever stores types that came from this mapping.
            ty: DataType::from_arrow(&c.ty).unwrap_or(DataType::Null),
            nullable: c.nullable,
            default: def.default_value(i).ok().flatten(),
        });
        Some(TableInfo {
            name: def.name.clone(),
            columns: columns.collect(),
            shard_key: def.shard_key.clone(),
            reference: def.reference,
            revision: def.revision(),
        })
    }

    fn view(&self, name: &str) -> Option<String> {
        self.0.views().into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, sql)| sql)
    }

    fn names(&self) -> Vec<String> {
        let tables = self.0.tables().into_iter().map(|def| def.name.clone());
        let mut names: Vec<String> = tables.chain(self.0.views().into_iter().map(|(name, _)| name)).collect();
        names.sort();
        names
    }

    fn may_read(&self, name: &str) -> std::result::Result<(), SqlError> {
        self.0.may_read(name).map_err(|denied| SqlError::new(denied.to_string()))
    }
}

impl StatisticsSource for View<'_> {
    fn table(&self, name: &str) -> Option<TableStatistics> {
        self.0.statistics(name)
    }
}
