//! Chunks between blocking threads and RPC objects.

use std::collections::VecDeque;
use std::time::Duration;

use stoa_schema::common_capnp::row_sink;
use tokio::sync::mpsc;

use crate::{ChunkSink, Failure, FailureKind, Io, Result};

/// Chunks that wait between a thread and a connection.
const QUEUED: usize = 2;
/// Chunks that were sent and not yet answered.
const IN_FLIGHT: usize = 4;
/// How often a caller that waits for chunks is asked whether it still wants them.
const POLL: Duration = Duration::from_millis(10);

/// The queue between a thread that makes chunks and the task that sends them.
pub(crate) fn queue() -> (QueueSink, mpsc::Receiver<Vec<u8>>) {
    let (sender, receiver) = mpsc::channel(QUEUED);
    (QueueSink(sender), receiver)
}

/// Writes chunks into a queue; waits while it is full.
pub(crate) struct QueueSink(mpsc::Sender<Vec<u8>>);

impl ChunkSink for QueueSink {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        self.0.blocking_send(chunk).map_err(|_| Failure::cancelled())
    }
}

/// Sends the chunks of a queue to a sink of another node until the queue ends, a few at a time.
pub(crate) async fn send(mut queue: mpsc::Receiver<Vec<u8>>, sink: &row_sink::Client) -> Result<()> {
    let mut sent = VecDeque::new();
    while let Some(chunk) = queue.recv().await {
        if sent.len() >= IN_FLIGHT
            && let Some(first) = sent.pop_front()
        {
            answered(first).await?;
        }
        let mut request = sink.write_request();
        request.get().set_chunk(&chunk);
        sent.push_back(request.send().promise);
    }
    for promise in sent {
        answered(promise).await?;
    }
    Ok(())
}

async fn answered<T>(promise: capnp::capability::Promise<T, capnp::Error>) -> Result<()> {
    promise.await.map(drop).map_err(Failure::from)
}

/// The sink that another node writes to: chunks go into a bounded queue.
pub(crate) struct SinkServer {
    pub chunks: mpsc::Sender<Vec<u8>>,
}

impl row_sink::Server for SinkServer {
    async fn write(
        self: capnp::capability::Rc<Self>,
        params: row_sink::WriteParams,
        _: row_sink::WriteResults,
    ) -> capnp::Result<()> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        self.chunks.send(chunk).await.map_err(|_| capnp::Error::failed("no more rows are wanted".into()))
    }

    async fn done(self: capnp::capability::Rc<Self>, _: row_sink::DoneParams, _: row_sink::DoneResults) -> capnp::Result<()> {
        Ok(())
    }
}

/// A queue for a [`SinkServer`].
pub(crate) fn sink_queue() -> (SinkServer, mpsc::Receiver<Vec<u8>>) {
    let (chunks, receiver) = mpsc::channel(QUEUED);
    (SinkServer { chunks }, receiver)
}

/// Hands what comes to `take`, and `None` now and then while nothing comes, until the call is over; then gives what it gave. Who writes
/// into the queue waits for each part to be taken: when a call has succeeded all of them are in the queue. When it has failed nobody
/// waits for the end of the queue: a node that hangs never lets go of it.
pub(crate) fn drain<T, Part>(
    io: &Io,
    mut queue: mpsc::Receiver<Part>,
    mut outcome: tokio::sync::oneshot::Receiver<Result<T>>,
    take: &mut dyn FnMut(Option<Part>) -> Result<()>,
) -> Result<T> {
    let mut open = true;
    loop {
        let next = async {
            tokio::select! {
                biased;
                part = queue.recv(), if open => Next::Part(part),
                result = &mut outcome => Next::Outcome(result),
            }
        };
        match io.wait(async { tokio::time::timeout(POLL, next).await }) {
            Err(_) => take(None)?,
            Ok(Next::Part(Some(part))) => take(Some(part))?,
            Ok(Next::Part(None)) => open = false,
            Ok(Next::Outcome(result)) => {
                let value = result.unwrap_or_else(|_| Err(Failure::new(FailureKind::Retryable, "the connection broke")))?;
                while let Ok(part) = queue.try_recv() {
                    take(Some(part))?;
                }
                return Ok(value);
            }
        }
    }
}

/// What happens next in a call.
enum Next<Part, Outcome> {
    Part(Option<Part>),
    Outcome(Outcome),
}
