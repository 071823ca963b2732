//! Who is on the other side of a connection: a stranger until it has entered, then one of as many as the port takes.
//!
//! What it keeps true:
//! - Strangers have a few places of their own. When all are taken the one goes that has been there the longest, of the address that has
//!   most of them: whoever only connects keeps nobody out.
//! - Little is read of a stranger, and one that does not know the cluster's secret has one try.
//! - A connection has a limited number of calls under way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use stoa_schema::common_capnp::hello;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use crate::io::Allowance;
use crate::listen::Calls;
use crate::security::Bytes;
use crate::{Failure, FailureKind, MAJOR, MINOR, Result, Security};

/// Bytes that are read of a connection before it has entered; what it says beyond them waits until it has.
const FIRST_BYTES: usize = 64 << 10;
/// Calls that a connection may have under way before it has entered.
const STRANGER_CALLS: usize = 2;
/// Calls that a client may have under way.
const CLIENT_CALLS: usize = 128;
/// Calls that a node may have under way: they are of many statements.
const NODE_CALLS: usize = 1024;

/// Who enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// A client of a coordinator.
    Client,
    /// Another coordinator: it is let in however many clients there are.
    Peer,
    /// A node, to a leaf.
    Node,
}

/// What guards a connection.
pub(crate) struct Door {
    security: Security,
    guest: Rc<Guest>,
    calls: Calls,
}

impl Door {
    pub fn new(security: Security, guest: Rc<Guest>, calls: Calls) -> Door {
        Door { security, guest, calls }
    }

    /// Whether a node may come in: it speaks this version and knows the secret.
    pub fn check(&self, hello: hello::Reader<'_>) -> capnp::Result<Result<()>> {
        Ok(self.check_client(hello)?.and_then(|knows| if knows { Ok(()) } else { Err(another_secret()) }))
    }

    /// Whether a client knows the secret. One that names none has no part in the cluster but that of its user, if it proves to be one.
    pub fn check_client(&self, hello: hello::Reader<'_>) -> capnp::Result<Result<bool>> {
        if hello.get_major() != MAJOR {
            let what =
                format!("this node speaks version {MAJOR}.{MINOR}, the caller {}.{}", hello.get_major(), hello.get_minor());
            return Ok(Err(Failure::new(FailureKind::Denied, what)));
        }
        let secret = hello.get_secret()?;
        if self.security.is(secret) {
            self.guest.is_known();
            return Ok(Ok(true));
        }
        if !secret.is_empty() {
            tracing::warn!("a connection was turned away: its cluster secret is another one");
            return Ok(Err(another_secret()));
        }
        Ok(self.guest.tries().map(|()| false))
    }

    /// The calls of all connections to the port.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// It is in: the connection may stay, if there is a place.
    pub fn let_in(&self, who: Who) -> Result<()> {
        self.guest.enter(who)
    }
}

fn another_secret() -> Failure {
    Failure::new(FailureKind::Denied, "the cluster secret is another one")
}

/// The places of a port.
pub(crate) struct Places {
    most: usize,
    entered: Cell<usize>,
    most_strangers: usize,
    strangers: RefCell<VecDeque<Stranger>>,
}

struct Stranger {
    from: IpAddr,
    turned_away: Rc<Notify>,
}

impl Places {
    pub fn new(most: usize, most_strangers: usize) -> Rc<Places> {
        Rc::new(Places { most, entered: Cell::default(), most_strangers, strangers: RefCell::default() })
    }

    /// A place for a new connection, if need be that of another stranger.
    pub fn take(self: &Rc<Self>, from: IpAddr) -> Rc<Guest> {
        let mut strangers = self.strangers.borrow_mut();
        if strangers.len() >= self.most_strangers {
            let of = |at: usize| strangers.iter().filter(|other| other.from == strangers[at].from).count();
            let oldest = (0..strangers.len()).rev().max_by_key(|at| of(*at));
            if let Some(stranger) = oldest.and_then(|at| strangers.remove(at)) {
                metrics::counter!("stoa_connections_refused_total").increment(1);
                tracing::warn!(from = %stranger.from, "connection closed: there are too many that did not enter");
                stranger.turned_away.notify_one();
            }
        }
        let turned_away = Rc::new(Notify::new());
        strangers.push_back(Stranger { from, turned_away: turned_away.clone() });
        Rc::new(Guest {
            places: self.clone(),
            turned_away,
            standing: Cell::new(Standing::Stranger),
            tried: Cell::default(),
            reader: RefCell::default(),
            allowance: Allowance::new(STRANGER_CALLS),
        })
    }

    fn forget(&self, stranger: &Rc<Notify>) {
        self.strangers.borrow_mut().retain(|other| !Rc::ptr_eq(&other.turned_away, stranger));
    }
}

/// A connection to a port.
pub(crate) struct Guest {
    places: Rc<Places>,
    turned_away: Rc<Notify>,
    standing: Cell<Standing>,
    tried: Cell<bool>,
    /// Wakes who waits to read on until it has entered.
    reader: RefCell<Option<Waker>>,
    allowance: Arc<Allowance>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Stranger,
    /// It knows the secret.
    Known,
    Entered,
}

impl Guest {
    pub fn has_entered(&self) -> bool {
        self.standing.get() == Standing::Entered
    }

    /// Returns when its place is needed for another one.
    pub async fn turned_away(&self) {
        self.turned_away.notified().await;
    }

    /// What it may have under way.
    pub fn allowance(&self) -> &Arc<Allowance> {
        &self.allowance
    }

    fn is_known(&self) {
        if self.standing.get() == Standing::Stranger {
            self.places.forget(&self.turned_away);
            self.standing.set(Standing::Known);
        }
    }

    /// Without the secret there is one try: the next one costs a connection.
    fn tries(&self) -> Result<()> {
        if self.tried.replace(true) && !self.has_entered() {
            return Err(Failure::new(FailureKind::Denied, "this connection has tried to enter before: make another one"));
        }
        Ok(())
    }

    fn enter(&self, who: Who) -> Result<()> {
        if self.has_entered() {
            return Ok(());
        }
        let Places { most, entered, .. } = &*self.places;
        if who != Who::Peer && entered.get() >= *most {
            metrics::counter!("stoa_connections_refused_total").increment(1);
            tracing::warn!(limit = most, "connection refused: there are too many");
            let what = format!("this node has {most} connections, the most that it takes (--connections): close some of them");
            return Err(Failure::new(FailureKind::Retryable, what));
        }
        self.is_known();
        entered.set(entered.get() + 1);
        self.standing.set(Standing::Entered);
        self.allowance.raise(if who == Who::Client { CLIENT_CALLS } else { NODE_CALLS });
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Ok(())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        match self.standing.get() {
            Standing::Stranger => self.places.forget(&self.turned_away),
            Standing::Known => {}
            Standing::Entered => self.places.entered.set(self.places.entered.get() - 1),
        }
    }
}

/// The bytes of a connection, of which few are read before it has entered.
pub(crate) struct Vetted {
    stream: Pin<Box<dyn Bytes>>,
    guest: Rc<Guest>,
    read: usize,
}

impl Vetted {
    pub fn new(stream: Pin<Box<dyn Bytes>>, guest: Rc<Guest>) -> Vetted {
        Vetted { stream, guest, read: 0 }
    }
}

impl AsyncRead for Vetted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= FIRST_BYTES && !self.guest.has_entered() {
            *self.guest.reader.borrow_mut() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = self.stream.as_mut().poll_read(cx, buf);
        self.read = self.read.saturating_add(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Vetted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn elsewhere(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    fn verdict(major: u16, minor: u16, secret: &[u8]) -> Result<()> {
        let mut message = capnp::message::Builder::new_default();
        let mut said: hello::Builder<'_> = message.init_root();
        said.set_major(major);
        said.set_minor(minor);
        said.set_secret(secret);
        let door = Door::new(Security::new("ours"), Places::new(1, 1).take(HERE), Calls::default());
        door.check(said.into_reader()).unwrap()
    }

    #[test]
    fn neighbours_of_one_minor_version_talk_and_other_major_versions_do_not() {
        for minor in [MINOR.saturating_sub(1), MINOR, MINOR + 1] {
            verdict(MAJOR, minor, b"ours").unwrap();
        }
        let refused = verdict(MAJOR + 1, 3, b"ours").unwrap_err();
        assert_eq!(refused.kind, FailureKind::Denied);
        let both = [format!("{MAJOR}.{MINOR}"), format!("{}.3", MAJOR + 1)];
        assert!(both.iter().all(|version| refused.message.contains(version)), "{refused}");
    }

    #[test]
    fn other_secrets_are_refused() {
        for secret in [&b""[..], b"our", b"ours?", b"0urs"] {
            assert_eq!(verdict(MAJOR, MINOR, secret).unwrap_err().kind, FailureKind::Denied);
        }
    }

    #[test]
    fn without_the_secret_there_is_one_try() {
        let mut message = capnp::message::Builder::new_default();
        message.init_root::<hello::Builder<'_>>().set_major(MAJOR);
        let said = || message.get_root_as_reader::<hello::Reader<'_>>().unwrap();
        let door = Door::new(Security::new("ours"), Places::new(1, 1).take(HERE), Calls::default());
        assert_eq!(door.check_client(said()).unwrap(), Ok(false));
        let again = door.check_client(said()).unwrap().unwrap_err();
        assert!(again.kind == FailureKind::Denied && again.message.contains("has tried to enter before"), "{again}");
    }

    /// Whether its place was given to another one.
    fn gone(guest: &Guest) -> bool {
        let mut wait = std::pin::pin!(guest.turned_away());
        wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn strangers_make_place_for_strangers_and_those_of_one_address_first() {
        let places = Places::new(8, 4);
        let patient = places.take(elsewhere(1));
        let flood: Vec<_> = (0..10).map(|_| places.take(elsewhere(2))).collect();
        assert!(!gone(&patient));
        assert_eq!(
            flood.iter().map(|guest| gone(guest)).collect::<Vec<_>>(),
            [true, true, true, true, true, true, true, false, false, false]
        );
        patient.enter(Who::Client).unwrap();
        let entered = places.take(elsewhere(3));
        entered.enter(Who::Client).unwrap();
        let others: Vec<_> = (4..20).map(|number| places.take(elsewhere(number))).collect();
        assert!(!gone(&patient) && !gone(&entered));
        assert_eq!(others.iter().filter(|guest| !gone(guest)).count(), 4);
        drop(others);
        assert!(places.strangers.borrow().is_empty());
    }

    #[test]
    fn so_many_enter_and_peers_always() {
        let places = Places::new(2, 4);
        let mut guests: Vec<_> = (0..4).map(|_| places.take(HERE)).collect();
        guests[0].enter(Who::Client).unwrap();
        guests[0].enter(Who::Client).unwrap();
        guests[1].enter(Who::Client).unwrap();
        let refused = guests[2].enter(Who::Client).unwrap_err();
        assert!(refused.kind == FailureKind::Retryable && refused.message.contains("2 connections, the most"), "{refused}");
        guests[3].enter(Who::Peer).unwrap();
        guests.drain(..2);
        guests[0].enter(Who::Client).unwrap();
    }
}
