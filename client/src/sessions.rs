//! The sessions of a client, one after the other, and what becomes of statements when one of them breaks.
//!
//! A statement carries a random number, and its client notes any other under which something of it is about to be decided. When the
//! connection breaks another coordinator is asked for the outcome of these numbers: what was not committed under one of them never will be,
//! so that the statement can be run again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Mutex, MutexGuard};
use stoa_rpc::session::{
    Answer, AnswerPart, Decisions, FINDS_OUT_WITHIN, HowFar, SessionService, StatementOutcome, random_number,
};
use stoa_rpc::{Failure, FailureKind, Io, Result, SessionClient};

use crate::answer::Taker;
use crate::{Cancelled, Login, Options};

/// The pause before another coordinator is looked for again.
const PAUSE: Duration = Duration::from_millis(100);
/// How often who waits for a turn looks whether he is cancelled.
const LOOK: Duration = Duration::from_millis(10);
/// How often a statement is run at most: one that is the end of every coordinator is not to be that for ever.
const RUNS: usize = 10;
/// What a statement gives whose own words were lost.
const DONE: &str = "done: the coordinator was lost after it had been committed";

/// See the module.
pub(crate) struct Sessions {
    io: Io,
    options: Options,
    now: Mutex<Arc<SessionClient>>,
    /// Held while a statement runs.
    turn: Mutex<()>,
}

/// Runs a statement in a session.
pub(crate) type Run<'a> = dyn Fn(&Arc<SessionClient>, &mut dyn Answer) -> Result<()> + 'a;

impl Sessions {
    pub fn connect(options: &Options) -> Result<Sessions> {
        let io = Io::start("stoa-client")?;
        let first = SessionClient::connect(&io, &options.addresses, &options.security, &options.login)?;
        Ok(Sessions { io, options: options.clone(), now: Mutex::new(Arc::new(first)), turn: Mutex::default() })
    }

    pub fn address(&self) -> String {
        self.now.lock().address().to_owned()
    }

    /// The session; a new one on any coordinator if the last has broken, which knows whether that took a transaction with it.
    pub fn session(&self) -> Result<Arc<SessionClient>> {
        let mut now = self.now.lock();
        if !now.alive() {
            let options = &self.options;
            let login = Login { lost: now.in_transaction(), ..options.login.clone() };
            *now = Arc::new(SessionClient::connect(&self.io, &options.addresses, &options.security, &login)?);
            if login.lost && !now.finds_out() {
                let what = "the coordinator was lost, and the transaction that was open with it: run the transaction again";
                return Err(Failure::new(FailureKind::Retryable, what));
            }
        }
        Ok(now.clone())
    }

    /// Makes a call that changes nothing, on another coordinator if the connection breaks under it.
    pub fn ask<T>(&self, call: impl Fn(&Arc<SessionClient>) -> Result<T>) -> Result<T> {
        let mut runs = 1;
        loop {
            let session = self.session()?;
            match call(&session) {
                Err(failure) if broke(&session, &failure) && runs < RUNS => runs += 1,
                done => return told(&session, done),
            }
        }
    }

    /// Runs statements by their text, or what only reads (`None`). If the connection breaks under them it finds out what came of them, and
    /// runs them again if that was nothing.
    pub fn run(&self, sql: Option<&str>, taker: &mut dyn Taker, cancelled: &Cancelled, run: &Run<'_>) -> Result<()> {
        let _turn = self.turn(cancelled)?;
        let (mut runs, mut said) = (1, Said::default());
        loop {
            let session = self.session()?;
            let noted = (sql.is_some() && session.finds_out()).then(Noted::new);
            let failure = match run(&session, &mut Noting { taker, said: &mut said, noted: noted.clone() }) {
                Err(failure) if broke(&session, &failure) => failure,
                done => return told(&session, done),
            };
            let outcome = match (sql, noted) {
                (None, _) => StatementOutcome::Never,
                _ if session.refused() => StatementOutcome::Never,
                (Some(sql), Some(noted)) => self.find_out(sql, &noted.all(), &session, &Since::now(), cancelled),
                (Some(_), None) => return Err(not_known("", &failure)),
            };
            match outcome {
                StatementOutcome::Committed => return taker.part(AnswerPart::Text(DONE.to_owned())),
                StatementOutcome::Never if taker.handed() => return Err(after_parts(&failure)),
                StatementOutcome::Never if runs == RUNS => return Err(lost_again(&failure)),
                StatementOutcome::Never => {
                    taker.begin_anew();
                    said.begin_anew();
                }
                StatementOutcome::Unknown(why) => return Err(not_known(&why, &failure)),
            }
            runs += 1;
        }
    }

    /// Asks coordinators what came of a statement whose session broke, until one knows, for a while.
    pub fn find_out(
        &self,
        sql: &str,
        numbers: &[u64],
        lost: &SessionClient,
        since: &Since,
        cancelled: &Cancelled,
    ) -> StatementOutcome {
        loop {
            let asked = self.session().map(|session| (session.outcome(sql, numbers, cancelled), session));
            let why = match asked {
                // It may have been known once.
                Ok((Ok(StatementOutcome::Never), _)) if lost.slept() || since.over() => "it was asked for too late".to_owned(),
                Ok((Ok(outcome), _)) => return outcome,
                Ok((Err(failure), session)) if broke(&session, &failure) => failure.message,
                Ok((Err(failure), _)) => return StatementOutcome::Unknown(failure.message),
                Err(failure) => failure.message,
            };
            if lost.slept() || since.over() || cancelled.load(Ordering::Relaxed) {
                return StatementOutcome::Unknown(why);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until no other statement runs.
    fn turn(&self, cancelled: &Cancelled) -> Result<MutexGuard<'_, ()>> {
        loop {
            if let Some(turn) = self.turn.try_lock_for(LOOK) {
                return Ok(turn);
            }
            if cancelled.load(Ordering::Relaxed) {
                return Err(Failure::cancelled());
            }
        }
    }
}

/// When a session was found broken, by a clock that stands while the machine sleeps and one that does not.
pub(crate) struct Since(Instant, SystemTime);

impl Since {
    pub fn now() -> Since {
        Since(Instant::now(), SystemTime::now())
    }

    /// Outcomes of that time may be forgotten soon.
    fn over(&self) -> bool {
        self.0.elapsed().max(self.1.elapsed().unwrap_or_default()) > FINDS_OUT_WITHIN
    }
}

/// Whether a call failed with its connection: nobody knows from it how far it came.
pub(crate) fn broke(session: &SessionClient, failure: &Failure) -> bool {
    failure.kind == FailureKind::Retryable && !session.alive()
}

/// What a call gave. After a failure that may not come again elsewhere the next call of the client enters a coordinator anew.
pub(crate) fn told<T>(session: &SessionClient, outcome: Result<T>) -> Result<T> {
    if outcome.as_ref().is_err_and(|failure| failure.kind == FailureKind::Retryable) {
        session.leave();
    }
    outcome
}

/// What came of a statement cannot be found out.
pub(crate) fn not_known(why: &str, failure: &Failure) -> Failure {
    let why = if why.is_empty() { String::new() } else { format!("{why}; ") };
    let what = "the connection to the coordinator broke while a statement ran: whether it was done is not known";
    Failure::new(FailureKind::Retryable, format!("{what} ({why}{})", failure.message))
}

fn after_parts(failure: &Failure) -> Failure {
    let what = "the connection to the coordinator broke after parts of the result had come, and another run may give others: run the \
                statement again";
    Failure::new(FailureKind::Retryable, format!("{what} ({})", failure.message))
}

fn lost_again(failure: &Failure) -> Failure {
    let what = format!("{RUNS} times a coordinator was lost while the statement ran, and nothing of it was done");
    Failure::new(FailureKind::Retryable, format!("{what} ({})", failure.message))
}

/// The numbers of the transactions of a call.
struct Noted {
    number: u64,
    others: Mutex<Vec<u64>>,
}

impl Noted {
    fn new() -> Arc<Noted> {
        Arc::new(Noted { number: random_number(), others: Mutex::default() })
    }

    fn all(&self) -> Vec<u64> {
        std::iter::once(self.number).chain(self.others.lock().iter().copied()).collect()
    }
}

impl Decisions for Noted {
    fn number(&self) -> u64 {
        self.number
    }

    fn note(&self, transaction: u64) -> Result<()> {
        if transaction != self.number {
            self.others.lock().push(transaction);
        }
        Ok(())
    }
}

/// What statements have said, in their order: it is not said again when they are run again.
#[derive(Default)]
struct Said {
    now: Vec<String>,
    /// Of the run before.
    before: VecDeque<String>,
}

impl Said {
    fn begin_anew(&mut self) {
        self.before.extend(self.now.drain(..));
    }

    /// Whether the caller has heard a text already.
    fn again(&mut self, text: &str) -> bool {
        self.now.push(text.to_owned());
        let again = self.before.front().is_some_and(|before| before == text);
        if again {
            self.before.pop_front();
        } else {
            // It went another way this time.
            self.before.clear();
        }
        again
    }
}

/// Takes what a statement gives, and notes its transactions.
struct Noting<'a> {
    taker: &'a mut dyn Taker,
    said: &'a mut Said,
    noted: Option<Arc<Noted>>,
}

impl Answer for Noting<'_> {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        match &part {
            AnswerPart::Text(text) if self.said.again(text) => Ok(()),
            _ => self.taker.part(part),
        }
    }

    fn follows(&self) -> bool {
        self.taker.follows()
    }

    fn follow(&mut self, how_far: HowFar) {
        self.taker.follow(how_far);
    }

    fn decisions(&self) -> Option<Arc<dyn Decisions>> {
        self.noted.clone().map(|noted| noted as Arc<dyn Decisions>)
    }
}
