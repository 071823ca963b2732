//! What a command can fail with.

use std::path::PathBuf;

/// An error of the `stoa` command or of the embedded engine; its text is what the user sees behind `error: `.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A statement failed.
    #[error(transparent)]
    Statement(#[from] stoa_coordinator::Error),
    /// A query failed while it ran.
    #[error(transparent)]
    Exec(#[from] stoa_exec::Error),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] stoa_columnstore::Error),
    /// Another node, or what would be one here, cannot do what was asked.
    #[error(transparent)]
    Node(#[from] stoa_rpc::Failure),
    /// A file that is not part of the data directory cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    /// A row of an input file does not fit its table.
    #[error("{0}")]
    Load(String),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Invalid(String),
    /// A TPC-H answer is wrong or a query failed.
    #[error("{0} of the queries failed or gave a wrong answer")]
    WrongAnswers(usize),
    /// A data directory is damaged.
    #[error("{0} {what} found", what = if *.0 == 1 { "damage was" } else { "damages were" })]
    Damaged(usize),
}

impl Error {
    /// Wraps an I/O error with the file that it is about.
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }
}

/// Result of a command.
pub type Result<T> = std::result::Result<T, Error>;
