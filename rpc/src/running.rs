//! Fragments that run on leaves elsewhere, all waited for by one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::io::gone;
use crate::leaf::RunProfile;
use crate::pump::{POLL, QUEUED};
use crate::{ChunkSink, Failure, Result};

/// A fragment that runs on a leaf. Dropped, it is given up there.
#[derive(Debug)]
pub struct Running {
    parts: mpsc::Receiver<Part>,
    heard: Arc<Heard>,
}

/// How far something is elsewhere, as was said last.
#[derive(Debug, Default)]
pub struct Heard {
    done: AtomicU64,
    total: AtomicU64,
}

impl Heard {
    /// What is done, and of how much.
    #[must_use]
    pub fn now(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    pub(crate) fn tell(&self, done: u64, total: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }
}

/// What comes of a fragment: its rows, then how it ended, with the last of its rows, or none.
#[derive(Debug)]
pub(crate) enum Part {
    Rows(Vec<u8>),
    Ended(Result<(RunProfile, Vec<u8>)>),
}

impl Running {
    /// A fragment, and where what comes of it goes.
    pub(crate) fn new() -> (mpsc::Sender<Part>, Running) {
        let (parts, receiver) = mpsc::channel(QUEUED);
        (parts, Running { parts: receiver, heard: Arc::default() })
    }

    /// How far the query of the fragment is on its leaf, with all that it does there.
    #[must_use]
    pub fn heard(&self) -> &Arc<Heard> {
        &self.heard
    }

    /// Runs a fragment on a thread of its own.
    pub(crate) fn beside(run: impl FnOnce(&mut dyn ChunkSink) -> Result<RunProfile> + Send + 'static) -> Running {
        let (parts, running) = Running::new();
        std::thread::spawn(move || {
            let ran = run(&mut RowQueue(&parts));
            // Who does not listen any more does not want to know.
            let _ = parts.blocking_send(Part::Ended(ran.map(|profile| (profile, vec![]))));
        });
        running
    }
}

struct RowQueue<'a>(&'a mpsc::Sender<Part>);

impl ChunkSink for RowQueue<'_> {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.0.blocking_send(Part::Rows(chunk)).map_err(|_| Failure::cancelled())
    }
}

/// Waits for fragments: how each ended, in order. Their rows go to `take`, each chunk with the number of its fragment; see [`Gather`] for
/// the others.
pub fn gather(
    running: Vec<Running>,
    take: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
    poll: &mut dyn FnMut() -> Result<()>,
    give_up: &mut dyn FnMut(),
) -> Vec<Result<RunProfile>> {
    let mut all = Gather::new(running, poll, give_up);
    while let Some((at, chunk)) = all.next(None) {
        if let Err(why) = take(at, chunk) {
            all.fail(Some(at), why);
        }
    }
    all.ended()
}

/// Reads the rows of fragments as they are wanted: one whose rows nobody takes makes no more of them. While nothing comes `poll` is
/// called every few milliseconds. When a fragment fails, or `poll` says so, `give_up` is called and the others have a moment to say why
/// they failed too; then all are given up.
pub struct Gather<'a> {
    open: Vec<Option<Running>>,
    ended: Vec<Result<RunProfile>>,
    failed: bool,
    poll: &'a mut dyn FnMut() -> Result<()>,
    give_up: &'a mut dyn FnMut(),
}

impl<'a> Gather<'a> {
    /// Reads from these.
    pub fn new(running: Vec<Running>, poll: &'a mut dyn FnMut() -> Result<()>, give_up: &'a mut dyn FnMut()) -> Gather<'a> {
        let ended = running.iter().map(|_| Err(Failure::cancelled())).collect();
        Gather { open: running.into_iter().map(Some).collect(), ended, failed: false, poll, give_up }
    }

    /// How many fragments there are.
    #[must_use]
    pub fn fragments(&self) -> usize {
        self.open.len()
    }

    /// Whether one has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The next chunk, of a fragment or of any, with the number of its fragment; waits for it. `None`: there is no more, or one has
    /// failed.
    pub fn next(&mut self, of: Option<usize>) -> Option<(usize, Vec<u8>)> {
        loop {
            if !self.open.iter().enumerate().any(|(at, open)| open.is_some() && of.is_none_or(|of| of == at)) {
                return None;
            }
            match within(POLL, |cx| next(&mut self.open, of, cx)) {
                None => {
                    if let Err(why) = (self.poll)() {
                        self.fail(None, why);
                    }
                }
                Some((at, Part::Rows(chunk))) => return Some((at, chunk)),
                Some((at, Part::Ended(Err(why)))) => self.fail(Some(at), why),
                Some((at, Part::Ended(Ok((profile, rows))))) => {
                    self.end(at, Ok(profile));
                    if !rows.is_empty() {
                        return Some((at, rows));
                    }
                }
            }
        }
    }

    fn end(&mut self, at: usize, ended: Result<RunProfile>) {
        self.open[at] = None;
        self.ended[at] = ended;
    }

    /// A fragment failed, or none in particular: that counts as the first one's.
    pub fn fail(&mut self, at: Option<usize>, why: Failure) {
        self.failed = true;
        let at = at.or_else(|| self.open.iter().position(Option::is_some)).unwrap_or(0);
        self.end(at, Err(why));
        (self.give_up)();
        let until = Instant::now() + POLL;
        while self.open.iter().any(Option::is_some) {
            match within(until.saturating_duration_since(Instant::now()), |cx| next(&mut self.open, None, cx)) {
                None => break,
                Some((_, Part::Rows(_))) => {}
                Some((at, Part::Ended(ended))) => self.end(at, ended.map(|(profile, _)| profile)),
            }
        }
        self.open.iter_mut().for_each(|open| *open = None);
    }

    /// How each fragment ended, in order; those that had not are given up.
    #[must_use]
    pub fn ended(self) -> Vec<Result<RunProfile>> {
        self.ended
    }
}

/// What comes next, of one or of any of them.
fn next(open: &mut [Option<Running>], of: Option<usize>, cx: &mut std::task::Context<'_>) -> Poll<(usize, Part)> {
    for (at, running) in open.iter_mut().enumerate() {
        if of.is_none_or(|of| of == at)
            && let Some(running) = running
            && let Poll::Ready(part) = running.parts.poll_recv(cx)
        {
            return Poll::Ready((at, part.unwrap_or_else(|| Part::Ended(Err(gone())))));
        }
    }
    Poll::Pending
}

/// Waits on this thread, at most so long: no timer of an event loop is set for it.
pub(crate) fn within<T>(limit: Duration, mut poll: impl FnMut(&mut std::task::Context<'_>) -> Poll<T>) -> Option<T> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut cx = std::task::Context::from_waker(&waker);
    let until = Instant::now() + limit;
    loop {
        if let Poll::Ready(value) = poll(&mut cx) {
            return Some(value);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(left);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::FailureKind;

    fn fails(why: &str) -> Result<RunProfile> {
        Err(Failure::new(FailureKind::Fatal, why))
    }

    /// What came of fragments, what they gave, and how often they were given up.
    fn gathered(
        running: Vec<Running>,
        poll: &mut dyn FnMut() -> Result<()>,
    ) -> (Vec<Result<RunProfile>>, Vec<(usize, u8)>, usize) {
        let (mut rows, mut given_up) = (vec![], 0);
        let mut take = |from, chunk: Vec<u8>| {
            rows.push((from, chunk[0]));
            Ok(())
        };
        let ended = gather(running, &mut take, poll, &mut || given_up += 1);
        (ended, rows, given_up)
    }

    #[test]
    fn rows_come_from_all_and_each_ends_by_itself() {
        let fragment = |from: u8| {
            Running::beside(move |sink| {
                (0..20).try_for_each(|i| sink.write(vec![from * 100 + i]))?;
                Ok(RunProfile { sent_bytes: from.into(), ..RunProfile::default() })
            })
        };
        let (ended, mut rows, given_up) = gathered(vec![fragment(0), fragment(1)], &mut || Ok(()));
        assert_eq!(ended.into_iter().map(|ran| ran.unwrap().sent_bytes).collect::<Vec<_>>(), [0, 1]);
        rows.sort_by_key(|(from, _)| *from);
        let all: Vec<(usize, u8)> = (0..2).flat_map(|from| (0..20).map(move |i| (from, from as u8 * 100 + i))).collect();
        assert_eq!((rows, given_up), (all, 0));
    }

    #[test]
    fn one_that_fails_ends_the_others() {
        let endless = || Running::beside(|sink| (0..).try_for_each(|_| sink.write(vec![0])).and(fails("endless")));
        let silent = Running::new();
        let began = Instant::now();
        let fails = Running::beside(|_| fails("one"));
        let (ended, _, given_up) = gathered(vec![endless(), fails, silent.1], &mut || Ok(()));
        let whys: Vec<String> = ended.into_iter().map(|ran| ran.unwrap_err().message).collect();
        assert_eq!((&whys[1][..], given_up), ("one", 1));
        assert!(silent.0.is_closed() && began.elapsed() < Duration::from_secs(5), "{whys:?}");
    }

    #[test]
    fn who_waits_may_give_up_and_a_task_that_vanishes_is_a_failure() {
        let (silent, polls) = (Running::new(), AtomicUsize::new(0));
        let mut poll = || if polls.fetch_add(1, Ordering::Relaxed) < 3 { Ok(()) } else { Err(Failure::cancelled()) };
        let (ended, _, given_up) = gathered(vec![silent.1], &mut poll);
        assert_eq!((ended[0].as_ref().unwrap_err().kind, given_up), (FailureKind::Cancelled, 1));
        let (gone, running) = Running::new();
        drop(gone);
        let (ended, _, _) = gathered(vec![running], &mut || Ok(()));
        assert_eq!(ended[0].as_ref().unwrap_err().kind, FailureKind::Retryable);
    }
}
