//! The log as it goes to other copies of the directory: who writes it, where it ends, its last records.
//!
//! One copy is the master of a term; its commits are acknowledged once every copy that has to has them ([`Replication`]). The others
//! are replicas and take its records as they are. Two copies whose logs have the same record at a place, of the same term, have the same
//! log up to there: a term has one master, and a master writes a record once (Ongaro and Ousterhout, "In Search of an Understandable
//! Consensus Algorithm", 2014, log matching).

use std::collections::VecDeque;
use std::sync::Arc;

use super::commit::{Head, added_segments};
use super::syncing::Lost;
use super::{Catalog, Database};
use crate::log::{self, decode_changes, encode_changes};
use crate::segment::{Segment, corrupt, io_error};
use crate::{Error, Result};

/// Bytes of the last records that stay in memory.
const TAIL: usize = 64 << 20;
/// Bytes of records that are read from the log's files at once: reading some means reading a file.
const FROM_FILES: usize = 64 << 20;

/// Where a copy stands: its last record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Its number; 0: the log is empty.
    pub lsn: u64,
    /// The term that it was written in.
    pub term: u64,
    /// Of its body.
    pub checksum: u64,
}

/// A record as it is shipped.
#[derive(Clone)]
pub struct LogRecord {
    /// Its number.
    pub lsn: u64,
    /// The term that it was written in.
    pub term: u64,
    /// What it says: a message of `log.capnp`.
    pub body: Arc<[u8]>,
    checksum: u64,
    /// Those that it brings; their files stay as long as the record.
    pub(super) segments: Vec<Arc<Segment>>,
}

impl LogRecord {
    /// A record as it was received.
    #[must_use]
    pub fn new(lsn: u64, term: u64, body: Arc<[u8]>) -> LogRecord {
        let checksum = crate::checksum(&body);
        LogRecord { lsn, term, body, checksum, segments: vec![] }
    }

    fn position(&self) -> Position {
        Position { lsn: self.lsn, term: self.term, checksum: self.checksum }
    }
}

/// How a master's commits reach the replicas.
pub trait Replication: Send + Sync {
    /// Records up to this one are in the log. Called in order and must not wait for anything.
    fn written(&self, lsn: u64);

    /// Waits until every copy that has to has all records up to this one, for good.
    ///
    /// # Errors
    /// Why this copy may not acknowledge them: it is not the master any more.
    fn wait(&self, lsn: u64) -> std::result::Result<(), String>;

    /// Every copy that is fed has all records up to this one: they, and segments that only they name, need not stay for it.
    fn acknowledged(&self) -> u64;
}

/// What a copy is.
#[derive(Clone)]
pub(crate) enum Role {
    /// The only one.
    Alone,
    /// It takes writes.
    Master(Arc<dyn Replication>),
    /// It takes the master's records.
    Replica,
}

/// The end of the log.
pub(crate) struct Tail {
    position: Position,
    records: VecDeque<LogRecord>,
    bytes: usize,
}

fn position(catalog: &Catalog) -> Position {
    Position { lsn: catalog.sequence, term: catalog.term, checksum: catalog.checksum }
}

impl Tail {
    /// Behind the last record of a state.
    pub(super) fn after(catalog: &Catalog) -> Tail {
        Tail { position: position(catalog), records: VecDeque::new(), bytes: 0 }
    }

    /// Goes back to a state.
    pub(super) fn cut(&mut self, catalog: &Catalog) {
        self.position = position(catalog);
        while self.records.back().is_some_and(|record| record.lsn > catalog.sequence) {
            self.bytes -= self.records.pop_back().map_or(0, |record| record.body.len());
        }
    }

    pub(super) fn push(&mut self, record: LogRecord) {
        self.position = record.position();
        self.bytes += record.body.len();
        self.records.push_back(record);
        while self.bytes > TAIL && self.records.len() > 1 {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.body.len());
        }
    }

    /// Drops the records up to this one.
    fn trim(&mut self, lsn: u64) {
        while self.records.front().is_some_and(|record| record.lsn <= lsn) {
            self.bytes -= self.records.pop_front().map_or(0, |record| record.body.len());
        }
    }
}

impl Database {
    /// The newest record.
    #[must_use]
    pub fn position(&self) -> Position {
        self.tail.lock().position
    }

    /// Whether commits are possible, as far as the other copies go.
    #[must_use]
    pub fn is_master(&self) -> bool {
        let head = self.head.lock();
        self.check_master(&head).is_ok()
    }

    /// Why a master cannot write its log any more before a new term begins.
    #[must_use]
    pub fn log_failure(&self) -> Option<String> {
        self.syncing.lock().failed.clone()
    }

    pub(super) fn check_master(&self, head: &Head) -> Result<()> {
        if let Some(why) = &self.syncing.lock().fenced {
            return Err(Error::NotMaster(why.clone()));
        }
        if matches!(head.role, Role::Replica) { Err(Error::NotMaster("it is a replica".into())) } else { Ok(()) }
    }

    /// A record is in the log: it goes to the other copies.
    pub(super) fn ship<'a>(&self, head: &Head, body: Vec<u8>, segments: impl Iterator<Item = &'a Arc<Segment>>) {
        let (lsn, term, checksum) = (head.catalog.sequence, head.catalog.term, head.catalog.checksum);
        let mut tail = self.tail.lock();
        tail.position = position(&head.catalog);
        if let Role::Master(replication) = &head.role {
            tail.push(LogRecord { lsn, term, body: body.into(), checksum, segments: segments.cloned().collect() });
            drop(tail);
            replication.written(lsn);
        }
    }

    /// Records that every copy has go from memory.
    pub(super) fn trim_tail(&self, replication: &dyn Replication) {
        let acknowledged = replication.acknowledged();
        self.tail.lock().trim(acknowledged);
    }

    /// From now on this copy is the master of a term, and its commits go through `replication`. What an earlier master did not
    /// acknowledge, and is here, counts. In a new term a record is written that says nothing, so that no two masters have the same log.
    ///
    /// # Errors
    /// [`Error::NotMaster`] if the log is of a later term; [`Error::Io`].
    pub fn become_master(&self, term: u64, replication: Arc<dyn Replication>) -> Result<()> {
        let mut head = self.head.lock();
        if term < head.catalog.term {
            return Err(Error::NotMaster(format!("its log is of term {}, not {term}", head.catalog.term)));
        }
        self.settle(&mut head, "a new term began")?;
        let next = |counter: &std::sync::atomic::AtomicU64, at_least: u64| {
            counter.fetch_max(at_least, std::sync::atomic::Ordering::Relaxed);
        };
        next(&self.next_table_id, head.catalog.next_table_id);
        next(&self.next_segment_id, head.catalog.next_segment_id);
        // A copy that has nothing at all has lost it.
        if term > head.catalog.term || head.catalog.sequence == 0 {
            let mut catalog = Catalog::clone(&head.catalog);
            (catalog.sequence, catalog.term) = (catalog.sequence + 1, term);
            let body = encode_changes(&[]);
            let synced = head.catalog.sequence;
            catalog.checksum = head.log.append(catalog.sequence, term, synced, &body)?;
            head.catalog = Arc::new(catalog);
            self.ship(&head, body, std::iter::empty());
            self.quiet(&mut head);
            if let Some(why) = self.log_failure() {
                return Err(corrupt(&self.files.root, &why));
            }
        }
        head.role = Role::Master(replication);
        self.shown.begin_anew();
        Ok(())
    }

    /// From now on commits are refused, and records come from the master. Commits that wait for other copies must have been told that
    /// this one is not the master any more.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn become_replica(&self) -> Result<()> {
        let mut head = self.head.lock();
        if matches!(head.role, Role::Replica) {
            return Ok(());
        }
        self.settle(&mut head, "another copy is the master now")?;
        head.role = Role::Replica;
        self.tail.lock().trim(u64::MAX);
        Ok(())
    }

    /// Ends a role: commits that wait end without being acknowledged, what is in the log is on disk and shown.
    fn settle(&self, head: &mut Head, why: &str) -> Result<()> {
        {
            let mut syncing = self.syncing.lock();
            while syncing.running {
                self.synced.wait(&mut syncing);
            }
            if syncing.failed.is_none() && matches!(head.role, Role::Master(_)) {
                syncing.get_over(Lost::NotMaster(why.to_owned()));
            }
            syncing.fenced = None;
            self.call_waiting(syncing);
        }
        head.role = Role::Alone;
        self.heal_now(head)?;
        self.quiet(head);
        // What this sync finds is healed by the next one who settles.
        match self.log_failure() {
            Some(_) => self.heal_now(head),
            None => Ok(()),
        }
    }

    /// Whether a copy that stands there has nothing but what this one has: it can be fed from there on.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn has(&self, other: Position) -> Result<bool> {
        if other.lsn == 0 {
            return Ok(self.records_after(0, 1)?.is_some());
        }
        {
            let tail = self.tail.lock();
            if other.lsn >= tail.position.lsn {
                return Ok(other == tail.position);
            }
            if let Some(record) = tail.records.iter().find(|record| record.lsn == other.lsn) {
                return Ok(record.position() == other);
            }
        }
        let records = self.read_files(other.lsn, 1)?;
        Ok(records.is_some_and(|records| records.first().is_some_and(|record| record.position() == other)))
    }

    /// Records after a number, in order, of about so many bytes; at least one if there is one. `None`: the log does not go back so far,
    /// or a segment that a record brings is gone. The copy has to be made anew.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn records_after(&self, lsn: u64, most: usize) -> Result<Option<Vec<LogRecord>>> {
        {
            let tail = self.tail.lock();
            if lsn >= tail.position.lsn {
                return Ok(Some(vec![]));
            }
            if tail.records.front().is_some_and(|first| first.lsn <= lsn + 1) {
                let mut bytes = 0;
                let rest = tail.records.iter().skip_while(|record| record.lsn <= lsn);
                let some = rest.take_while(|record| {
                    let takes = bytes < most;
                    bytes += record.body.len();
                    takes
                });
                return Ok(Some(some.cloned().collect()));
            }
        }
        self.read_files(lsn + 1, FROM_FILES)
    }

    /// Records from a number on, read from the log's files.
    fn read_files(&self, first: u64, most: usize) -> Result<Option<Vec<LogRecord>>> {
        let end = self.position().lsn;
        let (last, length) = self.log_end()?;
        let catalog = self.catalog();
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        // What is in later files was written after the end.
        for number in log::files(&*self.files.disk, &self.files.root)?.into_iter().filter(|number| *number <= last) {
            let path = log::file_path(&self.files.root, number);
            let read = if number == last { self.files.disk.read_start(&path, length) } else { self.files.disk.read(&path) };
            let file = match read {
                Ok(file) => file,
                // A checkpoint has removed it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io_error(&path)(e)),
            };
            let Some(start) = log::first_lsn(&file) else { continue };
            if start > first + records.len() as u64 {
                return Ok(None);
            }
            log::read_file(&path, &file, start, &mut |record| {
                if record.lsn == first + records.len() as u64 && record.lsn <= end && (bytes < most || records.is_empty()) {
                    bytes += record.body.len();
                    let (lsn, term, checksum) = (record.lsn, record.term, record.checksum);
                    records.push(LogRecord { lsn, term, body: record.body.into(), checksum, segments: vec![] });
                }
                Ok(())
            })?;
        }
        for record in &mut records {
            match self.segments_of(&catalog, record)? {
                Some(segments) => record.segments = segments,
                None => return Ok(None),
            }
        }
        Ok((!records.is_empty()).then_some(records))
    }

    /// The segments that a record brings; `None` if one is gone.
    fn segments_of(&self, catalog: &Catalog, record: &LogRecord) -> Result<Option<Vec<Arc<Segment>>>> {
        let changes = decode_changes(&record.body).map_err(|what| corrupt(&self.files.root, &what))?;
        let mut segments = Vec::new();
        for path in super::replica::added_paths(&self.files, &changes) {
            match catalog.segments().find(|segment| segment.path() == path.0) {
                Some(segment) => segments.push(Arc::clone(segment)),
                None => return Ok(None),
            }
        }
        debug_assert_eq!(added_segments(&changes).count(), 0, "segments that were read are not open");
        Ok(Some(segments))
    }
}
