//! Sorting rows by keys, on all threads, in pieces between which it can be cancelled.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use arrow::row::{Row, RowConverter, Rows};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, IntoParallelRefIterator, ParallelIterator};
use rayon::slice::{ParallelSlice, ParallelSliceMut};

use crate::context::PIECE;
use crate::{CancelToken, Error, Result};

/// Rows of a sorted run; from here on a sort runs on all threads.
const RUN: usize = 32 * 1024;
/// Rows of a merge between two looks at the cancel token.
const MERGE_ROWS: usize = 8 * 1024;

/// Keys of rows in arrow's row format, whose bytes compare as the keys do.
pub(crate) struct OrderKeys {
    /// [`PIECE`] rows each, but the last.
    pieces: Vec<Rows>,
}

/// A row with the first bytes of its key.
pub(crate) type Prefixed = (u64, u32);

impl OrderKeys {
    /// The keys of `rows` rows.
    pub fn new(converter: &RowConverter, columns: &[ArrayRef], rows: usize, cancel: &CancelToken) -> Result<OrderKeys> {
        let convert = |piece: usize| {
            cancel.check()?;
            let start = piece * PIECE;
            let part = |column: &ArrayRef| column.slice(start, PIECE.min(rows - start));
            Ok(converter.convert_columns(&columns.iter().map(part).collect::<Vec<_>>())?)
        };
        let pieces = rows.div_ceil(PIECE);
        let pieces: Result<Vec<Rows>> = match pieces {
            0 | 1 => (0..pieces).map(convert).collect(),
            _ => (0..pieces).into_par_iter().map(convert).collect(),
        };
        Ok(OrderKeys { pieces: pieces? })
    }

    /// The key of a row.
    pub fn row(&self, row: u32) -> Row<'_> {
        self.pieces[row as usize / PIECE].row(row as usize % PIECE)
    }

    /// A row in the form that sorts fast.
    pub fn prefixed(&self, row: u32) -> Prefixed {
        let key = self.row(row);
        let key: &[u8] = key.as_ref();
        let prefix = match key.first_chunk() {
            Some(first) => u64::from_be_bytes(*first),
            None => key.iter().chain(&[0; 8]).take(8).fold(0, |all, byte| all << 8 | u64::from(*byte)),
        };
        (prefix, row)
    }

    /// All rows in that form.
    pub fn all(&self) -> Vec<Prefixed> {
        let piece =
            |(piece, keys): (usize, &Rows)| (0..keys.num_rows()).map(move |row| self.prefixed((piece * PIECE + row) as u32));
        match self.pieces.len() {
            0 | 1 => self.pieces.iter().enumerate().flat_map(piece).collect(),
            _ => self.pieces.par_iter().enumerate().flat_map_iter(piece).collect(),
        }
    }

    /// The order of two rows; equal keys are in the order of the rows.
    pub fn compare(&self, a: &Prefixed, b: &Prefixed) -> Ordering {
        a.0.cmp(&b.0).then_with(|| self.row(a.1).cmp(&self.row(b.1))).then(a.1.cmp(&b.1))
    }

    /// Sorts rows by their keys.
    pub fn sort(&self, rows: &mut [Prefixed], cancel: &CancelToken) -> Result<()> {
        sort(rows, |a, b| self.compare(a, b), cancel)
    }
}

/// Sorts runs, then merges pairs of runs until one is left.
fn sort<T: Copy + Send + Sync>(rows: &mut [T], compare: impl Fn(&T, &T) -> Ordering + Sync, cancel: &CancelToken) -> Result<()> {
    cancel.check()?;
    if rows.len() <= RUN {
        rows.sort_unstable_by(compare);
        return Ok(());
    }
    rows.par_chunks_mut(RUN).try_for_each(|run| {
        cancel.check()?;
        run.sort_unstable_by(&compare);
        Ok::<_, Error>(())
    })?;
    let mut scratch = rows.to_vec();
    let (mut from, mut to) = (&mut *rows, scratch.as_mut_slice());
    let mut run = RUN;
    let mut swapped = false;
    while run < from.len() {
        let pairs = from.par_chunks(2 * run).zip(to.par_chunks_mut(2 * run));
        pairs.try_for_each(|(from, to)| {
            let (left, right) = from.split_at(run.min(from.len()));
            merge(left, right, to, &compare, cancel)
        })?;
        std::mem::swap(&mut from, &mut to);
        swapped = !swapped;
        run *= 2;
    }
    if swapped {
        rows.copy_from_slice(&scratch);
    }
    Ok(())
}

/// Merges two sorted runs.
fn merge<T: Copy>(
    left: &[T],
    right: &[T],
    to: &mut [T],
    compare: &impl Fn(&T, &T) -> Ordering,
    cancel: &CancelToken,
) -> Result<()> {
    let (mut l, mut r) = (0, 0);
    for part in to.chunks_mut(MERGE_ROWS) {
        cancel.check()?;
        for slot in part {
            let from_left = r == right.len() || (l < left.len() && compare(&left[l], &right[r]) != Ordering::Greater);
            *slot = if from_left { left[l] } else { right[r] };
            l += usize::from(from_left);
            r += usize::from(!from_left);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::StringViewArray;
    use arrow::datatypes::DataType;
    use arrow::row::SortField;

    use super::*;

    fn sorted(texts: &[String], cancel: &CancelToken) -> Result<Vec<u32>> {
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts));
        let converter = RowConverter::new(vec![SortField::new(DataType::Utf8View)]).unwrap();
        let keys = OrderKeys::new(&converter, &[column], texts.len(), cancel)?;
        let mut rows: Vec<Prefixed> = (0..texts.len() as u32).map(|row| keys.prefixed(row)).collect();
        keys.sort(&mut rows, cancel)?;
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    /// Whatever the number of runs and pieces, rows are in the order of their keys, equal ones in their own.
    #[test]
    fn rows_are_in_order() {
        for count in [0, 1, 7, PIECE + 1, RUN, RUN + 1, 2 * RUN, 5 * RUN + 3] {
            let texts: Vec<String> =
                (0..count).map(|i| "common prefix"[..i % 14].to_owned() + &(i * 7919 % 1009).to_string()).collect();
            let mut expected: Vec<u32> = (0..count as u32).collect();
            expected.sort_by_key(|row| &texts[*row as usize]);
            assert_eq!(sorted(&texts, &CancelToken::default()).unwrap(), expected, "{count} rows");
        }
        let cancelled = CancelToken::default();
        cancelled.cancel();
        assert!(matches!(sorted(&["a".into()], &cancelled), Err(Error::Cancelled)));
    }
}
