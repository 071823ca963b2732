//! Chunks between blocking threads and RPC objects.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use stoa_schema::common_capnp::row_sink;
use tokio::sync::mpsc;

use crate::running::{Part, within};
use crate::{ChunkSink, Failure, FailureKind, Result};

/// Chunks that wait between a thread and a connection.
pub(crate) const QUEUED: usize = 2;
/// Chunks that were sent and not yet answered.
const IN_FLIGHT: usize = 4;
/// Bytes of rows that an answer may have: larger chunks go out while others are made.
pub(crate) const IN_ANSWER: usize = 64 << 10;
/// How often a caller that waits for chunks is asked whether it still wants them.
pub(crate) const POLL: Duration = Duration::from_millis(10);

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

/// Writes into a queue, but for the last chunk if it is small: it waits for one that follows, so that it may go out in the answer.
pub(crate) struct LastInAnswer {
    queue: QueueSink,
    last: Option<Vec<u8>>,
}

impl LastInAnswer {
    pub fn new(queue: QueueSink) -> LastInAnswer {
        LastInAnswer { queue, last: None }
    }

    /// The last chunk, if the queue did not get it; otherwise nothing.
    pub fn last(self) -> Vec<u8> {
        self.last.unwrap_or_default()
    }
}

impl ChunkSink for LastInAnswer {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        if let Some(before) = self.last.take() {
            self.queue.write(before)?;
        }
        if chunk.len() > IN_ANSWER {
            return self.queue.write(chunk);
        }
        self.last = Some(chunk);
        Ok(())
    }
}

/// Sends the chunks of a queue to a sink of another node until the queue ends, a few at a time.
pub(crate) async fn send(mut queue: mpsc::Receiver<Vec<u8>>, sink: &row_sink::Client) -> Result<()> {
    let mut sent = VecDeque::new();
    while let Some(chunk) = queue.recv().await {
        send_one(&chunk, sink, &mut sent).await?;
    }
    for promise in sent {
        answered(promise).await?;
    }
    Ok(())
}

/// Sends the chunks of a queue to a sink of another node, and that these are all; `together`: the last one with that.
pub(crate) async fn deliver(mut queue: mpsc::Receiver<Vec<u8>>, sink: &row_sink::Client, together: bool) -> Result<()> {
    let (mut last, mut sent) = (None, VecDeque::new());
    while let Some(chunk) = queue.recv().await {
        let Some(chunk) = (if together { last.replace(chunk) } else { Some(chunk) }) else { continue };
        send_one(&chunk, sink, &mut sent).await?;
    }
    for promise in sent {
        answered(promise).await?;
    }
    let mut request = sink.done_request();
    if let Some(chunk) = last {
        request.get().set_chunk(&chunk);
    }
    answered(request.send().promise).await
}

type Sent = VecDeque<capnp::capability::Promise<capnp::capability::Response<row_sink::write_results::Owned>, capnp::Error>>;

/// Sends a chunk as soon as there are few that were not answered.
async fn send_one(chunk: &[u8], sink: &row_sink::Client, sent: &mut Sent) -> Result<()> {
    if sent.len() >= IN_FLIGHT
        && let Some(first) = sent.pop_front()
    {
        answered(first).await?;
    }
    let mut request = sink.write_request();
    request.get().set_chunk(chunk);
    sent.push_back(request.send().promise);
    Ok(())
}

async fn answered<T>(promise: capnp::capability::Promise<T, capnp::Error>) -> Result<()> {
    promise.await.map(drop).map_err(Failure::from)
}

/// The sink that another node writes to: chunks go into a bounded queue.
pub(crate) struct SinkServer(pub mpsc::Sender<Part>);

impl row_sink::Server for SinkServer {
    async fn write(
        self: capnp::capability::Rc<Self>,
        params: row_sink::WriteParams,
        _: row_sink::WriteResults,
    ) -> capnp::Result<()> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        self.0.send(Part::Rows(chunk)).await.map_err(|_| capnp::Error::failed("no more rows are wanted".into()))
    }

    async fn done(self: capnp::capability::Rc<Self>, _: row_sink::DoneParams, _: row_sink::DoneResults) -> capnp::Result<()> {
        Ok(())
    }
}

/// Hands what comes to `take`, and `None` now and then while nothing comes, until the call is over; then gives what it gave. Who writes
/// into the queue waits for each part to be taken: when a call has succeeded all of them are in the queue. When it has failed nobody
/// waits for the end of the queue: a node that hangs never lets go of it.
pub(crate) fn drain<T, Part>(
    mut queue: mpsc::Receiver<Part>,
    mut outcome: tokio::sync::oneshot::Receiver<Result<T>>,
    take: &mut dyn FnMut(Option<Part>) -> Result<()>,
) -> Result<T> {
    let mut open = true;
    loop {
        let next = |cx: &mut Context<'_>| {
            if open && let Poll::Ready(part) = queue.poll_recv(cx) {
                return Poll::Ready(Next::Part(part));
            }
            Pin::new(&mut outcome).poll(cx).map(Next::Outcome)
        };
        match within(POLL, next) {
            None => take(None)?,
            Some(Next::Part(Some(part))) => take(Some(part))?,
            Some(Next::Part(None)) => open = false,
            Some(Next::Outcome(result)) => {
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
