//! A hash table from packed keys to the numbers of their groups.

use super::hash::hash_u64;
use crate::context::PIECE;
use crate::{CancelToken, Result};

/// What a row's number is before its group is found.
pub(crate) const FREE: u32 = u32::MAX;

/// A code and the number of its group plus one, which is 0 where the slot is free: a new table is of pages that are zero anyway.
type Slot = [u64; 2];

/// Open addressing with linear probing, at most half full.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    used: usize,
    hash_zero: bool,
}

/// The group of a slot; [`FREE`] if it is free.
fn group(slot: Slot) -> u32 {
    (slot[1] as u32).wrapping_sub(1)
}

fn slot(code: u64, group: u32) -> Slot {
    [code, u64::from(group) + 1]
}

impl Table {
    /// A table of the codes of all groups.
    pub(crate) fn new(codes: &[u64], hash_zero: bool, cancel: &CancelToken) -> Result<Table> {
        let mut table = Table::with_room(codes.len(), hash_zero);
        for piece in cancel.pieces(codes.len()) {
            for group in piece? {
                table.insert(slot(codes[group], group as u32));
            }
        }
        Ok(table)
    }

    fn with_room(groups: usize, hash_zero: bool) -> Table {
        let size = (groups * 2).next_power_of_two().max(256);
        Table { slots: vec![[0, 0]; size], used: 0, hash_zero }
    }

    pub(crate) fn memory(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }

    fn home(&self, code: u64) -> usize {
        if self.hash_zero { 0 } else { hash_u64(code) as usize & (self.slots.len() - 1) }
    }

    fn insert(&mut self, slot: Slot) {
        let mut at = self.home(slot[0]);
        while self.slots[at][1] != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = slot;
        self.used += 1;
    }

    fn reserve(&mut self, more: usize, cancel: &CancelToken) -> Result<()> {
        if (self.used + more) * 2 <= self.slots.len() {
            return Ok(());
        }
        let mut bigger = Table::with_room((self.used + more).max(self.used * 2), self.hash_zero);
        for slots in self.slots.chunks(PIECE) {
            cancel.check()?;
            slots.iter().filter(|slot| slot[1] != 0).for_each(|slot| bigger.insert(*slot));
        }
        *self = bigger;
        Ok(())
    }

    /// The groups of codes; new ones are added to `known`, the codes of all groups. Rows whose home slot holds their code are found
    /// in a first pass without branches, so that cache misses overlap.
    pub(crate) fn assign(&mut self, known: &mut Vec<u64>, codes: &[u64], ids: &mut [u32], cancel: &CancelToken) -> Result<()> {
        for (codes, ids) in codes.chunks(1024).zip(ids.chunks_mut(1024)) {
            let mask = self.slots.len() - 1;
            if !self.hash_zero {
                for (id, code) in ids.iter_mut().zip(codes) {
                    let slot = self.slots[hash_u64(*code) as usize & mask];
                    *id = if slot[0] == *code { group(slot) } else { FREE };
                }
            }
            let missing = ids.iter().map(|id| usize::from(*id == FREE)).sum();
            if missing == 0 {
                continue;
            }
            self.reserve(missing, cancel)?;
            let mask = self.slots.len() - 1;
            for (id, code) in ids.iter_mut().zip(codes).filter(|(id, _)| **id == FREE) {
                let mut at = self.home(*code);
                loop {
                    let found = self.slots[at];
                    if found[1] == 0 {
                        *id = known.len() as u32;
                        known.push(*code);
                        self.slots[at] = slot(*code, *id);
                        self.used += 1;
                        break;
                    }
                    if found[0] == *code {
                        *id = group(found);
                        break;
                    }
                    at = (at + 1) & mask;
                }
            }
        }
        Ok(())
    }
}
