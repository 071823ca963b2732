//! What keeps the copies of partitions alike: orders from the coordinator that leads, reports to it, and records from masters to replicas.

use std::time::Duration;

use crate::Result;

/// What the catalog says of a leaf's copies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Version of the catalog; a leaf keeps to the highest that it has seen.
    pub version: u64,
    /// The incarnation and the sequence of the leaf's last report of which everything is in the catalog, or refused.
    pub processed: (u64, u64),
    /// Every copy that the leaf is to have.
    pub copies: Vec<CopyOrder>,
    /// A version that the leaf says it keeps to and that no catalog has had; 0: none.
    pub supersedes: u64,
    /// The catalog, to be kept against the loss of all coordinators; empty: the leaf has it.
    pub catalog: Vec<u8>,
}

/// What is wanted of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyOrder {
    /// The database, in lower case.
    pub database: String,
    /// The partition.
    pub ordinal: u32,
    /// Its term.
    pub term: u64,
    /// What the copy is.
    pub role: RoleOrder,
    /// Whether rows count before they are on disk: `DURABILITY ASYNC`.
    pub asynchronous: bool,
}

/// What a copy is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleOrder {
    /// The master will feed it.
    Replica,
    /// It takes writes.
    Master {
        /// Leaves without which no commit is acknowledged.
        in_sync: Vec<String>,
        /// Leaves whose copies are to be brought up to date.
        feed: Vec<String>,
    },
}

/// How the copies of a leaf stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Of the process: another one after every start.
    pub incarnation: u64,
    /// Counts the reports of the process, from 1.
    pub sequence: u64,
    /// Version of the orders that it keeps to; 0: none yet.
    pub version: u64,
    /// Its copies.
    pub copies: Vec<CopyReport>,
    /// Free bytes of the disk that its data is on; `None`: not known.
    pub free: Option<u64>,
    /// Bytes a second of copies that it makes anew on other leaves; 0: not known.
    pub rate: u64,
    /// Version of the catalog that it has got to keep; 0: none.
    pub kept: u64,
}

/// All that a leaf has of which a catalog can be made again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// The last catalog that it got to keep; empty: none.
    pub catalog: Vec<u8>,
    /// Its copies.
    pub copies: Vec<HeldCopy>,
    /// For how long no coordinator has given it orders.
    pub silent: Duration,
}

/// A copy that a leaf has, whatever it is to others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeldCopy {
    /// The database, in lower case.
    pub database: String,
    /// The partition; [`crate::leaf::REFERENCE`]: REFERENCE tables.
    pub ordinal: u32,
    /// The term that it acts for.
    pub term: u64,
    /// Its last record.
    pub position: Position,
    /// Bytes of its files.
    pub bytes: u64,
    /// Its tables: messages of `manifest.capnp`.
    pub tables: Vec<Vec<u8>>,
}

/// How a copy stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// The database, in lower case.
    pub database: String,
    /// The partition.
    pub ordinal: u32,
    /// The term that it acts for.
    pub term: u64,
    /// What it is.
    pub role: CopyRole,
    /// Its last record.
    pub position: Position,
    /// Why it cannot do what it was told; empty: it can.
    pub failure: String,
    /// A master: the copies that it feeds.
    pub fed: Vec<FedReport>,
    /// Bytes of its files: segments, log, and the manifest with rows in memory.
    pub bytes: u64,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CopyRole {
    /// It waits for orders.
    #[default]
    None,
    /// It takes writes.
    Master,
    /// A master feeds it.
    Replica,
}

/// How a copy stands that a master feeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FedReport {
    /// Where it is.
    pub address: String,
    /// What it does.
    pub state: FedState,
    /// Up to which LSN it has everything.
    pub lsn: u64,
    /// Of the last try; empty: none.
    pub failure: String,
    /// Bytes copied, of how many, of a copy that is made anew.
    pub copied: (u64, u64),
}

/// What a copy does that a master feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FedState {
    /// It is being reached.
    Connecting,
    /// It is made anew.
    Copying,
    /// It is behind.
    Following,
    /// No commit is acknowledged without it.
    InSync,
    /// It cannot be fed.
    Failed,
}

/// The last record of a copy's log; all zero: it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Its number.
    pub lsn: u64,
    /// The term that it was written in.
    pub term: u64,
    /// Of its body.
    pub checksum: u64,
}

/// A record of a log, or a part of one.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its number.
    pub lsn: u64,
    /// The term that it was written in.
    pub term: u64,
    /// What it says.
    pub body: Vec<u8>,
    /// The next one goes on with this body.
    pub more: bool,
}

/// Name under which the manifest of a new copy comes.
pub const MANIFEST: &str = "manifest";

/// A copy of a partition on another leaf, which its master feeds. Calls come one after the other.
pub trait FedCopy: Send + Sync {
    /// Takes records that follow what it has, whose segment files are there; they last when this returns.
    ///
    /// # Errors
    /// If the copy has a master of a later term, if they do not follow, if they cannot be stored.
    fn write(&self, records: Vec<Record>) -> Result<Position>;

    /// Takes the next bytes of a file, by its name in the data directory; `last`: it is whole.
    ///
    /// # Errors
    /// As [`FedCopy::write`].
    fn file(&self, name: &str, data: Vec<u8>, last: bool) -> Result<()>;

    /// From now on files are those of a new copy, [`MANIFEST`] the last of them.
    ///
    /// # Errors
    /// As [`FedCopy::write`].
    fn copy_anew(&self) -> Result<()>;

    /// The new copy takes the place of the old one.
    ///
    /// # Errors
    /// As [`FedCopy::write`]; and if the copy is not whole.
    fn finish_copy(&self) -> Result<Position>;
}
