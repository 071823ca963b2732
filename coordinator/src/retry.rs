//! Statements that are run again when nodes under them fail.
//!
//! Whoever asks sees time pass, not an error, as long as somebody else takes over soon or the node comes back. Only what has changed
//! nothing is run again. Errors of the user, of memory and of a full queue are told at once: the same would come of it.

use std::time::{Duration, Instant};

use stoa_exec::CancelToken;
use stoa_rpc::{Failure, FailureKind};

use crate::{Error, Result};

/// How often a statement is run again at least when others come first.
const CONFLICTS: u32 = 20;
/// After so many tries those who store a table are told how it is now.
const TELL: u32 = 6;
/// The first pause after a node failed, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How often somebody who pauses looks whether he is cancelled.
const LOOK: Duration = Duration::from_millis(10);

/// For how long a statement is run again that failed with its nodes; zero: never.
#[derive(Clone, Copy, Debug)]
pub struct RetryLimit(pub Duration);

impl RetryLimit {
    /// Nothing is run again.
    pub(crate) const NEVER: RetryLimit = RetryLimit(Duration::ZERO);

    /// Tries of one statement.
    pub(crate) fn tries(self) -> Tries {
        Tries { limit: self.0, began: None, conflicts: 0, losses: 0 }
    }

    /// Runs what changes nothing, or nothing unless it succeeds, until no node fails under it.
    pub(crate) fn persist<T>(self, cancel: &CancelToken, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
        let mut tries = self.tries();
        loop {
            match attempt() {
                Err(error) => tries.after(error, cancel)?,
                done => return done,
            }
        }
    }
}

/// The tries of a statement so far.
pub(crate) struct Tries {
    limit: Duration,
    /// When the first try failed.
    began: Option<Instant>,
    conflicts: u32,
    losses: u32,
}

impl Tries {
    /// Waits until the statement should be run again after this error.
    ///
    /// # Errors
    /// What to tell the client if it should not.
    pub fn after(&mut self, error: Error, cancel: &CancelToken) -> Result<()> {
        let began = *self.began.get_or_insert_with(Instant::now);
        cancel.check()?;
        if is_conflict(&error) {
            return self.after_conflict(began, error);
        }
        if !is_loss(&error) {
            return Err(error);
        }
        let next = pause(self.losses);
        if began.elapsed() + next > self.limit {
            return Err(given_up(error, self.limit));
        }
        tracing::debug!(%error, pause = ?next, "a node failed under a statement: it is run again");
        self.losses += 1;
        wait(next, cancel)
    }

    fn after_conflict(&mut self, began: Instant, error: Error) -> Result<()> {
        // A transaction that a dead node left in doubt is in the way until it is resolved.
        if self.conflicts >= CONFLICTS && began.elapsed() >= self.limit {
            return Err(error);
        }
        // Who lost waits a little, the longer the more often.
        std::thread::sleep(Duration::from_micros(100 << self.conflicts.min(10)));
        self.conflicts += 1;
        Ok(())
    }

    /// Waits until a statement should be planned anew whose table was altered under it; whether those who store the table should be told
    /// how it is now: they are told by whoever alters it, but may have been away.
    ///
    /// # Errors
    /// What to tell the client if it should not.
    pub fn after_alter(&mut self, error: Error, cancel: &CancelToken) -> Result<bool> {
        let began = *self.began.get_or_insert_with(Instant::now);
        cancel.check()?;
        self.after_conflict(began, error).map_err(|error| Error::retryable(error.to_string()))?;
        Ok(self.conflicts.is_multiple_of(TELL))
    }
}

/// The pause after so many others.
fn pause(earlier: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << earlier.min(10)).min(PAUSES.1)
}

/// Pauses.
///
/// # Errors
/// If the statement is cancelled meanwhile.
pub(crate) fn wait(time: Duration, cancel: &CancelToken) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        cancel.check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK));
    }
}

/// Another transaction came first.
pub(crate) fn is_conflict(error: &Error) -> bool {
    match error {
        Error::Storage(error) => error.is_retryable(),
        Error::Node(failure) => failure.kind == FailureKind::Conflict,
        _ => false,
    }
}

/// A node failed, or has not what it was asked for any more; one that is told to end cancels what it runs.
pub(crate) fn is_loss(error: &Error) -> bool {
    matches!(error, Error::Node(Failure { kind: FailureKind::Retryable | FailureKind::Cancelled, .. }))
}

/// What a client is told when it took too long.
fn given_up(error: Error, limit: Duration) -> Error {
    let Error::Node(failure) = error else { return error };
    let why = if failure.kind == FailureKind::Cancelled { "a node ended what it ran".to_owned() } else { failure.message };
    if limit.is_zero() {
        return Error::retryable(why);
    }
    Error::retryable(format!("{why}. It was tried for {limit:?}: SHOW LEAVES tells who does not answer; try again when all do"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit() {
        let pauses: Vec<u128> = (0..6).map(|earlier| pause(earlier).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 500, 500]);
        assert_eq!(pause(u32::MAX), PAUSES.1);
    }

    #[test]
    fn only_failures_of_nodes_are_run_again() {
        let node = |kind| Error::Node(Failure::new(kind, "why"));
        assert!(is_loss(&node(FailureKind::Retryable)) && is_loss(&node(FailureKind::Cancelled)));
        for kind in [FailureKind::User, FailureKind::Fatal, FailureKind::Memory, FailureKind::Denied, FailureKind::DuplicateKey] {
            assert!(!is_loss(&node(kind)) && !is_conflict(&node(kind)), "{kind:?}");
        }
        let full = Error::Exec(stoa_exec::Error::Overloaded("of others".into()));
        let memory = Error::Exec(stoa_exec::Error::Memory { limit: 1, operator: "join".into() });
        let unknown = Error::Unknown("what came of it".into());
        assert!([full, memory, unknown, Error::Exec(stoa_exec::Error::Cancelled)].iter().all(|error| !is_loss(error)));
        assert!(is_conflict(&node(FailureKind::Conflict)));
    }

    /// How often something is tried that fails so, and what comes of it.
    fn tried(limit: RetryLimit, kind: FailureKind, cancel: &CancelToken) -> (u32, String) {
        let mut count = 0;
        let failed = limit.persist(cancel, || {
            count += 1;
            Err::<(), Error>(Failure::new(kind, "leaf a is gone").into())
        });
        (count, failed.unwrap_err().to_string())
    }

    #[test]
    fn there_is_an_end_to_it() {
        let (limit, cancel) = (RetryLimit(Duration::from_millis(200)), CancelToken::default());
        let (count, error) = tried(limit, FailureKind::Retryable, &cancel);
        // Less often, if it pauses for longer than it means to.
        assert!((2..=3).contains(&count) && error.contains("leaf a is gone. It was tried for 200ms"), "{count}: {error}");
        assert_eq!(tried(RetryLimit::NEVER, FailureKind::Retryable, &cancel), (1, "leaf a is gone".to_owned()));
        assert_eq!(tried(RetryLimit::NEVER, FailureKind::Conflict, &cancel).0, CONFLICTS + 1);
        assert_eq!(tried(limit, FailureKind::User, &cancel).0, 1);
        cancel.cancel();
        assert_eq!(tried(limit, FailureKind::Retryable, &cancel), (1, "the query was cancelled".to_owned()));
    }
}
