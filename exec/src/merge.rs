//! Merging sorted runs into one order, on all threads.
//!
//! The runs are cut at the same keys into ranges of about equal size; each range is merged by itself, through a heap of the first row
//! of every run that is left. Equal keys are in the order of the runs, and within a run in the order of its rows.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::ops::Range;

use arrow::row::Row;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::order::{OrderKeys, Prefixed};
use crate::{CancelToken, Result};

/// Of each run, every row with a multiple of this number is a candidate to cut the runs at.
const SAMPLED: usize = 8 * 1024;
/// Candidates between two cuts: a range has about `CANDIDATES * SAMPLED` rows.
const CANDIDATES: usize = 8;
/// Rows that are merged between two looks at the cancel token.
const MERGED: usize = 8 * 1024;

/// Rows in order.
pub(crate) struct Run {
    keys: OrderKeys,
    rows: Vec<Prefixed>,
}

impl Run {
    /// The rows of these keys. They are sorted if they are not in order.
    pub fn new(keys: OrderKeys, cancel: &CancelToken) -> Result<Run> {
        let mut rows = keys.all();
        let mut sorted = true;
        for piece in cancel.pieces(rows.len()) {
            let piece = piece?;
            let with_next = piece.start..rows.len().min(piece.end + 1);
            sorted = sorted && rows[with_next].is_sorted_by(|a, b| keys.compare(a, b) == Ordering::Less);
        }
        if !sorted {
            keys.sort(&mut rows, cancel)?;
        }
        Ok(Run { keys, rows })
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn head(&self, run: usize, at: usize) -> Head<'_> {
        let (prefix, row) = self.rows[at];
        Head { prefix, key: self.keys.row(row), run, row }
    }
}

/// A row among those of all runs.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Head<'a> {
    prefix: u64,
    key: Row<'a>,
    run: usize,
    row: u32,
}

/// The rows of all runs in order, in parts; as many parts as have the first `wanted` rows. A row is named by its place when the rows
/// of all runs, in the order in which their keys were given, stand one run behind the other.
pub(crate) fn merge(runs: &[Run], wanted: Option<usize>, cancel: &CancelToken) -> Result<Vec<Vec<u32>>> {
    let mut ranges = cut(runs);
    let mut before = 0;
    ranges.retain(|range| {
        let needed = wanted.is_none_or(|wanted| before < wanted);
        before += range.iter().map(Range::len).sum::<usize>();
        needed
    });
    let first: Vec<u32> = runs
        .iter()
        .scan(0, |next, run| {
            let first = *next;
            *next += run.rows.len() as u32;
            Some(first)
        })
        .collect();
    ranges.par_iter().map(|range| merge_range(runs, &first, range, cancel)).collect()
}

/// Cuts all runs at the same keys: for each range the places of its rows in every run.
fn cut(runs: &[Run]) -> Vec<Vec<Range<usize>>> {
    let sampled = |(run, rows): (usize, &Run)| (SAMPLED..rows.rows.len()).step_by(SAMPLED).map(move |at| (run, at));
    let mut samples: Vec<Head<'_>> = runs.iter().enumerate().flat_map(sampled).map(|(run, at)| runs[run].head(run, at)).collect();
    samples.sort_unstable();
    let mut from = vec![0; runs.len()];
    let mut ranges = Vec::with_capacity(samples.len() / CANDIDATES + 1);
    for sample in samples.iter().skip(CANDIDATES - 1).step_by(CANDIDATES) {
        let below = |run: usize, rows: &Run| {
            rows.rows.partition_point(|(prefix, row)| {
                let head = Head { prefix: *prefix, key: rows.keys.row(*row), run, row: *row };
                head < *sample
            })
        };
        let to: Vec<usize> = runs.iter().enumerate().map(|(run, rows)| below(run, rows)).collect();
        ranges.push(from.iter().zip(&to).map(|(from, to)| *from..*to).collect());
        from = to;
    }
    ranges.push(from.iter().zip(runs).map(|(from, run)| *from..run.rows.len()).collect());
    ranges
}

/// Merges one range.
fn merge_range(runs: &[Run], first: &[u32], range: &[Range<usize>], cancel: &CancelToken) -> Result<Vec<u32>> {
    cancel.check()?;
    let mut rest = range.to_vec();
    let mut merged = Vec::with_capacity(rest.iter().map(Range::len).sum());
    let mut heads: BinaryHeap<Reverse<Head<'_>>> = BinaryHeap::with_capacity(runs.len());
    for (run, rest) in rest.iter_mut().enumerate() {
        heads.extend(rest.next().map(|at| Reverse(runs[run].head(run, at))));
    }
    while heads.len() > 1
        && let Some(mut least) = heads.peek_mut()
    {
        let Head { run, row, .. } = least.0;
        merged.push(first[run] + row);
        match rest[run].next() {
            Some(at) => least.0 = runs[run].head(run, at),
            None => drop(PeekMut::pop(least)),
        }
        if merged.len() % MERGED == 0 {
            cancel.check()?;
        }
    }
    if let Some(Reverse(Head { run, row, .. })) = heads.pop() {
        merged.push(first[run] + row);
        merged.extend(runs[run].rows[rest[run].clone()].iter().map(|(_, row)| first[run] + row));
    }
    Ok(merged)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, StringViewArray};
    use arrow::compute::SortOptions;
    use arrow::datatypes::DataType;
    use arrow::row::{RowConverter, SortField};

    use super::*;

    type Text = Option<String>;

    fn run(texts: &[Text], options: SortOptions) -> Run {
        let column: ArrayRef = Arc::new(StringViewArray::from_iter(texts));
        let converter = RowConverter::new(vec![SortField::new_with_options(DataType::Utf8View, options)]).unwrap();
        let cancel = CancelToken::default();
        Run::new(OrderKeys::new(&converter, &[column], texts.len(), &cancel).unwrap(), &cancel).unwrap()
    }

    /// Texts of which many are equal, some only behind their first eight bytes differ, and some are NULL.
    fn texts(count: usize, seed: usize) -> Vec<Text> {
        let text = |i: usize| {
            let n = (i + seed) * 7919 % 1013;
            (!n.is_multiple_of(50)).then(|| "common prefix"[..n % 14].to_owned() + &(n % 201).to_string())
        };
        (0..count).map(text).collect()
    }

    #[test]
    fn runs_are_merged_as_a_stable_sort_would() {
        let counts: [&[usize]; 7] = [&[], &[0], &[3, 0, 1], &[1; 40], &[100_000], &[70_000, 5, 90_001], &[20_000; 9]];
        for (counts, options) in counts.iter().flat_map(|counts| {
            [(false, false), (false, true), (true, false), (true, true)]
                .map(|(descending, nulls_first)| (*counts, SortOptions { descending, nulls_first }))
        }) {
            let all: Vec<Vec<Text>> = counts.iter().enumerate().map(|(seed, count)| texts(*count, seed)).collect();
            let runs: Vec<Run> = all.iter().map(|texts| run(texts, options)).collect();
            let all = all.concat();
            let mut want: Vec<u32> = (0..all.len() as u32).collect();
            want.sort_by(|a, b| {
                let (a, b) = (&all[*a as usize], &all[*b as usize]);
                let values = if options.descending { b.cmp(a) } else { a.cmp(b) };
                let nulls = if options.nulls_first { b.is_none().cmp(&a.is_none()) } else { a.is_none().cmp(&b.is_none()) };
                nulls.then(values)
            });
            let parts = merge(&runs, None, &CancelToken::default()).unwrap();
            let largest = parts.iter().map(Vec::len).max().unwrap_or(0);
            assert!(largest <= (CANDIDATES + runs.len()) * SAMPLED, "{largest} rows of {counts:?} in one part");
            assert!(parts.concat() == want, "{counts:?} {options:?}");
            let wanted = all.len() / 3;
            let first = merge(&runs, Some(wanted), &CancelToken::default()).unwrap();
            assert!(first.len() <= parts.len() && first.concat()[..wanted] == want[..wanted]);
        }
    }

    #[test]
    fn what_is_in_order_stays_and_a_merge_can_be_cancelled() {
        let sorted: Vec<Text> = (0..50_000).map(|i| Some(format!("{:05}", i / 2))).collect();
        let run = run(&sorted, SortOptions::default());
        assert!(run.rows.iter().map(|(_, row)| *row).eq(0..50_000));
        let cancelled = CancelToken::default();
        cancelled.cancel();
        assert!(merge(&[run], None, &cancelled).is_err());
    }
}
