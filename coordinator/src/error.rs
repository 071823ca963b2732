//! What a statement can fail with.

use stoa_exec::error::Severity;
use stoa_rpc::{Failure, FailureKind};

use crate::retry::{is_conflict, is_loss};

/// An error of a statement; its text is for the user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQL that cannot be parsed or bound, with its place.
    #[error(transparent)]
    Sql(#[from] stoa_sql::SqlError),
    /// The plan cannot be made.
    #[error(transparent)]
    Plan(#[from] stoa_plan::optimizer::OptimizeError),
    /// The query failed while it ran.
    #[error(transparent)]
    Exec(#[from] stoa_exec::Error),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] stoa_columnstore::Error),
    /// Another node could not do its part.
    #[error(transparent)]
    Node(#[from] Failure),
    /// Whether the changes were made is not known: running the statement again could make them twice.
    #[error("{0}")]
    Unknown(String),
    /// Nodes failed after rows of the result were delivered, which cannot be made again: only the client can run the statement again.
    #[error("{0}; some rows of the result were delivered before, and another run may give others: run the statement again")]
    Delivered(Box<Error>),
    /// What was asked for cannot be done.
    #[error("{0}")]
    Invalid(String),
    /// Who asks may not, by the catalog that is known here.
    #[error("{0}")]
    Denied(String),
}

/// Result of a statement.
pub type Result<T> = std::result::Result<T, Error>;

impl From<stoa_backup::Error> for Error {
    fn from(error: stoa_backup::Error) -> Error {
        match error {
            stoa_backup::Error::Place { .. } => Error::Invalid(error.to_string()),
            stoa_backup::Error::Storage(error) => Error::Storage(error),
            stoa_backup::Error::Cancelled => Error::Exec(stoa_exec::Error::Cancelled),
        }
    }
}

impl Error {
    /// The same may succeed later.
    pub(crate) fn retryable(message: impl Into<String>) -> Error {
        Error::Node(Failure::new(FailureKind::Retryable, message))
    }

    /// The error of a query of whose rows some were delivered: what might be run again otherwise is not.
    pub(crate) fn after_delivery(self) -> Error {
        let again = is_conflict(&self) || is_loss(&self) || self.is_altered();
        if again { Error::Delivered(Box::new(self)) } else { self }
    }

    /// Whether the same may succeed later.
    pub(crate) fn is_retryable(&self) -> bool {
        matches!(self, Error::Node(failure) if failure.kind == FailureKind::Retryable)
    }

    /// A table is not as the statement was planned: planned anew, it may succeed.
    pub(crate) fn is_altered(&self) -> bool {
        use stoa_columnstore::Error::Altered;
        match self {
            Error::Node(failure) => failure.kind == FailureKind::Altered,
            Error::Storage(Altered(_)) | Error::Exec(stoa_exec::Error::Storage(Altered(_))) => true,
            _ => false,
        }
    }

    /// Something is missing or not allowed by the catalog that is known here.
    pub(crate) fn is_of_catalog(&self) -> bool {
        matches!(self, Error::Sql(_) | Error::Denied(_) | Error::Storage(stoa_columnstore::Error::NoSuchTable(_)))
    }

    /// The error as a failure of a call.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        let kind = match &self {
            Error::Node(failure) => return failure.clone(),
            Error::Exec(stoa_exec::Error::Cancelled) => FailureKind::Cancelled,
            Error::Exec(stoa_exec::Error::Memory { .. }) => FailureKind::Memory,
            error if error.is_altered() => FailureKind::Altered,
            Error::Exec(error) => match error.severity() {
                Severity::User => FailureKind::User,
                Severity::Retryable => FailureKind::Retryable,
                Severity::Fatal => FailureKind::Fatal,
            },
            Error::Unknown(_) | Error::Delivered(_) => FailureKind::Retryable,
            Error::Denied(_) => FailureKind::Denied,
            Error::Sql(_) | Error::Plan(_) | Error::Invalid(_) => FailureKind::User,
            Error::Storage(stoa_columnstore::Error::Conflict(_)) => FailureKind::Conflict,
            Error::Storage(stoa_columnstore::Error::DuplicateKey(_)) => FailureKind::DuplicateKey,
            Error::Storage(error) if error.is_users() => FailureKind::User,
            Error::Storage(_) => FailureKind::Fatal,
        };
        Failure::new(kind, self.to_string())
    }
}

/// A failure of a leaf as an error of the query that asked it.
pub(crate) fn remote(failure: Failure) -> stoa_exec::Error {
    let severity = match failure.kind {
        FailureKind::Cancelled => return stoa_exec::Error::Cancelled,
        FailureKind::User | FailureKind::Denied | FailureKind::DuplicateKey => Severity::User,
        FailureKind::Retryable | FailureKind::Memory | FailureKind::Conflict | FailureKind::Altered => Severity::Retryable,
        FailureKind::Fatal => Severity::Fatal,
    };
    stoa_exec::Error::Remote { severity, message: failure.message }
}
