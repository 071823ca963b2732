//! Strings in blocks of 1024 rows, each block compressed by itself with LZ4 or zstd: for bulky text that a symbol table does not shrink
//! well. Reading one row decompresses its block.
//!
//! ```text
//! lz4, zstd = text-framing bytes        a group is a block of 1024 rows: one LZ4 block without size prefix, or one zstd frame
//! ```

use arrow::buffer::Buffer;

use super::layout::Reader;
use super::text::{self, Framing, Slices, Store};
use super::width::PACKED;
use crate::{Error, Result};

/// zstd's level: beyond it, sizes of text of 30 KB a block hardly fall.
const LEVEL: i32 = 3;

/// The compressor of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// LZ4 blocks.
    Lz4,
    /// zstd frames.
    Zstd,
}

/// A block-compressed column.
#[derive(Debug)]
pub(super) struct Compressed {
    codec: Codec,
    framing: Framing,
    stored: Buffer,
}

/// Compresses one block.
pub(super) fn block(codec: Codec, values: &[&[u8]]) -> Result<Vec<u8>> {
    let bytes = values.concat();
    match codec {
        Codec::Lz4 => Ok(lz4_flex::block::compress(&bytes)),
        Codec::Zstd => zstd::bulk::compress(&bytes, LEVEL).map_err(|e| Error::Invalid(format!("zstd: {e}"))),
    }
}

/// Writes the payload.
pub(super) fn write(codec: Codec, values: &[&[u8]], out: &mut Vec<u8>) -> Result<()> {
    let (mut bytes, mut starts) = (Vec::new(), vec![0u32]);
    for values in values.chunks(PACKED) {
        bytes.extend(block(codec, values)?);
        starts.push(u32::try_from(bytes.len()).map_err(|_| Error::Invalid("a column of more than 4 GiB a segment".into()))?);
    }
    let lengths: Vec<u64> = values.iter().map(|v| v.len() as u64).collect();
    text::write(&lengths, PACKED, &starts, out);
    out.extend(bytes);
    Ok(())
}

impl Store for Codec {
    fn decode(&self, stored: &[u8], length: usize, out: &mut Vec<u8>) -> std::result::Result<(), String> {
        let at = out.len();
        out.try_reserve(length).map_err(|e| e.to_string())?;
        match self {
            Codec::Lz4 => {
                if length / 256 > stored.len() {
                    return Err("strings decode to another length".into());
                }
                out.resize(at + length, 0);
                let decoded = lz4_flex::block::decompress_into(stored, &mut out[at..]).map_err(|e| e.to_string())?;
                out.truncate(at + decoded);
            }
            Codec::Zstd => {
                let mut decoded = Vec::new();
                decoded.try_reserve_exact(length).map_err(|e| e.to_string())?;
                zstd::bulk::Decompressor::new()
                    .and_then(|mut zstd| zstd.decompress_to_buffer(stored, &mut decoded))
                    .map_err(|e| format!("zstd: {e}"))?;
                out.extend(decoded);
            }
        }
        Ok(())
    }

    fn streams(&self) -> bool {
        false
    }
}

impl Compressed {
    /// Reads and checks the payload.
    pub(super) fn open(codec: Codec, reader: &mut Reader, rows: usize) -> std::result::Result<Self, String> {
        let framing = Framing::open(reader, rows)?;
        let stored = reader.rest();
        framing.check(stored.len())?;
        Ok(Compressed { codec, framing, stored })
    }

    /// The framing.
    pub(super) fn framing(&self) -> &Framing {
        &self.framing
    }

    /// Reads rows.
    pub(super) fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> std::result::Result<Slices, String> {
        self.framing.decode(&self.codec, &self.stored, first_row, rows, selection)
    }
}
