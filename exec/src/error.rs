//! What can go wrong while a query runs.

/// An execution error: the user's, retryable, or fatal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query or its data is at fault: overflow, division by zero, a bad cast, a subquery with several rows, ...
    #[error("{0}")]
    User(String),
    /// The query went past its memory limit.
    #[error(
        "the query needs more memory than its limit of {limit} bytes (in {operator}): raise --memory-limit or make the query smaller"
    )]
    Memory {
        /// The limit, in bytes.
        limit: usize,
        /// The operator that asked last.
        operator: String,
    },
    /// The node has too much to do.
    #[error("too many queries: {0}; try again later")]
    Overloaded(String),
    /// The query was cancelled.
    #[error("the query was cancelled")]
    Cancelled,
    /// The plan uses something that this version cannot run yet.
    #[error("not supported yet: {0}")]
    Unsupported(String),
    /// Storage failed.
    #[error(transparent)]
    Storage(stoa_columnstore::Error),
    /// Another node could not do its part.
    #[error("{message}")]
    Remote {
        /// What a caller may do about it.
        severity: Severity,
        /// What went wrong, and where.
        message: String,
    },
    /// A defect of Stoa or of the plan that was submitted.
    #[error("internal error: {0}")]
    Internal(String),
}

/// How a caller may react to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Change the query or the data.
    User,
    /// The same query may succeed later.
    Retryable,
    /// Neither will help.
    Fatal,
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Error::User(_) | Error::Unsupported(_) => Severity::User,
            Error::Remote { severity, .. } => *severity,
            Error::Storage(stoa_columnstore::Error::Altered(_)) => Severity::Retryable,
            Error::Storage(error) if error.is_retryable() => Severity::Retryable,
            Error::Memory { .. } | Error::Overloaded(_) | Error::Cancelled => Severity::Retryable,
            Error::Storage(_) | Error::Internal(_) => Severity::Fatal,
        }
    }
}

impl From<stoa_columnstore::Error> for Error {
    fn from(error: stoa_columnstore::Error) -> Error {
        match error {
            stoa_columnstore::Error::Function(what) => Error::User(what),
            other => Error::Storage(other),
        }
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Error {
        use arrow::error::ArrowError;
        match error {
            ArrowError::DivideByZero => Error::User("division by zero".into()),
            ArrowError::ArithmeticOverflow(what)
            | ArrowError::ComputeError(what)
            | ArrowError::CastError(what)
            | ArrowError::ParseError(what)
            | ArrowError::InvalidArgumentError(what) => Error::User(what),
            other => Error::Internal(other.to_string()),
        }
    }
}

impl From<datafusion_common::DataFusionError> for Error {
    fn from(error: datafusion_common::DataFusionError) -> Error {
        use datafusion_common::DataFusionError;
        match error {
            DataFusionError::ArrowError(error, _) => (*error).into(),
            DataFusionError::Internal(what) => Error::Internal(what),
            other => Error::User(other.strip_backtrace()),
        }
    }
}

/// Result of an execution call.
pub type Result<T> = std::result::Result<T, Error>;
