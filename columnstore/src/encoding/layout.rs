//! Reading and writing the sections of a blob: little-endian numbers, slices without a copy, nothing past the end.

use arrow::buffer::Buffer;

use super::Encoding;

/// A cursor over a blob. Each call checks that the bytes are there.
pub(super) struct Reader {
    buffer: Buffer,
    at: usize,
}

impl Reader {
    /// From the first byte.
    pub(super) fn new(buffer: Buffer) -> Self {
        Reader { buffer, at: 0 }
    }

    /// The next bytes, without a copy.
    pub(super) fn take(&mut self, bytes: usize) -> Result<Buffer, String> {
        let left = self.buffer.len() - self.at;
        if bytes > left {
            return Err(format!("{bytes} bytes expected at {} of {}", self.at, self.buffer.len()));
        }
        let slice = self.buffer.slice_with_length(self.at, bytes);
        self.at += bytes;
        Ok(slice)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> Buffer {
        let slice = self.buffer.slice(self.at);
        self.at = self.buffer.len();
        slice
    }

    /// Skips to a multiple of `alignment`.
    pub(super) fn align(&mut self, alignment: usize) -> Result<(), String> {
        self.take(self.at.next_multiple_of(alignment) - self.at).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.take(N)?;
        bytes.as_slice().try_into().map_err(|_| "a number is cut off".to_string())
    }

    /// A byte.
    pub(super) fn u8(&mut self) -> Result<u8, String> {
        self.array::<1>().map(|b| b[0])
    }

    /// A number of 32 bits.
    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number of 64 bits.
    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A number of 128 bits.
    pub(super) fn i128(&mut self) -> Result<i128, String> {
        self.array().map(i128::from_le_bytes)
    }

    /// Numbers of 32 bits.
    pub(super) fn u32s(&mut self, count: usize) -> Result<Vec<u32>, String> {
        let bytes = self.take(count.checked_mul(4).ok_or("too many numbers")?)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect())
    }

    /// Numbers of 64 bits.
    pub(super) fn u64s(&mut self, count: usize) -> Result<Vec<u64>, String> {
        let bytes = self.take(count.checked_mul(8).ok_or("too many numbers")?)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect())
    }

    /// A blob within the blob: its encoding, its rows and its bytes.
    pub(super) fn child(&mut self) -> Result<(Encoding, usize, Buffer), String> {
        let tag = self.u8()?;
        let encoding = Encoding::from_tag(tag).ok_or_else(|| format!("unknown encoding {tag}"))?;
        let (rows, bytes) = (self.u32()? as usize, self.u32()? as usize);
        self.align(16)?;
        Ok((encoding, rows, self.take(bytes)?))
    }
}

/// Fills up to a multiple of `alignment`.
pub(super) fn align(out: &mut Vec<u8>, alignment: usize) {
    out.resize(out.len().next_multiple_of(alignment), 0);
}

/// Writes a blob within the blob.
pub(super) fn child(out: &mut Vec<u8>, encoding: Encoding, rows: usize, bytes: &[u8]) -> crate::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| crate::Error::Invalid("a column of more than 4 GiB a segment".into()))?;
    out.push(encoding.tag());
    out.extend((rows as u32).to_le_bytes());
    out.extend(length.to_le_bytes());
    align(out, 16);
    out.extend_from_slice(bytes);
    Ok(())
}
