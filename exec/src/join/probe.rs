//! Probes a join table with the batches of a pipeline.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use stoa_plan::DataType;

use super::index::{Cursor, Index, Pairs, Wanted};
use super::keys::{BatchKeys, integers};
use super::table::JoinTable;
use super::{Fate, Shape};
use crate::columns::{filter_batch, gather, null_columns};
use crate::executor::Executor;
use crate::expression::Expression;
use crate::{Batch, CancelToken, Error, Layout, Result};

/// Build rows of a morsel of the rows that are output last.
const TAIL_ROWS: usize = 16 * 1024;

/// Where an output column comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A column of the probing batch.
    Probe(usize),
    /// A column of the table.
    Build(usize),
    /// The mark.
    Mark,
}

/// A condition over pairs.
pub(crate) struct Residual {
    pub expression: Expression,
    pub origins: Vec<Origin>,
}

/// The probe of one join.
pub(crate) struct Probe {
    shape: Shape,
    table: Arc<JoinTable>,
    keys: Vec<Expression>,
    residual: Option<Residual>,
    origins: Vec<Origin>,
    types: Vec<DataType>,
    limit: usize,
    nullable_mark: bool,
    first_only: bool,
    cancel: CancelToken,
}

/// What a worker holds of the batch that it is probing with.
#[derive(Default)]
pub(crate) struct ProbeState {
    batch: Option<Batch>,
    keys: Option<BatchKeys>,
    nulls: Option<NullBuffer>,
    cursor: Cursor,
    matched: Vec<u64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    Pairs,
    Rest,
    #[default]
    Done,
}

impl Probe {
    /// A probe whose outputs come from `origins`.
    #[allow(clippy::too_many_arguments, reason = "the parts are computed apart by the only caller")]
    pub fn new(
        exec: &Executor<'_>,
        shape: Shape,
        table: Arc<JoinTable>,
        keys: Vec<Expression>,
        residual: Option<Residual>,
        origins: Vec<Origin>,
        layout: &Layout,
        nullable_mark: bool,
    ) -> Probe {
        let types = layout.columns.iter().map(|c| c.field.ty).collect();
        let first_only = shape.first_match_only() && residual.is_none();
        let limit = exec.ctx.settings.vector_size.max(1);
        let cancel = exec.ctx.cancel.clone();
        Probe { shape, table, keys, residual, origins, types, limit, nullable_mark, first_only, cancel }
    }

    /// An empty state.
    pub fn state(&self) -> ProbeState {
        ProbeState::default()
    }

    /// Starts on a batch.
    pub fn begin(&self, state: &mut ProbeState, batch: Batch) -> Result<()> {
        state.cursor = Cursor::default();
        state.phase = Phase::Pairs;
        if self.table.rows == 0 && matches!(self.shape.probe, Fate::Drop | Fate::IfMatched) {
            state.phase = Phase::Done;
            return Ok(());
        }
        let keys = self.keys.iter().map(|k| k.evaluate(&batch)).collect::<Result<Vec<ArrayRef>>>()?;
        state.nulls = keys.iter().fold(None, |n, k| NullBuffer::union(n.as_ref(), k.logical_nulls().as_ref()));
        if self.shape.build == Fate::Mark {
            self.table.probed.store(true, Ordering::Relaxed);
            if state.nulls.as_ref().is_some_and(|n| n.null_count() > 0) {
                self.table.probed_null.store(true, Ordering::Relaxed);
            }
        }
        let mut keys = self.table.form.keys(&keys, batch.rows, &self.cancel)?;
        if let (Some(ranks), BatchKeys::Codes(codes)) = (&self.table.ranks, &mut keys) {
            ranks.replace(codes);
        }
        state.keys = Some(keys);
        if self.shape.probe != Fate::Drop {
            state.matched.clear();
            state.matched.resize(batch.rows.div_ceil(64), 0);
        }
        state.batch = Some(batch);
        Ok(())
    }

    /// The next output batch of the batch that was begun.
    pub fn next(&self, state: &mut ProbeState) -> Result<Option<Batch>> {
        while state.phase == Phase::Pairs {
            // A residual may drop all of a very long list of candidates before there is anything to give out.
            self.cancel.check()?;
            if let Some(batch) = self.pairs(state)? {
                return Ok(Some(batch));
            }
        }
        if state.phase == Phase::Rest {
            state.phase = Phase::Done;
            if let Some(batch) = state.batch.take() {
                let rest = self.rest(state, &batch)?;
                return Ok(Some(rest).filter(|b| b.rows > 0));
            }
        }
        state.batch = None;
        Ok(None)
    }

    /// Handles some candidate pairs.
    fn pairs(&self, state: &mut ProbeState) -> Result<Option<Batch>> {
        let (Some(batch), Some(keys)) = (&state.batch, &state.keys) else {
            state.phase = Phase::Done;
            return Ok(None);
        };
        if self.shape.first_match_only() && self.mark_at_once(batch, keys, &mut state.matched)? {
            state.phase = Phase::Rest;
            return Ok(None);
        }
        let unique = self.table.index.is_unique();
        let limit = if unique || self.first_only { batch.rows } else { self.limit };
        let wanted = Wanted { limit: limit.max(1), first_only: self.first_only };
        let mut pairs = Pairs::default();
        let more = self.table.index.pairs(keys, &mut state.cursor, wanted, &mut pairs);
        if !more {
            state.phase = if self.shape.probe == Fate::Drop { Phase::Done } else { Phase::Rest };
        }
        if let Some(residual) = &self.residual
            && !pairs.probe.is_empty()
        {
            pairs = self.check(residual, batch, pairs)?;
        }
        if self.shape.build != Fate::Drop {
            pairs.build.iter().for_each(|row| self.table.matched.set(*row as usize));
        }
        if self.shape.probe != Fate::Drop {
            pairs.probe.iter().for_each(|row| state.matched[*row as usize / 64] |= 1 << (row % 64));
        }
        if !self.shape.pairs || pairs.probe.is_empty() {
            return Ok(None);
        }
        let in_place = unique && pairs.probe.len() == batch.rows;
        Ok(Some(self.output(batch, pairs, in_place)?))
    }

    /// Finds which probe rows have a match without pairs, where the index can. False if it cannot.
    fn mark_at_once(&self, batch: &Batch, keys: &BatchKeys, matched: &mut [u64]) -> Result<bool> {
        let (Index::Extremes(extremes), BatchKeys::Codes(codes)) = (&self.table.index, keys) else {
            return Ok(self.first_only && self.table.index.mark(keys, matched));
        };
        let origins = self.residual.iter().flat_map(|r| &r.origins);
        let mut columns = origins.filter_map(|o| if let Origin::Probe(i) = o { batch.columns.get(*i) } else { None });
        let values = columns.next().and_then(|column| integers(column, false));
        let Some(values) = values else { return Err(Error::Internal("a comparison without its probe column".into())) };
        extremes.mark(codes, &values, matched);
        Ok(true)
    }

    /// The pairs for which the residual holds.
    fn check(&self, residual: &Residual, batch: &Batch, pairs: Pairs) -> Result<Pairs> {
        let (probe, build) = (UInt32Array::from(pairs.probe), UInt32Array::from(pairs.build));
        let mut columns = Vec::with_capacity(residual.origins.len());
        for origin in &residual.origins {
            columns.push(match origin {
                Origin::Probe(i) => gather(&batch.columns[*i], &probe)?,
                Origin::Build(i) => gather(&self.table.columns[*i], &build)?,
                Origin::Mark => continue,
            });
        }
        let keep = residual.expression.filter(&Batch { columns, rows: probe.len() })?;
        let kept = keep.true_count();
        let select = |from: &UInt32Array| {
            let mut to = Vec::with_capacity(kept);
            to.extend(keep.values().set_indices().map(|i| from.value(i)));
            to
        };
        Ok(Pairs { probe: select(&probe), build: select(&build) })
    }

    /// The output rows of pairs; `in_place` if they are all rows of the batch, each once.
    fn output(&self, batch: &Batch, pairs: Pairs, in_place: bool) -> Result<Batch> {
        let rows = pairs.probe.len();
        let (probe, build) = (UInt32Array::from(pairs.probe), UInt32Array::from(pairs.build));
        let mut columns = Vec::with_capacity(self.origins.len());
        for origin in &self.origins {
            columns.push(match origin {
                Origin::Probe(i) if in_place => batch.columns[*i].clone(),
                Origin::Probe(i) => gather(&batch.columns[*i], &probe)?,
                Origin::Build(i) => gather(&self.table.columns[*i], &build)?,
                Origin::Mark => return Err(crate::Error::Internal("pairs have no mark".into())),
            });
        }
        Ok(Batch { columns, rows })
    }

    /// The rows of a batch that are output once all their pairs are known.
    fn rest(&self, state: &ProbeState, batch: &Batch) -> Result<Batch> {
        let matched = BooleanBuffer::collect_bool(batch.rows, |i| state.matched[i / 64] >> (i % 64) & 1 == 1);
        let fate = self.shape.probe;
        let mark = (fate == Fate::Mark).then(|| {
            let unknown = |i: usize| self.table.null_keys || state.nulls.as_ref().is_some_and(|n| n.is_null(i));
            self.mark(&matched, self.table.rows > 0, unknown)
        });
        let columns = |origin: &Origin| match origin {
            Origin::Probe(i) => Some(batch.columns[*i].clone()),
            Origin::Build(_) => None,
            Origin::Mark => mark.clone(),
        };
        self.one_sided(columns, fate, matched, batch.rows)
    }

    /// The mark of rows: true where matched, else NULL where a NULL on either side leaves it open, else false.
    fn mark(&self, matched: &BooleanBuffer, other_side: bool, unknown: impl Fn(usize) -> bool) -> ArrayRef {
        let rows = matched.len();
        let nulls = (self.nullable_mark && other_side)
            .then(|| NullBuffer::new(BooleanBuffer::collect_bool(rows, |i| matched.value(i) || !unknown(i))))
            .filter(|n| n.null_count() > 0);
        Arc::new(BooleanArray::new(matched.clone(), nulls))
    }

    /// Output rows of one side, by their fate; columns that this side does not have are NULL.
    fn one_sided(
        &self,
        column: impl Fn(&Origin) -> Option<ArrayRef>,
        fate: Fate,
        matched: BooleanBuffer,
        rows: usize,
    ) -> Result<Batch> {
        let keep = match fate {
            Fate::Drop => BooleanBuffer::new_unset(rows),
            Fate::IfMatched => matched,
            Fate::IfUnmatched => !&matched,
            Fate::Mark => BooleanBuffer::new_set(rows),
        };
        let there: Vec<(usize, ArrayRef)> =
            self.origins.iter().enumerate().filter_map(|(i, origin)| column(origin).map(|c| (i, c))).collect();
        let own = Batch { columns: there.iter().map(|(_, c)| c.clone()).collect(), rows };
        let own = filter_batch(&own, &BooleanArray::new(keep, None))?;
        let mut columns = null_columns(self.types.iter(), own.rows);
        for ((i, _), column) in there.iter().zip(own.columns) {
            columns[*i] = column;
        }
        Ok(Batch { columns, rows: own.rows })
    }

    /// The build rows that are output when all probe rows are seen, if the join has such.
    pub fn tail(&self) -> Option<Tail<'_>> {
        (self.shape.build != Fate::Drop).then_some(Tail { probe: self })
    }
}

/// Build rows as a source of a pipeline.
#[derive(Clone, Copy)]
pub(crate) struct Tail<'a> {
    probe: &'a Probe,
}

impl Tail<'_> {
    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.probe.table.rows
    }

    /// Number of morsels.
    pub fn morsels(&self) -> usize {
        self.rows().div_ceil(TAIL_ROWS)
    }

    /// The rows of a morsel that are output.
    pub fn morsel(&self, index: usize) -> Result<Batch> {
        let table = &self.probe.table;
        let start = index * TAIL_ROWS;
        let rows = TAIL_ROWS.min(table.rows - start);
        let matched = table.matched.range(start, rows);
        let fate = self.probe.shape.build;
        let mark = (fate == Fate::Mark).then(|| {
            let any_null = table.probed_null.load(Ordering::Relaxed);
            let unknown = |i: usize| any_null || table.null_rows.as_ref().is_some_and(|n| n.value(start + i));
            self.probe.mark(&matched, table.probed.load(Ordering::Relaxed), unknown)
        });
        let columns = |origin: &Origin| match origin {
            Origin::Build(i) => Some(table.columns[*i].slice(start, rows)),
            Origin::Probe(_) => None,
            Origin::Mark => mark.clone(),
        };
        self.probe.one_sided(columns, fate, matched, rows)
    }
}
