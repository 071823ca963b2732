//! Slots that keep rows: all of them, the distinct ones, or one per group.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{concat, filter, take};
use arrow::datatypes::UInt32Type;
use stoa_plan::DataType;

use super::groups::{Choice, Groups};
use super::slot::Ids;
use super::values::{Column, Cursor, Written, put, put_int};
use crate::{Bounds, Result};

const NONE: u32 = u32::MAX;

fn joined(chunks: &[ArrayRef], ty: DataType) -> Result<ArrayRef> {
    match chunks {
        [] => Ok(arrow::array::new_empty_array(&ty.to_arrow())),
        [one] => Ok(one.clone()),
        _ => {
            let all: Vec<&dyn Array> = chunks.iter().map(AsRef::as_ref).collect();
            Ok(concat(&all)?)
        }
    }
}

/// Where each group of another state goes; `NONE` where it goes nowhere.
fn targets(pairs: &[(u32, u32)]) -> Vec<u32> {
    let most = pairs.iter().map(|p| p.0 as usize + 1).max().unwrap_or(0);
    let mut map = vec![NONE; most];
    for (from, to) in pairs {
        map[*from as usize] = *to;
    }
    map
}

/// Keeps the elements whose group has a target.
fn moved(ids: &[u32], columns: &[ArrayRef], map: &[u32]) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
    let target = |id: &u32| map.get(*id as usize).copied().filter(|t| *t != NONE);
    let keep = BooleanArray::from_iter(ids.iter().map(|id| Some(target(id).is_some())));
    let columns = columns.iter().map(|c| Ok(filter(c, &keep)?)).collect::<Result<Vec<_>>>()?;
    Ok((ids.iter().filter_map(target).collect(), columns))
}

/// Rows as bytes, per group.
fn written(ids: &[u32], columns: &[ArrayRef], types: &[DataType], groups: usize) -> Result<Written> {
    // The rows in the order of their groups, those of one in their own.
    let mut ends = vec![0usize; groups];
    ids.iter().for_each(|id| ends[*id as usize] += 1);
    let mut next = 0;
    for end in &mut ends {
        next += std::mem::replace(end, next);
    }
    let mut order = vec![0usize; ids.len()];
    for (row, id) in ids.iter().enumerate() {
        let place = &mut ends[*id as usize];
        order[*place] = row;
        *place += 1;
    }
    Written::each(groups, |group, out| {
        let rows = &order[group.checked_sub(1).map_or(0, |before| ends[before])..ends[group]];
        put_int(rows.len() as i128, out);
        for row in rows {
            columns.iter().zip(types).try_for_each(|(column, ty)| put(column, *row, *ty, out))?;
        }
        Ok(())
    })
}

/// Rows read from bytes.
#[derive(Debug)]
pub(crate) struct Pending {
    ids: Vec<u32>,
    columns: Vec<Column>,
    types: Vec<DataType>,
}

impl Pending {
    fn new(types: &[DataType]) -> Pending {
        Pending { ids: vec![], columns: types.iter().map(|ty| Column::new(*ty)).collect(), types: types.to_vec() }
    }

    fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        for _ in 0..from.count()? {
            self.ids.push(group as u32);
            for column in &mut self.columns {
                column.read(from)?;
            }
        }
        Ok(())
    }

    /// The rows so far; none are left.
    fn drain(&mut self) -> Result<Option<(Vec<u32>, Vec<ArrayRef>)>> {
        if self.ids.is_empty() {
            return Ok(None);
        }
        let done = std::mem::replace(self, Pending::new(&self.types));
        Ok(Some((done.ids, done.columns.into_iter().map(Column::finish).collect::<Result<_>>()?)))
    }
}

/// All rows.
#[derive(Debug)]
pub(crate) struct Collected {
    types: Vec<DataType>,
    ids: Vec<u32>,
    chunks: Vec<Vec<ArrayRef>>,
    bytes: usize,
    pending: Pending,
}

impl Collected {
    pub(crate) fn new(types: &[DataType]) -> Collected {
        Collected {
            types: types.to_vec(),
            ids: vec![],
            chunks: vec![vec![]; types.len()],
            bytes: 0,
            pending: Pending::new(types),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.ids.capacity() * 4
    }

    /// Keeps the rows whose first argument is not NULL, or all of them.
    pub(crate) fn update(&mut self, ids: &Ids<'_>, args: &[ArrayRef]) -> Result<()> {
        let rows = args.first().map_or(0, Array::len);
        self.ids.extend((0..rows).map(|row| ids.at(row) as u32));
        self.push(args)
    }

    fn push(&mut self, columns: &[ArrayRef]) -> Result<()> {
        for ((chunk, column), ty) in self.chunks.iter_mut().zip(columns).zip(&self.types) {
            let column = crate::batch::canonical(column, *ty)?;
            self.bytes += column.get_array_memory_size();
            chunk.push(column);
        }
        Ok(())
    }

    pub(crate) fn columns(&self) -> Result<Vec<ArrayRef>> {
        self.chunks.iter().zip(&self.types).map(|(chunks, ty)| joined(chunks, *ty)).collect()
    }

    pub(crate) fn ids(&self) -> &[u32] {
        &self.ids
    }

    pub(crate) fn merge(&mut self, other: &Collected, pairs: &[(u32, u32)]) -> Result<()> {
        let (ids, columns) = moved(&other.ids, &other.columns()?, &targets(pairs))?;
        self.ids.extend(ids);
        self.push(&columns)
    }

    pub(crate) fn write(&self, groups: usize) -> Result<Written> {
        written(&self.ids, &self.columns()?, &self.types, groups)
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        self.pending.read(group, from)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        if let Some((ids, columns)) = self.pending.drain()? {
            self.ids.extend(ids);
            self.push(&columns)?;
        }
        Ok(())
    }
}

/// The distinct rows of each group.
#[derive(Debug)]
pub(crate) struct Distinct {
    types: Vec<DataType>,
    /// Number of arguments that must not be NULL.
    required: usize,
    /// Distinct (group, arguments).
    pairs: Groups,
    ids: Vec<u32>,
    pending: Pending,
}

impl Distinct {
    pub(crate) fn new(args: &[(DataType, Bounds)], required: usize, one: bool, choice: Choice) -> Result<Distinct> {
        let group = Bounds { range: Some((0, if one { 0 } else { i128::from(u32::MAX) })) };
        let keys: Vec<_> = std::iter::once((DataType::UInt32, group)).chain(args.iter().copied()).collect();
        let types: Vec<DataType> = args.iter().map(|a| a.0).collect();
        let pending = Pending::new(&types);
        Ok(Distinct { types, required, pairs: Groups::new(&keys, choice)?, ids: vec![], pending })
    }

    pub(crate) fn memory(&self) -> usize {
        self.pairs.memory()
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, args: &[ArrayRef]) -> Result<()> {
        let rows = args.first().map_or(0, Array::len);
        let groups: Vec<u32> = (0..rows).map(|row| ids.at(row) as u32).collect();
        self.add(groups, args)
    }

    fn add(&mut self, groups: Vec<u32>, args: &[ArrayRef]) -> Result<()> {
        let mut keys: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(groups))];
        keys.extend(args.iter().cloned());
        if args.iter().take(self.required).any(|a| a.logical_null_count() > 0) {
            let valid = |row: usize| args.iter().take(self.required).all(|a| !a.is_null(row));
            let keep = BooleanArray::from_iter((0..keys[0].len()).map(|row| Some(valid(row))));
            keys = keys.iter().map(|k| Ok(filter(k, &keep)?)).collect::<Result<_>>()?;
        }
        let rows = keys[0].len();
        self.pairs.assign(&keys, rows, &mut self.ids)
    }

    /// The groups and the rows.
    pub(crate) fn content(&self) -> Result<(Vec<u32>, Vec<ArrayRef>)> {
        let mut keys = self.pairs.keys()?;
        let groups = keys.remove(0);
        let keys = keys.iter().zip(&self.types).map(|(k, ty)| crate::batch::canonical(k, *ty)).collect::<Result<Vec<_>>>()?;
        Ok((groups.as_primitive::<UInt32Type>().values().to_vec(), keys))
    }

    /// Distinct rows per group.
    pub(crate) fn counts(&self, groups: usize) -> Result<Vec<i64>> {
        if groups == 1 {
            return Ok(vec![self.pairs.len() as i64]);
        }
        let mut counts = vec![0; groups];
        if self.pairs.len() > 0 {
            let keys = self.pairs.keys()?;
            keys[0].as_primitive::<UInt32Type>().values().iter().for_each(|id| counts[*id as usize] += 1);
        }
        Ok(counts)
    }

    pub(crate) fn merge(&mut self, other: &Distinct, pairs: &[(u32, u32)]) -> Result<()> {
        let mut keys = other.pairs.keys()?;
        let groups = keys.remove(0);
        let (ids, columns) = moved(groups.as_primitive::<UInt32Type>().values(), &keys, &targets(pairs))?;
        self.add(ids, &columns)
    }

    pub(crate) fn write(&self, groups: usize) -> Result<Written> {
        let (ids, columns) = self.content()?;
        written(&ids, &columns, &self.types, groups)
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        self.pending.read(group, from)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        match self.pending.drain()? {
            Some((ids, columns)) => self.add(ids, &columns),
            None => Ok(()),
        }
    }
}

/// One row of each group: the first or the last that came.
#[derive(Debug)]
pub(crate) struct Picked {
    ty: DataType,
    last: bool,
    skip_nulls: bool,
    /// Position in the chunks of each group's value.
    places: Vec<u32>,
    chunks: Vec<ArrayRef>,
    rows: usize,
    pending: Pending,
}

impl Picked {
    pub(crate) fn new(ty: DataType, last: bool, skip_nulls: bool) -> Picked {
        Picked { ty, last, skip_nulls, places: vec![], chunks: vec![], rows: 0, pending: Pending::new(&[ty]) }
    }

    pub(crate) fn resize(&mut self, groups: usize) {
        self.places.resize(groups, NONE);
    }

    pub(crate) fn memory(&self) -> usize {
        self.places.capacity() * 4 + self.chunks.iter().map(Array::get_array_memory_size).sum::<usize>()
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, values: &ArrayRef) -> Result<()> {
        let mut rows: Vec<u32> = Vec::new();
        for row in 0..values.len() {
            let place = &mut self.places[ids.at(row)];
            if (*place == NONE || self.last) && !(self.skip_nulls && values.is_null(row)) {
                // Within this batch: the index among the rows to take.
                if *place != NONE && *place as usize >= self.rows {
                    rows[*place as usize - self.rows] = row as u32;
                } else {
                    *place = (self.rows + rows.len()) as u32;
                    rows.push(row as u32);
                }
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        self.rows += rows.len();
        let values = crate::batch::canonical(values, self.ty)?;
        self.chunks.push(take(&values, &UInt32Array::from(rows), None)?);
        if self.rows > 2 * self.places.len() + 8192 {
            self.compact()?;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<()> {
        let values = self.values()?;
        self.places =
            (0..self.places.len() as u32).zip(&self.places).map(|(at, was)| if *was == NONE { NONE } else { at }).collect();
        self.rows = values.len();
        self.chunks = vec![values];
        Ok(())
    }

    /// The value of every group.
    pub(crate) fn values(&self) -> Result<ArrayRef> {
        let all = joined(&self.chunks, self.ty)?;
        let places = self.places.iter().map(|p| (*p != NONE).then_some(*p)).collect::<UInt32Array>();
        if all.is_empty() {
            return Ok(arrow::array::new_null_array(&self.ty.to_arrow(), places.len()));
        }
        Ok(take(&all, &places, None)?)
    }

    pub(crate) fn merge(&mut self, other: &Picked, pairs: &[(u32, u32)]) -> Result<()> {
        let pairs: Vec<(u32, u32)> = pairs.iter().copied().filter(|(from, _)| other.places[*from as usize] != NONE).collect();
        let from = UInt32Array::from_iter_values(pairs.iter().map(|p| p.0));
        let values = take(&other.values()?, &from, None)?;
        let ids: Vec<u32> = pairs.iter().map(|p| p.1).collect();
        self.update(&Ids::Many(&ids), &values)
    }

    pub(crate) fn write(&self) -> Result<Written> {
        let values = self.values()?;
        Written::each(self.places.len(), |group, out| {
            let there = self.places[group] != NONE;
            put_int(i128::from(there), out);
            if there { put(&values, group, self.ty, out) } else { Ok(()) }
        })
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        self.pending.read(group, from)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        match self.pending.drain()? {
            Some((ids, columns)) => self.update(&Ids::Many(&ids), &columns[0]),
            None => Ok(()),
        }
    }
}
