//! `stoa leaf` and `stoa coordinator`: a node of a cluster, until it is told to end.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc;

use stoa_coordinator::cluster::Shared;
use stoa_coordinator::consensus::Options;
use stoa_coordinator::{Control, Coordinator, Membership, Processes};
use stoa_leaf::{Leaf, Setup};
use stoa_rpc::{Io, LeafPool, Limits, Listener, PeerPool, Secret, serve_coordinator, serve_leaf};

use crate::args::{CoordinatorArgs, LeafArgs, NodeArgs};
use crate::engine::Setup as EngineSetup;
use crate::{Error, Result};

impl NodeArgs {
    fn limits(&self) -> Limits {
        Limits { connections: self.connections, insecure: self.insecure }
    }

    fn secret(&self) -> Secret {
        Secret(self.secret.clone().into_bytes())
    }
}

/// Runs a leaf until it is told to end.
///
/// # Errors
/// If its directory cannot be opened or its address not be listened on.
pub fn leaf(args: &LeafArgs) -> Result<()> {
    let defaults = EngineSetup::from_env();
    let setup = Setup {
        threads: args.threads.unwrap_or(defaults.threads).max(1),
        memory_limit: args.node.memory_limit.unwrap_or(defaults.memory_limit),
        queries: args.queries,
        settings: defaults.settings,
        storage: defaults.storage,
    };
    let (io, secret) = (Io::start("stoa-io")?, args.node.secret());
    // Rows to other leaves go over a thread of their own: it is not held up by those who ask this leaf for something.
    let peers = LeafPool::new(Io::start("stoa-peers")?, secret.clone());
    let leaf = Leaf::open(&args.node.data, setup, peers)?;
    let listener = serve_leaf(&io, &args.node.listen, &secret, args.node.limits(), Arc::new(leaf))?;
    until_told("leaf", &listener)
}

/// Runs a coordinator until it is told to end.
///
/// # Errors
/// If its directory cannot be opened, its address not be listened on, or its cluster not be made or joined.
pub fn coordinator(args: &CoordinatorArgs) -> Result<()> {
    let defaults = EngineSetup::from_env();
    let (io, secret) = (Io::start("stoa-io")?, args.node.secret());
    let peers = Arc::new(PeerPool::new(Io::start("stoa-peers")?, secret.clone()));
    let membership = Arc::new(Membership::open(&args.node.data, peers, Options::default())?);
    let leaves = Arc::new(LeafPool::new(Io::start("stoa-leaves")?, secret.clone()));
    let processes = Arc::new(Processes::default());
    let shared = Shared {
        control: Arc::new(Control::new(membership.clone(), leaves.clone(), processes.clone())),
        leaves,
        settings: defaults.settings,
        memory_limit: args.node.memory_limit.unwrap_or(defaults.memory_limit),
        summaries: Arc::default(),
        numbers: Arc::default(),
        plans: Arc::default(),
    };
    let service = Arc::new(Coordinator::new(shared, membership.clone(), processes));
    let listener = serve_coordinator(&io, &args.node.listen, &secret, args.node.limits(), service)?;
    let address = args.advertise.clone().unwrap_or_else(|| listener.address().to_string());
    membership.begin(&address)?;
    if args.bootstrap {
        membership.bootstrap()?;
    }
    if let Some(through) = &args.join {
        membership.join(through)?;
    }
    if membership.number().is_none() {
        let way_out =
            format!("ADD AGGREGATOR '{address}' on a coordinator that has, or --join or --bootstrap here, gives it one");
        writeln!(std::io::stdout(), "this coordinator has no part in a cluster yet: {way_out}")?;
    }
    until_told("coordinator", &listener)
}

/// Says where the node is, and waits for Ctrl-C or the system's wish that it ends.
fn until_told(what: &str, listener: &Listener) -> Result<()> {
    let (sender, told) = mpsc::channel();
    let on_signal = move || {
        // Told twice it ends no sooner.
        let _ = sender.send(());
    };
    ctrlc::set_handler(on_signal).map_err(|e| Error::Invalid(format!("cannot wait for signals: {e}")))?;
    let mut out = std::io::stdout();
    writeln!(out, "{what} listening on {}", listener.address())?;
    out.flush()?;
    let _ = told.recv();
    writeln!(out, "{what} ends")?;
    Ok(())
}
