//! The primitive states that aggregate calls are made of: a closed set, each with update, merge and serialization.
//!
//! A call is one or more slots (AVG is a sum and a count), and calls share equal slots.

use arrow::array::{Array, ArrayRef};
use arrow::buffer::NullBuffer;
use stoa_plan::DataType;

use super::folds::{BytesFold, Counts, FloatFold, Fold, IntFold};
use super::groups::Choice;
use super::moments::MomentFold;
use super::rows::{Collected, Distinct, Picked};
use super::sketch::Sketches;
use super::values::{Cursor, Written, put_int};
use crate::expression::bounds;
use crate::{Bounds, Error, Result};

/// The group of each row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ids<'a> {
    /// All rows are of group 0; how many there are.
    One(usize),
    Many(&'a [u32]),
}

impl Ids<'_> {
    #[inline]
    pub(crate) fn at(&self, row: usize) -> usize {
        match self {
            Ids::One(_) => 0,
            Ids::Many(ids) => ids[row] as usize,
        }
    }
}

/// What a slot computes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SlotKind {
    /// Rows where no argument is NULL.
    Count,
    Ints(Fold),
    Floats(Fold),
    Bytes {
        max: bool,
    },
    Moments,
    /// Distinct rows of arguments; those of the first `required` that are NULL are left out.
    Distinct {
        required: usize,
    },
    Collect,
    Pick {
        last: bool,
        skip_nulls: bool,
    },
    Sketch,
}

/// A slot of all groups.
#[derive(Debug)]
pub(crate) enum Slot {
    Count(Counts),
    Ints(IntFold),
    Floats(FloatFold),
    Bytes(BytesFold),
    Moments(MomentFold),
    Distinct(Box<Distinct>),
    Collect(Box<Collected>),
    Pick(Box<Picked>),
    Sketch(Sketches),
}

fn mismatch() -> Error {
    Error::Internal("aggregate states of different kinds".into())
}

impl Slot {
    pub(crate) fn new(kind: &SlotKind, args: &[(DataType, Bounds)], one: bool, choice: Choice) -> Result<Slot> {
        let types = || args.iter().map(|a| a.0).collect::<Vec<_>>();
        let first = || args.first().copied().ok_or_else(mismatch);
        Ok(match kind {
            SlotKind::Count => Slot::Count(Counts::default()),
            SlotKind::Ints(fold) => {
                let (ty, known) = first()?;
                Slot::Ints(IntFold::new(*fold, bounds::effective(known, ty).ok_or_else(mismatch)?))
            }
            SlotKind::Floats(fold) => Slot::Floats(FloatFold::new(*fold)),
            SlotKind::Bytes { max } => Slot::Bytes(BytesFold::new(*max)),
            SlotKind::Moments => Slot::Moments(MomentFold::default()),
            SlotKind::Distinct { required } => Slot::Distinct(Box::new(Distinct::new(args, *required, one, choice)?)),
            SlotKind::Collect => Slot::Collect(Box::new(Collected::new(&types()))),
            SlotKind::Pick { last, skip_nulls } => Slot::Pick(Box::new(Picked::new(first()?.0, *last, *skip_nulls))),
            SlotKind::Sketch => Slot::Sketch(Sketches::default()),
        })
    }

    pub(crate) fn resize(&mut self, groups: usize) {
        match self {
            Slot::Count(slot) => slot.0.resize(groups, 0),
            Slot::Ints(slot) => slot.resize(groups),
            Slot::Floats(slot) => slot.resize(groups),
            Slot::Bytes(slot) => slot.resize(groups),
            Slot::Moments(slot) => slot.0.resize(groups, super::moments::Moments::default()),
            Slot::Distinct(_) | Slot::Collect(_) => {}
            Slot::Pick(slot) => slot.resize(groups),
            Slot::Sketch(slot) => slot.resize(groups),
        }
    }

    pub(crate) fn memory(&self) -> usize {
        match self {
            Slot::Count(slot) => slot.0.capacity() * 8,
            Slot::Ints(slot) => slot.memory(),
            Slot::Floats(slot) => slot.values.capacity() * 8,
            Slot::Bytes(slot) => slot.memory(),
            Slot::Moments(slot) => slot.0.capacity() * 48,
            Slot::Distinct(slot) => slot.memory(),
            Slot::Collect(slot) => slot.memory(),
            Slot::Pick(slot) => slot.memory(),
            Slot::Sketch(slot) => slot.memory(),
        }
    }

    /// Adds rows. The slot has room for every group of `ids`.
    pub(crate) fn update(&mut self, ids: &Ids<'_>, args: &[ArrayRef]) -> Result<()> {
        let first = || args.first().ok_or_else(mismatch);
        match self {
            Slot::Count(slot) => {
                let mut nulls: Option<NullBuffer> = None;
                for arg in args {
                    nulls = NullBuffer::union(nulls.as_ref(), arg.logical_nulls().as_ref());
                }
                slot.add(ids, nulls.as_ref());
            }
            Slot::Ints(slot) => slot.update(ids, first()?)?,
            Slot::Floats(slot) => slot.update(ids, first()?),
            Slot::Bytes(slot) => slot.update(ids, &flat(first()?)?),
            Slot::Moments(slot) => slot.update(ids, args),
            Slot::Distinct(slot) => slot.update(ids, args)?,
            Slot::Collect(slot) => slot.update(ids, args)?,
            Slot::Pick(slot) => slot.update(ids, first()?)?,
            Slot::Sketch(slot) => slot.update(ids, first()?)?,
        }
        Ok(())
    }

    /// Adds groups of another slot: pairs of its group and the group here.
    pub(crate) fn merge(&mut self, other: &Slot, pairs: &[(u32, u32)]) -> Result<()> {
        match (self, other) {
            (Slot::Count(a), Slot::Count(b)) => pairs.iter().for_each(|(from, to)| a.0[*to as usize] += b.0[*from as usize]),
            (Slot::Ints(a), Slot::Ints(b)) => a.merge(b, pairs)?,
            (Slot::Floats(a), Slot::Floats(b)) => a.merge(b, pairs),
            (Slot::Bytes(a), Slot::Bytes(b)) => a.merge(b, pairs),
            (Slot::Moments(a), Slot::Moments(b)) => a.merge(b, pairs),
            (Slot::Distinct(a), Slot::Distinct(b)) => a.merge(b, pairs)?,
            (Slot::Collect(a), Slot::Collect(b)) => a.merge(b, pairs)?,
            (Slot::Pick(a), Slot::Pick(b)) => a.merge(b, pairs)?,
            (Slot::Sketch(a), Slot::Sketch(b)) => a.merge(b, pairs),
            _ => return Err(mismatch()),
        }
        Ok(())
    }

    /// The state of every group as bytes.
    pub(crate) fn write(&self, groups: usize) -> Result<Written> {
        match self {
            Slot::Count(slot) => written(groups, |group, out| put_int(slot.0[group].into(), out)),
            Slot::Ints(slot) => written(groups, |group, out| slot.write(group, out)),
            Slot::Floats(slot) => written(groups, |group, out| slot.write(group, out)),
            Slot::Bytes(slot) => written(groups, |group, out| slot.write(group, out)),
            Slot::Moments(slot) => written(groups, |group, out| slot.write(group, out)),
            Slot::Sketch(slot) => written(groups, |group, out| slot.write(group, out)),
            Slot::Distinct(slot) => slot.write(groups),
            Slot::Collect(slot) => slot.write(groups),
            Slot::Pick(slot) => slot.write(),
        }
    }

    /// Adds one group's state from bytes; [`Slot::flush`] must follow.
    pub(crate) fn read(&mut self, group: usize, ty: DataType, from: &mut Cursor<'_>) -> Result<()> {
        match self {
            Slot::Count(slot) => {
                let count = i64::try_from(from.int()?).ok().filter(|n| *n >= 0).and_then(|n| slot.0[group].checked_add(n));
                slot.0[group] = count.ok_or_else(|| Error::Internal("a serialized count is damaged".into()))?;
                Ok(())
            }
            Slot::Ints(slot) => slot.read(group, from),
            Slot::Floats(slot) => slot.read(group, from),
            Slot::Bytes(slot) => slot.read(group, ty == DataType::Utf8, from),
            Slot::Moments(slot) => slot.read(group, from),
            Slot::Sketch(slot) => slot.read(group, from),
            Slot::Distinct(slot) => slot.read(group, from),
            Slot::Collect(slot) => slot.read(group, from),
            Slot::Pick(slot) => slot.read(group, from),
        }
    }

    /// Takes in what was read.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match self {
            Slot::Distinct(slot) => slot.flush(),
            Slot::Collect(slot) => slot.flush(),
            Slot::Pick(slot) => slot.flush(),
            _ => Ok(()),
        }
    }
}

fn written(groups: usize, write: impl Fn(usize, &mut Vec<u8>)) -> Result<Written> {
    Written::each(groups, |group, out| {
        write(group, out);
        Ok(())
    })
}

fn flat(array: &ArrayRef) -> Result<ArrayRef> {
    match array.data_type() {
        arrow::datatypes::DataType::Dictionary(..) => crate::batch::canonical(array, DataType::Utf8),
        _ => Ok(array.clone()),
    }
}
