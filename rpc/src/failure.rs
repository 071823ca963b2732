//! Why a call could not be done.

use stoa_schema::common_capnp::failure;

/// Why a call could not be done: by whose fault, and in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What the caller may do about it.
    pub kind: FailureKind,
    /// Names the thing and, where there is one, the way out.
    pub message: String,
    /// Other than 0: what was asked for is of an earlier moment than this one, the first that can be had.
    pub moment: u64,
}

/// What a caller may do about a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Change the query or the data.
    User,
    /// Try the same later, perhaps elsewhere.
    Retryable,
    /// Nothing.
    Fatal,
    /// Somebody asked for it.
    Cancelled,
    /// Ask for less, or raise a limit of memory.
    Memory,
    /// Come with another secret, user or password.
    Denied,
    /// Another transaction came first: the same may succeed at once.
    Conflict,
    /// There is a row with the same unique key.
    DuplicateKey,
    /// The call is of another definition of a table than the one that is there: plan it anew.
    Altered,
}

/// Result of a call.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), moment: 0 }
    }

    /// The caller cancelled.
    #[must_use]
    pub fn cancelled() -> Failure {
        Failure::new(FailureKind::Cancelled, "cancelled")
    }

    /// The other node is not there, or not any more.
    #[must_use]
    pub fn unreachable(address: &str, why: impl std::fmt::Display) -> Failure {
        Failure::new(FailureKind::Retryable, format!("cannot reach {address}: {why}"))
    }

    pub(crate) fn read(from: failure::Reader<'_>) -> capnp::Result<Failure> {
        use failure::Kind;
        let kind = match from.get_kind().unwrap_or(Kind::Fatal) {
            Kind::User => FailureKind::User,
            Kind::Retryable => FailureKind::Retryable,
            Kind::Fatal => FailureKind::Fatal,
            Kind::Cancelled => FailureKind::Cancelled,
            Kind::Memory => FailureKind::Memory,
            Kind::Denied => FailureKind::Denied,
            Kind::Conflict => FailureKind::Conflict,
            Kind::DuplicateKey => FailureKind::DuplicateKey,
            Kind::Altered => FailureKind::Altered,
        };
        Ok(Failure { kind, message: from.get_message()?.to_string()?, moment: from.get_moment() })
    }

    pub(crate) fn write(&self, mut to: failure::Builder<'_>) {
        use failure::Kind;
        to.set_kind(match self.kind {
            FailureKind::User => Kind::User,
            FailureKind::Retryable => Kind::Retryable,
            FailureKind::Fatal => Kind::Fatal,
            FailureKind::Cancelled => Kind::Cancelled,
            FailureKind::Memory => Kind::Memory,
            FailureKind::Denied => Kind::Denied,
            FailureKind::Conflict => Kind::Conflict,
            FailureKind::DuplicateKey => Kind::DuplicateKey,
            FailureKind::Altered => Kind::Altered,
        });
        to.set_message(&self.message);
        to.set_moment(self.moment);
    }
}

/// An exception of the RPC system: the connection broke, or the other side does not follow the protocol.
impl From<capnp::Error> for Failure {
    fn from(error: capnp::Error) -> Failure {
        let kind = match error.kind {
            // The last one: it ended in the middle of a message.
            capnp::ErrorKind::Disconnected | capnp::ErrorKind::Overloaded | capnp::ErrorKind::PrematureEndOfFile => {
                FailureKind::Retryable
            }
            _ => FailureKind::Fatal,
        };
        Failure::new(kind, format!("a call to another node failed: {}", error.extra))
    }
}

/// What a failure of another call becomes when it must be told as an exception.
impl From<Failure> for capnp::Error {
    fn from(failure: Failure) -> capnp::Error {
        capnp::Error::failed(failure.message)
    }
}
