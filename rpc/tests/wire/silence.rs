//! Connections on which a leaf's answers do not arrive any more: they are given up, and who needs the leaf next makes a new one.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stoa_rpc::{FailureKind, Io, LeafPool, Limits, Listener, Security, serve_leaf};

use crate::leaves::Scribe;

/// A leaf behind a proxy, and how many connections, the oldest, do not pass its answers on.
fn start() -> ((Io, Listener), String, Arc<AtomicUsize>) {
    let io = Io::start("test-io").unwrap();
    let leaf = serve_leaf(&io, "127.0.0.1:0", &Security::default(), Limits::default(), Arc::new(Scribe::default())).unwrap();
    let (to, muted) = (leaf.address().to_string(), Arc::<AtomicUsize>::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, mute) = (listener.local_addr().unwrap().to_string(), muted.clone());
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (mut from, mut into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut into);
                let _ = into.shutdown(Shutdown::Both);
            });
            let mute = mute.clone();
            std::thread::spawn(move || pass_back(server, client, || number < mute.load(Ordering::Relaxed)));
        }
    });
    ((io, leaf), address, muted)
}

fn pass_back(mut server: TcpStream, mut client: TcpStream, is_muted: impl Fn() -> bool) {
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = server.read(&mut buffer) {
        if !is_muted() && client.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
}

#[test]
fn a_connection_without_answers_is_given_up() {
    let (_running, address, muted) = start();
    let pool = LeafPool::new(Io::start("test-client").unwrap(), Security::default()).with_silence(Duration::from_millis(500));
    let leaf = || pool.leaf(&address);
    assert!(leaf().unwrap().status().unwrap().is_empty());
    // A question that is answered at once.
    muted.store(1, Ordering::Relaxed);
    let late = leaf().unwrap().status().unwrap_err();
    assert_eq!((late.kind, &late.message[..]), (FailureKind::Retryable, "it gave no answer within 500ms; try again"));
    assert!(leaf().unwrap().status().is_ok());
    // Calls that may take long: whichever finds the silence first, all tell of it.
    let copies: Vec<_> = (0..20).map(|ordinal| leaf().unwrap().feed("d", ordinal, 1).unwrap().0).collect();
    muted.store(2, Ordering::Relaxed);
    let waiting: Vec<_> = copies.into_iter().map(|copy| std::thread::spawn(move || copy.finish_copy().unwrap_err())).collect();
    for hung in waiting.into_iter().map(|waits| waits.join().unwrap()) {
        assert_eq!(hung.kind, FailureKind::Retryable);
        assert_eq!(hung.message, "it has a copy and gave no answer within 500ms; try again");
    }
    assert!(leaf().unwrap().status().is_ok());
    let mut load = leaf().unwrap().load("d", "t", 0).unwrap();
    muted.store(3, Ordering::Relaxed);
    let hung = load.write(vec![1], None).unwrap_err();
    assert_eq!(
        (hung.kind, &hung.message[..]),
        (FailureKind::Retryable, "it takes rows and gave no answer within 500ms; try again")
    );
    assert!(leaf().unwrap().status().is_ok());
    // One that does not even let anybody enter is not waited for longer.
    muted.store(usize::MAX, Ordering::Relaxed);
    assert!(leaf().unwrap().status().is_err());
    let began = Instant::now();
    assert_eq!(leaf().err().unwrap().kind, FailureKind::Retryable);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
