//! Statements of clients on a coordinator: each is listed while it runs, logged and counted when it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stoa_rpc::session::Cancelled;
use stoa_rpc::{Failure, FailureKind, Result};

use crate::processes::{cut, shown};
use crate::{Membership, Processes};

/// Bytes of a text that the log shows.
const SHOWN: usize = 1000;

/// See the module.
#[derive(Clone)]
pub(crate) struct Statements {
    processes: Arc<Processes>,
    membership: Arc<Membership>,
    slow: Duration,
    closed: Arc<AtomicBool>,
}

impl Statements {
    pub fn new(processes: Arc<Processes>, membership: Arc<Membership>, slow: Duration) -> Statements {
        Statements { processes, membership, slow, closed: Arc::default() }
    }

    /// Takes no more statements.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Whether it takes no more.
    pub fn closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Runs a call of a client. What is logged meanwhile carries its number in the process list.
    pub fn run(
        &self,
        user: &str,
        database: &str,
        sql: &str,
        cancelled: &Cancelled,
        run: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        if self.closed() {
            return Err(Failure::new(FailureKind::Retryable, "this coordinator is shutting down"));
        }
        let listed = self.processes.begin(self.membership.node(), user, database, sql, cancelled);
        let _span = tracing::info_span!("statement", id = listed.number, user, database).entered();
        let began = Instant::now();
        let outcome = run();
        let took = began.elapsed();
        let word = match &outcome {
            Ok(()) => "done",
            Err(failure) if failure.kind == FailureKind::Cancelled => "cancelled",
            Err(_) => "failed",
        };
        metrics::counter!("stoa_statements_total", "outcome" => word).increment(1);
        metrics::histogram!("stoa_statement_seconds").record(took.as_secs_f64());
        match &outcome {
            Err(failure) => tracing::info!(sql = line(sql), ?took, error = %failure, "{word}"),
            Ok(()) if took > self.slow => tracing::warn!(sql = line(sql), ?took, "slow statement"),
            Ok(()) => tracing::debug!(sql = line(sql), ?took, "{word}"),
        }
        outcome
    }
}

/// A text as one line of a log.
fn line(sql: &str) -> String {
    cut(shown(sql), SHOWN).replace(['\n', '\r', '\t'], " ")
}
