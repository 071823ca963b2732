//! What the client of a session knows of the transactions of its statements.
//!
//! A client that names a number with a statement finds out by itself what came of it when its coordinator is lost: it asks another one,
//! which asks all partitions. So nothing of that statement is decided under a number that its client does not know. The first transaction
//! has the number that the client named; of any other the client is told before ([`Decisions::note`]).
//!
//! Who asks for a number has its transaction given up if it was not decided. All these numbers are random, so that nobody can have those
//! of others given up; the numbers that coordinators make of the time are never asked for by clients.
//!
//! Outcomes stay known until the client has its answer: until its next statement, or for [`KEPT`]. That a transaction was given up stays
//! known for [`FENCED`], in case that its coordinator only stood still. One that has heard nothing of its client for half as long asks it
//! before it decides.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stoa_rpc::session::{Decisions, RANDOM, random_number};
use stoa_rpc::{Failure, FailureKind};

use super::Transactions;
use crate::Result;

/// For how long an outcome is known after the answer of its statement: a client notices within 25 s that its coordinator is gone, and asks
/// within 30 more ([`stoa_rpc::session::FINDS_OUT_WITHIN`]).
pub(super) const KEPT: Duration = Duration::from_secs(90);
/// For how long it is known that a transaction was given up whose coordinator may come back.
pub(super) const FENCED: Duration = Duration::from_secs(3600);

/// See the module.
pub struct Witness {
    transactions: Arc<Transactions>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The call that runs, if its client asks for its transactions when the coordinator is lost.
    call: Option<Call>,
    /// What was decided in the last one, by database and partition.
    decided: Vec<(String, u32, u64)>,
}

struct Call {
    decisions: Arc<dyn Decisions>,
    began: Instant,
    /// A transaction has the number that the client named.
    taken: bool,
}

impl Call {
    fn new(decisions: Arc<dyn Decisions>) -> Result<Call> {
        if decisions.number() & RANDOM == 0 {
            let what = "a number for a statement is random, with the highest bit set";
            return Err(Failure::new(FailureKind::User, what).into());
        }
        Ok(Call { decisions, began: Instant::now(), taken: false })
    }
}

/// A call of a client, until it is dropped.
pub(crate) struct Calling<'a>(&'a Witness);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.state.lock().call = None;
    }
}

impl Witness {
    pub(super) fn new(transactions: &Arc<Transactions>) -> Witness {
        Witness { transactions: transactions.clone(), state: Mutex::default() }
    }

    /// One of a single transaction, which its client knows.
    pub(super) fn of(transactions: &Arc<Transactions>, number: u64) -> Result<Witness> {
        let witness = Witness::new(transactions);
        witness.state.lock().call = Some(Call::new(Arc::new(Known(number)))?);
        Ok(witness)
    }

    /// A call of the client begins: it has the answers of those before.
    pub(crate) fn begin(&self, decisions: Option<Arc<dyn Decisions>>) -> Result<Calling<'_>> {
        let call = decisions.map(Call::new).transpose()?;
        let mut state = self.state.lock();
        for (database, ordinal, transaction) in state.decided.drain(..) {
            self.transactions.forget(&database, ordinal, transaction, Duration::ZERO);
        }
        state.call = call;
        Ok(Calling(self))
    }

    /// A number for a transaction that begins; `None`: any will do.
    pub(super) fn number(&self) -> Option<u64> {
        let mut state = self.state.lock();
        let call = state.call.as_mut()?;
        Some(if std::mem::replace(&mut call.taken, true) { random_number() } else { call.decisions.number() })
    }

    /// A transaction is about to be decided: its client knows the number once this returns.
    ///
    /// # Errors
    /// If the client is gone.
    pub(super) fn note(&self, transaction: u64) -> Result<()> {
        let decisions = match &self.state.lock().call {
            Some(call) if transaction != call.decisions.number() || call.began.elapsed() > FENCED / 2 => call.decisions.clone(),
            _ => return Ok(()),
        };
        decisions.note(transaction).map_err(|failure| {
            tracing::debug!(transaction, %failure, "a transaction is not decided: its client does not know it");
            stoa_exec::Error::Cancelled.into()
        })
    }

    /// A transaction was committed, and everybody who takes part knows: who decided may forget it once nobody will ask.
    pub(super) fn forget(&self, database: &str, ordinal: u32, transaction: u64) {
        let mut state = self.state.lock();
        let kept = if state.call.is_some() { KEPT } else { Duration::ZERO };
        if state.call.is_some() {
            state.decided.push((database.to_owned(), ordinal, transaction));
        }
        self.transactions.forget(database, ordinal, transaction, kept);
    }
}

/// The transaction of a load: who asks for its end is there.
struct Known(u64);

impl Decisions for Known {
    fn number(&self) -> u64 {
        self.0
    }

    fn note(&self, transaction: u64) -> std::result::Result<(), Failure> {
        if transaction == self.0 { Ok(()) } else { Err(Failure::cancelled()) }
    }
}
