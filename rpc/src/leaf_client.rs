//! Leaves elsewhere, as the [`LeafService`] that they are.

use std::sync::Arc;
use std::time::Duration;

use capnp_rpc::new_client;
use stoa_schema::common_capnp::{node_profile, row_sink};
use stoa_schema::leaf_capnp::{
    begun, decision, entered, fragment, gate, leaf, load, loading, query, ran, received, statistics, transaction_begun,
};

use crate::backup::{BackupPlace, BackupSetup, LeafBackup};
use crate::backup_client;
use crate::client::{Connection, Connections, LONG, Line, Remote, SHORT, answer, connect, say_hello};
use crate::done;
use crate::leaf::{
    Change, DatabaseStatus, Delivery, FilterMembers, FragmentRequest, InDoubt, LeafQuery, LeafService, LeafTransaction, Load,
    MergeStatus, NodeProfile, OptimizeHow, QuerySetup, RowDestination, RunProfile, TransactionSetup,
};
use crate::replication::{FedCopy, Holdings, Orders, Position, Report};
use crate::replication_client;
use crate::transaction_client::{self, RemoteTransaction};
use crate::{ChunkSink, Failure, FailureKind, Io, Result, Security, pump};

/// How long a call may take to learn that its connection has ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
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
        LeafPool { connections: Connections::new(io, security), silence: SHORT }
    }

    /// The same, for leaves that count as hung when they say nothing for so long: what runs on them then fails. It is no limit on how
    /// long a query takes; leaves are asked beside it.
    #[must_use]
    pub fn with_silence(self, silence: Duration) -> LeafPool {
        LeafPool { silence: silence.max(LEAST_SILENCE), ..self }
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
}

impl Connection for OpenLeaf {
    fn connect(io: &Io, address: &str, security: &Security) -> Result<OpenLeaf> {
        let (own, to, security) = (io.clone(), address.to_owned(), security.clone());
        io.call(move || async move {
            let line = Arc::new(Line::default());
            let gate: gate::Client = connect(&to, &security, line.clone()).await?;
            let mut request = gate.enter_request();
            say_hello(request.get().init_hello(), &security);
            let response = answer(&to, &security, request.send().promise).await?;
            let leaf = match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                entered::Leaf(leaf) => leaf?,
                entered::Failure(failure) => return Err(Failure::read(failure?)?),
            };
            Ok(OpenLeaf { remote: Remote::new(own, leaf), line })
        })
    }

    fn line(&self) -> &Line {
        &self.line
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
        let (io, silence) = (self.open.remote.io().clone(), self.silence);
        let query = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.begin_request();
            let mut to = request.get().init_setup();
            to.set_query(setup.query);
            to.set_database(&setup.database);
            to.set_address(&setup.address);
            to.reborrow().set_ordinals(&setup.ordinals[..])?;
            let response = request.send().promise.await?;
            RemoteQuery::begun(response.get()?.get_result()?, io, leaf, silence)
        })?;
        Ok(Arc::new(query))
    }

    fn receive(&self, query: u64, number: u32) -> Result<Box<dyn Delivery>> {
        let io = self.open.remote.io().clone();
        let delivery = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.receive_request();
            request.get().set_query(query);
            request.get().set_number(number);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                received::Sink(sink) => Ok(RemoteDelivery::start(io, sink?)),
                received::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Box::new(delivery))
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
        let load = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.load_request();
            request.get().set_database(&database);
            request.get().set_table(&table);
            request.get().set_ordinal(ordinal);
            RemoteLoad::begun(request.send().promise.await?.get()?.get_result()?, io)
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
        let (io, silence) = (self.open.remote.io().clone(), self.silence);
        let transaction = self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.begin_transaction_request();
            request.get().set_blind(setup.blind);
            transaction_client::write_setup(&setup, request.get().init_setup())?;
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                transaction_begun::Transaction(transaction) => Ok(RemoteTransaction::new(io, transaction?, leaf, silence)),
                transaction_begun::Failure(failure) => Err(Failure::read(failure?)?),
            }
        })?;
        Ok(Arc::new(transaction))
    }

    fn resolve(&self, database: &str, ordinal: u32, transaction: u64, commit: bool) -> Result<()> {
        let database = database.to_owned();
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.resolve_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            request.get().set_transaction(transaction);
            request.get().set_commit(commit);
            done::read(request.send().promise.await?.get()?.get_result()?)
        })
    }

    fn outcome(&self, database: &str, ordinal: u32, transaction: u64) -> Result<bool> {
        let database = database.to_owned();
        self.open.remote.call(self.silence, move |leaf| async move {
            let mut request = leaf.outcome_request();
            request.get().set_database(&database);
            request.get().set_ordinal(ordinal);
            request.get().set_transaction(transaction);
            let response = request.send().promise.await?;
            match response.get()?.get_result()?.which().map_err(capnp::Error::from)? {
                decision::Commit(commit) => Ok(commit),
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
        let (io, silence, which) = (self.open.remote.io().clone(), self.silence, (database.to_owned(), ordinal, term));
        self.open.remote.call(silence, move |leaf| replication_client::feed(io, leaf, silence, which))
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
        let (io, silence) = (self.open.remote.io().clone(), self.silence);
        self.open.remote.call(silence, move |leaf| backup_client::begin(io, leaf, silence, setup))
    }

    fn restore(&self, database: &str, ordinal: u32, from: &BackupPlace) -> Result<()> {
        let (silence, which, from) = (self.silence, (database.to_owned(), ordinal), from.clone());
        self.open.remote.call(backup_client::RESTORE, move |leaf| backup_client::restore(leaf, silence, which, from))
    }

    fn holdings(&self) -> Result<Holdings> {
        self.open.remote.call(SHORT, replication_client::holdings)
    }
}

pub(crate) struct RemoteQuery {
    /// The query, and the leaf that runs it.
    remote: Remote<(query::Client, leaf::Client)>,
    silence: Duration,
}

impl RemoteQuery {
    /// The query that began on a leaf, or why it did not; call it on the I/O thread.
    pub(crate) fn begun(from: begun::Reader<'_>, io: Io, leaf: leaf::Client, silence: Duration) -> Result<RemoteQuery> {
        match from.which().map_err(capnp::Error::from)? {
            begun::Query(query) => Ok(RemoteQuery { remote: Remote::new(io, (query?, leaf)), silence }),
            begun::Failure(failure) => Err(Failure::read(failure?)?),
        }
    }
}

impl LeafQuery for RemoteQuery {
    fn run(&self, fragment: FragmentRequest, sink: &mut dyn ChunkSink) -> Result<RunProfile> {
        let (server, chunks) = pump::sink_queue();
        let silence = self.silence;
        let outcome = self.remote.start(move |(query, leaf)| async move {
            let mut request = query.run_request();
            write_fragment(&fragment, request.get().init_fragment())?;
            let sink: row_sink::Client = new_client(server);
            request.get().set_sink(sink);
            let sent = request.send();
            let response = tokio::select! {
                response = sent.promise => response?,
                () = silent(&leaf, silence) => {
                    let why = format!("it runs a part of the query and has said nothing for {silence:?}; try again");
                    return Err(Failure::new(FailureKind::Retryable, why));
                }
            };
            read_ran(response.get()?.get_result()?)
        });
        pump::drain(self.remote.io(), chunks, outcome, &mut |chunk| match chunk {
            Some(chunk) => sink.write(chunk),
            None => sink.poll(),
        })
    }

    fn cancel(&self) {
        self.remote.tell(|(query, _)| async move {
            let _ = query.cancel_request().send().promise.await;
        });
    }
}

/// Asks a leaf for its status again and again; ends when it has not answered for so long.
pub(crate) async fn silent(leaf: &leaf::Client, limit: Duration) {
    loop {
        tokio::time::sleep(limit / 4).await;
        match tokio::time::timeout(limit, leaf.status_request().send().promise).await {
            Ok(Ok(_)) => {}
            // The connection has ended: the call that runs learns it too, and says why; one that began after the end does not.
            Ok(Err(_)) => return tokio::time::sleep(LAST_WORDS).await,
            Err(_) => return,
        }
    }
}

/// Chunks to another leaf: a task sends them while the thread makes the next.
struct RemoteDelivery {
    io: Io,
    queue: Option<pump::QueueSink>,
    sent: Option<tokio::sync::oneshot::Receiver<Result<()>>>,
}

impl RemoteDelivery {
    fn start(io: Io, sink: row_sink::Client) -> RemoteDelivery {
        let (queue, chunks) = pump::queue();
        let (sender, sent) = tokio::sync::oneshot::channel();
        tokio::task::spawn_local(async move {
            let send = async {
                pump::send(chunks, &sink).await?;
                sink.done_request().send().promise.await.map(drop).map_err(Failure::from)
            };
            let _ = sender.send(send.await);
        });
        RemoteDelivery { io, queue: Some(queue), sent: Some(sent) }
    }

    fn outcome(&mut self) -> Result<()> {
        self.queue = None;
        let broke = || Failure::new(FailureKind::Retryable, "the connection to another leaf broke");
        let sent = self.sent.take().ok_or_else(broke)?;
        let late = |_| Err(Failure::new(FailureKind::Retryable, "another leaf does not take its rows"));
        self.io.wait(async { tokio::time::timeout(LONG, sent).await.map_or_else(late, |r| r.unwrap_or_else(|_| Err(broke()))) })
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
    remote: Remote<load::Client>,
}

impl RemoteLoad {
    /// Call it on the I/O thread.
    pub fn begun(from: loading::Reader<'_>, io: Io) -> Result<RemoteLoad> {
        match from.which().map_err(capnp::Error::from)? {
            loading::Load(load) => Ok(RemoteLoad { remote: Remote::new(io, load?) }),
            loading::Failure(failure) => Err(Failure::read(failure?)?),
        }
    }
}

impl Load for RemoteLoad {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.remote.call(LONG, move |load| async move {
            let mut request = load.write_request();
            request.get().set_chunk(&chunk);
            let response = request.send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn prepare(&mut self) -> Result<()> {
        self.remote.call(LONG, |load| async move {
            let response = load.prepare_request().send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }

    fn commit(&mut self) -> Result<()> {
        self.remote.call(LONG, |load| async move {
            let response = load.commit_request().send().promise.await?;
            done::read(response.get()?.get_result()?)
        })
    }
}

fn write_fragment(from: &FragmentRequest, mut to: fragment::Builder<'_>) -> capnp::Result<()> {
    to.set_plan(&from.plan);
    let mut filters = to.reborrow().init_filters(from.filters.len() as u32);
    for (i, filter) in (0u32..).zip(&from.filters) {
        let mut to = filters.reborrow().get(i);
        to.set_id(filter.id);
        to.set_min(filter.min);
        to.set_max(filter.max);
        to.set_keys(filter.keys);
        let mut members = to.init_members();
        match &filter.members {
            FilterMembers::All => members.set_all(()),
            FilterMembers::Bits(words) => members.set_bits(&words[..])?,
            FilterMembers::Bloom(words) => members.set_bloom(&words[..])?,
        }
    }
    match &from.destination {
        RowDestination::Caller => to.init_destination().set_caller(()),
        RowDestination::Leaves { number, addresses } => {
            let mut to = to.init_destination().init_leaves();
            to.set_number(*number);
            let mut list = to.init_addresses(addresses.len() as u32);
            (0u32..).zip(addresses).for_each(|(i, address)| list.set(i, address));
        }
        RowDestination::Shuffle { number, keys, addresses, owners } => {
            let mut to = to.init_destination().init_shuffle();
            to.set_shuffle_number(*number);
            to.set_keys(&keys[..])?;
            to.set_owners(&owners[..])?;
            let mut list = to.init_to(addresses.len() as u32);
            (0u32..).zip(addresses).for_each(|(i, address)| list.set(i, address));
        }
    }
    Ok(())
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

fn read_ran(from: ran::Reader<'_>) -> Result<RunProfile> {
    let profile = match from.which().map_err(capnp::Error::from)? {
        ran::Profile(profile) => profile,
        ran::Failure(failure) => return Err(Failure::read(failure?)?),
    };
    let nodes = profile.get_nodes()?.iter().map(read_node).collect::<capnp::Result<_>>()?;
    let wall = Duration::from_nanos(profile.get_wall_nanos());
    Ok(RunProfile { nodes, wall, peak_memory: profile.get_peak_memory(), sent_bytes: profile.get_sent_bytes() })
}

fn read_node(from: node_profile::Reader<'_>) -> capnp::Result<NodeProfile> {
    let scan = if from.has_scan() {
        let scan = from.get_scan()?;
        Some([
            scan.get_segments(),
            scan.get_segments_skipped(),
            scan.get_blocks(),
            scan.get_blocks_skipped(),
            scan.get_blocks_by_index(),
            scan.get_rows(),
            scan.get_rows_selected(),
            scan.get_values_decoded(),
        ])
    } else {
        None
    };
    let notes = from.get_notes()?.iter().map(|n| Ok(n?.to_string()?)).collect::<capnp::Result<_>>()?;
    Ok(NodeProfile {
        node: from.get_node(),
        rows: from.get_rows(),
        batches: from.get_batches(),
        cpu: Duration::from_nanos(from.get_nanos()),
        memory: from.get_memory(),
        scan,
        notes,
    })
}
