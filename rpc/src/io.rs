//! Threads that own RPC objects.

use std::future::Future;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::{Failure, FailureKind, Result};

type Job = Box<dyn FnOnce() + Send>;

/// Blocking calls at once: more than a node's limits of queries let in, so that a call of the consensus finds a thread.
const CALLS: usize = 2048;

/// A thread with an event loop. RPC objects are made on it and never leave it; blocking calls run on threads beside it. It ends when
/// the last handle is dropped, and with it all of its connections.
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
        let fail = |e: std::io::Error| Failure::new(FailureKind::Fatal, format!("cannot start an I/O thread: {e}"));
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(CALLS)
            .thread_name(format!("{name}-call"))
            .build()
            .map_err(fail)?;
        let (jobs, mut queue) = unbounded_channel::<Job>();
        let run = move || {
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

/// Runs a blocking call of a service beside the I/O thread. A panic in it, a defect, is that call's failure.
pub(crate) async fn blocking<T: Send + 'static>(call: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(call)
        .await
        .unwrap_or_else(|_| Err(Failure::new(FailureKind::Fatal, "a defect stopped this call; please report it")))
}
