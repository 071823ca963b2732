//! Encodings of a column of a segment: one blob of bytes that filters and reads itself in its encoded form.
//!
//! ```text
//! blob    = nulls payload
//! payload = plain | constant | runlength | dictionary | bitpacked | delta | float | fsst | lz4 | zstd
//! ```
//! Each module draws its part. Numbers are little-endian. The encoding's tag, the column's type and the number of rows are not in the
//! blob: the segment knows them. [`EncodedColumn::open`] checks all that later reads rely on; what it does not check (UTF-8, compressed
//! streams) is checked when it is read. A blob can thus be anything without harm: it opens or not, reads or not.

mod bitpacked;
mod body;
mod compressed;
mod condition;
mod constant;
mod delta;
mod dictionary;
mod entries;
mod estimate;
mod float;
mod fsst;

mod layout;
mod nulls;
mod packed;
mod plain;
mod residual;
mod rows;
mod runlength;
mod span;
mod text;
mod values;
mod width;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;
use arrow::datatypes::DataType;

use crate::{BLOCK_ROWS, Error, Predicate, Result};
use body::{Body, Plan};
use condition::{Condition, Kind};
use nulls::Nulls;
pub(crate) use rows::{read_rows, write_rows};
use stoa_kernels::mask as kernels;
use width::WORDS;

/// How a blob holds its column. The discriminant is the tag on disk.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Values as they are in memory.
    Plain = 0,
    /// One value for every row.
    Constant = 1,
    /// Values and the rows at which their runs end.
    RunLength = 2,
    /// Distinct values and bit-packed codes.
    Dictionary = 3,
    /// Frame of reference: per block a base and bit-packed differences to it.
    BitPacked = 4,
    /// Ascending integers: per block a first value and bit-packed steps.
    Delta = 5,
    /// Floats that are decimals, as scaled integers, and exceptions.
    ScaledFloat = 6,
    /// Strings compressed with one symbol table.
    Fsst = 7,
    /// Strings, each block compressed with LZ4.
    Lz4 = 8,
    /// Strings, each block compressed with zstd.
    Zstd = 9,
}

impl Encoding {
    /// Every encoding, in the order of their tags.
    pub const ALL: [Encoding; 10] = [
        Encoding::Plain,
        Encoding::Constant,
        Encoding::RunLength,
        Encoding::Dictionary,
        Encoding::BitPacked,
        Encoding::Delta,
        Encoding::ScaledFloat,
        Encoding::Fsst,
        Encoding::Lz4,
        Encoding::Zstd,
    ];

    /// The encoding of a tag on disk.
    #[must_use]
    pub fn from_tag(tag: u8) -> Option<Encoding> {
        Encoding::ALL.get(usize::from(tag)).copied()
    }

    /// The tag on disk.
    #[must_use]
    pub fn tag(self) -> u8 {
        self as u8
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Encoding::Plain => "plain",
            Encoding::Constant => "constant",
            Encoding::RunLength => "run-length",
            Encoding::Dictionary => "dictionary",
            Encoding::BitPacked => "bit-packed",
            Encoding::Delta => "delta",
            Encoding::ScaledFloat => "scaled-float",
            Encoding::Fsst => "fsst",
            Encoding::Lz4 => "lz4",
            Encoding::Zstd => "zstd",
        }
    }
}

/// An encoded column.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// How.
    pub encoding: Encoding,
    /// The blob.
    pub bytes: Vec<u8>,
}

/// Encodes a column of a canonical type with the encoding that fits it best.
///
/// # Errors
/// [`Error::Invalid`] if the type is not canonical, or there are no rows or more than 2^20.
pub fn encode(array: &ArrayRef) -> Result<Encoded> {
    estimate::encode(array)
}

/// Encodes a column with the given encoding, or answers `None` if the encoding does not fit it.
///
/// # Errors
/// As [`encode`].
pub fn encode_as(encoding: Encoding, array: &ArrayRef) -> Result<Option<Encoded>> {
    estimate::encode_as(encoding, array)
}

/// A predicate made ready for one column of one segment: everything that need not be done per block is done.
#[derive(Clone, Debug)]
pub struct PreparedPredicate {
    condition: Condition,
    plan: Plan,
    kernel: &'static str,
}

impl PreparedPredicate {
    /// How blocks are decided, for people.
    #[must_use]
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }
}

/// Reads one encoded column.
#[derive(Debug)]
pub struct EncodedColumn {
    encoding: Encoding,
    ty: DataType,
    kind: Kind,
    rows: usize,
    nulls: Nulls,
    body: Body,
}

impl EncodedColumn {
    /// Opens a blob. Checks every length and offset once, so that later reads stay within bounds.
    ///
    /// # Errors
    /// What is wrong with the blob.
    pub fn open(encoding: Encoding, ty: &DataType, rows: usize, bytes: Buffer) -> std::result::Result<Self, String> {
        let kind = Kind::of(ty).ok_or_else(|| format!("a column cannot be of type {ty}"))?;
        let mut reader = layout::Reader::new(bytes);
        let nulls = Nulls::open(&mut reader, rows)?;
        let body = Body::open(encoding, &mut reader, ty, kind, rows)?;
        Ok(EncodedColumn { encoding, ty: ty.clone(), kind, rows, nulls, body })
    }

    /// The encoding.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are NULL.
    #[must_use]
    pub fn null_count(&self) -> usize {
        self.nulls.count(self.rows)
    }

    /// For people, e.g. `dictionary(7 entries plain, codes 3 bits)`.
    #[must_use]
    pub fn describe(&self) -> String {
        let detail = self.body.describe();
        if detail.is_empty() { self.encoding.name().to_string() } else { format!("{}({detail})", self.encoding.name()) }
    }

    /// The distinct values, sorted, if the column has a dictionary: decoded once, shared by pointer.
    #[must_use]
    pub fn dictionary(&self) -> Option<ArrayRef> {
        self.body.dictionary().cloned()
    }

    /// Makes a predicate ready for this column: once per segment, not once per block.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the predicate's constants do not fit the column's type; what a function returns.
    pub fn prepare(&self, predicate: &Predicate) -> Result<PreparedPredicate> {
        let condition = Condition::compile(predicate, self.kind)?;
        if matches!(condition, Condition::IsNull | Condition::IsNotNull) {
            return Ok(PreparedPredicate { condition, plan: Plan::Values, kernel: "validity" });
        }
        let plan = self.body.plan(&condition, self.null_count() > 0)?;
        let kernel = self.body.kernel(&plan);
        Ok(PreparedPredicate { condition, plan, kernel })
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`; see [`EncodedColumn::filter_prepared`].
    ///
    /// # Errors
    /// As [`EncodedColumn::prepare`].
    pub fn filter(&self, predicate: &Predicate, first_row: usize, rows: usize, mask: &mut [u64]) -> Result<()> {
        self.filter_prepared(&self.prepare(predicate)?, first_row, rows, mask)
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`, where `first_row` is a multiple of [`BLOCK_ROWS`] and the mask
    /// has `rows.div_ceil(64)` words. Blocks whose mask is all zero are skipped. The predicate was prepared by this column.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the rows are not the column's; what a function returns.
    pub fn filter_prepared(&self, prepared: &PreparedPredicate, first_row: usize, rows: usize, mask: &mut [u64]) -> Result<()> {
        self.check_range(first_row, rows)?;
        if !first_row.is_multiple_of(BLOCK_ROWS) || mask.len() != rows.div_ceil(64) {
            return Err(Error::Invalid(format!("a mask of {} words for rows {first_row}+{rows}", mask.len())));
        }
        kernels::clear_tail(mask, rows);
        match (&prepared.condition, &prepared.plan) {
            (Condition::IsNull, _) => self.nulls.retain(false, first_row, rows, mask),
            (Condition::IsNotNull, _) => self.nulls.retain(true, first_row, rows, mask),
            (Condition::Function(_), Plan::Entries(set)) if set.null_passes => {
                let mut nulls = mask.to_vec();
                self.nulls.retain(false, first_row, rows, &mut nulls);
                self.nulls.retain(true, first_row, rows, mask);
                self.filter_blocks(prepared, first_row, rows, mask);
                mask.iter_mut().zip(nulls).for_each(|(word, nulls)| *word |= nulls);
            }
            (Condition::Function(_), Plan::Read | Plan::Values) => self.filter_read(prepared, first_row, rows, mask)?,
            (_, plan) => {
                self.nulls.retain(true, first_row, rows, mask);
                self.filter_blocks(prepared, first_row, rows, mask);
                if matches!(plan, Plan::Read) {
                    self.filter_read(prepared, first_row, rows, mask)?;
                }
            }
        }
        Ok(())
    }

    /// Block by block, in the encoded form.
    fn filter_blocks(&self, prepared: &PreparedPredicate, first_row: usize, rows: usize, mask: &mut [u64]) {
        let mut passing = [0; WORDS];
        for (i, words) in mask[..rows.div_ceil(64)].chunks_mut(WORDS).enumerate() {
            if words.iter().all(|word| *word == 0) {
                continue;
            }
            let block = first_row / BLOCK_ROWS + i;
            let rows = body::block_rows(self.rows, block);
            self.body.mask(self.kind, &prepared.condition, &prepared.plan, (block, rows), words, &mut passing);
            words.iter_mut().zip(passing).for_each(|(word, passing)| *word &= passing);
        }
    }

    /// Reads the rows that are still selected and looks at each: one call of a function.
    fn filter_read(&self, prepared: &PreparedPredicate, first_row: usize, rows: usize, mask: &mut [u64]) -> Result<()> {
        let mut selection = Vec::new();
        kernels::to_selection(mask, &mut selection);
        if selection.is_empty() {
            return Ok(());
        }
        let all = selection.len() == rows;
        let values = self.read(first_row, rows, if all { None } else { Some(&selection) })?;
        if all && let Condition::Function(function) = &prepared.condition {
            let passes = values::call(function, &values)?;
            mask.iter_mut().zip(passes.bit_chunks().iter_padded()).for_each(|(word, passes)| *word &= passes);
            return Ok(());
        }
        for (&row, pass) in selection.iter().zip(values::evaluate(&prepared.condition, &values)?) {
            mask[row as usize / 64] &= !(u64::from(!pass) << (row % 64));
        }
        Ok(())
    }

    /// Rows `first_row..first_row + rows`, or only those of `selection` (ascending, relative to `first_row`). Strings with a
    /// dictionary come back as `Dictionary(UInt32, Utf8View)` over [`EncodedColumn::dictionary`], all else in the column's type.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the rows are not the column's, or the blob is damaged in a way that only reading shows.
    pub fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Result<ArrayRef> {
        self.check_range(first_row, rows)?;
        // Without an early exit, so that it vectorizes: it is true.
        let ascends = |s: &[u32]| {
            let (before, after) = (&s[..s.len().saturating_sub(1)], &s[s.len().min(1)..]);
            s.last().is_none_or(|&last| (last as usize) < rows)
                && before.iter().zip(after).fold(true, |all, (a, b)| all & (a < b))
        };
        if !selection.is_none_or(ascends) {
            return Err(Error::Invalid(format!("a selection that does not ascend within {rows} rows")));
        }
        let nulls = self.nulls.read(first_row, rows, selection);
        self.body.read(&self.ty, self.kind, first_row, rows, selection, nulls)
    }

    fn check_range(&self, first_row: usize, rows: usize) -> Result<()> {
        if first_row.checked_add(rows).is_some_and(|end| end <= self.rows) {
            return Ok(());
        }
        Err(Error::Invalid(format!("rows {first_row}+{rows} of a column of {} rows", self.rows)))
    }
}
