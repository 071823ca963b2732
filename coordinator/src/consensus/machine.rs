//! The catalog as Raft's state machine, and its snapshots.

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use parking_lot::{Condvar, Mutex};

use super::journal::unreadable;
use super::store::{Entry, Store, StoreError};
use super::{LogId, Reply, SnapshotMeta, StorageError, StoredMembership, Types};
use crate::catalog::Catalog;

/// The catalog as everybody on the node may read it.
#[derive(Default)]
pub(super) struct Published {
    catalog: Mutex<Arc<Catalog>>,
    changed: Condvar,
}

impl Published {
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.lock().clone()
    }

    /// Waits until the catalog is of another version, at most so long.
    pub fn wait_for_change(&self, version: u64, limit: Duration) {
        let same = |catalog: &mut Arc<Catalog>| catalog.version == version;
        self.changed.wait_while_for(&mut self.catalog.lock(), same, limit);
    }
}

/// The state machine. It is in memory; what was applied since the last snapshot is applied again from the log at start.
#[derive(Clone)]
pub(super) struct Machine {
    store: Arc<Store>,
    catalog: Arc<Catalog>,
    applied: Option<LogId>,
    membership: StoredMembership,
    published: Arc<Published>,
}

impl Machine {
    /// The machine as of the last snapshot.
    pub fn open(store: Arc<Store>) -> Result<Machine, StoreError> {
        let published = Arc::default();
        let mut machine =
            Machine { store, catalog: Arc::default(), applied: None, membership: StoredMembership::default(), published };
        if let Some((meta, data)) = machine.store.snapshot()? {
            let catalog = serde_json::from_slice(&data)?;
            machine.restore(&meta, catalog);
        }
        Ok(machine)
    }

    /// Where the catalog can be read.
    pub fn published(&self) -> Arc<Published> {
        self.published.clone()
    }

    fn restore(&mut self, meta: &SnapshotMeta, catalog: Catalog) {
        self.catalog = Arc::new(catalog);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        self.publish();
    }

    fn publish(&self) {
        *self.published.catalog.lock() = self.catalog.clone();
        self.published.changed.notify_all();
    }
}

fn unwritable(error: &StoreError) -> StorageError {
    StorageIOError::write_snapshot(None, AnyError::error(error)).into()
}

impl RaftSnapshotBuilder<Types> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let position =
            self.applied.map_or_else(|| "empty".to_owned(), |applied| format!("{}-{}", applied.leader_id.term, applied.index));
        let meta = SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone(), snapshot_id: position };
        let machine = self.clone();
        let kept = meta.clone();
        let build = move || {
            let data = serde_json::to_vec(&*machine.catalog).map_err(StoreError::from)?;
            machine.store.set_snapshot(&kept, &data)?;
            Ok(data)
        };
        let stopped = |error: tokio::task::JoinError| StorageIOError::write_snapshot(None, AnyError::new(&error));
        let data = tokio::task::spawn_blocking(build).await.map_err(stopped)?.map_err(|error: StoreError| unwritable(&error))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotBuilder = Machine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Reply>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            self.applied = Some(entry.log_id);
            let mut reply = Reply::default();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Normal(command) => {
                    reply.refused = Arc::make_mut(&mut self.catalog).apply(&command).err().map(|error| error.to_string());
                }
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership);
                }
            }
            replies.push(reply);
        }
        // Whoever hears that a command was carried out finds it in the catalog.
        self.publish();
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> Machine {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Box<Cursor<Vec<u8>>>) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        let catalog = serde_json::from_slice(&data).map_err(|error| unreadable(&error.into()))?;
        let (store, kept) = (self.store.clone(), meta.clone());
        let stopped = |error: tokio::task::JoinError| StorageIOError::write_snapshot(None, AnyError::new(&error));
        let keep = tokio::task::spawn_blocking(move || store.set_snapshot(&kept, &data));
        keep.await.map_err(stopped)?.map_err(|error| unwritable(&error))?;
        self.restore(meta, catalog);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let snapshot = self.store.snapshot().map_err(|error| unreadable(&error))?;
        Ok(snapshot.map(|(meta, data)| Snapshot { meta, snapshot: Box::new(Cursor::new(data)) }))
    }
}
