//! Run-time filters: the keys of a build side, for scans that start later.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType as Arrow;
use stoa_columnstore::KeySet;
use stoa_columnstore::predicate::KeyMembers;
use stoa_plan::{Join, JoinKind, Side};

use super::keys::{extremes, integers};
use crate::Result;
use crate::executor::{Executor, Scope};

/// A range of at most this many keys is a bitmap: 8 MB.
const MOST_BITS: u64 = 1 << 26;
/// Bits of a Bloom filter for each key.
const BLOOM_BITS: usize = 16;

/// Publishes the run-time filters of a join over its build side's keys.
pub(crate) fn publish(exec: &Executor<'_>, join: &Join, keys: &[ArrayRef], scope: &Scope) -> Result<()> {
    if !drops_probe_rows(join) {
        return Ok(());
    }
    for (id, on) in &join.publishes {
        if let Some(set) = keys.get(*on as usize).and_then(key_set) {
            scope.publish(*id, Arc::new(set));
        }
        exec.ctx.cancel.check()?;
    }
    Ok(())
}

/// Whether a probe row without a match never reaches the output, so that a scan may drop it.
fn drops_probe_rows(join: &Join) -> bool {
    if join.null_equals_null {
        return false;
    }
    match (&join.kind, join.build) {
        (JoinKind::Inner, _) => true,
        (JoinKind::LeftSemi | JoinKind::RightSemi, _) => true,
        (JoinKind::Left | JoinKind::LeftAnti, side) => side == Side::Left,
        (JoinKind::Right | JoinKind::RightAnti, side) => side == Side::Right,
        (JoinKind::Full | JoinKind::LeftMark(_), _) => false,
    }
}

/// The keys as a set, if they are integers in the terms of a column.
fn key_set(array: &ArrayRef) -> Option<KeySet> {
    let exact = match array.data_type() {
        Arrow::Float32 | Arrow::Float64 | Arrow::Boolean => return None,
        Arrow::UInt64 => false,
        _ => true,
    };
    let integers = integers(array, false)?;
    let Some((min, max)) = extremes(&integers) else {
        return Some(KeySet { min: 0, max: 0, keys: 0, members: KeyMembers::Bits(vec![0]) });
    };
    if !exact && min < 0 {
        return None;
    }
    let values: &[i64] = &integers.values;
    let present = |i: &usize| integers.valid.as_ref().is_none_or(|v| v.is_valid(*i));
    let range = (max as u64).wrapping_sub(min as u64);
    let keys = values.len() - integers.valid.as_ref().map_or(0, arrow::buffer::NullBuffer::null_count);
    let members = if range < MOST_BITS {
        let mut bits = vec![0u64; range as usize / 64 + 1];
        if integers.valid.is_none() {
            for value in values {
                let at = value.wrapping_sub(min) as usize;
                bits[at / 64] |= 1 << (at % 64);
            }
        } else {
            for i in (0..values.len()).filter(present) {
                let at = values[i].wrapping_sub(min) as usize;
                bits[at / 64] |= 1 << (at % 64);
            }
        }
        let full = bits.iter().map(|w| u64::from(w.count_ones())).sum::<u64>() == range + 1;
        if full { KeyMembers::All } else { KeyMembers::Bits(bits) }
    } else {
        let words = (keys * BLOOM_BITS / 64).max(1).next_power_of_two();
        let mut bloom = vec![0u64; words];
        for i in (0..values.len()).filter(present) {
            let (word, bits) = KeySet::bloom_bits(values[i], words);
            bloom[word] |= bits;
        }
        KeyMembers::Bloom(bloom)
    };
    Some(KeySet { min, max, keys, members })
}
