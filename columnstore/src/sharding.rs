//! Which partition a row belongs to: a hash of its shard key, the same on every machine and for ever.
//!
//! Integers, dates, decimals and booleans hash by their value, whatever their width, so that equal keys of tables that join meet in
//! the same partition. Floats hash by their bits, zeros being one value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;

use crate::native::{Native, with_primitive};
use stoa_kernels::hash::{combine, part, shard_hash, shard_hash_bytes};

/// What a NULL hashes to.
const NULL_HASH: u64 = 0x5851_F42D_4C95_7F2D;

/// The partition of a shard-key hash among `partitions`.
#[must_use]
#[inline]
pub fn partition_of(hash: u64, partitions: usize) -> usize {
    part(hash, partitions as u32) as usize
}

/// One hash per row of the shard-key columns (of canonical types), in the order of the key.
#[must_use]
pub fn shard_hashes(columns: &[ArrayRef]) -> Vec<u64> {
    let mut hashes = Vec::new();
    for (i, column) in columns.iter().enumerate() {
        let next = column_hashes(column);
        if i == 0 {
            hashes = next;
        } else {
            hashes.iter_mut().zip(next).for_each(|(h, n)| *h = combine(*h, n));
        }
    }
    hashes
}

/// The rows of a batch, as columns in the table's order, that belong to each partition by the hash of their shard key; by partition.
#[must_use]
pub fn rows_by_partition(shard_key: &[u32], columns: &[ArrayRef], partitions: usize) -> Vec<Vec<u32>> {
    let keys: Vec<ArrayRef> = shard_key.iter().map(|k| Arc::clone(&columns[*k as usize])).collect();
    let rows = columns.first().map_or(0, Array::len);
    let mut rows_of: Vec<Vec<u32>> = vec![Vec::with_capacity(rows / partitions + rows / 8); partitions];
    for (row, hash) in (0u32..).zip(shard_hashes(&keys)) {
        rows_of[partition_of(hash, partitions)].push(row);
    }
    rows_of
}

fn column_hashes(array: &ArrayRef) -> Vec<u64> {
    let valid = |i: usize| array.is_valid(i);
    let rows = array.len();
    let of = |hash: &dyn Fn(usize) -> u64| (0..rows).map(|i| if valid(i) { hash(i) } else { NULL_HASH }).collect();
    match array.data_type() {
        DataType::Utf8View => {
            let strings = array.as_string_view();
            of(&|i| shard_hash_bytes(strings.value(i).as_bytes()))
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            of(&|i| shard_hash_bytes(bytes.value(i)))
        }
        DataType::Boolean => {
            let bits = array.as_boolean();
            of(&|i| shard_hash(u64::from(bits.value(i))))
        }
        _ => with_primitive!(
            array,
            values => if values.null_count() == 0 {
                values.values().iter().map(|v| v.hash()).collect()
            } else {
                of(&|i| values.value(i).hash())
            },
            _ => vec![0; rows]
        ),
    }
}
