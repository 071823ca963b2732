//! How each partition of each table stands: `SHOW COLUMNAR MERGE STATUS`.

use super::Database;
use super::maintenance::is_flush_due;
use super::merging::due_merge;
use super::tasks::Task;
use crate::table::{Partition, Stored};

/// What happens to a partition in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeState {
    /// Nothing is to be done.
    Idle,
    /// Rows in memory are being written to segments.
    Flushing,
    /// Segments are being merged.
    Merging,
    /// There is something to do, and it is another one's turn, or merges rest, or a transaction is not settled.
    Waiting,
    /// What was tried last failed, and is tried again.
    Failed,
}

impl MergeState {
    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            MergeState::Idle => "idle",
            MergeState::Flushing => "flushing",
            MergeState::Merging => "merging",
            MergeState::Waiting => "waiting",
            MergeState::Failed => "failed",
        }
    }

    /// The state of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<MergeState> {
        use MergeState::{Failed, Flushing, Idle, Merging, Waiting};
        [Idle, Flushing, Merging, Waiting, Failed].into_iter().find(|state| state.name() == name)
    }
}

/// How a partition of a table stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeStatus {
    /// The table.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// Its segments.
    pub segments: u64,
    /// Those that are to be merged.
    pub to_merge: u64,
    /// Rows that are in memory only.
    pub rows_in_memory: u64,
    /// Rows that are deleted and still take room.
    pub deleted_rows: u64,
    /// What happens to it; none if it is of a leaf that does not say.
    pub state: Option<MergeState>,
    /// Why what was tried last failed, if it did.
    pub error: Option<String>,
}

impl Database {
    /// How each partition of each table stands.
    #[must_use]
    pub fn merge_status(&self) -> Vec<MergeStatus> {
        let mut all = Vec::new();
        for table in self.tables() {
            for (number, part) in table.partitions.iter().enumerate() {
                let waiting = due_merge(part, &self.options).map(|due| due.waiting as u64);
                let to_merge = *waiting.as_ref().unwrap_or(&0);
                let error = self.task_error(table.id, number).or_else(|| waiting.err().map(|error| error.to_string()));
                all.push(MergeStatus {
                    table: table.name().to_owned(),
                    partition: table.ordinal(number),
                    segments: part.segments.len() as u64,
                    to_merge,
                    rows_in_memory: part.memory.rows(),
                    deleted_rows: part.segments.iter().map(Stored::deleted_rows).sum::<u64>() + part.memory.deleted().len(),
                    state: Some(self.state_of((table.id, number), part, to_merge, error.is_some())),
                    error,
                });
            }
        }
        all
    }

    /// What could not be done for a partition: of its own, or the manifest, which is for all.
    fn task_error(&self, table: u64, partition: usize) -> Option<String> {
        let tasks = self.maintenance.tasks.lock();
        let own = tasks.error(Task::Merge(table, partition)).or_else(|| tasks.error(Task::Flush(table, partition)));
        own.or_else(|| tasks.error(Task::Checkpoint)).map(str::to_owned)
    }

    fn state_of(&self, (table, number): (u64, usize), part: &Partition, to_merge: u64, failed: bool) -> MergeState {
        let tasks = self.maintenance.tasks.lock();
        match (tasks.is_running(Task::Flush(table, number)), tasks.is_running(Task::Merge(table, number))) {
            (_, true) => MergeState::Merging,
            (true, false) => MergeState::Flushing,
            (false, false) if failed => MergeState::Failed,
            (false, false) if to_merge > 0 || is_flush_due(part, &self.options) => MergeState::Waiting,
            (false, false) => MergeState::Idle,
        }
    }
}
