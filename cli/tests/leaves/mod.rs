//! A cluster in one process for tests: leaves on loopback ports, a catalog in memory.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use stoa_coordinator::cluster::{Cluster, Database, Metadata, QueryNumbers, SchemaChange, Shared};
use stoa_coordinator::{Outcome, Result, Session};
use stoa_exec::Settings;
use stoa_leaf::{Leaf, Setup};
use stoa_rpc::leaf::Change;
use stoa_rpc::{Io, LeafPool, Limits, Listener, Secret, serve_leaf};
use stoa_sql::ClusterStatement;

/// Leaves and a session on their one database.
pub struct Leaves {
    pub session: Session,
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
        let secret = Secret(b"of the test".to_vec());
        let io = Io::start("test-io").expect("an I/O thread");
        let mut listeners = Vec::new();
        for number in 0..leaves {
            let setup =
                Setup { threads: 1, memory_limit: 1 << 30, queries: 64, settings: settings.clone(), storage: storage.clone() };
            let peers = LeafPool::new(io.clone(), secret.clone());
            let leaf = Leaf::open(&folder.join(number.to_string()), setup, peers).expect("a leaf opens");
            let listener = serve_leaf(&io, "127.0.0.1:0", &secret, Limits::default(), Arc::new(leaf));
            listeners.push(listener.expect("a port is free"));
        }
        let addresses: Vec<String> = listeners.iter().map(|l| l.address().to_string()).collect();
        let pool = Arc::new(LeafPool::new(io, secret));
        let masters: Vec<Option<String>> = (0..partitions as usize).map(|p| Some(addresses[p % leaves].clone())).collect();
        for address in &addresses {
            let ordinals = (0u32..).zip(&masters).filter(|(_, m)| m.as_ref() == Some(address)).map(|(o, _)| o).collect();
            let change = Change::CreatePartitions { database: "stoa".into(), ordinals };
            pool.leaf(address).unwrap().change(change).unwrap();
        }
        let database = Database { name: "stoa".into(), masters, leaves: addresses, ..Database::default() };
        let shared = Shared {
            metadata: Arc::new(InMemory(Mutex::new(Arc::new(database)))),
            leaves: pool,
            settings: settings.clone(),
            memory_limit: 1 << 30,
            summaries: Arc::default(),
            numbers: Arc::new(QueryNumbers::new(1)),
        };
        let session = Session::new(Arc::new(Cluster::open("stoa", &shared).unwrap()));
        Leaves { session, _listeners: listeners }
    }
}

/// A catalog of one database that nobody stores.
struct InMemory(Mutex<Arc<Database>>);

impl Metadata for InMemory {
    fn database(&self, _: &str) -> Result<Arc<Database>> {
        Ok(self.0.lock().clone())
    }

    fn change(&self, _: &str, change: SchemaChange) -> Result<()> {
        let mut lock = self.0.lock();
        let mut database = Database::clone(&lock);
        database.apply(change)?;
        *lock = Arc::new(database);
        Ok(())
    }

    fn statement(&self, _: &ClusterStatement, _: &Shared, _: &str) -> Result<Outcome> {
        Err(stoa_coordinator::Error::Invalid("the cluster of a test is as it is".into()))
    }
}
