//! The bytes of a segment file: header, blobs, footer, trailer; see docs/format.md.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow::buffer::Buffer;

use crate::checksum::checksum;
use crate::disk::{Disk, DiskFile};
use crate::{Error, Result};

/// The first bytes of a segment file.
const MAGIC: [u8; 8] = *b"STOASEGM";
/// The last bytes.
const END_MAGIC: [u8; 8] = *b"STOAENDS";
/// Version of the segment format.
pub(crate) const SEGMENT_VERSION: u32 = 1;
/// Blobs start at multiples of this.
pub(crate) const ALIGNMENT: usize = 64;
const HEADER: usize = 64;
const TRAILER: usize = 32;

/// Where a blob is. Length 0: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Blob {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) checksum: u64,
}

/// An error of the operating system about a path.
pub(crate) fn io_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

/// What a written segment file is known by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) length: u64,
    pub(crate) footer_checksum: u64,
}

/// A file of a disk as a [`Write`].
pub(crate) struct Appending(pub(crate) Box<dyn DiskFile>);

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a segment blob by blob, into a file or into memory.
pub(crate) struct SegmentWriter<W: Write> {
    path: PathBuf,
    to: W,
    position: u64,
}

impl SegmentWriter<BufWriter<Appending>> {
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.create(path).map_err(io_error(path))?;
        SegmentWriter::new(path, BufWriter::with_capacity(1 << 16, Appending(file)))
    }
}

impl<W: Write> SegmentWriter<W> {
    /// A writer that names `path` in its errors.
    pub(crate) fn new(path: &Path, to: W) -> Result<Self> {
        let mut writer = SegmentWriter { path: path.to_path_buf(), to, position: 0 };
        let mut header = MAGIC.to_vec();
        header.extend(SEGMENT_VERSION.to_le_bytes());
        header.resize(HEADER, 0);
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(io_error(&self.path))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Writes a blob, aligned. An empty one takes no place.
    pub(crate) fn blob(&mut self, bytes: &[u8]) -> Result<Blob> {
        if bytes.is_empty() {
            return Ok(Blob::default());
        }
        self.align()?;
        let offset = self.position;
        self.write(bytes)?;
        Ok(Blob { offset, length: bytes.len() as u64, checksum: checksum(bytes) })
    }

    fn align(&mut self) -> Result<()> {
        let gap = (ALIGNMENT - self.position as usize % ALIGNMENT) % ALIGNMENT;
        self.write(&[0; ALIGNMENT][..gap])
    }

    /// Writes footer and trailer, and gives back where all was written to, which is not yet synced.
    pub(crate) fn finish(mut self, footer: &[u8]) -> Result<(W, Written)> {
        self.align()?;
        self.write(footer)?;
        let footer_checksum = checksum(footer);
        let mut trailer = (footer.len() as u64).to_le_bytes().to_vec();
        trailer.extend(footer_checksum.to_le_bytes());
        trailer.extend(SEGMENT_VERSION.to_le_bytes());
        trailer.extend([0; 4]);
        trailer.extend(END_MAGIC);
        self.write(&trailer)?;
        self.to.flush().map_err(io_error(&self.path))?;
        Ok((self.to, Written { length: self.position, footer_checksum }))
    }
}

/// A mapped segment file whose header and trailer are right.
pub(crate) struct SegmentFile {
    bytes: Buffer,
    footer: (usize, usize),
}

impl SegmentFile {
    /// Checks the ends of a segment's bytes, and the footer's checksum against what is expected.
    pub(crate) fn open(path: &Path, bytes: Buffer, expected: Written) -> Result<SegmentFile> {
        let length = bytes.len() as u64;
        if length != expected.length || length < (HEADER + TRAILER) as u64 {
            return Err(corrupt(path, &format!("it has {length} bytes instead of {}", expected.length)));
        }
        let footer = check_ends(&bytes, expected).map_err(|what| corrupt(path, &what))?;
        Ok(SegmentFile { bytes, footer })
    }

    pub(crate) fn footer(&self) -> &[u8] {
        &self.bytes[self.footer.0..self.footer.1]
    }

    /// A blob, after its place and checksum are checked.
    pub(crate) fn blob(&self, blob: Blob, what: &str) -> std::result::Result<Buffer, String> {
        let wrong = || format!("{what} lies outside of the file");
        let start = usize::try_from(blob.offset).map_err(|_| wrong())?;
        let length = usize::try_from(blob.length).map_err(|_| wrong())?;
        let end = start.checked_add(length).filter(|end| *end <= self.footer.0 && start >= HEADER).ok_or_else(wrong)?;
        if !start.is_multiple_of(ALIGNMENT) {
            return Err(format!("{what} is not aligned"));
        }
        if checksum(&self.bytes[start..end]) != blob.checksum {
            return Err(format!("{what} does not match its checksum"));
        }
        Ok(self.bytes.slice_with_length(start, length))
    }
}

/// The start and end of the footer.
fn check_ends(bytes: &[u8], expected: Written) -> std::result::Result<(usize, usize), String> {
    let (header, trailer) = (&bytes[..HEADER], &bytes[bytes.len() - TRAILER..]);
    let number = |at: usize| trailer[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    if header[..8] != MAGIC || trailer[24..] != END_MAGIC {
        return Err("it is not a segment file".into());
    }
    let version = [header[8], header[9], header[10], header[11]];
    if version != SEGMENT_VERSION.to_le_bytes() || trailer[16..20] != version {
        return Err(format!("it has segment version {}, not {SEGMENT_VERSION}", u32::from_le_bytes(version)));
    }
    let end = bytes.len() - TRAILER;
    let start = usize::try_from(number(0)).ok().and_then(|length| end.checked_sub(length)).filter(|start| *start >= HEADER);
    let start = start.ok_or("its footer has a wrong length")?;
    if number(8) != expected.footer_checksum || checksum(&bytes[start..end]) != expected.footer_checksum {
        return Err("its footer does not match its checksum".into());
    }
    Ok((start, end))
}

pub(crate) fn corrupt(path: &Path, what: &str) -> Error {
    Error::Corrupt { path: path.to_path_buf(), what: what.to_string() }
}
