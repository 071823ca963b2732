//! A range of rows and a selection in it, block by block.

use super::width::PACKED;

/// The part of a read that falls into one block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// The block.
    pub(super) block: usize,
    /// First row of the read within the block.
    pub(super) skip: usize,
    /// Rows of the read within the block.
    pub(super) rows: usize,
    /// The selected rows, relative to the read's first row.
    picks: Option<&'a [u32]>,
    /// The read's first row minus the block's.
    shift: isize,
}

impl Span<'_> {
    /// Rows that are wanted.
    pub(super) fn len(&self) -> usize {
        self.picks.map_or(self.rows, <[u32]>::len)
    }

    /// Whether so many rows are wanted that decoding the block pays.
    pub(super) fn dense(&self) -> bool {
        self.picks.is_none_or(|picks| picks.len() * 4 >= PACKED.min(self.skip + self.rows))
    }

    /// Calls with each wanted row, as its position within the block.
    #[inline]
    pub(super) fn each(&self, mut visit: impl FnMut(usize)) {
        match self.picks {
            None => (self.skip..self.skip + self.rows).for_each(visit),
            Some(picks) => picks.iter().for_each(|&pick| visit(self.position(pick))),
        }
    }

    /// Where a selected row is within the block. The mask only tells the compiler that it is within.
    #[inline]
    fn position(&self, pick: u32) -> usize {
        (pick as isize + self.shift) as usize & (PACKED - 1)
    }
}

/// The spans of a read. The selection is ascending and within `rows`.
pub(super) fn spans<'a>(first_row: usize, rows: usize, selection: Option<&'a [u32]>) -> impl Iterator<Item = Span<'a>> {
    let end = first_row + rows;
    let blocks = if rows == 0 { 0..0 } else { first_row / PACKED..end.div_ceil(PACKED) };
    let mut rest = selection;
    blocks.filter_map(move |block| {
        let start = block * PACKED;
        let skip = first_row.saturating_sub(start);
        let rows = (end - start).min(PACKED) - skip;
        let picks = rest.map(|all| {
            let limit = start + skip + rows - first_row;
            let count = if all.last().is_some_and(|&last| (last as usize) < limit) {
                all.len()
            } else {
                all.partition_point(|&p| (p as usize) < limit)
            };
            let (mine, others) = all.split_at(count);
            rest = Some(others);
            mine
        });
        let span = Span { block, skip, rows, picks, shift: first_row as isize - start as isize };
        (span.len() > 0).then_some(span)
    })
}

/// Appends the values of some rows of a block.
pub(super) type Gather<'a, T> = &'a dyn Fn(usize, &[u32], &mut Vec<T>);

/// Collects fixed-width values: whole blocks straight into the result, dense selections by way of a decoded block, sparse ones value
/// by value if `get` is given.
pub(super) fn collect<T: Copy + Default>(
    first_row: usize,
    rows: usize,
    selection: Option<&[u32]>,
    mut decode: impl FnMut(usize, &mut [T; PACKED]),
    get: Option<Gather<'_, T>>,
) -> Vec<T> {
    let total = selection.map_or(rows, <[u32]>::len);
    if selection.is_none() && first_row.is_multiple_of(PACKED) {
        let mut out = vec![T::default(); rows.next_multiple_of(PACKED)];
        for (block, chunk) in out.as_chunks_mut::<PACKED>().0.iter_mut().enumerate() {
            decode(first_row / PACKED + block, chunk);
        }
        out.truncate(rows);
        return out;
    }
    let mut out = Vec::with_capacity(total);
    let mut decoded = [T::default(); PACKED];
    let mut picks = Vec::new();
    for span in spans(first_row, rows, selection) {
        match get {
            Some(get) if !span.dense() => {
                picks.clear();
                span.each(|i| picks.push(i as u32));
                get(span.block, &picks, &mut out);
            }
            _ => {
                decode(span.block, &mut decoded);
                match span.picks {
                    None => out.extend_from_slice(&decoded[span.skip..span.skip + span.rows]),
                    Some(picks) => out.extend(picks.iter().map(|&pick| decoded[span.position(pick)])),
                }
            }
        }
    }
    out
}
