//! Golden messages: as the release wrote them that brought them. `STOA_WRITE_GOLDEN=1` writes those that are not there.

use std::fs;
use std::path::{Path, PathBuf};

use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use capnp::{Word, serialize};

/// A message that is being written.
pub type Message = Builder<HeapAllocator>;

/// The bytes of a message.
pub fn message(fill: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::new_default();
    fill(&mut message);
    serialize::write_message_to_words(&message)
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}-v1.message"))
}

/// The golden message of a name.
pub fn golden(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap_or_else(|e| panic!("{}: {e}", path(name).display()))
}

/// A message is compared with the golden one in the canonical form of both: fields that came later and are not set take no room there.
pub fn check(name: &str, bytes: &[u8]) {
    if std::env::var_os("STOA_WRITE_GOLDEN").is_some() && !path(name).exists() {
        fs::write(path(name), bytes).unwrap();
    }
    assert_eq!(canonical(&golden(name)), canonical(bytes), "{name} is written in another way");
}

fn canonical(message: &[u8]) -> Vec<u8> {
    let read = serialize::read_message(message, ReaderOptions::new()).unwrap();
    Word::words_to_bytes(&read.canonicalize().unwrap()).to_vec()
}
