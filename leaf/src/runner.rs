//! Who runs on a leaf: queries and transactions, within one budget of threads and memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use stoa_exec::{Admission, CancelToken, MemoryBudget, QueryContext};
use stoa_rpc::leaf::{LeafQuery, QuerySetup};
use stoa_rpc::{Failure, FailureKind, LeafPool, Result};

use crate::databases::Tables;
use crate::query::{Handle, Query};
use crate::{Setup, failure};

/// Transactions that may be open at once.
const MOST_TRANSACTIONS: usize = 4096;

/// What queries and transactions share.
pub(crate) struct Runner {
    setup: Setup,
    pub pool: Arc<rayon::ThreadPool>,
    peers: Arc<LeafPool>,
    pub admission: Arc<Admission>,
    queries: Mutex<HashMap<u64, Weak<Query>>>,
    transactions: AtomicUsize,
}

impl Runner {
    pub fn new(setup: Setup, peers: LeafPool) -> Result<Runner> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(setup.threads)
            .thread_name(|i| format!("stoa-leaf-{i}"))
            .build()
            .map_err(|e| Failure::new(FailureKind::Fatal, format!("cannot start {} threads: {e}", setup.threads)))?;
        let admission = Admission::new(setup.queries, MemoryBudget::new(setup.memory_limit));
        let (queries, transactions) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Runner { setup, pool: Arc::new(pool), peers: Arc::new(peers), admission, queries, transactions })
    }

    /// Begins a query over these tables.
    pub fn begin(&self, setup: QuerySetup, tables: Tables) -> Result<Arc<dyn LeafQuery>> {
        let id = setup.query;
        let pass = self.admission.enter(&CancelToken::default()).map_err(failure)?;
        let context =
            QueryContext { settings: self.setup.settings.clone(), cancel: CancelToken::default(), memory: self.memory() };
        let query = Arc::new(Query::new(setup, tables, context, pass, self.pool.clone(), self.peers.clone()));
        let mut queries = self.queries.lock();
        queries.retain(|_, query| query.strong_count() > 0);
        if queries.insert(id, Arc::downgrade(&query)).is_some() {
            return Err(Failure::new(FailureKind::Fatal, format!("query {id} has begun here already")));
        }
        Ok(Arc::new(Handle(query)))
    }

    /// A query that has begun here.
    pub fn query(&self, query: u64) -> Result<Arc<Query>> {
        let found = self.queries.lock().get(&query).and_then(Weak::upgrade);
        found.ok_or_else(|| Failure::new(FailureKind::Retryable, format!("query {query} is not here any more")))
    }

    /// The memory of one query or transaction.
    pub fn memory(&self) -> Arc<MemoryBudget> {
        self.admission.memory().part(self.setup.query_memory)
    }

    pub fn cancel_all(&self) {
        self.queries.lock().values().filter_map(Weak::upgrade).for_each(|query| query.cancel());
    }

    /// Lets a transaction in, as long as there are not too many.
    pub fn enter_transaction(self: &Arc<Self>) -> Result<Entered> {
        let entered = Entered(self.clone());
        if self.transactions.fetch_add(1, Ordering::Relaxed) < MOST_TRANSACTIONS {
            return Ok(entered);
        }
        let what = format!("{MOST_TRANSACTIONS} transactions are open on this leaf, which is the most: try again later");
        Err(Failure::new(FailureKind::Retryable, what))
    }
}

/// A transaction is open as long as this.
pub(crate) struct Entered(Arc<Runner>);

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.transactions.fetch_sub(1, Ordering::Relaxed);
    }
}
