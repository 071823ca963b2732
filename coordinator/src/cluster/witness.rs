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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const NUMBER: u64 = RANDOM | 17;

    /// A client that knows what it is told, unless it is gone.
    #[derive(Default)]
    struct Client {
        told: AtomicU64,
        gone: bool,
    }

    impl Decisions for Client {
        fn number(&self) -> u64 {
            NUMBER
        }

        fn note(&self, transaction: u64) -> std::result::Result<(), Failure> {
            self.told.store(transaction, Ordering::Relaxed);
            if self.gone { Err(Failure::cancelled()) } else { Ok(()) }
        }
    }

    #[test]
    fn a_client_knows_every_number_before_it_is_decided() {
        let witness = Witness::new(&Arc::default());
        let client = Arc::new(Client::default());
        {
            let _call = witness.begin(Some(client.clone())).unwrap();
            assert_eq!(witness.number(), Some(NUMBER));
            witness.note(NUMBER).unwrap();
            assert_eq!(client.told.load(Ordering::Relaxed), 0);
            let other = witness.number().unwrap();
            assert!(other != NUMBER && other & RANDOM != 0 && witness.number() != Some(other));
            witness.note(other).unwrap();
            assert_eq!(client.told.load(Ordering::Relaxed), other);
        }
        // A call of a client that will not ask.
        let _call = witness.begin(None).unwrap();
        assert_eq!(witness.number(), None);
        witness.note(5).unwrap();
    }

    #[test]
    fn nothing_is_decided_for_a_client_that_is_gone() {
        let witness = Witness::new(&Arc::default());
        let _call = witness.begin(Some(Arc::new(Client { gone: true, ..Client::default() }))).unwrap();
        witness.note(NUMBER).unwrap();
        let error = witness.note(5).unwrap_err();
        assert!(matches!(error, crate::Error::Exec(stoa_exec::Error::Cancelled)), "{error}");
    }

    #[test]
    fn a_load_has_one_transaction_and_numbers_are_random() {
        let load = Witness::of(&Arc::default(), NUMBER).unwrap();
        assert_eq!(load.number(), Some(NUMBER));
        assert!(load.note(NUMBER).is_ok() && load.note(RANDOM | 18).is_err());
        assert!(Witness::of(&Arc::default(), 17).is_err());
    }

    #[test]
    fn outcomes_are_kept_until_the_client_has_its_answer() {
        let (transactions, place) = (Arc::<Transactions>::default(), ("d".to_owned(), 3));
        let rounds_until_due = || (0..).find_map(|round| transactions.due().pop().map(|due| (round, due))).unwrap();
        let witness = Witness::new(&transactions);
        witness.forget("d", 3, 1);
        assert_eq!(rounds_until_due(), (0, (place.clone(), vec![1])));
        let decided = |number| {
            let _call = witness.begin(Some(Arc::new(Client::default()))).unwrap();
            witness.forget("d", 3, number);
        };
        decided(2);
        // Nobody says that he has the answer.
        assert_eq!(rounds_until_due(), (180, (place.clone(), vec![2])));
        // Once more does no harm.
        decided(3);
        assert_eq!(transactions.due(), [(place.clone(), vec![2])]);
        assert!(transactions.due().is_empty());
        drop(witness.begin(None).unwrap());
        assert_eq!(rounds_until_due(), (0, (place, vec![3])));
    }
}
