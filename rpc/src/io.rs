//! Threads that own RPC objects.

use std::cell::RefCell;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::LocalSet;

use crate::{Failure, FailureKind, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Blocking calls at once: more than a node's limits of queries let in.
const CALLS: usize = 2048;
/// How many of them are only for [`urgent`] calls: those find a thread whatever clients do.
const URGENT: usize = 256;

thread_local! {
    /// What all calls that come in on this thread may have under way.
    static ALL: RefCell<Option<Arc<Allowance>>> = const { RefCell::new(None) };
}

tokio::task_local! {
    /// What the connection may have under way whose messages are handled.
    pub(crate) static ALLOWANCE: Arc<Allowance>;
}

/// How many calls may be under way.
#[derive(Debug)]
pub(crate) struct Allowance {
    free: Arc<Semaphore>,
    most: AtomicUsize,
}

impl Allowance {
    pub fn new(most: usize) -> Arc<Allowance> {
        Arc::new(Allowance { free: Arc::new(Semaphore::new(most)), most: AtomicUsize::new(most) })
    }

    /// From now on it is so many, if that is more.
    pub fn raise(&self, most: usize) {
        let before = self.most.fetch_max(most, Ordering::Relaxed);
        self.free.add_permits(most.saturating_sub(before));
    }

    /// Room for one of those that `who` has under way, until it is dropped.
    pub fn take(&self, who: &str) -> Result<OwnedSemaphorePermit> {
        self.free.clone().try_acquire_owned().map_err(|_| {
            let most = self.most.load(Ordering::Relaxed);
            let what = format!("{who} has {most} calls under way, the most that it may have: wait for answers");
            Failure::new(FailureKind::Retryable, what)
        })
    }
}

/// A thread with an event loop. RPC objects are made on it and never leave it; blocking calls run on threads beside it. It ends when
/// the last handle is dropped, and with it all of its connections. Its jobs are few: a thread that gives it one waits for what
/// comes of it, but for cancels.
#[derive(Clone)]
pub struct Io {
    jobs: UnboundedSender<Job>,
}

impl Io {
    /// Starts a thread of this name.
    ///
    /// # Errors
    /// If the system gives no thread or no event queue.
    pub fn start(name: &str) -> Result<Io> {
        Io::with(name, CALLS, URGENT)
    }

    /// Starts a thread beside which so many calls block at once, of which some are urgent.
    fn with(name: &str, calls: usize, urgent: usize) -> Result<Io> {
        let fail = |e: std::io::Error| Failure::new(FailureKind::Fatal, format!("cannot start an I/O thread: {e}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(calls)
            .thread_name(format!("{name}-call"))
            .build()
            .map_err(fail)?;
        let (jobs, mut queue) = unbounded_channel::<Job>();
        let run = move || {
            ALL.set(Some(Allowance::new(calls.saturating_sub(urgent))));
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                while let Some(job) = queue.recv().await {
                    job();
                }
            });
            drop(local);
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(fail)?;
        Ok(Io { jobs })
    }

    /// Starts a task on the thread. False if the thread is gone.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(&self, make: impl FnOnce() -> F + Send + 'static) -> bool {
        self.jobs
            .send(Box::new(move || {
                tokio::task::spawn_local(make());
            }))
            .is_ok()
    }

    /// Runs a task on the thread and waits for what it gives. Never call it on the thread itself.
    pub(crate) fn call<T, F>(&self, make: impl FnOnce() -> F + Send + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + 'static,
    {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.spawn(move || async move {
            let _ = sender.send(make().await);
        });
        receiver.blocking_recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// The I/O thread has ended.
pub(crate) fn gone() -> Failure {
    Failure::new(FailureKind::Retryable, "the connection was closed")
}

/// Runs a blocking call of a service beside the I/O thread, unless its connection, or all of them together, have too many under way. A
/// panic in it, a defect, is that call's failure.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let of_connection = ALLOWANCE.try_with(|allowance| allowance.take("this connection")).ok().transpose()?;
    let of_all = ALL.with_borrow(|all| all.as_ref().map(|all| all.take("this node")).transpose())?;
    urgent(move || {
        let _room = (of_connection, of_all);
        call()
    })
    .await
}

/// As [`blocking`], for the calls by which a cluster lives: of its consensus, of those who watch it, of copies. They always find a thread.
pub(crate) async fn urgent<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|_| Err(Failure::new(FailureKind::Fatal, "a defect stopped this call; please report it")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn calls_that_wait_leave_threads_for_urgent_ones() {
        let io = Io::with("test-io", 4, 1).unwrap();
        let (release, wait) = channel::<()>();
        let wait = Arc::new(parking_lot::Mutex::new(wait));
        let waits = move |allowance: Arc<Allowance>| {
            let wait = wait.clone();
            move || ALLOWANCE.scope(allowance, blocking(move || Ok(wait.lock().recv().is_ok())))
        };
        let (few, many) = (Allowance::new(1), Allowance::new(1));
        many.raise(100);
        let (ended, outcomes) = channel();
        for allowance in [&few, &few, &many, &many, &many] {
            let (call, ended) = (waits(allowance.clone()), ended.clone());
            io.spawn(move || async move { drop(ended.send(call().await)) });
        }
        // The second of the first connection, and the one for which no thread is left.
        let refused: Vec<String> = (0..2).map(|_| outcomes.recv().unwrap().unwrap_err().message).collect();
        assert!(refused[0].starts_with("this connection has 1 calls under way, the most"), "{refused:?}");
        assert!(refused[1].starts_with("this node has 3 calls under way, the most"), "{refused:?}");
        assert_eq!(io.call(|| urgent(|| Ok(1))), Ok(1));
        assert!(io.call(|| blocking(|| Ok(1))).is_err());
        (0..3).for_each(|_| release.send(()).unwrap());
        (0..3).for_each(|_| assert_eq!(outcomes.recv().unwrap(), Ok(true)));
        assert_eq!(io.call(|| blocking(|| Ok(1))), Ok(1));
    }
}
