//! Answers on their way from the threads of statements to clients.
//!
//! The parts of an answer that is small and made at once go out with the result of the call, which costs no message of its own. Any other
//! goes out part by part while it is made; each part is answered when the client has taken it, so that who makes them waits for him.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::Either;
use parking_lot::Mutex;
use stoa_schema::coordinator_capnp::answer;
use tokio::sync::mpsc;

use crate::io::{Allowance, blocking};
use crate::listen::Calls;
use crate::peer_server::Guard;
use crate::pump::IN_ANSWER;
use crate::session::{Answer, AnswerPart, Cancelled, HowFar};
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
    calls: Calls,
    /// How many statements the connection may have under way.
    pub room: Arc<Allowance>,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Turns {
    pub fn new(calls: Calls, room: Arc<Allowance>) -> Turns {
        Turns { calls, room, turn: Arc::default() }
    }
}

/// How a client wants an answer.
pub(crate) struct Asked {
    pub to: answer::Client,
    /// With how far it is.
    pub progress: bool,
    /// Small ones with the result of the call.
    pub whole: bool,
}

/// What is left to answer when a call has ended: the parts that its result takes along, and how it ended.
pub(crate) struct Answered {
    pub parts: Vec<AnswerPart>,
    pub ran: Result<()>,
}

/// Runs a call that answers in parts when it is its turn. If the caller goes away, it is cancelled.
pub(crate) async fn answered(
    turns: &Turns,
    asked: Asked,
    run: impl FnOnce(&mut dyn Answer, &Cancelled) -> Result<()> + Send + 'static,
) -> Answered {
    let held = Arc::new(Held::new(asked.whole));
    let ran = in_turn(turns, &asked, &held, run).await;
    Answered { parts: held.take(), ran }
}

async fn in_turn(
    turns: &Turns,
    asked: &Asked,
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
    let followed = asked.progress.then(Followed::default);
    let (held_by_sink, followed_by_sink) = (held.clone(), followed.clone());
    let mut sink = QueueAnswer { held: held_by_sink, parts: sender, cancelled: cancelled.clone(), followed: followed_by_sink };
    let work = async {
        let run = std::pin::pin!(blocking(move || Ok((run(&mut sink, &cancelled), turn))));
        let send = std::pin::pin!(send(held, parts, &asked.to));
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
        never = tell(&followed, &asked.to) => match never {},
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

    /// Keeps a part, or gives it back: then it goes out by itself, and so do all that follow.
    fn keep(&self, part: AnswerPart) -> Option<AnswerPart> {
        let mut held = self.0.lock();
        let Some(held) = &mut *held else { return Some(part) };
        // Past the limit it stays there.
        held.bytes = held.bytes.saturating_add(part.bytes());
        if held.bytes > IN_ANSWER {
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
    parts: mpsc::Sender<AnswerPart>,
    cancelled: Cancelled,
    followed: Option<Followed>,
}

impl Answer for QueueAnswer {
    /// Waits for the client, but not once the statement is cancelled.
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        let Some(part) = self.held.keep(part) else { return Ok(()) };
        let room = tokio::runtime::Handle::current().block_on(async {
            loop {
                match tokio::time::timeout(LOOK, self.parts.reserve()).await {
                    Ok(room) => break room.ok(),
                    Err(_) if self.cancelled.load(Ordering::Relaxed) => break None,
                    Err(_) => {}
                }
            }
        });
        room.map(|room| room.send(part)).ok_or_else(Failure::cancelled)
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

/// Sends parts one after the other: each is answered when the client has taken it. Those that are held go first, unless the call ends
/// soon and without others.
async fn send(held: &Held, mut parts: mpsc::Receiver<AnswerPart>, to: &answer::Client) -> Result<()> {
    let first = match tokio::time::timeout(HOLD, parts.recv()).await {
        Ok(None) => return Ok(()),
        Ok(first) => first,
        Err(_) => None,
    };
    // One part is on the way while the next is made ready.
    let mut before = None;
    let mut early = held.take().into_iter().chain(first);
    while let Some(part) = match early.next() {
        None => parts.recv().await,
        part => part,
    } {
        let now = send_part(part, to);
        if let Some(before) = before.replace(now) {
            before.await?;
        }
    }
    match before {
        Some(last) => last.await,
        None => Ok(()),
    }
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
