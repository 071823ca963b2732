//! A copy that a master feeds.

use std::sync::Arc;

use parking_lot::Mutex;
use stoa_columnstore::{CopyReceiver, FileReceiver, LogRecord};
use stoa_rpc::replication::{FedCopy, MANIFEST, Position, Record};
use stoa_rpc::{Failure, FailureKind, Result};

use super::sent;
use crate::partition::Partition;
use crate::storage_failure;

/// The most bytes of a record, and of a manifest: what a log takes.
const MOST: usize = 1 << 30;

/// A copy while a master feeds it.
pub(crate) struct Receiving {
    partition: Arc<Partition>,
    /// Which of those who fed it is the one that may.
    feeder: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file that comes.
    file: Option<(String, FileReceiver)>,
    /// The copy that is made anew, and as much of its manifest as has come.
    anew: Option<(CopyReceiver, Vec<u8>)>,
    /// The record of which more is to come.
    partial: Vec<u8>,
}

impl Receiving {
    pub fn new(partition: Arc<Partition>, feeder: u64) -> Receiving {
        Receiving { partition, feeder, state: Mutex::default() }
    }
}

fn refused(what: &str) -> Failure {
    Failure::new(FailureKind::Fatal, format!("a copy cannot be fed so: {what}"))
}

impl FedCopy for Receiving {
    fn write(&self, records: Vec<Record>) -> Result<Position> {
        let mut state = self.state.lock();
        if state.anew.is_some() {
            return Err(refused("records came before the copy was whole"));
        }
        let mut whole = Vec::with_capacity(records.len());
        for Record { lsn, term, body, more } in records {
            if state.partial.len() + body.len() > MOST {
                return Err(refused("a record is too long"));
            }
            let body = if state.partial.is_empty() {
                body
            } else {
                state.partial.extend_from_slice(&body);
                std::mem::take(&mut state.partial)
            };
            if more {
                state.partial = body;
            } else {
                whole.push(LogRecord::new(lsn, term, body.into()));
            }
        }
        self.partition.fed(self.feeder, |database| {
            let position = if whole.is_empty() { Ok(database.position()) } else { database.replicate(&whole) };
            position.map(sent).map_err(|e| storage_failure(&e))
        })
    }

    fn file(&self, name: &str, data: Vec<u8>, last: bool) -> Result<()> {
        let mut state = self.state.lock();
        let State { file, anew, .. } = &mut *state;
        if name == MANIFEST {
            let (_, manifest) = anew.as_mut().ok_or_else(|| refused("a manifest came without its copy"))?;
            if manifest.len() + data.len() > MOST {
                return Err(refused("a manifest is too long"));
            }
            manifest.extend_from_slice(&data);
            return Ok(());
        }
        self.partition.fed(self.feeder, |database| {
            if file.as_ref().is_none_or(|(known, _)| known != name) {
                let begun = match anew {
                    Some((copy, _)) => copy.file(name),
                    None => database.receive_file(name),
                };
                *file = Some((name.to_owned(), begun.map_err(|e| storage_failure(&e))?));
            }
            let Some((_, receiver)) = file else { return Ok(()) };
            receiver.write(&data).map_err(|e| storage_failure(&e))?;
            if last && let Some((_, receiver)) = file.take() {
                receiver.finish().map_err(|e| storage_failure(&e))?;
            }
            Ok(())
        })
    }

    fn copy_anew(&self) -> Result<()> {
        let mut state = self.state.lock();
        *state = State::default();
        state.anew = Some((self.partition.begin_copy(self.feeder)?, Vec::new()));
        Ok(())
    }

    fn finish_copy(&self) -> Result<Position> {
        let mut state = self.state.lock();
        let (copy, manifest) = std::mem::take(&mut *state).anew.ok_or_else(|| refused("no copy was begun"))?;
        copy.finish(&manifest).map_err(|e| storage_failure(&e))?;
        self.partition.finish_copy(self.feeder)
    }
}
