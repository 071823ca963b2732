//! Where rows of a load came from, on the wire.

use stoa_schema::common_capnp::row_origin;

/// The longest name of a file that goes along with rows, in bytes; one that is longer is cut.
const MAX_FILE: usize = 4096;

/// Where rows of a load came from, as messages say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowOrigin {
    /// The file; empty: of none.
    pub file: String,
    /// They are lines of it, not rows.
    pub lines: bool,
    /// The number of the first.
    pub first: u64,
    /// The number of each row, counted from `first`, ascending; empty: they follow each other.
    pub numbers: Vec<u32>,
}

/// Writes it.
pub(crate) fn write(origin: &RowOrigin, mut to: row_origin::Builder<'_>) -> capnp::Result<()> {
    to.set_file(&origin.file[..origin.file.floor_char_boundary(MAX_FILE)]);
    to.set_lines(origin.lines);
    to.set_first(origin.first);
    to.set_numbers(&origin.numbers[..])
}

fn read(from: row_origin::Reader<'_>) -> capnp::Result<RowOrigin> {
    let file = from.get_file()?;
    if file.len() > MAX_FILE {
        return Err(capnp::Error::failed(format!("the name of a file of {} bytes: {MAX_FILE} are the most", file.len())));
    }
    let numbers = from.get_numbers()?.iter().collect();
    Ok(RowOrigin { file: file.to_string()?, lines: from.get_lines(), first: from.get_first(), numbers })
}

/// Reads it if there is one.
pub(crate) fn sent<'a>(
    there: bool,
    get: impl FnOnce() -> capnp::Result<row_origin::Reader<'a>>,
) -> capnp::Result<Option<RowOrigin>> {
    if there { get().and_then(read).map(Some) } else { Ok(None) }
}
