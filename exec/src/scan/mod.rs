//! Scans: which rows of a table's segments pass, decided on encoded data, and only then the columns that are read above.
//!
//! A morsel is some blocks of one segment. Its mask starts as all ones; each predicate clears bits, cheap and selective ones first,
//! in an order that follows what was measured so far. What no column can decide alone is evaluated on the decoded columns of the
//! rows that are left. Output columns are read for those rows only.

mod morsel;
mod predicates;

use std::sync::{Arc, OnceLock};

use stoa_columnstore::{BLOCK_ROWS, Datum, Scanned, Table};
use stoa_plan::{ColumnId, Expr, NodeId, Plan, ROW_ADDRESS, Scan, ScanColumn};

use crate::executor::{Executor, Scope};
use crate::expression::Expression;
use crate::profile::Recorder;
use crate::{Bounds, Error, Layout, LayoutColumn, Result};

pub(crate) use morsel::ScanState;
use predicates::{Prepared, ScanPredicate};

/// Blocks of a morsel: many, so that selective scans give full batches, but enough morsels for every worker to get some.
const MORSEL_BLOCKS: std::ops::RangeInclusive<usize> = 8..=64;
/// Morsels that each worker should get at least.
const MORSELS_PER_WORKER: usize = 8;

/// A table as the source of a pipeline.
pub(crate) struct ScanSource {
    node: NodeId,
    table: Arc<Table>,
    segments: Vec<SegmentSource>,
    morsels: Vec<Morsel>,
    rows: usize,
    /// Ordinals of the output columns.
    outputs: Vec<usize>,
    predicates: Vec<ScanPredicate>,
    residual: Option<Residual>,
    batch_rows: usize,
}

/// A segment and what the predicates are in its terms, once a worker has asked.
struct SegmentSource {
    scanned: Scanned,
    prepared: OnceLock<std::result::Result<Prepared, Arc<stoa_columnstore::Error>>>,
}

/// Some blocks of a segment.
#[derive(Clone, Copy, Debug)]
struct Morsel {
    segment: usize,
    first_row: usize,
    rows: usize,
}

/// Conjuncts that read several columns.
struct Residual {
    conjuncts: Vec<Conjunct>,
    /// Ordinals of the columns that they read.
    columns: Vec<usize>,
}

/// One of them.
struct Conjunct {
    expression: Expression,
    /// Positions of the columns that it reads among the residual's.
    reads: Vec<usize>,
    /// Positions of the columns that are read after it.
    later: Vec<usize>,
}

impl ScanSource {
    /// A scan of the scope's partition, and the columns that it yields.
    pub fn new(exec: &Executor<'_>, plan: &Plan, scan: &Scan, scope: &Scope) -> Result<(ScanSource, Layout)> {
        let table = exec.storage.table(&scan.table)?;
        table.def.check_revision(scan.revision)?;
        let every: Vec<ScanColumn> = scan.columns.iter().chain(&scan.filter_columns).cloned().collect();
        if let Some(bad) = every.iter().find(|c| c.ordinal != ROW_ADDRESS && c.ordinal as usize >= table.def.columns.len()) {
            return Err(Error::Internal(format!("table '{}' has no column {}", scan.table, bad.ordinal)));
        }
        let mut predicates = Vec::new();
        let mut rest = Vec::new();
        for filter in &scan.filters {
            match crate::expression::scan_predicate(filter, &every, &exec.parameters, &exec.ctx.settings)? {
                Some((id, predicate)) if ordinal(&every, id)? != ROW_ADDRESS as usize => {
                    predicates.push(ScanPredicate::new(ordinal(&every, id)?, predicate));
                }
                _ => rest.push(filter),
            }
        }
        for (id, column) in &scan.runtime_filters {
            if let Some(keys) = exec.filter(scope, *id) {
                let ordinal = ordinal(&every, *column)?;
                if ordinal == ROW_ADDRESS as usize {
                    continue;
                }
                predicates.extend(ScanPredicate::of_keys(ordinal, keys, bounds(&table, ordinal)));
            }
        }
        predicates.sort_by_key(ScanPredicate::guess);
        let mut outputs = Vec::new();
        let mut layout = Layout::default();
        for column in scan.columns.iter().filter(|c| exec.required.wants(plan, c.field.id)) {
            outputs.push(column.ordinal as usize);
            layout.columns.push(layout_column(&table, column));
        }
        let residual = residual(exec, &table, &every, &rest, &outputs)?;
        let segments = segments_of(&table, scan, scope)?;
        let (morsels, rows) = morsels(&segments);
        let source = ScanSource {
            node: plan.id,
            table,
            segments,
            morsels,
            rows,
            outputs,
            predicates,
            residual,
            batch_rows: exec.ctx.settings.vector_size.max(1),
        };
        Ok((source, layout))
    }

    /// Number of morsels.
    pub fn morsels(&self) -> usize {
        self.morsels.len()
    }

    /// Rows of all segments.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The plan node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Adds what a worker counted.
    pub fn record(&self, state: &ScanState, recorder: &Recorder) {
        recorder.add_scan(self.node, &state.counters());
    }

    /// Notes what was done to the encoded columns, once all workers are done.
    pub fn describe(&self, recorder: &Recorder) {
        for (index, predicate) in self.predicates.iter().enumerate() {
            if let Some(encodings) = self.encodings(predicate.ordinal) {
                let name = &self.table.def.columns[predicate.ordinal].name;
                let kernels = self.kernels(index).map_or(String::new(), |kernels| format!(" by {kernels}"));
                recorder.note(self.node, format!("filtered {name} ({encodings}): {}{kernels}", predicate.predicate));
            }
        }
        let read = |ordinal: &usize| {
            let name = &self.table.def.columns.get(*ordinal)?.name;
            self.encodings(*ordinal).map(|encodings| format!("{name} ({encodings})"))
        };
        let read: Vec<String> = self.outputs.iter().filter_map(read).collect();
        if !read.is_empty() {
            recorder.note(self.node, format!("read {}", read.join(", ")));
        }
    }

    /// How a predicate was decided in the segments that were looked into.
    fn kernels(&self, predicate: usize) -> Option<String> {
        let prepared = self.segments.iter().filter_map(|source| source.prepared.get()?.as_ref().ok());
        let of_predicate = prepared.flat_map(|p| &p.open).filter(|(index, _)| *index == predicate);
        let mut names: Vec<&str> = of_predicate.filter_map(|(_, filter)| filter.kernel()).collect();
        names.sort_unstable();
        names.dedup();
        (!names.is_empty()).then(|| names.join(" or "))
    }

    /// The encodings of a column in the segments that were looked into.
    fn encodings(&self, ordinal: usize) -> Option<String> {
        let mut names: Vec<&str> = Vec::new();
        for source in &self.segments {
            if let Some(Ok(Prepared { none: false, .. })) = source.prepared.get()
                && let Ok(encoding) = source.scanned.segment.encoding(ordinal)
                && !names.contains(&encoding.name())
            {
                names.push(encoding.name());
            }
        }
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// The ordinal of a column that a scan reads.
fn ordinal(columns: &[ScanColumn], id: ColumnId) -> Result<usize> {
    let found = columns.iter().find(|c| c.field.id == id);
    found.map(|c| c.ordinal as usize).ok_or_else(|| Error::Internal(format!("a scan does not read column {}", id.0)))
}

/// A column of the scan's layout, with the table's bounds.
fn layout_column(table: &Table, column: &ScanColumn) -> LayoutColumn {
    LayoutColumn { field: column.field.clone(), bounds: bounds(table, column.ordinal as usize) }
}

/// What the segments know of a column's values.
fn bounds(table: &Table, ordinal: usize) -> Bounds {
    let Some(column) = table.statistics().columns.get(ordinal) else { return Bounds::default() };
    match (&column.min, &column.max) {
        (Some(Datum::Int(min)), Some(Datum::Int(max))) => Bounds { range: Some((*min, *max)) },
        _ => Bounds::default(),
    }
}

/// Compiles the conjuncts that read several columns.
fn residual(
    exec: &Executor<'_>,
    table: &Table,
    columns: &[ScanColumn],
    conjuncts: &[&Expr],
    outputs: &[usize],
) -> Result<Option<Residual>> {
    if conjuncts.is_empty() {
        return Ok(None);
    }
    let ids: Vec<_> = conjuncts.iter().map(|c| c.columns()).collect();
    let read: Vec<&ScanColumn> = columns.iter().filter(|c| ids.iter().any(|ids| ids.contains(&c.field.id))).collect();
    let positions =
        |wanted: &dyn Fn(&ScanColumn) -> bool| -> Vec<usize> { (0..read.len()).filter(|i| wanted(read[*i])).collect() };
    let mut compiled = Vec::with_capacity(conjuncts.len());
    for (n, conjunct) in conjuncts.iter().enumerate() {
        let reads = positions(&|c| ids[n].contains(&c.field.id));
        let is_later =
            |c: &ScanColumn| outputs.contains(&(c.ordinal as usize)) || ids[n + 1..].iter().any(|ids| ids.contains(&c.field.id));
        let layout = Layout { columns: reads.iter().map(|i| layout_column(table, read[*i])).collect() };
        compiled.push(Conjunct { expression: exec.compile(conjunct, &layout)?, reads, later: positions(&is_later) });
    }
    Ok(Some(Residual { conjuncts: compiled, columns: read.iter().map(|c| c.ordinal as usize).collect() }))
}

/// The segments that a scan reads: the partition's, or all.
fn segments_of(table: &Table, scan: &Scan, scope: &Scope) -> Result<Vec<SegmentSource>> {
    let partitions = match scope.partition {
        Some(partition) if !scan.reference => partition..partition + 1,
        _ => 0..table.partitions.len(),
    };
    let mut segments = Vec::new();
    for partition in partitions {
        segments
            .extend(table.scanned(partition)?.into_iter().map(|scanned| SegmentSource { scanned, prepared: OnceLock::new() }));
    }
    Ok(segments)
}

/// Cuts segments into morsels.
fn morsels(segments: &[SegmentSource]) -> (Vec<Morsel>, usize) {
    let mut morsels = Vec::new();
    let total = segments.iter().map(|s| s.scanned.segment.rows()).sum::<usize>();
    let wanted = rayon::current_num_threads() * MORSELS_PER_WORKER;
    let step = (total / BLOCK_ROWS / wanted).clamp(*MORSEL_BLOCKS.start(), *MORSEL_BLOCKS.end()) * BLOCK_ROWS;
    for (i, source) in segments.iter().enumerate() {
        let rows = source.scanned.segment.rows();
        let cut = (0..rows).step_by(step).map(|first_row| Morsel { segment: i, first_row, rows: step.min(rows - first_row) });
        morsels.extend(cut);
    }
    (morsels, total)
}
