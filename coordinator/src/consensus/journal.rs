//! The log and the vote, as Raft wants them.

use std::fmt::Debug;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader, StorageIOError, Vote};

use super::store::{Entry, Store, StoreError};
use super::{LogId, StorageError, Types};

/// The log of one node. What writes to disk does so on a thread that may wait.
#[derive(Clone)]
pub(super) struct Journal {
    store: Arc<Store>,
}

impl Journal {
    pub fn new(store: Arc<Store>) -> Journal {
        Journal { store }
    }

    async fn write(&self, write: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static) -> Result<(), StorageError> {
        let store = self.store.clone();
        let failed = |error: String| StorageError::from(StorageIOError::write_logs(openraft::AnyError::error(error)));
        match tokio::task::spawn_blocking(move || write(&store)).await {
            Ok(written) => written.map_err(|error| failed(error.to_string())),
            Err(stopped) => Err(failed(stopped.to_string())),
        }
    }
}

/// The error for something that could not be read.
pub(super) fn unreadable(error: &StoreError) -> StorageError {
    StorageIOError::read(openraft::AnyError::error(error)).into()
}

impl RaftLogReader<Types> for Journal {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, StorageError> {
        self.store.entries(range).map_err(|error| unreadable(&error))
    }
}

impl RaftLogStorage<Types> for Journal {
    type LogReader = Journal;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError> {
        let purged = self.store.purged().map_err(|error| unreadable(&error))?;
        let last = self.store.last_entry().map_err(|error| unreadable(&error))?;
        Ok(LogState { last_purged_log_id: purged, last_log_id: last.map(|entry| entry.log_id).or(purged) })
    }

    async fn get_log_reader(&mut self) -> Journal {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError> {
        let vote = *vote;
        self.write(move |store| store.set_vote(&vote)).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError> {
        self.store.vote().map_err(|error| unreadable(&error))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.write(move |store| store.set_committed(committed)).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        // An entry that was committed may not have been durable here yet: what the log lacks comes again from the leader.
        let committed = self.store.committed().map_err(|error| unreadable(&error))?;
        let last = self.get_log_state().await?.last_log_id;
        Ok(committed.min(last))
    }

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<Types>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.write(move |store| store.append(&entries)).await?;
        callback.log_io_completed(Ok(()));
        Ok(())
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.write(move |store| store.truncate(log_id.index)).await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError> {
        self.write(move |store| store.purge(&log_id)).await
    }
}
