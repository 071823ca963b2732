//! Strings compressed with a symbol table of at most 255 symbols of up to 8 bytes (FSST): every string, and so every group, decodes
//! alone.
//!
//! ```text
//! fsst = text-framing symbols:u8 symbol lengths:[u8; symbols] symbols:[u64; symbols] bytes
//! ```
//! Code 255 escapes the literal byte that follows it.

use std::fmt;

use arrow::buffer::Buffer;
use fsst::{Compressor, Decompressor, Symbol};

use super::layout::Reader;
use super::text::{self, Framing, Slices, Store};
use crate::{Error, Result};

/// Rows that decode together: reading one row decodes this many. Each group costs an offset of four bytes.
pub(super) const GROUP: usize = 8;

struct Table {
    symbols: Box<[Symbol; 255]>,
    lengths: Box<[u8; 255]>,
}

/// An FSST column.
pub(super) struct Fsst {
    framing: Framing,
    table: Table,
    count: usize,
    stored: Buffer,
}

impl fmt::Debug for Fsst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fsst").field("framing", &self.framing).field("symbols", &self.count).finish_non_exhaustive()
    }
}

/// Trains a symbol table.
pub(super) fn train(values: &[&[u8]]) -> Compressor {
    // The trainer takes a sample of 16 KiB from what it is given; some thousand strings from all over are enough to give.
    let step = (values.len() / 16_384).max(1);
    let sample: Vec<&[u8]> = values.iter().step_by(step).copied().collect();
    Compressor::train(&sample)
}

/// Writes the payload.
pub(super) fn write(values: &[&[u8]], compressor: &Compressor, out: &mut Vec<u8>) -> Result<()> {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(values.len()));
    compressor.compress_bulk_into::<{ Compressor::DEFAULT_BULK_LANES }>(values, &mut bytes, &mut ends);
    if u32::try_from(bytes.len()).is_err() {
        return Err(Error::Invalid("a column of more than 4 GiB a segment".into()));
    }
    let mut starts = vec![0u32];
    starts.extend(ends.chunks(GROUP).filter_map(|group| group.last()).map(|&end| end as u32));
    let lengths: Vec<u64> = values.iter().map(|v| v.len() as u64).collect();
    text::write(&lengths, GROUP, &starts, out);
    out.push(compressor.n_symbols() as u8);
    out.extend_from_slice(compressor.symbol_lengths());
    compressor.symbol_table().iter().for_each(|symbol| out.extend(symbol.to_u64().to_le_bytes()));
    out.extend(bytes);
    Ok(())
}

impl Store for Table {
    fn decode(&self, stored: &[u8], length: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        // An escape must not be the last byte. A run of 255 begins at a code, so an odd run at the end is an escape without literal.
        let escapes = stored.iter().rev().take_while(|b| **b == fsst::ESCAPE_CODE).count();
        if escapes % 2 == 1 {
            return Err("a compressed string is cut off".into());
        }
        if length > stored.len() * 8 {
            return Err("strings decode to another length".into());
        }
        let decompressor = Decompressor::new(&self.symbols, &self.lengths);
        out.reserve(decompressor.max_decompression_capacity(stored));
        let at = out.len();
        let decoded = decompressor.decompress_into(stored, out.spare_capacity_mut());
        // SAFETY: `decompress_into` initialized this many bytes of the spare capacity, which was at least the most it may write.
        unsafe { out.set_len(at + decoded) };
        Ok(())
    }

    fn streams(&self) -> bool {
        true
    }
}

impl Fsst {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> std::result::Result<Self, String> {
        let framing = Framing::open(reader, rows)?;
        let count = usize::from(reader.u8()?);
        if count > 255 {
            return Err("too many symbols".into());
        }
        let mut table = Table { symbols: Box::new([Symbol::ZERO; 255]), lengths: Box::new([1; 255]) };
        table.lengths[..count].copy_from_slice(&reader.take(count)?);
        if let Some(length) = table.lengths.iter().find(|l| !(1..=8).contains(*l)) {
            return Err(format!("a symbol of {length} bytes"));
        }
        for (symbol, value) in table.symbols.iter_mut().zip(reader.u64s(count)?) {
            *symbol = Symbol::from_slice(&value.to_le_bytes());
        }
        let stored = reader.rest();
        framing.check(stored.len())?;
        Ok(Fsst { framing, table, count, stored })
    }

    /// The framing.
    pub(super) fn framing(&self) -> &Framing {
        &self.framing
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{} symbols", self.count)
    }

    /// Reads rows.
    pub(super) fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> std::result::Result<Slices, String> {
        self.framing.decode(&self.table, &self.stored, first_row, rows, selection)
    }
}
