//! What can go wrong in storage.

use std::path::PathBuf;

/// A storage error. Each names the thing at fault.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file does not hold what its format says: damaged or truncated.
    #[error("{path} is damaged: {what}")]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        what: String,
    },
    /// The data directory was written by another version of the format.
    #[error(
        "{path} has format version {found}, this program reads version {expected}: use the program that wrote it, or load the data anew"
    )]
    Version {
        /// The data directory.
        path: PathBuf,
        /// Version found.
        found: u32,
        /// Version that this program reads.
        expected: u32,
    },
    /// Another process uses the data directory.
    #[error("{path} is in use by another process{}", .pid.map(|p| format!(" (pid {p})")).unwrap_or_default())]
    Locked {
        /// The data directory.
        path: PathBuf,
        /// The other process, if it could be read.
        pid: Option<u32>,
    },
    /// No table of this name.
    #[error("there is no table '{0}'")]
    NoSuchTable(String),
    /// A table or view of this name exists.
    #[error("'{0}' already exists")]
    AlreadyExists(String),
    /// The request does not fit the table: a NULL in a NOT NULL column, a wrong type, ...
    #[error("{0}")]
    Invalid(String),
    /// A unique key that is there already.
    #[error("{0}")]
    DuplicateKey(String),
    /// Another transaction committed first. Trying again may succeed.
    #[error("{0} by another transaction that committed first: nothing was changed, run the transaction again")]
    Conflict(String),
    /// What was asked is of another definition of a table than the one that is there. Planned anew, it may succeed.
    #[error("table '{0}' was altered meanwhile: run the statement again")]
    Altered(String),
    /// Another copy of the partition takes writes now. Trying again where it is may succeed.
    #[error("this copy of the partition is not its master: {0}; try again")]
    NotMaster(String),
    /// A transaction over several partitions is not settled that has to be first. Trying again may succeed.
    #[error("{0}; try again")]
    Unsettled(String),
    /// A reader came for a moment before the first that is kept. At a later one it may succeed.
    #[error("what there was at an earlier moment is not kept any more; try again")]
    Passed {
        /// The first that can be had.
        first: u64,
    },
    /// The function of a [`crate::Predicate::Function`] found values that it cannot take, a division by zero for example.
    #[error("{0}")]
    Function(String),
    /// Arrow refused.
    #[error(transparent)]
    Arrow(#[from] arrow::error::ArrowError),
}

impl Error {
    /// The request is at fault: another one may do.
    #[must_use]
    pub fn is_users(&self) -> bool {
        matches!(
            self,
            Error::NoSuchTable(_) | Error::AlreadyExists(_) | Error::Invalid(_) | Error::DuplicateKey(_) | Error::Function(_)
        )
    }

    /// The very same may succeed when it is tried again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Conflict(_) | Error::NotMaster(_) | Error::Unsettled(_) | Error::Passed { .. })
    }
}

/// Result of a storage call.
pub type Result<T> = std::result::Result<T, Error>;
