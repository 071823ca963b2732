//! Leaves elsewhere, as the [`LeafService`] that they are.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use capnp::capability::FromClientHook;
use futures_util::future::Either;
use stoa_schema::common_capnp::row_sink;
use stoa_schema::leaf_capnp::{decision, entered, gate, leaf, load, loading, received, statistics, transaction_begun};

use crate::backup::{BackupPlace, BackupSetup, LeafBackup};
use crate::backup_client;
use crate::client::{Connection, Connections, LONG, Line, Remote, SHORT, answer, connect, say_hello};
use crate::done;
use crate::leaf::{
    Change, DatabaseStatus, Delivery, FragmentRequest, InDoubt, LeafQuery, LeafService, LeafTransaction, Load, MergeStatus,
    OptimizeHow, QuerySetup, TransactionSetup,
};
use crate::query_client::{RemoteQuery, read_ran, start, write_fragment, write_setup};
use crate::replication::{FedCopy, Holdings, Orders, Position, Report};
use crate::replication_client;
use crate::running::within;
use crate::transaction_client::{self, RemoteTransaction};
use crate::watch::Watch;
use crate::{ChunkSink, Failure, FailureKind, Io, Result, RowOrigin, Running, Security, origin, pump};

/// The minor version from which on leaves know the call that is a whole query.
const QUERY: u16 = 1;
/// Leaves may always be silent for so long.
const LEAST_SILENCE: Duration = Duration::from_millis(100);

/// Connections to leaves, made when they are first needed and again after they broke.
pub struct LeafPool {
    connections: Connections<OpenLeaf>,
    silence: Duration,
}

impl LeafPool {
    /// An empty pool.
    #[must_use]
    pub fn new(io: Io, security: Security) -> LeafPool {
        LeafPool { connections: Connections::new(io, security, SHORT), silence: SHORT }
    }

    /// The same, for leaves that count as hung when they say nothing for so long: what runs on them then fails. It is no limit on how
    /// long a query takes; leaves are asked beside it.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> LeafPool {
        let silence = silence.max(LEAST_SILENCE);
        LeafPool { connections: self.connections.with_patience(silence), silence }
    }

    /// Gives up the leaf at an address: what waits for it now fails, and may be tried again elsewhere.
    pub fn hang_up(&self, address: &str) {
        self.connections.hang_up(address);
    }

    /// The leaf at an address.
    ///
    /// # Errors
    /// If it cannot be reached, speaks another version, or has another secret.
    pub fn leaf(&self, address: &str) -> Result<Arc<dyn LeafService>> {
        Ok(Arc::new(RemoteLeaf { open: self.connections.get(address)?, silence: self.silence }))
    }
}

/// A leaf, and how long it may be silent.
struct RemoteLeaf {
    open: Arc<OpenLeaf>,
    silence: Duration,
}

struct OpenLeaf {
    remote: Remote<leaf::Client>,
    line: Arc<Line>,
    /// Its minor version.
    minor: u16,
}

impl Connection for OpenLeaf {
    fn connect(io: &Io, address: &str, security: &Security, patience: Duration) -> Result<OpenLeaf> {
        let (own, to, security) = (io.clone(), address.to_owned(), security.clone());
        io.call(move || async move {
            let line = Arc::new(Line::default());
            let gate: gate::Client = connect(&to, &security, line.clone(), false).await?;
            let mut request = gate.enter_request();
            say_hello(request.get().init_hello(), &security);
            let response = answer(&to, &security, patience, request.send().promise).await?;
            let entered = response.get()?.get_result()?;
            let leaf = match entered.which().map_err(capnp::Error::from)? {
                entered::Leaf(leaf) => leaf?,
                entered::Failure(failure) => return Err(Failure::read(failure?)?),
            };
            let remote = Remote::new(own, leaf).over(line.clone());
            Ok(OpenLeaf { remote, line, minor: entered.get_minor() })
        })
    }

    fn line(&self) -> &Line {
        &self.line
    }
}

impl RemoteLeaf {
    /// What looks after a call that may take long.
    fn watch(&self) -> impl FnOnce(leaf::Client) -> Watch + Send + 'static {
        let (line, silence) = (self.open.line.clone(), self.silence);
        move |leaf| Watch::new(leaf, line, silence)
    }
}

impl LeafService for RemoteLeaf {
    fn status(&self) -> Result<Vec<DatabaseStatus>> {
        self.open.remote.call(self.silence, |leaf| async move {
            let response = leaf.status_request().send().promise.await?;
            let mut databases = Vec::new();
            for database in response.get()?.get_status()?.get_databases()? {
                databases.push(DatabaseStatus {
                    name: database.get_name()?.to_string().map_err(capnp::Error::from)?,
                    ordinals: database.get_ordinals()?.iter().collect(),
                    bytes: database.get_bytes(),
                });
            }
            Ok(databases)
        })
    }

    fn begin(&self, setup: QuerySetup) -> Result<Arc<dyn LeafQuery>> {
        let (io, watch, number) = (self.open.remote.io().clone(), self.watch(), setup.query);
        let query = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.begin_request();
            write_setup(&setup, request.get().init_setup())?;
            let response = request.send().promise.await?;
            RemoteQuery::begun(response.get()?.get_result()?, number, io, watch(leaf))
        })?;
        Ok(Arc::new(query))
    }

    fn query(&self, setup: QuerySetup, fragment: FragmentRequest) -> Result<Running> {
        if self.open.minor < QUERY {
            return Ok(self.begin(setup)?.start(fragment));
        }
        let watch = self.watch();
        Ok(start(&self.open.remote, move |leaf, sink, heard| async move {
            let mut request = leaf.query_request();
            write_setup(&setup, request.get().init_setup())?;
            write_fragment(&fragment, request.get().init_fragment())?;
            request.get().set_sink(sink);
            let ran = async {
                let response = request.send().promise.await?;
                let ran = response.get()?;
                Ok((read_ran(ran.get_result()?)?, ran.get_rows()?.to_vec()))
            };
            watch(leaf).unless_silent_about(setup.query, &heard, ran).await
        }))
    }

    fn progress(&self, query: u64) -> Result<(u64, u64)> {
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.progress_request();
            request.get().set_query(query);
            let response = request.send().promise.await?;
            let progress = response.get()?;
            Ok((progress.get_done(), progress.get_total()))
        })
    }

    fn receive(&self, query: u64, number: u32) -> Result<Box<dyn Delivery>> {
        let (queue, chunks) = pump::queue();
        let (silence, together) = (self.silence, self.open.minor >= QUERY);
        let sent = self.open.remote.start(move |leaf| async move {
            let mut request = leaf.receive_request();
            request.get().set_query(query);
            request.get().set_number(number);
            // The rows follow at once, to the sink that the answer will have: the first pointer of `Received`, the first of the results.
            let call = request.hook.send();
            let sink = row_sink::Client::new(call.pipeline.get_pointer_field(0).get_pointer_field(0).as_cap());
            let rows = std::pin::pin!(pump::deliver(chunks, &sink, together));
            let taken = std::pin::pin!(taken(call.promise, silence));
            match futures_util::future::select(taken, rows).await {
                Either::Left((taken, rows)) => {
                    taken?;
                    rows.await
                }
                // What became of the call tells more than what became of the rows.
                Either::Right((rows, taken)) => taken.await.and(rows),
            }
        });
        Ok(Box::new(RemoteDelivery { queue: Some(queue), sent: Some(sent) }))
    }

    fn change(&self, change: Change) -> Result<()> {
        self.open.remote.call(LONG, move |leaf| async move {
            let mut request = leaf.change_request();
            write_change(&change, request.get().init_change())?;
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn load(&self, database: &str, table: &str, ordinal: u32) -> Result<Box<dyn Load>> {
        let (database, table, io) = (database.to_owned(), table.to_owned(), self.open.remote.io().clone());
        let watch = self.watch();
        let load = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.load_request();
            request.get().set_database(&database);
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            RemoteLoad::begun(request.send().promise.await?.get()?.get_result()?, io, watch(leaf))
        })?;
        Ok(Box::new(load))
    }

    fn statistics(&self, database: &str, ordinals: &[u32]) -> Result<Vec<u8>> {
        let (database, ordinals) = (database.to_owned(), ordinals.to_vec());
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.statistics_request();
            request.get().set_database(&database);
            request.get().set_ordinals(&ordinals[..])?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                statistics::Tables(tables) => Ok(tables?.to_vec()),
                statistics::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn begin_transaction(&self, setup: TransactionSetup) -> Result<Arc<dyn LeafTransaction>> {
        let (io, watch, silence) = (self.open.remote.io().clone(), self.watch(), self.silence);
        let transaction = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.begin_transaction_request();
            request.get().set_blind(setup.blind);
            transaction_client::write_setup(&setup, request.get().init_setup())?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                transaction_begun::Transaction(transaction) => Ok(RemoteTransaction::new(io, transaction?, watch(leaf), silence)),
                transaction_begun::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Arc::new(transaction))
    }

    fn resolve(&self, database: &str, ordinal: u32, transaction: u64, commit: Option<u64>) -> Result<()> {
        let database = database.to_owned();
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.resolve_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            request.get().set_transaction(transaction);
            request.get().set_commit(commit.is_some());
            request.get().set_moment(commit.unwrap_or(0));
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn outcome(&self, database: &str, ordinal: u32, transaction: u64) -> Result<Option<u64>> {
        let database = database.to_owned();
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.outcome_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            request.get().set_transaction(transaction);
            let response = request.send().promise.await?;
            let decision = response.get()?.get_result()?;
            match decision.which().map_err(capnp::Error::from)? {
                decision::Commit(commit) => Ok(commit.then_some(decision.get_moment())),
                decision::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })
    }

    fn forget(&self, database: &str, ordinal: u32, transactions: &[u64]) -> Result<()> {
        let (database, transactions) = (database.to_owned(), transactions.to_vec());
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.forget_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            request.get().set_transactions(&transactions[..])?;
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn in_doubt(&self) -> Result<Vec<InDoubt>> {
        self.open.remote.call(self.silence, |leaf| async move {
            let response = leaf.in_doubt_request().send().promise.await?;
            Ok(response.get()?.get_transactions()?.iter().map(transaction_client::read_in_doubt).collect::<capnp::Result<_>>()?)
        })
    }

    fn optimize(&self, database: &str, table: &str, how: OptimizeHow) -> Result<()> {
        let (database, table) = (database.to_owned(), table.to_owned());
        self.open.remote.call(LONG, move |leaf| async move {
            let mut request = leaf.optimize_request();
            request.get().set_database(&database);
            request.get().set_table(&table);
            request.get().set_how(match how {
                OptimizeHow::Merge => stoa_schema::leaf_capnp::OptimizeHow::Merge,
                OptimizeHow::Full => stoa_schema::leaf_capnp::OptimizeHow::Full,
                OptimizeHow::Flush => stoa_schema::leaf_capnp::OptimizeHow::Flush,
            });
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn merge_status(&self, database: &str) -> Result<Vec<MergeStatus>> {
        let database = database.to_owned();
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.merge_status_request();
            request.get().set_database(&database);
            let response = request.send().promise.await?;
            transaction_client::read_merge_status(response.get()?.get_result()?)
        })
    }

    fn heartbeat(&self, orders: &Arc<Orders>) -> Result<Report> {
        let orders = orders.clone();
        self.open.remote.call(self.silence, move |leaf| replication_client::beat(leaf, orders))
    }

    fn feed(&self, database: &str, ordinal: u32, term: u64) -> Result<(Arc<dyn FedCopy>, Position)> {
        let (io, watch, which) = (self.open.remote.io().clone(), self.watch(), (database.to_owned(), ordinal, term));
        self.open.remote.call(self.silence, move |leaf| replication_client::feed(io, leaf.clone(), watch(leaf), which))
    }

    fn drop_partition(&self, database: &str, ordinal: u32) -> Result<()> {
        let database = database.to_owned();
        self.open.remote.call(LONG, move |leaf| async move {
            let mut request = leaf.drop_partition_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn backup(&self, setup: BackupSetup) -> Result<Arc<dyn LeafBackup>> {
        let (io, watch, silence) = (self.open.remote.io().clone(), self.watch(), self.silence);
        self.open.remote.call(silence, move |leaf| backup_client::begin(io, leaf.clone(), watch(leaf), silence, setup))
    }

    fn restore(&self, database: &str, ordinal: u32, from: &BackupPlace) -> Result<()> {
        let (watch, which, from) = (self.watch(), (database.to_owned(), ordinal), from.clone());
        let restore = move |leaf: leaf::Client| backup_client::restore(leaf.clone(), watch(leaf), which, from);
        self.open.remote.call(backup_client::RESTORE, restore)
    }

    fn holdings(&self) -> Result<Holdings> {
        self.open.remote.call(SHORT, replication_client::holdings)
    }
}

/// Whether a leaf takes rows.
async fn taken(
    answer: impl Future<Output = capnp::Result<capnp::capability::Response<capnp::any_pointer::Owned>>>,
    silence: Duration,
) -> Result<()> {
    let late = |_| Failure::new(FailureKind::Retryable, format!("no answer within {silence:?}"));
    let response = tokio::time::timeout(silence, answer).await.map_err(late)??;
    let results: leaf::receive_results::Reader<'_> = response.get()?.get_as()?;
    match results.get_result()?.which().map_err(capnp::Error::from)? {
        received::Sink(_) => Ok(()),
        received::Failure(failure) => Err(Failure::read(failure?)?),
    }
}

/// Chunks to another leaf: a task sends them while the thread makes the next.
struct RemoteDelivery {
    queue: Option<pump::QueueSink>,
    sent: Option<tokio::sync::oneshot::Receiver<Result<()>>>,
}

impl RemoteDelivery {
    fn outcome(&mut self) -> Result<()> {
        self.queue = None;
        let broke = || Failure::new(FailureKind::Retryable, "the connection to another leaf broke");
        let mut sent = self.sent.take().ok_or_else(broke)?;
        let late = || Err(Failure::new(FailureKind::Retryable, "another leaf does not take its rows"));
        within(LONG, |cx| Pin::new(&mut sent).poll(cx)).map_or_else(late, |sent| sent.unwrap_or_else(|_| Err(broke())))
    }
}

impl ChunkSink for RemoteDelivery {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        let queued = self.queue.as_mut().is_some_and(|queue| queue.write(chunk).is_ok());
        // A task that takes no more has ended, and knows why.
        if queued { Ok(()) } else { self.outcome().and(Err(Failure::cancelled())) }
    }
}

impl Delivery for RemoteDelivery {
    fn finish(&mut self) -> Result<()> {
        self.outcome()
    }
}

pub(crate) struct RemoteLoad {
    remote: Remote<(load::Client, Watch)>,
}

impl RemoteLoad {
    /// Call it on the I/O thread.
    pub fn begun(from: loading::Reader<'_>, io: Io, watch: Watch) -> Result<RemoteLoad> {
        match from.which().map_err(capnp::Error::from)? {
            loading::Load(load) => Ok(RemoteLoad { remote: Remote::new(io, (load?, watch)) }),
            loading::Failure(failure) => Err(Failure::read(failure?)?),
        }
    }

    /// Makes a call; a leaf that says nothing meanwhile counts as hung.
    fn call<F: Future<Output = Result<()>> + 'static>(
        &self,
        call: impl FnOnce(load::Client) -> F + Send + 'static,
    ) -> Result<()> {
        self.remote.call(LONG, move |(load, watch)| async move { watch.unless_silent("it takes rows", call(load)).await })
    }
}

impl Load for RemoteLoad {
    fn write(&mut self, chunk: Vec<u8>, from: Option<RowOrigin>) -> Result<()> {
        self.call(move |load| async move {
            let mut request = load.write_request();
            request.get().set_chunk(&chunk);
            if let Some(from) = &from {
                origin::write(from, request.get().init_origin())?;
            }
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn prepare(&mut self) -> Result<()> {
        self.call(|load| async move {
            let response = load.prepare_request().send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn commit(&mut self) -> Result<()> {
        self.call(|load| async move {
            let response = load.commit_request().send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }
}

fn write_change(change: &Change, to: stoa_schema::leaf_capnp::change::Builder<'_>) -> capnp::Result<()> {
    let mut to = to;
    match change {
        Change::CreatePartitions { database, ordinals } => {
            let mut to = to.init_create_partitions();
            to.set_database(database);
            to.set_ordinals(&ordinals[..])?;
        }
        Change::DropDatabase(name) => to.set_drop_database(name),
        Change::CreateTable { database, definition } => {
            let mut to = to.init_create_table();
            to.set_database(database);
            to.set_definition(definition);
        }
        Change::DropTable { database, table } => {
            let mut to = to.init_drop_table();
            to.set_database(database);
            to.set_table(table);
        }
        Change::TruncateTable { database, table } => {
            let mut to = to.init_truncate_table();
            to.set_database(database);
            to.set_table(table);
        }
        Change::AlterTable { database, definition } => {
            let mut to = to.init_alter_table();
            to.set_database(database);
            to.set_definition(definition);
        }
    }
    Ok(())
}
