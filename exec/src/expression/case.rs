//! CASE, COALESCE, NULLIF: a branch is evaluated only for the rows that take it where that matters.

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{interleave, is_not_null};
use stoa_plan::DataType;

use super::logic::truths;
use super::node::{Compiled, select};
use super::value::{Data, Evaluated, Ints, from_i64};
use crate::{Batch, Result};

/// `CASE WHEN ... THEN ... ELSE ... END`.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) branches: Vec<(Compiled, Compiled)>,
    pub(crate) otherwise: Compiled,
    pub(crate) ty: DataType,
    /// Whether every result is kept in 64 bits, and conditions and results are cheap and cannot fail.
    pub(crate) blend: bool,
}

impl Case {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        if self.blend {
            return self.blended(batch);
        }
        let mut open = BooleanBuffer::new_set(batch.rows);
        let mut pieces = Pieces::new(batch.rows);
        for (condition, result) in &self.branches {
            if open.count_set_bits() == 0 {
                break;
            }
            let hit = if open.count_set_bits() == batch.rows {
                truths(&condition.boolean(batch)?)
            } else {
                truths(&super::logic::scattered(condition, batch, &open)?)
            };
            let hit = &hit & &open;
            pieces.add(result, batch, &hit, self.ty)?;
            open = &open & &!&hit;
        }
        pieces.add(&self.otherwise, batch, &open, self.ty)?;
        pieces.finish(self.ty)
    }

    /// From the last branch to the first, each overwrites the rows that it takes.
    fn blended(&self, batch: &Batch) -> Result<Evaluated> {
        let rows = batch.rows;
        let (mut out, mut valid) = expand(&self.otherwise.evaluate(batch)?, rows)?;
        for (condition, result) in self.branches.iter().rev() {
            let mask = truths(&condition.boolean(batch)?);
            let ints = Ints::<i64>::of(&result.evaluate(batch)?)?;
            match &ints.values {
                Data::One(v) => overwrite(&mut out, &mask, |_| *v),
                Data::Shared(values) => overwrite(&mut out, &mask, |row| values[row]),
                Data::Own(values) => overwrite(&mut out, &mask, |row| values[row]),
            }
            if ints.nulls.is_some() || valid.is_some() {
                let theirs = match &ints.nulls {
                    Some(n) if n.len() == rows => n.inner().clone(),
                    Some(n) if n.null_count() > 0 => BooleanBuffer::new_unset(rows),
                    _ => BooleanBuffer::new_set(rows),
                };
                let ours = valid.take().unwrap_or_else(|| BooleanBuffer::new_set(rows));
                valid = Some(&(&theirs & &mask) | &(&ours & &!&mask));
            }
        }
        Ok(Evaluated::Array(from_i64(out, valid.map(NullBuffer::new), self.ty)?))
    }
}

/// Writes the rows of the mask, 64 at a time.
fn overwrite(out: &mut [i64], mask: &BooleanBuffer, value: impl Fn(usize) -> i64) {
    for (chunk, word) in mask.bit_chunks().iter_padded().enumerate() {
        let first = chunk * 64;
        let end = out.len().min(first + 64);
        if word == 0 || first >= end {
            continue;
        }
        for (bit, slot) in out[first..end].iter_mut().enumerate() {
            let keep = (word >> bit & 1).wrapping_neg() as i64;
            *slot = (value(first + bit) & keep) | (*slot & !keep);
        }
    }
}

fn expand(value: &Evaluated, rows: usize) -> Result<(Vec<i64>, Option<BooleanBuffer>)> {
    let ints = Ints::<i64>::of(value)?;
    let valid = match &ints.nulls {
        Some(n) if value.is_scalar() => (n.null_count() > 0).then(|| BooleanBuffer::new_unset(rows)),
        other => other.as_ref().map(|n| n.inner().clone()),
    };
    let values = match ints.values {
        Data::One(v) => vec![v; rows],
        Data::Shared(values) => values.to_vec(),
        Data::Own(values) => values,
    };
    Ok((values, valid))
}

/// Results of branches for disjoint sets of rows.
struct Pieces {
    arrays: Vec<ArrayRef>,
    /// Piece and position within it of every row.
    places: Vec<(usize, usize)>,
    whole: bool,
}

impl Pieces {
    fn new(rows: usize) -> Pieces {
        Pieces { arrays: Vec::new(), places: vec![(0, 0); rows], whole: false }
    }

    fn add(&mut self, result: &Compiled, batch: &Batch, rows: &BooleanBuffer, ty: DataType) -> Result<()> {
        let count = rows.count_set_bits();
        if count == 0 && (batch.rows > 0 || !self.arrays.is_empty()) {
            return Ok(());
        }
        let value = if count == batch.rows {
            self.whole = true;
            result.evaluate(batch)?
        } else {
            result.evaluate(&select(batch, &result.columns, &BooleanArray::new(rows.clone(), None))?)?
        };
        let piece = self.arrays.len();
        let scalar = value.is_scalar();
        self.arrays.push(crate::batch::canonical(value.array(), ty)?);
        for (at, row) in rows.set_indices().enumerate() {
            self.places[row] = (piece, if scalar { 0 } else { at });
        }
        if self.whole && scalar {
            self.whole = false;
        }
        Ok(())
    }

    fn finish(self, ty: DataType) -> Result<Evaluated> {
        if let [only] = self.arrays.as_slice()
            && self.whole
        {
            return Ok(Evaluated::Array(only.clone()));
        }
        if ty == DataType::Null || self.arrays.is_empty() {
            return Ok(Evaluated::Array(arrow::array::new_null_array(&ty.to_arrow(), self.places.len())));
        }
        let arrays: Vec<&dyn Array> = self.arrays.iter().map(AsRef::as_ref).collect();
        Ok(Evaluated::Array(interleave(&arrays, &self.places)?))
    }
}

/// `COALESCE(a, b, ...)`: an argument is evaluated only for the rows where all before are NULL.
#[derive(Debug)]
pub(crate) struct Coalesce {
    pub(crate) parts: Vec<Compiled>,
    pub(crate) ty: DataType,
}

impl Coalesce {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let mut open = BooleanBuffer::new_set(batch.rows);
        let mut result: Option<ArrayRef> = None;
        for part in &self.parts {
            if open.count_set_bits() == 0 {
                break;
            }
            let Some(known) = result else {
                let first = crate::batch::canonical(&part.evaluate(batch)?.into_array(batch.rows)?, self.ty)?;
                open = !is_not_null(&first)?.values();
                result = Some(first);
                continue;
            };
            let next = if part.columns.is_empty() {
                let value = part.evaluate(batch)?;
                value.with(crate::batch::canonical(value.array(), self.ty)?)
            } else {
                let mut pieces = Pieces::new(batch.rows);
                pieces.add(part, batch, &open, self.ty)?;
                pieces.finish(self.ty)?
            };
            let mask = BooleanArray::new(open.clone(), None);
            let merged = next.datum(|n| zip(&mask, n, &known))?;
            open = &open & &!is_not_null(&merged)?.values();
            result = Some(merged);
        }
        let rows = batch.rows;
        let array = result.unwrap_or_else(|| arrow::array::new_null_array(&self.ty.to_arrow(), rows));
        Ok(Evaluated::Array(array))
    }
}
