//! The bytes of a connection, in as few system calls as they need.
//!
//! The RPC system writes a message in pieces and flushes after each. Here small pieces wait until whatever else is ready on the event loop
//! has had its turn, and go out at once; large ones go straight through. Reads are buffered too.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadHalf, WriteHalf};

/// Bytes that are read ahead.
const READ: usize = 32 << 10;
/// Pieces of so many bytes go straight through.
const LARGE: usize = 16 << 10;
/// Bytes that wait at most: who would write more waits.
const MOST: usize = 256 << 10;

/// Both directions of a connection, for an RPC system. Call it on the I/O thread.
pub(crate) fn split<S: AsyncRead + AsyncWrite + 'static>(stream: S) -> (BufReader<ReadHalf<S>>, Together<S>) {
    let (reader, writer) = tokio::io::split(stream);
    let shared = Rc::new(RefCell::new(Shared {
        writer,
        waiting: vec![],
        sent: 0,
        unflushed: false,
        sender: None,
        blocked: None,
        state: Ok(true),
    }));
    tokio::task::spawn_local(Sender(shared.clone()));
    (BufReader::with_capacity(READ, reader), Together(shared))
}

/// The writing half.
pub(crate) struct Together<S>(Rc<RefCell<Shared<S>>>);

struct Shared<S> {
    writer: WriteHalf<S>,
    waiting: Vec<u8>,
    /// How many of those that wait have gone out.
    sent: usize,
    /// Something was written since the last flush.
    unflushed: bool,
    /// Wakes the task that sends.
    sender: Option<Waker>,
    /// Wakes who waits until all has gone out.
    blocked: Option<Waker>,
    /// Whether more will come, or why nothing goes out any more.
    state: Result<bool, io::ErrorKind>,
}

impl<S: AsyncWrite> Shared<S> {
    /// Sends what waits.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            self.unflushed = true;
            match ready!(Pin::new(&mut self.writer).poll_write(cx, &self.waiting[self.sent..])) {
                Ok(0) => self.state = Err(io::ErrorKind::WriteZero),
                Ok(bytes) => self.sent += bytes,
                Err(error) => self.state = Err(error.kind()),
            }
            self.check()?;
        }
        self.waiting.clear();
        self.sent = 0;
        if self.unflushed {
            let flushed = ready!(Pin::new(&mut self.writer).poll_flush(cx));
            self.state = flushed.map_err(|error| error.kind()).and(self.state);
            self.unflushed = false;
        }
        Poll::Ready(self.check())
    }

    /// Remembers who waits, unless it is the task that sends: that one may take its place with the system, and tells when it is done.
    fn waits<T>(&mut self, cx: &Context<'_>, poll: Poll<T>) -> Poll<T> {
        if poll.is_pending() {
            self.blocked = Some(cx.waker().clone());
        }
        poll
    }

    /// Sends what waits, and a large piece.
    fn write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(cx))?;
        self.unflushed = true;
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn check(&self) -> io::Result<()> {
        self.state.map(drop).map_err(io::Error::from)
    }
}

/// The task that sends what waits: it runs after those that were ready when something came.
struct Sender<S>(Rc<RefCell<Shared<S>>>);

impl<S: AsyncWrite> Future for Sender<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.0.borrow_mut();
        let drained = shared.drain(cx);
        if drained.is_ready()
            && let Some(blocked) = shared.blocked.take()
        {
            blocked.wake();
        }
        if shared.state != Ok(true) {
            return Poll::Ready(());
        }
        shared.sender = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<S: AsyncWrite> AsyncWrite for Together<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut shared = self.0.borrow_mut();
        shared.check()?;
        if bytes.len() >= LARGE || shared.waiting.len() + bytes.len() > MOST {
            let written = shared.write(cx, bytes);
            return shared.waits(cx, written);
        }
        shared.waiting.extend_from_slice(bytes);
        if let Some(sender) = shared.sender.take() {
            sender.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// What waits goes out by itself, soon.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.borrow_mut();
        if !shared.waiting.is_empty() {
            return Poll::Ready(shared.check());
        }
        let drained = shared.drain(cx);
        shared.waits(cx, drained)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut shared = self.0.borrow_mut();
        let drained = shared.drain(cx);
        ready!(shared.waits(cx, drained))?;
        Pin::new(&mut shared.writer).poll_shutdown(cx)
    }
}

/// What waits still goes out, as far as the system takes it at once.
impl<S> Drop for Together<S> {
    fn drop(&mut self) {
        let mut shared = self.0.borrow_mut();
        shared.state = shared.state.map(|_| false);
        if let Some(sender) = shared.sender.take() {
            sender.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadBuf};
    use tokio::task::{LocalSet, spawn_local};

    use super::*;

    /// A connection that counts how often somebody writes to it.
    struct Counted {
        stream: DuplexStream,
        writes: Rc<Cell<usize>>,
    }

    impl AsyncRead for Counted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.writes.set(self.writes.get() + 1);
            Pin::new(&mut self.stream).poll_write(cx, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    fn run<F: Future>(test: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        LocalSet::new().block_on(&runtime, test)
    }

    /// A message of so many bytes, as the RPC system writes it.
    async fn message(to: &mut Together<Counted>, number: usize, bytes: usize) {
        to.write_all(&(bytes as u64).to_le_bytes()).await.unwrap();
        to.write_all(&vec![number as u8; bytes]).await.unwrap();
        to.flush().await.unwrap();
    }

    #[test]
    fn small_messages_of_one_turn_go_out_at_once() {
        run(async {
            let (stream, mut other) = tokio::io::duplex(1 << 20);
            let writes = Rc::new(Cell::new(0));
            let (_reader, mut writer) = split(Counted { stream, writes: writes.clone() });
            for number in 0..10 {
                message(&mut writer, number, 100).await;
            }
            assert_eq!(writes.get(), 0);
            let mut got = vec![0; 10 * 108];
            other.read_exact(&mut got).await.unwrap();
            assert_eq!(writes.get(), 1);
            assert!((0..10).all(|number| got[number * 108 + 8..(number + 1) * 108] == [number as u8; 100]));
        });
    }

    #[test]
    fn all_bytes_come_in_order_to_who_takes_them_slowly() {
        run(async {
            let (stream, mut other) = tokio::io::duplex(1000);
            let (_reader, mut writer) = split(Counted { stream, writes: Rc::default() });
            let sizes: Vec<usize> = (0..200).map(|i| [8, 700, LARGE, 3 * LARGE + 5, 100_000][i % 5]).collect();
            let sent = sizes.clone();
            spawn_local(async move {
                for (number, bytes) in sent.into_iter().enumerate() {
                    message(&mut writer, number, bytes).await;
                }
                writer.shutdown().await.unwrap();
            });
            for (number, bytes) in sizes.into_iter().enumerate() {
                assert_eq!(other.read_u64_le().await.unwrap(), bytes as u64);
                let mut body = vec![0; bytes];
                other.read_exact(&mut body).await.unwrap();
                assert!(body.iter().all(|byte| *byte == number as u8), "message {number}");
            }
            assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
        });
    }

    #[test]
    fn what_waits_is_bounded_and_goes_with_its_connection() {
        run(async {
            let (stream, mut other) = tokio::io::duplex(1000);
            let (reader, mut writer) = split(Counted { stream, writes: Rc::default() });
            let endless = async {
                for number in 0.. {
                    message(&mut writer, number, 1000).await;
                }
            };
            tokio::select! {
                () = endless => unreachable!("nobody reads"),
                () = turns(1000) => {}
            }
            assert!(writer.0.borrow().waiting.len() <= MOST);
            drop((reader, writer));
            // The task that sends does not hold on to it either.
            let mut rest = vec![];
            other.read_to_end(&mut rest).await.unwrap();
            assert!(rest.len() <= MOST + 2000, "{} bytes", rest.len());
        });
    }

    /// Lets the others have so many turns.
    async fn turns(count: usize) {
        for _ in 0..count {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_broken_connection_is_an_error_of_who_writes() {
        run(async {
            let (stream, other) = tokio::io::duplex(1000);
            let (_reader, mut writer) = split(Counted { stream, writes: Rc::default() });
            drop(other);
            message(&mut writer, 0, 10).await;
            turns(10).await;
            assert_eq!(writer.write_all(&[0; 8]).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        });
    }
}
