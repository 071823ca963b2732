//! Which leaf each row of a shuffle goes to.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use stoa_columnstore::{partition_of, shard_hashes};
use stoa_rpc::{Failure, FailureKind, Result};

/// From a row's keys to its leaf, by the partition that their hash has.
pub(crate) struct Routes {
    keys: Vec<usize>,
    /// By partition.
    owners: Vec<usize>,
    leaves: usize,
}

impl Routes {
    /// Routes by the columns at these positions.
    pub fn new(keys: &[u32], owners: &[u32], leaves: usize) -> Result<Routes> {
        let (keys, owners): (Vec<usize>, Vec<usize>) =
            (keys.iter().map(|key| *key as usize).collect(), owners.iter().map(|owner| *owner as usize).collect());
        if keys.is_empty() || owners.is_empty() || owners.iter().any(|owner| *owner >= leaves) {
            return Err(malformed("it has no keys, or leads to a leaf that is not there"));
        }
        Ok(Routes { keys, owners, leaves })
    }

    /// The rows of some batches for each leaf.
    pub fn split(&self, batches: &[RecordBatch]) -> Result<Vec<Vec<RecordBatch>>> {
        let Some(first) = batches.first() else { return Ok(vec![vec![]; self.leaves]) };
        let all = concat_batches(&first.schema(), batches).map_err(|e| malformed(&e))?;
        let key = |key: &usize| all.columns().get(*key).cloned().ok_or_else(|| malformed("it is by a column that is not there"));
        let keys: Vec<ArrayRef> = self.keys.iter().map(key).collect::<Result<_>>()?;
        let about = all.num_rows() / self.leaves * 5 / 4;
        let mut rows_of: Vec<Vec<u32>> = (0..self.leaves).map(|_| Vec::with_capacity(about)).collect();
        for (row, hash) in (0u32..).zip(shard_hashes(&keys)) {
            rows_of[self.owners[partition_of(hash, self.owners.len())]].push(row);
        }
        let part = |rows: Vec<u32>| {
            if rows.is_empty() {
                return Ok(vec![]);
            }
            Ok(vec![take_record_batch(&all, &UInt32Array::from(rows)).map_err(|e| malformed(&e))?])
        };
        rows_of.into_iter().map(part).collect()
    }
}

fn malformed(why: &(impl std::fmt::Display + ?Sized)) -> Failure {
    Failure::new(FailureKind::Fatal, format!("a shuffle is malformed: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    #[test]
    fn equal_keys_go_to_one_leaf_and_no_row_is_lost() {
        let batch = |from: i64| {
            let keys: Vec<i64> = (from..from + 50).map(|i| i % 10).collect();
            let texts = StringViewArray::from_iter_values(keys.iter().map(|k| format!("x{k}")));
            let columns: Vec<(&str, ArrayRef)> = vec![("k", Arc::new(Int64Array::from(keys))), ("t", Arc::new(texts))];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        for keys in [&[0][..], &[1], &[1, 0]] {
            let routes = Routes::new(keys, &[0, 1, 2, 0, 1], 3).unwrap();
            let parts = routes.split(&[batch(0), batch(7)]).unwrap();
            let mut leaf_of = [None; 10];
            let mut rows = 0;
            for (leaf, part) in parts.iter().enumerate() {
                for key in part.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values()) {
                    assert_eq!(*leaf_of[*key as usize].get_or_insert(leaf), leaf);
                    rows += 1;
                }
            }
            assert_eq!(rows, 100);
        }
    }

    #[test]
    fn routes_that_lead_nowhere_are_refused() {
        assert!(Routes::new(&[], &[0], 1).is_err());
        assert!(Routes::new(&[0], &[], 1).is_err());
        assert!(Routes::new(&[0], &[0, 1], 1).is_err());
        let routes = Routes::new(&[3], &[0], 1).unwrap();
        let batch = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
        assert!(routes.split(&[batch]).is_err());
    }
}
