//! Calls of clients that are answered in parts: statements, one after the other.
//!
//! The parts of an answer that is small and made at once go out with the result of the call, which costs no message of its own. Any other
//! goes out part by part while it is made; each part is answered when the client has taken it, so that who makes them waits for him.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::Either;
use parking_lot::Mutex;
use stoa_schema::coordinator_capnp::answer;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::io::{Allowance, blocking};
use crate::listen::Calls;
use crate::parts::MAX_PARTS;
use crate::peer_server::Guard;
use crate::pump::IN_ANSWER;
use crate::session::{Answer, AnswerPart, Cancelled, Decisions, HowFar};
use crate::{Failure, FailureKind, Result};

/// Parts of an answer that wait for a connection.
const QUEUED: usize = 4;
/// How long the first parts of an answer wait for the end of the call.
const HOLD: Duration = Duration::from_millis(50);
/// How often a statement that waits for its client looks whether it was cancelled.
const LOOK: Duration = Duration::from_millis(20);
/// A call that runs longer than this tells how far it is.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it tells that.
const TELL: Duration = Duration::from_millis(250);

/// The turns of a session's statements: one has the next when it has ended and its answer was taken.
#[derive(Clone)]
pub(crate) struct Turns {
    pub calls: Calls,
    /// How many statements the connection may have under way.
    pub room: Arc<Allowance>,
    pub turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether the last of them left a transaction open.
    pub open: Arc<AtomicBool>,
}

/// What a client wants of the answer to a call.
pub(crate) struct Wants {
    pub to: answer::Client,
    pub progress: bool,
    /// The number of its first transaction; 0: the client will not ask for it.
    pub statement: u64,
    /// A small one with the result of the call.
    pub whole: bool,
}

/// Runs a call that answers in parts when it is its turn: the parts that its result is to take along, and how it ended. If the caller
/// goes away, it is cancelled.
pub(crate) async fn answered(
    turns: &Turns,
    wants: Wants,
    run: impl FnOnce(&mut dyn Answer, &Cancelled) -> Result<()> + Send + 'static,
) -> (Vec<AnswerPart>, Result<()>) {
    let held = Arc::new(Held::new(wants.whole));
    let ran = in_turn(turns, wants, &held, run).await;
    (held.take(), ran)
}

async fn in_turn(
    turns: &Turns,
    Wants { to, progress, statement, .. }: Wants,
    held: &Arc<Held>,
    run: impl FnOnce(&mut dyn Answer, &Cancelled) -> Result<()> + Send + 'static,
) -> Result<()> {
    let _room = turns.room.take("this connection")?;
    let _call = turns.calls.begin();
    // One that is cancelled has its turn until it has ended.
    let turn = turns.turn.clone().lock_owned().await;
    let (sender, parts) = mpsc::channel(QUEUED);
    let cancelled = Cancelled::default();
    let _guard = Guard(cancelled.clone());
    let followed = progress.then(Followed::default);
    let mut sink =
        QueueAnswer { held: held.clone(), parts: sender, cancelled: cancelled.clone(), followed: followed.clone(), statement };
    let work = async {
        let run = std::pin::pin!(blocking(move || Ok((run(&mut sink, &cancelled), turn))));
        let send = std::pin::pin!(send(held, parts, &to));
        match futures_util::future::select(run, send).await {
            // What still waits is for nobody: a client that does not take it holds nothing up.
            Either::Left((Err(failure), _)) => Err(failure),
            Either::Left((Ok((Err(failure), _)), _)) if failure.kind == FailureKind::Cancelled => Err(failure),
            Either::Left((Ok((ran, _turn)), send)) => send.await.and(ran),
            Either::Right((sent, run)) => {
                let ran = run.await.and_then(|(ran, _)| ran);
                sent.and(ran)
            }
        }
    };
    let Some(followed) = followed else { return work.await };
    tokio::select! {
        ran = work => ran,
        never = tell(&followed, &to) => match never {},
    }
}

/// What tells how far the statements of a call are.
type Followed = Arc<OnceLock<HowFar>>;

/// Tells a client how far a call is, again and again once it has taken a while.
async fn tell(followed: &Followed, to: &answer::Client) -> Infallible {
    tokio::time::sleep(PATIENCE).await;
    let mut last = (0, 0);
    loop {
        let now = followed.get().map_or(last, |how_far| how_far());
        if now != last {
            let mut request = to.progress_request();
            request.get().set_done(now.0);
            request.get().set_total(now.1);
            // One that does not take it does not get its rows either: that is told by those.
            let _ = request.send().promise.await;
            last = now;
        }
        tokio::time::sleep(TELL).await;
    }
}

/// The first parts of an answer, as long as the result of the call may take them along.
struct Held(Mutex<Option<Parts>>);

#[derive(Default)]
struct Parts {
    parts: Vec<AnswerPart>,
    bytes: usize,
}

impl Held {
    fn new(holds: bool) -> Held {
        Held(Mutex::new(holds.then(Parts::default)))
    }

    fn holds(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Keeps a part, or gives it back: then it goes out by itself, and so do all that follow.
    fn keep(&self, part: AnswerPart) -> Option<AnswerPart> {
        let mut held = self.0.lock();
        let Some(held) = &mut *held else { return Some(part) };
        // Past a limit it stays there.
        held.bytes = held.bytes.saturating_add(part.bytes());
        if held.bytes > IN_ANSWER || held.parts.len() == MAX_PARTS {
            return Some(part);
        }
        held.parts.push(part);
        None
    }

    /// What was kept. No more is from now on.
    fn take(&self) -> Vec<AnswerPart> {
        self.0.lock().take().map_or_else(Vec::new, |held| held.parts)
    }
}

/// Where a statement puts its answer.
struct QueueAnswer {
    held: Arc<Held>,
    parts: mpsc::Sender<Word>,
    cancelled: Cancelled,
    followed: Option<Followed>,
    statement: u64,
}

/// What a statement says to its client.
enum Word {
    Part(AnswerPart),
    /// A transaction of this number is about to be decided; who said so waits until the client knows it.
    Deciding(u64, oneshot::Sender<()>),
}

/// Waits for a client, on the thread of a statement, but not once that is cancelled.
fn wait_for<T>(cancelled: &Cancelled, client: impl Future<Output = Option<T>>) -> Result<T> {
    let mut client = std::pin::pin!(client);
    let came = Handle::current().block_on(async {
        loop {
            match tokio::time::timeout(LOOK, &mut client).await {
                Ok(came) => break came,
                Err(_) if cancelled.load(Ordering::Relaxed) => break None,
                Err(_) => {}
            }
        }
    });
    came.ok_or_else(Failure::cancelled)
}

impl Answer for QueueAnswer {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        let Some(part) = self.held.keep(part) else { return Ok(()) };
        let room = wait_for(&self.cancelled, async { self.parts.reserve().await.ok() })?;
        room.send(Word::Part(part));
        Ok(())
    }

    fn decisions(&self) -> Option<Arc<dyn Decisions>> {
        let decisions =
            QueueDecisions { parts: self.parts.downgrade(), cancelled: self.cancelled.clone(), statement: self.statement };
        (self.statement != 0).then(|| Arc::new(decisions) as Arc<dyn Decisions>)
    }

    fn follows(&self) -> bool {
        self.followed.is_some()
    }

    fn follow(&mut self, how_far: HowFar) {
        if let Some(followed) = &self.followed {
            // It is one statement, or several that count together.
            let _ = followed.set(how_far);
        }
    }
}

/// Tells a client of transactions. It does not keep the call going whose transactions these are.
struct QueueDecisions {
    parts: mpsc::WeakSender<Word>,
    cancelled: Cancelled,
    statement: u64,
}

impl Decisions for QueueDecisions {
    fn number(&self) -> u64 {
        self.statement
    }

    fn note(&self, transaction: u64) -> Result<()> {
        let parts = self.parts.upgrade().ok_or_else(Failure::cancelled)?;
        let (knows, known) = oneshot::channel();
        wait_for(&self.cancelled, async {
            parts.send(Word::Deciding(transaction, knows)).await.ok()?;
            known.await.ok()
        })
    }
}

/// Sends parts one after the other: each is answered when the client has taken it. Those that are held go first, unless the call ends
/// soon and without others.
async fn send(held: &Held, mut words: mpsc::Receiver<Word>, to: &answer::Client) -> Result<()> {
    let mut until = held.holds().then(|| Instant::now() + HOLD);
    // One part is on the way while the next is made ready.
    let mut before = None;
    loop {
        let part = match next(&mut words, until).await {
            Next::Word(Word::Part(part)) => Some(part),
            Next::Word(Word::Deciding(transaction, knows)) => {
                let mut request = to.deciding_request();
                request.get().set_transaction(transaction);
                request.send().promise.await?;
                // Who waits for it may be cancelled.
                let _ = knows.send(());
                continue;
            }
            Next::Late => None,
            Next::End => break,
        };
        let early = until.take().map_or_else(Vec::new, |_| held.take());
        for part in early.into_iter().chain(part) {
            if let Some(before) = before.replace(send_part(part, to)) {
                before.await?;
            }
        }
    }
    match before {
        Some(last) => last.await,
        None => Ok(()),
    }
}

/// What a statement says next.
enum Next {
    Word(Word),
    /// Nothing, for so long that what is held has to go.
    Late,
    End,
}

async fn next(words: &mut mpsc::Receiver<Word>, until: Option<Instant>) -> Next {
    let word = match until {
        None => words.recv().await,
        Some(until) => match tokio::time::timeout_at(until, words.recv()).await {
            Ok(word) => word,
            Err(_) => return Next::Late,
        },
    };
    word.map_or(Next::End, Next::Word)
}

/// Sends a part at once; the future waits for the answer.
fn send_part(part: AnswerPart, to: &answer::Client) -> futures_util::future::LocalBoxFuture<'static, Result<()>> {
    macro_rules! answered {
        ($request:expr) => {{
            let promise = $request.send().promise;
            Box::pin(async move { promise.await.map(drop).map_err(Failure::from) })
        }};
    }
    match part {
        AnswerPart::Columns(schema) => {
            let mut request = to.columns_request();
            request.get().set_stream(&schema);
            answered!(request)
        }
        AnswerPart::Rows(chunk) => {
            let mut request = to.rows_request();
            request.get().set_chunk(&chunk);
            answered!(request)
        }
        AnswerPart::Text(text) => {
            let mut request = to.text_request();
            request.get().set_text(&text);
            answered!(request)
        }
        AnswerPart::Plan(text) => {
            let mut request = to.text_request();
            request.get().set_text(&text);
            request.get().set_plan(true);
            answered!(request)
        }
    }
}
