//! The groups of an aggregation: numbers for distinct keys.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType as Arrow, Float32Type, Float64Type};
use arrow::row::{RowConverter, SortField};
use stoa_plan::DataType;

use super::bytes::ByteSet;
use super::determined::DeterminedGroups;
use super::packed::PackedGroups;
use crate::columns::concat_arrays;
use crate::context::PIECE;
use crate::{Bounds, CancelToken, Result};

/// Distinct keys, numbered from 0 in order of appearance.
#[derive(Debug)]
pub(crate) struct Groups {
    types: Vec<DataType>,
    kind: Kind,
    hash_zero: bool,
    cancel: CancelToken,
}

#[derive(Debug)]
enum Kind {
    /// No keys: one group.
    One,
    Packed(Box<PackedGroups>),
    Determined(Box<DeterminedGroups>),
    Rows(Box<RowGroups>),
}

/// How groups are to be found.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    /// Most bits of packed keys for a direct array.
    pub(crate) dense_bits: u32,
    /// Whether keys may be packed at all.
    pub(crate) pack: bool,
    pub(crate) hash_zero: bool,
    /// Looked at within work on many groups.
    pub(crate) cancel: CancelToken,
}

impl Groups {
    pub(crate) fn new(keys: &[(DataType, Bounds)], choice: Choice) -> Result<Groups> {
        let types: Vec<DataType> = keys.iter().map(|(ty, _)| *ty).collect();
        let packed = if choice.pack { PackedGroups::new(keys, &choice) } else { None };
        let kind = match packed {
            _ if keys.is_empty() => Kind::One,
            Some(packed) => Kind::Packed(Box::new(packed)),
            None => match DeterminedGroups::new(keys, &choice).filter(|_| choice.pack) {
                Some(determined) => Kind::Determined(Box::new(determined)),
                None => Kind::Rows(Box::new(RowGroups::new(&types)?)),
            },
        };
        Ok(Groups { types, kind, hash_zero: choice.hash_zero, cancel: choice.cancel })
    }

    /// One group without keys.
    pub(crate) fn one() -> Groups {
        Groups { types: vec![], kind: Kind::One, hash_zero: false, cancel: CancelToken::default() }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.kind {
            Kind::One => 1,
            Kind::Packed(packed) => packed.len(),
            Kind::Determined(determined) => determined.len(),
            Kind::Rows(rows) => rows.set.len(),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match &self.kind {
            Kind::One => 0,
            Kind::Packed(packed) => packed.memory(),
            Kind::Determined(determined) => determined.memory(),
            Kind::Rows(rows) => rows.set.memory(),
        }
    }

    pub(crate) fn describe(&self) -> String {
        match &self.kind {
            Kind::One => "no keys".into(),
            Kind::Packed(packed) => packed.describe(),
            Kind::Determined(determined) => determined.describe(),
            Kind::Rows(_) => "hash table over rows of keys".into(),
        }
    }

    /// Whether there is exactly one group always.
    pub(crate) fn is_one(&self) -> bool {
        matches!(self.kind, Kind::One)
    }

    /// Positions of keys that determine the others; `None` if none are known to.
    pub(crate) fn leading(&self) -> Option<&[usize]> {
        if let Kind::Determined(determined) = &self.kind { Some(determined.leading()) } else { None }
    }

    /// The group of every row.
    pub(crate) fn assign(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<()> {
        if rows <= PIECE {
            return self.assign_piece(keys, rows, ids);
        }
        ids.clear();
        let cancel = self.cancel.clone();
        let mut of_piece = Vec::new();
        for piece in cancel.pieces(rows) {
            let piece = piece?;
            let keys: Vec<ArrayRef> = keys.iter().map(|key| key.slice(piece.start, piece.len())).collect();
            self.assign_piece(&keys, piece.len(), &mut of_piece)?;
            ids.extend_from_slice(&of_piece);
        }
        Ok(())
    }

    fn assign_piece(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<()> {
        let found = match &mut self.kind {
            Kind::One => {
                ids.clear();
                ids.resize(rows, 0);
                true
            }
            Kind::Packed(groups) => groups.assign(keys, rows, ids)?,
            Kind::Determined(groups) => groups.assign(keys, rows, ids)?,
            Kind::Rows(groups) => {
                groups.assign(keys, rows, &self.types, self.hash_zero, ids)?;
                true
            }
        };
        if found {
            return Ok(());
        }
        let mut groups = RowGroups::new(&self.types)?;
        let so_far = self.keys()?;
        for piece in self.cancel.pieces(self.len()) {
            let piece = piece?;
            let keys: Vec<ArrayRef> = so_far.iter().map(|key| key.slice(piece.start, piece.len())).collect();
            groups.assign(&keys, piece.len(), &self.types, self.hash_zero, ids)?;
        }
        groups.assign(keys, rows, &self.types, self.hash_zero, ids)?;
        self.kind = Kind::Rows(Box::new(groups));
        Ok(())
    }

    /// The keys of all groups, one column per key.
    pub(crate) fn keys(&self) -> Result<Vec<ArrayRef>> {
        match &self.kind {
            Kind::One => Ok(vec![]),
            Kind::Packed(packed) => packed.keys(),
            Kind::Determined(determined) => determined.keys(),
            Kind::Rows(rows) => rows.keys(&self.types, &self.cancel),
        }
    }
}

/// Floats with one zero and one NaN, so that equal keys have equal bytes; other arrays as they are.
fn one_zero(key: ArrayRef) -> ArrayRef {
    match key.data_type() {
        Arrow::Float64 => {
            let one = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            Arc::new(key.as_primitive::<Float64Type>().unary::<_, Float64Type>(one))
        }
        Arrow::Float32 => {
            let one = |v: f32| if v.is_nan() { f32::NAN } else { v + 0.0 };
            Arc::new(key.as_primitive::<Float32Type>().unary::<_, Float32Type>(one))
        }
        _ => key,
    }
}

/// Groups by the bytes of their keys, in arrow's row format.
#[derive(Debug)]
struct RowGroups {
    converter: RowConverter,
    set: ByteSet,
}

impl RowGroups {
    fn new(types: &[DataType]) -> Result<RowGroups> {
        let fields = types.iter().map(|ty| SortField::new(ty.to_arrow())).collect();
        Ok(RowGroups { converter: RowConverter::new(fields)?, set: ByteSet::default() })
    }

    fn assign(&mut self, keys: &[ArrayRef], rows: usize, types: &[DataType], hash_zero: bool, ids: &mut Vec<u32>) -> Result<()> {
        let keys = keys
            .iter()
            .zip(types)
            .map(|(key, ty)| Ok(one_zero(crate::batch::canonical(key, *ty)?)))
            .collect::<Result<Vec<_>>>()?;
        let converted = self.converter.convert_columns(&keys)?;
        ids.clear();
        ids.extend((0..rows).map(|row| self.set.number(converted.row(row).as_ref(), hash_zero)));
        Ok(())
    }

    fn keys(&self, types: &[DataType], cancel: &CancelToken) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let mut pieces: Vec<Vec<ArrayRef>> = vec![vec![]; types.len()];
        for piece in cancel.pieces(self.set.len()) {
            let rows = piece?.map(|id| parser.parse(self.set.get(id as u32)));
            for (pieces, column) in pieces.iter_mut().zip(self.converter.convert_rows(rows)?) {
                pieces.push(column);
            }
        }
        pieces.iter().zip(types).map(|(pieces, ty)| concat_arrays(pieces, *ty)).collect()
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Float64Array};

    use super::*;

    #[test]
    fn zeros_are_one_group_and_so_are_nans() {
        let nan = f64::from_bits(f64::NAN.to_bits() | 1 << 63 | 5);
        let doubles: ArrayRef =
            Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), None, Some(nan), Some(1.5)]));
        let nan = f32::from_bits(f32::NAN.to_bits() | 1 << 31 | 5);
        let floats: ArrayRef =
            Arc::new(Float32Array::from(vec![Some(-0.0), Some(0.0), Some(f32::NAN), None, Some(nan), Some(1.5)]));
        for (ty, key) in [(DataType::Float64, doubles), (DataType::Float32, floats)] {
            for pack in [true, false] {
                let choice = Choice { dense_bits: 20, pack, hash_zero: false, cancel: CancelToken::default() };
                let mut groups = Groups::new(&[(ty, Bounds::default())], choice).unwrap();
                let mut ids = vec![];
                groups.assign(std::slice::from_ref(&key), 6, &mut ids).unwrap();
                assert_eq!(ids, [0, 0, 1, 2, 1, 3]);
            }
        }
    }
}
