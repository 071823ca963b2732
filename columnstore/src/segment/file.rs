//! The bytes of a segment file: header, blobs, footer, trailer; see docs/format.md.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;

use arrow::buffer::Buffer;
use memmap2::Mmap;

use crate::checksum::checksum;
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

/// Writes a segment file blob by blob.
pub(crate) struct SegmentWriter {
    path: PathBuf,
    file: BufWriter<File>,
    position: u64,
}

/// What a written segment file is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) length: u64,
    pub(crate) footer_checksum: u64,
}

impl SegmentWriter {
    pub(crate) fn create(path: &Path) -> Result<SegmentWriter> {
        let file = File::options().write(true).create_new(true).open(path).map_err(io_error(path))?;
        let mut writer = SegmentWriter { path: path.to_path_buf(), file: BufWriter::with_capacity(1 << 16, file), position: 0 };
        let mut header = MAGIC.to_vec();
        header.extend(SEGMENT_VERSION.to_le_bytes());
        header.resize(HEADER, 0);
        writer.write(&header)?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(io_error(&self.path))?;
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

    /// Writes footer and trailer. The file is not yet synced to disk.
    pub(crate) fn finish(mut self, footer: &[u8]) -> Result<(File, Written)> {
        self.align()?;
        self.write(footer)?;
        let footer_checksum = checksum(footer);
        let mut trailer = (footer.len() as u64).to_le_bytes().to_vec();
        trailer.extend(footer_checksum.to_le_bytes());
        trailer.extend(SEGMENT_VERSION.to_le_bytes());
        trailer.extend([0; 4]);
        trailer.extend(END_MAGIC);
        self.write(&trailer)?;
        let SegmentWriter { path, file, position } = self;
        let file = file.into_inner().map_err(|e| io_error(&path)(e.into_error()))?;
        Ok((file, Written { length: position, footer_checksum }))
    }
}

/// A mapped segment file whose header and trailer are right.
pub(crate) struct SegmentFile {
    bytes: Buffer,
    footer: (usize, usize),
}

impl SegmentFile {
    /// Maps the file and checks its ends and the footer's checksum against what the manifest expects.
    pub(crate) fn open(path: &Path, expected: Written) -> Result<SegmentFile> {
        let file = File::open(path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => corrupt(path, "the file is missing"),
            _ => io_error(path)(e),
        })?;
        let length = file.metadata().map_err(io_error(path))?.len();
        if length != expected.length || length < (HEADER + TRAILER) as u64 {
            return Err(corrupt(path, &format!("it has {length} bytes instead of {}", expected.length)));
        }
        let bytes = map(&file).map_err(io_error(path))?;
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

fn map(file: &File) -> std::io::Result<Buffer> {
    // SAFETY: segment files are immutable: Stoa creates each once, never writes to it again, and holds the directory's lock, so
    // the mapped bytes do not change. (Another program that truncates the file can stop this process, not corrupt it.)
    let map = unsafe { Mmap::map(file)? };
    let length = map.len();
    let Some(start) = NonNull::new(map.as_ptr().cast_mut()) else {
        return Ok(Buffer::from_vec(Vec::<u8>::new()));
    };
    // SAFETY: `start` is valid for reads of `length` bytes as long as the map lives, which the buffer keeps alive.
    Ok(unsafe { Buffer::from_custom_allocation(start, length, Arc::new(map)) })
}
