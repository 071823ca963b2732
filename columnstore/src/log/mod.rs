//! The log of a data directory: what was committed since the manifest was written, record by record.
//!
//! ```text
//! log/<number>.log:  records, one after the other
//! record:            u32 magic "STLR", u32 length of the body, u64 LSN, u64 term, u64 LSN up to which all was synced when this was
//!                    written, u64 checksum of the body, u64 checksum of the header before, body (a message of log.capnp)
//! ```
//!
//! Zeros may follow the last record of a file: room that was taken ahead, so that a sync need not note a new length.
//!
//! LSNs count records without a gap. A record is written wholly before it is synced, and only then acknowledged; so what is not whole
//! at the end of the last file was never acknowledged, and is cut off. Elsewhere it is damage: a later record that says that the broken
//! one had been synced proves it.

mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::checksum::checksum;
use crate::disk::{Disk, DiskFile};
use crate::segment::{corrupt, io_error};
use crate::{Error, Result};

pub(crate) use record::{Change, Entry, InsertedRows, decode_changes, encode_changes, read_entry, treemap_bytes, write_entry};

/// The folder of the log in the data directory.
pub(crate) const FOLDER: &str = "log";

const MAGIC: [u8; 4] = *b"STLR";
const HEADER: usize = 48;
/// Room is taken ahead for as many bytes as there are, within these.
const LEAST_AHEAD: u64 = 1 << 16;
const MOST_AHEAD: u64 = 1 << 20;
/// Room for so many bytes of records stays in memory.
const KEPT: usize = 1 << 20;
/// Longest body of a record.
const MAX_BODY: usize = 1 << 30;

/// The file that records are written to. Records are taken one at a time, by whoever holds the newest state; anyone writes those that were
/// taken.
pub(crate) struct LogWriter {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    /// Records that are not in the file yet.
    taken: Mutex<Vec<u8>>,
    end: Mutex<End>,
    /// Bytes of the records in the file.
    length: AtomicU64,
    /// A failed write lost records that were taken.
    lost: AtomicBool,
    /// A failed write left bytes that could not be cut off.
    uncut: AtomicBool,
}

/// Where the next bytes go.
struct End {
    /// Bytes that were written, kept for their room.
    written: Vec<u8>,
    /// Up to where room was taken.
    reserved: u64,
    /// Whether room is taken ahead.
    reserves: bool,
}

impl LogWriter {
    /// Begins a file whose name lasts when this returns.
    pub(crate) fn create(disk: &dyn Disk, root: &Path, number: u64, fsync: bool) -> Result<LogWriter> {
        let folder = root.join(FOLDER);
        disk.create_folder(&folder).map_err(io_error(&folder))?;
        let path = file_path(root, number);
        let file: Arc<dyn DiskFile> = disk.create(&path).map_err(io_error(&path))?.into();
        if fsync {
            file.sync().map_err(io_error(&path))?;
            disk.sync_folder(&folder).map_err(io_error(&folder))?;
            disk.sync_folder(root).map_err(io_error(root))?;
        }
        let end = Mutex::new(End { written: Vec::new(), reserved: 0, reserves: fsync });
        let (length, lost, uncut) = (AtomicU64::new(0), AtomicBool::default(), AtomicBool::default());
        Ok(LogWriter { path, file, taken: Mutex::default(), end, length, lost, uncut })
    }

    /// Writes a record; nothing of it stays after an error. The checksum of its body.
    pub(crate) fn append(&self, lsn: u64, term: u64, synced: u64, body: &[u8]) -> Result<u64> {
        let mut end = self.end.lock();
        self.write_taken(&mut end)?;
        let mut record = Vec::with_capacity(HEADER + body.len());
        let checksum = self.frame(&mut record, [lsn, term, synced], body)?;
        self.write_bytes(&mut end, &record)?;
        Ok(checksum)
    }

    /// Takes a record that the next [`LogWriter::write`] writes. The checksum of its body.
    pub(crate) fn append_later(&self, lsn: u64, term: u64, synced: u64, body: &[u8]) -> Result<u64> {
        self.frame(&mut self.taken.lock(), [lsn, term, synced], body)
    }

    /// Adds a record to some bytes: the checksum of its body.
    fn frame(&self, to: &mut Vec<u8>, numbers: [u64; 3], body: &[u8]) -> Result<u64> {
        if self.is_broken() {
            return Err(self.broken());
        }
        if body.len() > MAX_BODY {
            return Err(Error::Invalid(format!("a commit of {} bytes is larger than the most, {MAX_BODY}", body.len())));
        }
        let (frame, of_body) = (to.len(), checksum(body));
        to.reserve(HEADER + body.len());
        to.extend(MAGIC);
        to.extend((body.len() as u32).to_le_bytes());
        for number in numbers.into_iter().chain([of_body]) {
            to.extend(number.to_le_bytes());
        }
        let of_header = checksum(&to[frame..]);
        to.extend(of_header.to_le_bytes());
        to.extend_from_slice(body);
        Ok(of_body)
    }

    /// Writes the records that were taken; nothing of them is in the file after an error, and nothing will be any more.
    pub(crate) fn write(&self) -> Result<()> {
        self.write_taken(&mut self.end.lock())
    }

    fn write_taken(&self, end: &mut End) -> Result<()> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(self.broken());
        }
        let mut bytes = std::mem::take(&mut end.written);
        std::mem::swap(&mut bytes, &mut *self.taken.lock());
        if !bytes.is_empty() {
            // Who waits for these records may not find out that others have tried to write them.
            self.write_bytes(end, &bytes).inspect_err(|_| self.lost.store(true, Ordering::Relaxed))?;
        }
        if bytes.capacity() <= KEPT {
            bytes.clear();
            end.written = bytes;
        }
        Ok(())
    }

    fn write_bytes(&self, end: &mut End, bytes: &[u8]) -> Result<()> {
        if self.uncut.load(Ordering::Relaxed) {
            return Err(self.broken());
        }
        let length = self.length();
        self.reserve(end, length + bytes.len() as u64);
        if let Err(error) = self.file.append(bytes) {
            end.reserved = 0;
            self.uncut.store(self.file.truncate(length).is_err(), Ordering::Relaxed);
            return Err(io_error(&self.path)(error));
        }
        self.length.store(length + bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn reserve(&self, end: &mut End, to: u64) {
        if end.reserves && to > end.reserved {
            let wanted = to + to.clamp(LEAST_AHEAD, MOST_AHEAD);
            // Some of it may be there even if not all is.
            (end.reserves, end.reserved) = (self.file.reserve(wanted), wanted);
        }
    }

    /// Makes what was written last.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync().map_err(io_error(&self.path))
    }

    /// Bytes of the records in the file.
    pub(crate) fn length(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }

    fn broken(&self) -> Error {
        corrupt(&self.path, "an earlier write failed half-way")
    }

    /// Whether nothing can be written any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.uncut.load(Ordering::Relaxed)
    }
}

impl Drop for LogWriter {
    /// Gives back the room that was taken ahead. Whoever finds it all the same finds zeros.
    fn drop(&mut self) {
        let length = self.length();
        if self.end.get_mut().reserved > length {
            let _ = self.file.truncate(length);
        }
    }
}

/// The path of a log file.
pub(crate) fn file_path(root: &Path, number: u64) -> PathBuf {
    root.join(FOLDER).join(format!("{number:020}.log"))
}

/// The numbers of the log files that are there, ascending.
pub(crate) fn files(disk: &dyn Disk, root: &Path) -> Result<Vec<u64>> {
    let folder = root.join(FOLDER);
    let names = disk.list(&folder).map_err(io_error(&folder))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|(name, _)| name.strip_suffix(".log")?.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// A record as it was read.
pub(crate) struct Record<'a> {
    pub(crate) lsn: u64,
    pub(crate) term: u64,
    pub(crate) checksum: u64,
    pub(crate) body: &'a [u8],
}

/// What reading a file came to.
pub(crate) struct Read {
    /// Bytes of whole records from the start on.
    pub(crate) whole: u64,
    /// What is wrong with the bytes after them, if there are any.
    pub(crate) torn: Option<String>,
}

/// Hands every record of a file to `each`, from the first that is not whole on none. `lsn` is that of the first record.
pub(crate) fn read_file(path: &Path, bytes: &[u8], mut lsn: u64, each: &mut dyn FnMut(Record<'_>) -> Result<()>) -> Result<Read> {
    let mut at = 0;
    while at < bytes.len() {
        match parse(&bytes[at..]) {
            Ok((header, body)) if header.lsn == lsn => {
                each(Record { lsn, term: header.term, checksum: header.checksum, body })?;
                at += HEADER + body.len();
                lsn += 1;
            }
            Ok((header, _)) => {
                return Err(corrupt(path, &format!("the record at byte {at} has LSN {} instead of {lsn}", header.lsn)));
            }
            Err(_) if bytes[at..].iter().all(|byte| *byte == 0) => break,
            Err(what) => {
                if let Some(later) = later_record(&bytes[at..], lsn) {
                    let proof = format!("record {later} says that this one had been synced");
                    return Err(corrupt(path, &format!("the record at byte {at}, LSN {lsn}, {what}; {proof}")));
                }
                return Ok(Read { whole: at as u64, torn: Some(format!("the record at byte {at}, LSN {lsn}, {what}")) });
            }
        }
    }
    Ok(Read { whole: at as u64, torn: None })
}

/// The LSN of the first record of a file, if that is whole.
pub(crate) fn first_lsn(bytes: &[u8]) -> Option<u64> {
    parse(bytes).ok().map(|(header, _)| header.lsn)
}

struct Header {
    lsn: u64,
    term: u64,
    synced: u64,
    checksum: u64,
}

/// The record at the start of some bytes, or what is wrong with it.
fn parse(bytes: &[u8]) -> std::result::Result<(Header, &[u8]), &'static str> {
    let number = |at: usize| bytes[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    if bytes.len() < HEADER {
        return Err("is cut short");
    }
    if bytes[..4] != MAGIC || checksum(&bytes[..HEADER - 8]) != number(HEADER - 8) {
        return Err("does not match the checksum of its header");
    }
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    let body = bytes.get(HEADER..HEADER + length).ok_or("is cut short")?;
    if checksum(body) != number(32) {
        return Err("does not match its checksum");
    }
    Ok((Header { lsn: number(8), term: number(16), synced: number(24), checksum: number(32) }, body))
}

/// The LSN of a whole record somewhere in the bytes that says that record `lsn` had been synced.
fn later_record(bytes: &[u8], lsn: u64) -> Option<u64> {
    let starts = memchr::memmem::find_iter(bytes, &MAGIC);
    starts
        .filter_map(|at| parse(&bytes[at..]).ok())
        .find(|(header, _)| header.lsn > lsn && header.synced >= lsn)
        .map(|(h, _)| h.lsn)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::LocalDisk;

    fn write(records: &[(u64, u64, &[u8])]) -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("folder");
        let log = LogWriter::create(&LocalDisk, folder.path(), 1, false).expect("created");
        for (lsn, synced, body) in records {
            log.append(*lsn, 1, *synced, body).expect("appended");
        }
        let bytes = std::fs::read(file_path(folder.path(), 1)).expect("read");
        assert_eq!(bytes.len() as u64, log.length());
        (folder, bytes)
    }

    fn read(bytes: &[u8]) -> Result<(Vec<u64>, Read)> {
        let mut lsns = Vec::new();
        let read = read_file(Path::new("x.log"), bytes, 5, &mut |record| {
            lsns.push(record.lsn);
            Ok(())
        })?;
        Ok((lsns, read))
    }

    #[test]
    fn a_torn_tail_is_cut_and_damage_before_it_is_an_error() {
        let (_folder, bytes) = write(&[(5, 4, b"one"), (6, 4, b"two"), (7, 6, b"three")]);
        let (lsns, whole) = read(&bytes).expect("whole");
        assert_eq!((lsns, whole.whole, whole.torn.is_none()), (vec![5, 6, 7], bytes.len() as u64, true));
        for end in 0..bytes.len() {
            let (lsns, cut) = read(&bytes[..end]).expect("a torn tail");
            assert!(lsns.len() < 3 && cut.whole <= end as u64 && cut.torn.is_some() == (cut.whole < end as u64));
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 4;
            let first_two = at < 2 * HEADER + 6;
            match read(&damaged) {
                Err(Error::Corrupt { .. }) => assert!(first_two, "byte {at} is of what was not synced"),
                Ok((lsns, _)) => assert!(!first_two && lsns == [5, 6], "byte {at} is of what was synced"),
                Err(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn unsynced_records_may_be_lost_in_any_order() {
        let (_folder, mut bytes) = write(&[(5, 4, b"one"), (6, 4, b"two"), (7, 4, b"three")]);
        bytes[HEADER + 3 + 10] ^= 1;
        let (lsns, cut) = read(&bytes).expect("a torn tail");
        assert_eq!((lsns, cut.whole), (vec![5], HEADER as u64 + 3));
    }
}
