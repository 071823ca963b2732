//! A master feeds the other copies of its partition: a thread for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use stoa_columnstore::{Database, LogRecord, Replication};
use stoa_rpc::replication::{FedCopy, FedReport, MANIFEST, Position, Record};
use stoa_rpc::{Failure, FailureKind, LeafPool, Result};

use super::copies::FedCopies;
use super::{CHUNK, Pace, received};
use crate::storage_failure;

/// Records that are read from the log at once.
const BATCH: usize = 4 << 20;
/// A copy that has everything is asked so often whether it is still there.
const IDLE: Duration = Duration::from_millis(500);
/// How long a copy that could not be fed is left alone.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a new copy cannot be fed before anybody is told.
const QUIET: u32 = 5;

/// The way to the other leaves, for all partitions.
pub(crate) struct Outlet {
    pub peers: LeafPool,
    pub pace: Pace,
}

/// Of which partition a master feeds the copies.
#[derive(Clone)]
pub(crate) struct Target {
    pub database: String,
    pub ordinal: u32,
    pub term: u64,
    pub outlet: Arc<Outlet>,
}

/// The copies that the master of a term feeds.
pub(crate) struct Shipping {
    target: Target,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The data directory, once this copy is the master.
    log: Weak<Database>,
    copies: FedCopies,
    /// Each copy's thread, by address.
    threads: BTreeMap<String, u64>,
    last_thread: u64,
    /// Why this copy is not the master any more.
    over: Option<String>,
}

impl Shipping {
    /// For the master of a term whose log ends with a record.
    pub fn new(target: Target, head: u64) -> Arc<Shipping> {
        let (log, copies) = (Weak::new(), FedCopies::new(head));
        let state = State { log, copies, threads: BTreeMap::new(), last_thread: 0, over: None };
        Arc::new(Shipping { target, state: Mutex::new(state), changed: Condvar::new() })
    }

    pub fn term(&self) -> u64 {
        self.target.term
    }

    /// The data directory is there to be read.
    pub fn begin(&self, log: &Arc<Database>) {
        let mut state = self.state.lock();
        state.log = Arc::downgrade(log);
        state.copies.begin(log.position().lsn);
        self.changed.notify_all();
    }

    /// Whether anybody may see what is here.
    pub fn serves(&self) -> bool {
        self.state.lock().copies.serves()
    }

    /// This copy is not the master any more: commits that wait fail.
    pub fn end(&self, why: &str) {
        self.state.lock().over.get_or_insert_with(|| why.to_owned());
        self.changed.notify_all();
    }

    /// Keeps to orders that were made when this leaf's report of the number `processed` had been dealt with.
    pub fn keep(self: &Arc<Self>, in_sync: &[String], feed: &[String], processed: u64) {
        let mut state = self.state.lock();
        for address in state.copies.keep(in_sync, feed, processed) {
            state.last_thread += 1;
            let thread = state.last_thread;
            state.threads.insert(address.clone(), thread);
            let shipping = self.clone();
            let run = move || shipping.feed(&address, thread);
            let name = format!("stoa-feed-{}", self.target.ordinal);
            if let Err(e) = std::thread::Builder::new().name(name).spawn(run) {
                tracing::error!("no thread to feed a copy: {e}");
            }
        }
        self.changed.notify_all();
    }

    /// How the copies stand, for the report of a number.
    pub fn report(&self, number: u64) -> Vec<FedReport> {
        self.state.lock().copies.report(number)
    }

    /// Feeds a copy until it is not wanted any more.
    fn feed(self: Arc<Self>, address: &str, thread: u64) {
        let mut failures = 0;
        while self.wants(address, thread) {
            let Some(log) = self.log() else {
                self.pause();
                continue;
            };
            let mut session = Session { shipping: &self, log, address, thread, fed: false, paced: 0 };
            let result = session.run();
            failures = if session.fed { 1 } else { failures + 1 };
            if let Err(failure) = result {
                tracing::debug!(address, partition = self.target.ordinal, %failure, "a copy could not be fed");
                // A connection that broke is tried again once before anybody is told, a copy that no commit waits for more often: its leaf
                // may not know yet that it is to have it.
                let quiet = if self.counts(address) { 1 } else { QUIET };
                self.update(address, thread, |copies| copies.fail(address, failure.to_string(), failures > quiet));
                if failures > 1 {
                    self.pause();
                }
            }
        }
    }

    fn log(&self) -> Option<Arc<Database>> {
        self.state.lock().log.upgrade()
    }

    fn pause(&self) {
        let mut state = self.state.lock();
        if state.over.is_none() {
            self.changed.wait_for(&mut state, PAUSE);
        }
    }

    fn wants(&self, address: &str, thread: u64) -> bool {
        self.state.lock().wants(address, thread)
    }

    /// Whether a copy counts as one that has everything.
    fn counts(&self, address: &str) -> bool {
        self.state.lock().copies.counts(address)
    }

    fn update(&self, address: &str, thread: u64, update: impl FnOnce(&mut FedCopies)) {
        let mut state = self.state.lock();
        if state.wants(address, thread) {
            update(&mut state.copies);
        }
        self.changed.notify_all();
    }

    /// Waits until there is more than a record.
    fn wait_for_more(&self, lsn: u64) {
        let mut state = self.state.lock();
        if state.over.is_none() && state.copies.head() <= lsn {
            self.changed.wait_for(&mut state, IDLE);
        }
    }
}

impl State {
    fn wants(&self, address: &str, thread: u64) -> bool {
        self.over.is_none() && self.copies.has(address) && self.threads.get(address) == Some(&thread)
    }
}

impl Replication for Shipping {
    fn written(&self, lsn: u64) {
        self.state.lock().copies.written(lsn);
        self.changed.notify_all();
    }

    fn wait(&self, lsn: u64) -> std::result::Result<(), String> {
        let mut state = self.state.lock();
        loop {
            if let Some(why) = &state.over {
                return Err(why.clone());
            }
            if state.copies.all_have(lsn) {
                return Ok(());
            }
            self.changed.wait(&mut state);
        }
    }

    fn acknowledged(&self) -> u64 {
        self.state.lock().copies.acknowledged()
    }
}

/// A copy while the connection to it stands.
struct Session<'a> {
    shipping: &'a Shipping,
    log: Arc<Database>,
    address: &'a str,
    thread: u64,
    /// It took something.
    fed: bool,
    /// Records up to this one keep to the pace: those that there were when the copy began with nothing. Those that are written meanwhile
    /// do not, or it would never catch up.
    paced: u64,
}

impl Session<'_> {
    fn run(&mut self) -> Result<()> {
        let Target { database, ordinal, term, outlet } = &self.shipping.target;
        let (copy, position) = outlet.peers.leaf(self.address)?.feed(database, *ordinal, *term)?;
        let copy = &*copy;
        if position.lsn == 0 && self.shipping.counts(self.address) {
            return Err(Failure::new(FailureKind::Fatal, format!("{} has lost what it had", self.address)));
        }
        let known = self.log.has(received(position)).map_err(|e| storage_failure(&e))?;
        self.paced = if position.lsn == 0 { self.log.position().lsn } else { 0 };
        let mut at = if known { position.lsn } else { self.copied_anew(copy)? };
        while self.shipping.wants(self.address, self.thread) {
            match self.log.records_after(at, BATCH).map_err(|e| storage_failure(&e))? {
                None => at = self.copied_anew(copy)?,
                Some(records) if records.is_empty() => {
                    // Also finds out whether it is still there.
                    at = self.stands(copy.write(vec![])?, at)?;
                    self.shipping.update(self.address, self.thread, |copies| copies.acknowledge(self.address, at));
                    self.fed = true;
                    self.shipping.wait_for_more(at);
                }
                Some(records) => {
                    at = self.send(copy, &records)?;
                    self.shipping.update(self.address, self.thread, |copies| copies.acknowledge(self.address, at));
                    self.fed = true;
                }
            }
        }
        Ok(())
    }

    fn stands(&self, position: Position, expected: u64) -> Result<u64> {
        if position.lsn == expected {
            return Ok(expected);
        }
        let what = format!("{} has records up to {} and was sent those up to {expected}", self.address, position.lsn);
        Err(Failure::new(FailureKind::Retryable, what))
    }

    /// Sends records and the files that they name.
    fn send(&self, copy: &dyn FedCopy, records: &[LogRecord]) -> Result<u64> {
        let mut message = Vec::new();
        let mut bytes = 0;
        let last = records.last().map_or(0, |record| record.lsn);
        // Commits wait for one that counts.
        let paced = last <= self.paced && !self.shipping.counts(self.address);
        let piece = if paced { self.shipping.target.outlet.pace.piece() } else { CHUNK };
        let pace = |bytes: u64| if paced { self.pace(bytes) } else { Ok(()) };
        for record in records {
            for file in record.files() {
                self.send_file(copy, &file.name, &file.path, piece, &mut |bytes| pace(bytes))?;
            }
            let (lsn, term) = (record.lsn, record.term);
            let parts = record.body.len().div_ceil(piece).max(1);
            for part in 0..parts {
                let body = record.body[part * piece..record.body.len().min((part + 1) * piece)].to_vec();
                bytes += body.len();
                message.push(Record { lsn, term, body, more: part + 1 < parts });
                if bytes >= piece {
                    copy.write(std::mem::take(&mut message))?;
                    pace(bytes as u64)?;
                    bytes = 0;
                }
            }
        }
        let position = copy.write(message)?;
        pace(bytes as u64)?;
        self.stands(position, last)
    }

    /// Waits until so many bytes that were sent of a new copy have had their time, unless nobody wants it any more. One that was away is
    /// brought up to date as fast as it goes.
    fn pace(&self, bytes: u64) -> Result<()> {
        self.shipping.target.outlet.pace.wait(bytes);
        if self.shipping.wants(self.address, self.thread) { Ok(()) } else { Err(Failure::cancelled()) }
    }

    /// As [`Session::copy_anew`], after which the records that are left do not keep to the pace.
    fn copied_anew(&mut self, copy: &dyn FedCopy) -> Result<u64> {
        self.paced = 0;
        self.copy_anew(copy)
    }

    /// Gives the copy all that is shown; the record up to which it then has everything.
    fn copy_anew(&self, copy: &dyn FedCopy) -> Result<u64> {
        let source = self.log.copy_source();
        let files = source.files();
        let total: u64 = files.iter().map(|file| file.length).sum();
        let progress = |done: u64| {
            self.shipping.update(self.address, self.thread, |copies| copies.copy_anew(self.address, source.lsn(), (done, total)));
        };
        progress(0);
        let (began, pace) = (Instant::now(), &self.shipping.target.outlet.pace);
        copy.copy_anew()?;
        let mut done = 0;
        for file in &files {
            self.send_file(copy, &file.name, &file.path, pace.piece(), &mut |bytes| {
                done += bytes;
                progress(done);
                self.pace(bytes)
            })?;
        }
        let manifest = source.manifest().map_err(|e| storage_failure(&e))?;
        for part in manifest.chunks(CHUNK) {
            copy.file(MANIFEST, part.to_vec(), false)?;
        }
        copy.file(MANIFEST, vec![], true)?;
        // A smaller one tells how long calls take, not bytes.
        if total >= CHUNK as u64 {
            pace.done(total, began.elapsed());
        }
        Ok(copy.finish_copy()?.lsn)
    }

    /// Sends a file in pieces; each is told when it was sent, and may end it.
    fn send_file(
        &self,
        copy: &dyn FedCopy,
        name: &str,
        path: &Path,
        piece: usize,
        sent: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        let failed = |e: std::io::Error| Failure::new(FailureKind::Fatal, format!("{}: {e}", path.display()));
        let mut file = File::open(path).map_err(failed)?;
        loop {
            let mut part = Vec::with_capacity(piece);
            let read = file.by_ref().take(piece as u64).read_to_end(&mut part).map_err(failed)?;
            copy.file(name, part, read < piece)?;
            sent(read as u64)?;
            if read < piece {
                return Ok(());
            }
        }
    }
}
