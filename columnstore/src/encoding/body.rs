//! The payload of a blob by encoding: the one place that lists them all.

use arrow::array::ArrayRef;
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::Encoding;
use super::bitpacked::BitPacked;
use super::compressed::{Codec, Compressed};
use super::condition::{BytesCondition, Condition, Kind};
use super::constant::Constant;
use super::delta::Delta;
use super::dictionary::Dictionary;
use super::entries::{EntrySet, Shape};
use super::float::ScaledFloat;
use super::fsst::Fsst;
use super::layout::Reader;
use super::plain::Plain;
use super::residual::{Integer, ResidualCondition};
use super::runlength::RunLength;
use super::text::Framing;
use super::values::{damaged, fixed_array, text_array};
use super::width::{PACKED, WORDS};
use crate::Result;

/// An opened payload.
#[derive(Debug)]
pub(super) enum Body {
    /// See [`super::plain`].
    Plain(Plain),
    /// See [`super::constant`].
    Constant(Constant),
    /// See [`super::runlength`].
    RunLength(RunLength),
    /// See [`super::dictionary`].
    Dictionary(Dictionary),
    /// See [`super::bitpacked`].
    BitPacked(BitPacked),
    /// See [`super::delta`].
    Delta(Delta),
    /// See [`super::float`].
    ScaledFloat(ScaledFloat),
    /// See [`super::fsst`].
    Fsst(Fsst),
    /// See [`super::compressed`].
    Compressed(Compressed),
}

/// A condition made ready for a payload.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    /// Which entries pass.
    Entries(EntrySet),
    /// Integers by their residuals.
    Residuals(ResidualCondition),
    /// Fixed-width values block by block.
    Values,
    /// Values that are read first: strings, and functions.
    Read,
}

impl Body {
    /// Reads and checks a payload.
    pub(super) fn open(
        encoding: Encoding,
        reader: &mut Reader,
        ty: &DataType,
        kind: Kind,
        rows: usize,
    ) -> std::result::Result<Body, String> {
        let integers = matches!(kind, Kind::Int { .. });
        let text = matches!(kind, Kind::Utf8 | Kind::Binary);
        let fits = match encoding {
            Encoding::Plain | Encoding::Constant => true,
            Encoding::RunLength => !text && kind != Kind::Bool,
            Encoding::Dictionary => kind != Kind::Bool,
            Encoding::BitPacked | Encoding::Delta => integers,
            Encoding::ScaledFloat => kind == Kind::Float64,
            Encoding::Fsst | Encoding::Lz4 | Encoding::Zstd => text,
        };
        if !fits {
            return Err(format!("a column of {ty} cannot be {}", encoding.name()));
        }
        Ok(match encoding {
            Encoding::Plain => Body::Plain(Plain::open(reader, kind, rows)?),
            Encoding::Constant => Body::Constant(Constant::open(reader, ty)?),
            Encoding::RunLength => Body::RunLength(RunLength::open(reader, ty, rows)?),
            Encoding::Dictionary => Body::Dictionary(Dictionary::open(reader, ty, rows)?),
            Encoding::BitPacked => Body::BitPacked(BitPacked::open(reader, rows)?),
            Encoding::Delta => Body::Delta(Delta::open(reader, rows)?),
            Encoding::ScaledFloat => Body::ScaledFloat(ScaledFloat::open(reader, rows)?),
            Encoding::Fsst => Body::Fsst(Fsst::open(reader, rows)?),
            Encoding::Lz4 => Body::Compressed(Compressed::open(Codec::Lz4, reader, rows)?),
            Encoding::Zstd => Body::Compressed(Compressed::open(Codec::Zstd, reader, rows)?),
        })
    }

    /// For people; empty if the encoding's name says all.
    pub(super) fn describe(&self) -> String {
        match self {
            Body::Plain(_) | Body::Constant(_) | Body::Compressed(_) => String::new(),
            Body::RunLength(body) => body.describe(),
            Body::Dictionary(body) => body.describe(),
            Body::BitPacked(body) => body.describe(),
            Body::Delta(body) => body.describe(),
            Body::ScaledFloat(body) => body.describe(),
            Body::Fsst(body) => body.describe(),
        }
    }

    /// The values that are stored once each.
    pub(super) fn entries(&self) -> Option<&ArrayRef> {
        match self {
            Body::Constant(body) => Some(body.entries()),
            Body::RunLength(body) => Some(body.entries()),
            Body::Dictionary(body) => Some(body.entries()),
            _ => None,
        }
    }

    /// The entries, if rows are read as codes into them or they are all distinct.
    pub(super) fn dictionary(&self) -> Option<&ArrayRef> {
        match self {
            Body::Constant(body) => Some(body.entries()),
            Body::Dictionary(body) => Some(body.entries()),
            _ => None,
        }
    }

    /// Lengths and groups of strings.
    fn framing(&self) -> Option<&Framing> {
        match self {
            Body::Plain(body) => body.framing(),
            Body::Fsst(body) => Some(body.framing()),
            Body::Compressed(body) => Some(body.framing()),
            _ => None,
        }
    }

    /// Makes a condition on values ready.
    pub(super) fn plan(&self, condition: &Condition, nulls: bool) -> Result<Plan> {
        if let Some(entries) = self.entries() {
            return Ok(Plan::Entries(EntrySet::evaluate(condition, entries, nulls)?));
        }
        Ok(match (self, condition) {
            (Body::BitPacked(body), Condition::Int(c)) => Plan::Residuals(body.condition(c)),
            (Body::Delta(body), Condition::Int(c)) => Plan::Residuals(body.condition(c)),
            (Body::Plain(_) | Body::ScaledFloat(_), Condition::Int(_) | Condition::Float(_)) => Plan::Values,
            _ => Plan::Read,
        })
    }

    /// How [`Body::mask`] decides, for people.
    pub(super) fn kernel(&self, plan: &Plan) -> &'static str {
        match (self, plan) {
            (Body::Dictionary(_), Plan::Entries(set)) => match set.shape {
                Shape::Nothing => "no entry",
                Shape::Everything => "every entry",
                Shape::Range(..) | Shape::Outside(..) => "compare_packed of entries",
                Shape::Scattered => "in_packed of entries",
            },
            (_, Plan::Entries(_)) => "once per entry",
            (Body::Delta(_), Plan::Residuals(_)) => "decoded block",
            (_, Plan::Residuals(condition)) => condition.packed_kernel(),
            (_, Plan::Values) => "compare",
            (_, Plan::Read) => "decoded values",
        }
    }

    /// Which rows of a block of `rows` rows may pass; those of `current` are of interest. Not of NULL rows.
    pub(super) fn mask(
        &self,
        kind: Kind,
        condition: &Condition,
        plan: &Plan,
        (block, rows): (usize, usize),
        current: &[u64],
        out: &mut [u64; WORDS],
    ) {
        match (self, plan, condition) {
            (Body::Constant(_), Plan::Entries(set), _) => *out = [if set.passes(0) { u64::MAX } else { 0 }; WORDS],
            (Body::RunLength(body), Plan::Entries(set), _) => body.mask(set, block, out),
            (Body::Dictionary(body), Plan::Entries(set), _) => body.mask(set, block, out),
            (Body::BitPacked(body), Plan::Residuals(c), _) => body.mask(c, block, current, out),
            (Body::Delta(body), Plan::Residuals(c), _) => body.mask(c, block, out),
            (Body::Plain(body), Plan::Values, _) => body.mask(kind, condition, block, out),
            (Body::ScaledFloat(body), Plan::Values, Condition::Float(c)) => body.mask(c, block, rows, out),
            (_, Plan::Read, Condition::Bytes(c)) => self.lengths_mask(c, block, out),
            _ => *out = [u64::MAX; WORDS],
        }
    }

    /// Strings of other lengths than the ones asked for cannot pass.
    fn lengths_mask(&self, condition: &BytesCondition, block: usize, out: &mut [u64; WORDS]) {
        let bounds = match condition {
            BytesCondition::Range(Some((low, _)), Some((high, _))) if low == high => Some((low.len(), low.len())),
            BytesCondition::In(set) => {
                let lengths = || set.iter().map(Vec::len);
                Some((lengths().min().unwrap_or(1), lengths().max().unwrap_or(0)))
            }
            _ => None,
        };
        match (bounds, self.framing()) {
            (Some((low, high)), Some(framing)) => framing.lengths().range(block, low as u64, high as u64, out),
            _ => *out = [u64::MAX; WORDS],
        }
    }

    /// Reads rows.
    pub(super) fn read(
        &self,
        ty: &DataType,
        kind: Kind,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let count = selection.map_or(rows, <[u32]>::len);
        match self {
            Body::Plain(body) => body.read(ty, kind, first_row, rows, selection, nulls),
            Body::Constant(body) => body.read(kind, count, nulls),
            Body::RunLength(body) => body.read(kind, first_row, rows, selection, nulls),
            Body::Dictionary(body) => body.read(kind, first_row, rows, selection, nulls),
            Body::BitPacked(_) | Body::Delta(_) => match kind {
                Kind::Int { bytes: 1, .. } => self.read_integers::<i8>(ty, first_row, rows, selection, nulls),
                Kind::Int { bytes: 2, .. } => self.read_integers::<i16>(ty, first_row, rows, selection, nulls),
                Kind::Int { bytes: 4, .. } => self.read_integers::<i32>(ty, first_row, rows, selection, nulls),
                Kind::Int { bytes: 8, .. } => self.read_integers::<i64>(ty, first_row, rows, selection, nulls),
                _ => self.read_integers::<i128>(ty, first_row, rows, selection, nulls),
            },
            Body::ScaledFloat(body) => fixed_array(ty, body.read(first_row, rows, selection).into(), count, nulls),
            Body::Fsst(body) => text_array(kind, body.read(first_row, rows, selection).map_err(damaged)?, nulls),
            Body::Compressed(body) => text_array(kind, body.read(first_row, rows, selection).map_err(damaged)?, nulls),
        }
    }

    fn read_integers<T: Integer>(
        &self,
        ty: &DataType,
        first_row: usize,
        rows: usize,
        selection: Option<&[u32]>,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        let values: Vec<T> = match self {
            Body::BitPacked(body) => body.read(first_row, rows, selection),
            Body::Delta(body) => body.read(first_row, rows, selection),
            _ => Vec::new(),
        };
        let count = values.len();
        fixed_array(ty, arrow::buffer::Buffer::from_vec(values), count, nulls)
    }
}

/// Rows of a block of a column.
pub(super) fn block_rows(rows: usize, block: usize) -> usize {
    rows.saturating_sub(block * PACKED).min(PACKED)
}
