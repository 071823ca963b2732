//! Unique keys of loaded rows: no two of them share one, and none is there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::origin::Origins;
use crate::keys::SoughtKeys;
use crate::segment::Segment;
use crate::table::{Partition, Stored, Table};
use crate::{Error, Result};

/// The partitions that were looked at.
pub(super) struct Checked {
    partitions: Vec<Arc<Partition>>,
    /// Where the rows of the segments came from, by the segment's number, as far as that is known.
    origins: BTreeMap<u64, Origins>,
}

/// Checks the keys of new segments, each of its partition, against each other and against the table as it is now.
pub(super) fn check(now: &Arc<Table>, segments: &[(usize, Arc<Segment>)], origins: BTreeMap<u64, Origins>) -> Result<Checked> {
    if !now.def.unique_keys.is_empty() {
        for part in segments.chunk_by(|a, b| a.0 == b.0) {
            let mut loaded = Partition::default();
            for (partition, segment) in part {
                look(now, segment, &[&now.partitions[*partition], &loaded], &origins)?;
                loaded.segments.push(Stored::new(Arc::clone(segment), Default::default()));
            }
        }
    }
    Ok(Checked { partitions: now.partitions.clone(), origins })
}

impl Checked {
    /// Checks again what has changed.
    pub(super) fn again(&self, now: &Arc<Table>, segments: &[(usize, Arc<Segment>)]) -> Result<()> {
        if now.def.unique_keys.is_empty() {
            return Ok(());
        }
        for (partition, segment) in segments {
            let part = &now.partitions[*partition];
            if !self.partitions.get(*partition).is_some_and(|before| Arc::ptr_eq(before, part)) {
                look(now, segment, &[part], &self.origins)?;
            }
        }
        Ok(())
    }
}

fn look(table: &Arc<Table>, segment: &Arc<Segment>, others: &[&Partition], origins: &BTreeMap<u64, Origins>) -> Result<()> {
    for (number, key) in table.def.unique_keys.iter().enumerate() {
        let sought = SoughtKeys::of_key(segment.whole(&key.columns)?);
        let mut row = sought.repeated()?.map(|(row, _)| row);
        for other in others {
            if row.is_none() {
                row = sought.find(&table.def, number, other)?.first().map(|(row, _)| *row);
            }
        }
        if let Some(row) = row {
            let named = origins.get(&segment.id()).and_then(|origins| origins.name(&table.def, row));
            let named = named.unwrap_or_else(|| format!("table '{}': rows cannot be loaded", table.name()));
            let what = format!("{named}: there is a row with {} {} already", key.name, sought.text(row));
            return Err(Error::DuplicateKey(what));
        }
    }
    Ok(())
}
