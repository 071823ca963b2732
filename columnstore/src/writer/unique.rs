//! Unique keys of loaded rows: no two of them share one, and none is there already.

use std::sync::Arc;

use crate::keys::SoughtKeys;
use crate::segment::Segment;
use crate::table::{Partition, Stored, Table};
use crate::{Error, Result};

/// The partitions that were looked at.
pub(super) struct Checked {
    partitions: Vec<Arc<Partition>>,
}

/// Checks the keys of new segments, each of its partition, against each other and against the table as it is now.
pub(super) fn check(table: &Arc<Table>, now: &Option<Arc<Table>>, segments: &[(usize, Arc<Segment>)]) -> Result<Checked> {
    let now = now.as_ref().filter(|now| now.id == table.id && now.def == table.def).unwrap_or(table);
    if !table.def.unique_keys.is_empty() {
        for part in segments.chunk_by(|a, b| a.0 == b.0) {
            let mut loaded = Partition::default();
            for (partition, segment) in part {
                look(table, segment, &[&now.partitions[*partition], &loaded])?;
                loaded.segments.push(Stored::new(Arc::clone(segment), Default::default()));
            }
        }
    }
    Ok(Checked { partitions: now.partitions.clone() })
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
                look(now, segment, &[part])?;
            }
        }
        Ok(())
    }
}

fn look(table: &Arc<Table>, segment: &Arc<Segment>, others: &[&Partition]) -> Result<()> {
    for (number, key) in table.def.unique_keys.iter().enumerate() {
        let sought = SoughtKeys::of_key(segment.whole(&key.columns)?);
        let mut row = sought.repeated()?.map(|(row, _)| row);
        for other in others {
            if row.is_none() {
                row = sought.find(&table.def, number, other)?.first().map(|(row, _)| *row);
            }
        }
        if let Some(row) = row {
            let (name, key) = (table.name(), &key.name);
            let what = format!("table '{name}': rows cannot be loaded, there is a row with {key} {} already", sought.text(row));
            return Err(Error::DuplicateKey(what));
        }
    }
    Ok(())
}
