//! A cluster in one process for tests: leaves on loopback ports, and the catalog and control of a coordinator.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use stoa_coordinator::cluster::{Cluster, Shared};
use stoa_coordinator::consensus::Options;
use stoa_coordinator::{Control, Membership, Processes, RetryLimit, Session};
use stoa_exec::{Admission, AdmissionLimits, CancelToken, MemoryBudget, Progress, Settings};
use stoa_leaf::{Leaf, Setup};
use stoa_rpc::{Io, LeafPool, Limits, Listener, PeerPool, Security, serve_leaf};

const LIMITS: AdmissionLimits = AdmissionLimits { running: 64, waiting: 64, patience: Duration::from_secs(5) };

/// Leaves and a session on their one database.
pub struct Leaves {
    pub session: Session,
    /// With the address of each.
    #[allow(dead_code, reason = "not every test asks a leaf itself")]
    pub nodes: Vec<(String, Arc<Leaf>)>,
    _listeners: Vec<Listener>,
}

impl Leaves {
    /// Starts leaves in folders of `folder` and makes a database of so many partitions on them.
    pub fn start(
        folder: &Path,
        leaves: usize,
        partitions: u32,
        settings: &Settings,
        storage: &stoa_columnstore::Options,
    ) -> Leaves {
        let security = Security::new(*b"of the test");
        let io = Io::start("test-io").expect("an I/O thread");
        let (mut listeners, mut nodes) = (Vec::new(), Vec::new());
        for number in 0..leaves {
            let setup = Setup {
                threads: 1,
                memory_limit: 1 << 30,
                query_memory: 1 << 30,
                queries: LIMITS,
                settings: settings.clone(),
                storage: storage.clone(),
                copy_rate: None,
            };
            let peers = LeafPool::new(io.clone(), security.clone());
            let copies = LeafPool::new(io.clone(), security.clone());
            let leaf = Leaf::open(&folder.join(number.to_string()), setup, peers, copies).expect("a leaf opens");
            let leaf = Arc::new(leaf);
            let listener = serve_leaf(&io, "127.0.0.1:0", &security, Limits::default(), leaf.clone()).expect("a port is free");
            nodes.push((listener.address().to_string(), leaf));
            listeners.push(listener);
        }
        let pool = Arc::new(LeafPool::new(io.clone(), security.clone()));
        let others = Arc::new(PeerPool::new(io, security));
        let membership = Membership::open(&folder.join("coordinator"), others, Options::default()).expect("a new coordinator");
        membership.begin("127.0.0.1:1").expect("it has no part yet");
        membership.bootstrap().expect("a new cluster");
        let control = Control::new(Arc::new(membership), pool.clone(), Arc::new(Processes::default()));
        let shared = Shared {
            control: Arc::new(control),
            leaves: pool,
            settings: settings.clone(),
            admission: Admission::new(LIMITS, MemoryBudget::new(1 << 30)),
            query_memory: 1 << 30,
            summaries: Arc::default(),
            numbers: Arc::default(),
            plans: Arc::default(),
            clock: Arc::default(),
            transactions: Arc::default(),
            retry_limit: RetryLimit(Duration::from_secs(5)),
        };
        let session = Session::new(Arc::new(Cluster::named("stoa", "root", &shared)));
        let leaves: Vec<String> = listeners.iter().map(|listener| format!("ADD LEAF '{}'", listener.address())).collect();
        let make = format!("{}; CREATE DATABASE stoa PARTITIONS {partitions} REDUNDANCY 1", leaves.join("; "));
        let made =
            session.run(&make, &CancelToken::default(), &Progress::default(), &mut |_| Ok::<(), stoa_coordinator::Error>(()));
        made.expect("a cluster");
        Leaves { session, nodes, _listeners: listeners }
    }
}
