//! Which segments of a partition are merged.
//!
//! Small segments of like size become one ([`FAN_IN`] of them, so that a row is copied about as often as the number of its table's rows
//! has digits to that base; O'Neil et al., "The Log-Structured Merge-Tree", 1996), and those with many deleted rows are written without
//! them. One merge takes only so much that it fits into memory; others do the rest.

use std::collections::BTreeMap;

use crate::Result;
use crate::definition::Options;
use crate::table::{Partition, Stored};

/// Segments of one size class that are merged into one.
const FAN_IN: usize = 8;
/// Rows of the smallest size class; each next one is [`FAN_IN`] times as large.
const LEAST_ROWS: u64 = 1 << 13;

/// The merge that is due in a partition.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DueMerge {
    /// The segments that it takes.
    pub segments: Vec<u64>,
    /// How many are to be merged, by it and those after it.
    pub waiting: usize,
}

/// The merge that is due in a partition: of segments of which a quarter is deleted, and of [`FAN_IN`] or more of a size class.
///
/// # Errors
/// If a segment cannot say how large its values are.
pub(super) fn due_merge(part: &Partition, options: &Options) -> Result<DueMerge> {
    let (most_rows, most_bytes) = (options.segment_rows as u64, options.merge_bytes);
    let mut all: Vec<&Stored> = Vec::new();
    let mut classes: Classes<'_> = BTreeMap::new();
    for stored in &part.segments {
        let rows = stored.rows();
        if stored.deleted_rows() * 4 >= stored.segment.rows() as u64 {
            all.push(stored);
        } else if rows < most_rows / 2 {
            let class = (rows / LEAST_ROWS + 1).ilog(FAN_IN as u64);
            classes.entry(class).or_default().push(stored);
        }
    }
    // Files are not opened as long as there are few.
    if crowded(&classes).is_some() {
        for of in classes.values_mut() {
            // Two that stay always fit into one merge.
            let sizes = of.iter().map(|stored| decoded_bytes(stored)).collect::<Result<Vec<_>>>()?;
            let mut sizes = sizes.into_iter();
            of.retain(|_| sizes.next().is_some_and(|bytes| bytes < most_bytes / 2));
        }
    }
    // What is merged for a larger class takes the smaller ones with it.
    if let Some(largest) = crowded(&classes) {
        classes.range(..=largest).for_each(|(_, of)| all.extend(of));
    }
    let (mut segments, mut room) = (Vec::new(), most_bytes);
    for stored in &all {
        let bytes = decoded_bytes(stored)?;
        if bytes > room && !segments.is_empty() {
            break;
        }
        room = room.saturating_sub(bytes);
        segments.push(stored.segment.id());
    }
    Ok(DueMerge { segments, waiting: all.len() })
}

/// Small segments by size class.
type Classes<'a> = BTreeMap<u32, Vec<&'a Stored>>;

/// The largest class with so many segments that they are merged.
fn crowded(classes: &Classes<'_>) -> Option<u32> {
    classes.iter().rev().find(|(_, of)| of.len() >= FAN_IN).map(|(class, _)| *class)
}

/// About how many bytes the rows of a segment are that are not deleted, in memory.
fn decoded_bytes(stored: &Stored) -> Result<u64> {
    let segment = &stored.segment;
    let mut bytes = 0u64;
    for ordinal in 0..segment.ordinals() {
        bytes = bytes.saturating_add(segment.sizes(ordinal)?.0);
    }
    let share = stored.rows() as f64 / segment.rows().max(1) as f64;
    Ok((bytes as f64 * share) as u64)
}
