//! Backups of the partitions of a leaf, as blocking calls.

use crate::Result;

/// What a backup is to have of a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupSetup {
    /// The database.
    pub database: String,
    /// The partitions; [`crate::leaf::REFERENCE`]: the REFERENCE tables.
    pub ordinals: Vec<u32>,
    /// The tables: messages of `manifest.capnp`.
    pub tables: Vec<Vec<u8>>,
}

/// Where a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlace {
    /// A folder that every node has under this path, or `s3://bucket/prefix`.
    pub place: String,
    /// The name of the backup there.
    pub name: String,
}

/// The state of a partition, as a backup has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenPartition {
    /// The partition.
    pub ordinal: u32,
    /// The number of its last record.
    pub lsn: u64,
    /// Transactions that were prepared and not resolved, each with the ordinal of the partition that decides.
    pub in_doubt: Vec<(u64, u32)>,
}

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Segment files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segment files that were there from earlier backups.
    pub kept: u64,
}

/// A backup of some partitions of a leaf; it ends when it is dropped.
pub trait LeafBackup: Send + Sync {
    /// Takes the state of every partition; commits go on then.
    ///
    /// # Errors
    /// If they went on before, or a table is not as the setup has it: a failure that says to try again.
    fn freeze(&self) -> Result<Vec<FrozenPartition>>;

    /// Which of these transactions a partition has decided to commit, in the state that was taken.
    ///
    /// # Errors
    /// If no state of it was taken.
    fn committed(&self, ordinal: u32, transactions: &[u64]) -> Result<Vec<u64>>;

    /// Copies the state of a partition: its segments, unless they are there already or all are to be copied `anew`, and its manifest.
    /// Of its transactions in doubt these commit in it.
    ///
    /// # Errors
    /// If no state of it was taken, or it cannot be written.
    fn copy(&self, ordinal: u32, to: &BackupPlace, anew: bool, committed: &[u64]) -> Result<Copied>;

    /// Ends a copy that runs.
    fn cancel(&self);
}
