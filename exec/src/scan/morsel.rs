//! One worker's way through a morsel: mask, residual, columns.

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, UInt64Array};
use roaring::RoaringBitmap;
use stoa_columnstore::{BLOCK_ROWS, FilterCounters, Scanned, Segment};
use stoa_kernels::mask;
use stoa_plan::ROW_ADDRESS;

use super::predicates::{Measured, Prepared};
use super::{Morsel, Residual, ScanSource};
use crate::profile::ScanCounters;
use crate::selected::Kept;
use crate::{Batch, Error, Result};

/// Words of a block's mask.
const BLOCK_WORDS: usize = BLOCK_ROWS / 64;

/// A worker's state: the current morsel and what it has measured.
pub(crate) struct ScanState {
    counters: ScanCounters,
    measured: Vec<Measured>,
    morsel: Option<Morsel>,
    mask: Vec<u64>,
    /// Blocks of the morsel that are done.
    done: usize,
    /// A batch that is handed out in parts.
    rest: Option<Batch>,
    selection: Vec<u32>,
}

impl ScanState {
    /// What was counted.
    pub fn counters(&self) -> ScanCounters {
        self.counters
    }
}

impl ScanSource {
    /// An empty state.
    pub fn state(&self) -> ScanState {
        ScanState {
            counters: ScanCounters::default(),
            measured: vec![Measured::default(); self.predicates.len()],
            morsel: None,
            mask: Vec::new(),
            done: 0,
            rest: None,
            selection: Vec::new(),
        }
    }

    /// Starts on a morsel: computes its mask.
    pub fn begin(&self, state: &mut ScanState, index: usize) -> Result<()> {
        let morsel = self.morsels[index];
        let source = &self.segments[morsel.segment];
        let blocks = morsel.rows.div_ceil(BLOCK_ROWS) as u64;
        state.counters.rows += morsel.rows as u64;
        state.counters.blocks += blocks;
        let first = morsel.first_row == 0;
        state.counters.segments += u64::from(first);
        let prepared = source.prepared.get_or_init(|| Prepared::new(&self.predicates, &source.scanned.segment).map_err(Arc::new));
        let prepared = prepared.as_ref().map_err(|e| storage_error(e))?;
        state.morsel = None;
        if prepared.none {
            state.counters.segments_skipped += u64::from(first);
            state.counters.blocks_skipped += blocks;
            return Ok(());
        }
        state.mask.clear();
        state.mask.resize(morsel.rows.div_ceil(64), u64::MAX);
        if !morsel.rows.is_multiple_of(64)
            && let Some(last) = state.mask.last_mut()
        {
            *last = (1 << (morsel.rows % 64)) - 1;
        }
        if let Some(deleted) = &source.scanned.deleted {
            clear(&mut state.mask, deleted, morsel);
        }
        state.counters.blocks_skipped += self.apply(state, &source.scanned.segment, prepared, morsel)?;
        state.counters.rows_selected += count(&state.mask);
        state.morsel = Some(morsel);
        state.done = 0;
        state.rest = None;
        Ok(())
    }

    /// Clears the mask of rows that do not pass: the number of blocks that zone maps excluded.
    fn apply(&self, state: &mut ScanState, segment: &Segment, prepared: &Prepared, morsel: Morsel) -> Result<u64> {
        let mut order: Vec<(f64, usize)> = Vec::with_capacity(prepared.open.len());
        for (slot, (i, _)) in prepared.open.iter().enumerate() {
            let (measured, predicate) = (&state.measured[*i], &self.predicates[*i]);
            if !(predicate.optional && measured.is_useless()) {
                order.push((measured.rank(predicate.guess()), slot));
            }
        }
        order.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut blocks = FilterCounters::default();
        for (_, slot) in order {
            let rows_in = count(&state.mask);
            if rows_in == 0 {
                break;
            }
            let started = Instant::now();
            let (i, filter) = &prepared.open[slot];
            let column = segment.column(self.predicates[*i].ordinal)?;
            let evaluated = blocks.blocks_evaluated + blocks.bitmap_index_used;
            column.filter_prepared(filter, morsel.first_row, morsel.rows, &mut state.mask, &mut blocks)?;
            if blocks.blocks_evaluated + blocks.bitmap_index_used > evaluated {
                let measured = &mut state.measured[*i];
                measured.rows_in += rows_in;
                measured.rows_out += count(&state.mask);
                measured.nanos += started.elapsed().as_nanos() as u64;
            }
        }
        state.counters.blocks_by_index += blocks.bitmap_index_used;
        Ok(blocks.blocks_skipped)
    }

    /// The next batch of the morsel.
    pub fn next(&self, state: &mut ScanState) -> Result<Option<Batch>> {
        loop {
            if let Some(batch) = self.part(state) {
                return Ok(Some(batch));
            }
            let Some(morsel) = state.morsel else { return Ok(None) };
            let blocks = morsel.rows.div_ceil(BLOCK_ROWS);
            let Some((first, end)) = self.piece(state, blocks) else {
                state.morsel = None;
                return Ok(None);
            };
            state.done = end;
            let batch = self.read(state, morsel, first, end)?;
            if batch.rows > 0 {
                state.rest = Some(batch);
            }
        }
    }

    /// A part of the batch that was read, of at most the batch size.
    fn part(&self, state: &mut ScanState) -> Option<Batch> {
        let batch = state.rest.take()?;
        if batch.rows <= self.batch_rows.max(BLOCK_ROWS) && self.batch_rows >= BLOCK_ROWS {
            return Some(batch);
        }
        if batch.rows <= self.batch_rows {
            return Some(batch);
        }
        state.rest = Some(batch.slice(self.batch_rows, batch.rows - self.batch_rows));
        Some(batch.slice(0, self.batch_rows))
    }

    /// The next blocks that together have about a batch of selected rows; blocks without any are passed over.
    fn piece(&self, state: &ScanState, blocks: usize) -> Option<(usize, usize)> {
        let selected = |block: usize| {
            let end = ((block + 1) * BLOCK_WORDS).min(state.mask.len());
            count(&state.mask[block * BLOCK_WORDS..end]) as usize
        };
        let first = (state.done..blocks).find(|b| selected(*b) > 0)?;
        let mut rows = selected(first);
        let mut end = first + 1;
        while end < blocks {
            let more = selected(end);
            if rows + more > self.batch_rows {
                break;
            }
            rows += more;
            end += 1;
        }
        Some((first, end))
    }

    /// Reads the selected rows of blocks `first..end` of a morsel.
    fn read(&self, state: &mut ScanState, morsel: Morsel, first: usize, end: usize) -> Result<Batch> {
        let scanned = &self.segments[morsel.segment].scanned;
        let first_row = morsel.first_row + first * BLOCK_ROWS;
        let rows = (end * BLOCK_ROWS).min(morsel.rows) - first * BLOCK_ROWS;
        let words = first * BLOCK_WORDS..first * BLOCK_WORDS + rows.div_ceil(64);
        let mut selection = std::mem::take(&mut state.selection);
        selection.clear();
        mask::to_selection(&state.mask[words], &mut selection);
        let piece = Piece { scanned, first_row, rows };
        let batch = match &self.residual {
            None => self.outputs(&piece, &selection, &mut state.counters),
            Some(residual) => self.with_residual(&piece, residual, &mut selection, &mut state.counters),
        };
        state.selection = selection;
        batch
    }

    /// Reads the output columns of the selected rows.
    fn outputs(&self, piece: &Piece<'_>, selection: &[u32], counters: &mut ScanCounters) -> Result<Batch> {
        let columns = self.outputs.iter().map(|o| piece.read(*o, selection)).collect::<Result<Vec<_>>>()?;
        counters.values_decoded += (columns.len() * selection.len()) as u64;
        Ok(Batch { columns, rows: selection.len() })
    }

    /// Reads what the residual needs, evaluates it, and reads the rest for the rows that pass.
    fn with_residual(
        &self,
        piece: &Piece<'_>,
        residual: &Residual,
        selection: &mut Vec<u32>,
        counters: &mut ScanCounters,
    ) -> Result<Batch> {
        let mut columns = residual.columns.iter().map(|o| piece.read(*o, selection)).collect::<Result<Vec<ArrayRef>>>()?;
        counters.values_decoded += (columns.len() * selection.len()) as u64;
        for conjunct in &residual.conjuncts {
            if selection.is_empty() {
                break;
            }
            let read = conjunct.reads.iter().map(|i| columns[*i].clone()).collect();
            let keep = conjunct.expression.filter(&Batch { columns: read, rows: selection.len() })?;
            let kept = Kept::new(&keep);
            if kept.count == selection.len() {
                continue;
            }
            for i in &conjunct.later {
                columns[*i] = kept.column(&columns[*i])?;
            }
            *selection = kept.values(selection);
        }
        let mut outputs = Vec::with_capacity(self.outputs.len());
        for ordinal in &self.outputs {
            outputs.push(match residual.columns.iter().position(|c| c == ordinal) {
                Some(i) => columns[i].clone(),
                None => {
                    counters.values_decoded += selection.len() as u64;
                    piece.read(*ordinal, selection)?
                }
            });
        }
        Ok(Batch { columns: outputs, rows: selection.len() })
    }
}

/// Some blocks of a segment that are read together.
struct Piece<'a> {
    scanned: &'a Scanned,
    first_row: usize,
    rows: usize,
}

impl Piece<'_> {
    fn read(&self, ordinal: usize, selection: &[u32]) -> Result<ArrayRef> {
        if ordinal == ROW_ADDRESS as usize {
            let first = self.scanned.address + self.first_row as u64;
            return Ok(Arc::new(UInt64Array::from_iter_values(selection.iter().map(|row| first + u64::from(*row)))));
        }
        let selection = (selection.len() < self.rows).then_some(selection);
        let array = self.scanned.segment.column(ordinal)?.read(self.first_row, self.rows, selection)?;
        debug_assert_eq!(array.len(), selection.map_or(self.rows, <[u32]>::len));
        Ok(array)
    }
}

fn storage_error(error: &stoa_columnstore::Error) -> Error {
    match error {
        stoa_columnstore::Error::Invalid(what) => Error::Internal(what.clone()),
        stoa_columnstore::Error::Function(what) => Error::User(what.clone()),
        other => Error::Storage(stoa_columnstore::Error::Invalid(other.to_string())),
    }
}

/// Clears the bits of deleted rows.
fn clear(mask: &mut [u64], deleted: &RoaringBitmap, morsel: Morsel) {
    let first = morsel.first_row as u32;
    for row in deleted.range(first..first + morsel.rows as u32) {
        let bit = (row - first) as usize;
        mask[bit / 64] &= !(1 << (bit % 64));
    }
}

/// Number of ones.
fn count(mask: &[u64]) -> u64 {
    mask::popcount(mask) as u64
}
