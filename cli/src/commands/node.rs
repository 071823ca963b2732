//! `stoa leaf` and `stoa coordinator`: a node of a cluster, until it is told to end.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use stoa_coordinator::cluster::{Shared, Watch};
use stoa_coordinator::consensus::Options;
use stoa_coordinator::{Control, Coordinator, Membership, Patience, Processes, RetryLimit, Supervisor};
use stoa_exec::{Admission, AdmissionLimits, MemoryBudget};
use stoa_leaf::{Leaf, Setup};
use stoa_rpc::{Io, LeafPool, Limits, Listener, PeerPool, Security, Tls, TlsFiles, serve_coordinator, serve_leaf};

use crate::args::{CoordinatorArgs, LeafArgs, NodeArgs};
use crate::engine::Setup as EngineSetup;
use crate::operations::{log, signals, watchable, wind_down};
use crate::{Error, Result};

/// How long a heartbeat may take; a leaf that misses one is asked again.
const HEARTBEAT: Duration = Duration::from_secs(1);

impl CoordinatorArgs {
    fn patience(&self) -> Patience {
        let [refused, silent] = [self.failover_refused, self.failover_silent].map(Duration::from_secs_f64);
        Patience { refused, silent }
    }
}

impl NodeArgs {
    fn limits(&self) -> Limits {
        Limits { connections: self.connections, insecure: self.insecure }
    }

    fn security(&self) -> Result<Security> {
        let files = TlsFiles { cert: self.tls_cert.clone(), key: self.tls_key.clone(), ca: self.tls_ca.clone() };
        Ok(Security::new(self.secret.clone()).with(Tls::load(&files)?))
    }

    fn leaf_silence(&self) -> Duration {
        Duration::from_secs_f64(self.leaf_silence)
    }

    fn queries(&self) -> AdmissionLimits {
        let patience = Duration::from_secs_f64(self.queue_timeout);
        AdmissionLimits { running: self.queries, waiting: self.queue, patience }
    }

    /// What all queries may hold together, and what one may.
    fn memory(&self, default: usize) -> (usize, usize) {
        let all = self.memory_limit.unwrap_or(default);
        (all, self.query_memory.unwrap_or(all))
    }

    fn shutdown(&self) -> Duration {
        Duration::from_secs_f64(self.shutdown_timeout)
    }
}

/// Runs a leaf until it is told to end.
///
/// # Errors
/// If its directory cannot be opened or its address not be listened on.
pub fn leaf(args: &LeafArgs) -> Result<()> {
    log(&args.node)?;
    let told = signals()?;
    let defaults = EngineSetup::from_env();
    let (memory_limit, query_memory) = args.node.memory(defaults.memory_limit);
    let setup = Setup {
        threads: args.threads.unwrap_or(defaults.threads).max(1),
        memory_limit,
        query_memory,
        queries: args.node.queries(),
        settings: defaults.settings,
        storage: defaults.storage,
        copy_rate: args.copy_rate.map(|rate| rate as u64),
    };
    let (io, security) = (Io::start("stoa-io")?, args.node.security()?);
    // Rows to other leaves go over a thread of their own: it is not held up by those who ask this leaf for something.
    let peers = LeafPool::new(Io::start("stoa-peers")?, security.clone()).with_silence(args.node.leaf_silence());
    let copies = LeafPool::new(Io::start("stoa-copies")?, security.clone()).with_silence(args.node.leaf_silence());
    let leaf = Arc::new(Leaf::open(&args.node.data, setup, peers, copies)?);
    let listener = serve_leaf(&io, &args.node.listen, &security, args.node.limits(), leaf.clone())?;
    let admission = leaf.admission().clone();
    let _watched = watchable(&io, &args.node, &admission, Arc::new(|| Ok(())))?;
    announce("leaf", &listener)?;
    // Told, or nobody is left who could tell.
    let _ = told.recv();
    drop(told);
    admission.close();
    wind_down(&listener, args.node.shutdown(), &|| admission.load().0, &|| leaf.cancel_all());
    ended("leaf")
}

/// Runs a coordinator until it is told to end.
///
/// # Errors
/// If its directory cannot be opened, its address not be listened on, or its cluster not be made or joined.
pub fn coordinator(args: &CoordinatorArgs) -> Result<()> {
    log(&args.node)?;
    let told = signals()?;
    let (io, security) = (Io::start("stoa-io")?, args.node.security()?);
    let peers = Arc::new(PeerPool::new(Io::start("stoa-peers")?, security.clone()));
    let membership = Arc::new(Membership::open(&args.node.data, peers, Options::default())?);
    let processes = Arc::new(Processes::default());
    let shared = shared(args, &membership, &processes)?;
    let admission = shared.admission.clone();
    let _transactions = Watch::start(&shared)?;
    let heartbeats = LeafPool::new(Io::start("stoa-heartbeats")?, args.node.security()?).with_silence(HEARTBEAT);
    let _supervisor = Supervisor::start(&shared, heartbeats, args.patience())?;
    let slow = Duration::from_secs_f64(args.node.slow_query);
    let service = Coordinator::new(shared, membership.clone(), processes.clone(), slow);
    let listener = serve_coordinator(&io, &args.node.listen, &security, args.node.limits(), Arc::new(service.clone()))?;
    let address = args.advertise.clone().unwrap_or_else(|| listener.address().to_string());
    membership.begin(&address)?;
    membership.recover_by_itself()?;
    if args.bootstrap {
        membership.bootstrap()?;
    }
    if let Some(through) = &args.join {
        membership.join(through)?;
    }
    let health = service.clone();
    let _watched = watchable(&io, &args.node, &admission, Arc::new(move || health.healthy()))?;
    announce("coordinator", &listener)?;
    if membership.number().is_none() {
        let way_out =
            format!("ADD AGGREGATOR '{address}' on a coordinator that has, or --join or --bootstrap here, gives it one");
        tracing::warn!("this coordinator has no part in a cluster yet: {way_out}");
    }
    let _ = told.recv();
    drop(told);
    service.close();
    wind_down(&listener, args.node.shutdown(), &|| processes.running(), &|| processes.kill_all());
    ended("coordinator")
}

fn shared(args: &CoordinatorArgs, membership: &Arc<Membership>, processes: &Arc<Processes>) -> Result<Shared> {
    let node = &args.node;
    let defaults = EngineSetup::from_env();
    let leaves = Arc::new(LeafPool::new(Io::start("stoa-leaves")?, node.security()?).with_silence(node.leaf_silence()));
    let (memory_limit, query_memory) = node.memory(defaults.memory_limit);
    Ok(Shared {
        control: Arc::new(Control::new(membership.clone(), leaves.clone(), processes.clone())),
        leaves,
        settings: defaults.settings,
        admission: Admission::new(node.queries(), MemoryBudget::new(memory_limit)),
        query_memory,
        summaries: Arc::default(),
        numbers: Arc::default(),
        plans: Arc::default(),
        clock: Arc::default(),
        transactions: Arc::default(),
        retry_limit: RetryLimit(Duration::from_secs_f64(args.retry_seconds)),
    })
}

/// Says where the node is, to people and to whoever started it.
fn announce(what: &str, listener: &Listener) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{what} listening on {}", listener.address())?;
    out.flush()?;
    tracing::info!(address = %listener.address(), version = env!("CARGO_PKG_VERSION"), "{what} started");
    Ok(())
}

fn ended(what: &str) -> Result<()> {
    tracing::info!("{what} ended");
    writeln!(std::io::stdout(), "{what} ends").map_err(Error::from)
}
