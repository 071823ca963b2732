//! Rows of leaves that are read while they come.
//!
//! Between a leaf and who reads are a few chunks, on their way and waiting. When they are not taken the connection takes no more, and then the
//! leaf makes no more rows; so that who reads slowly costs no memory anywhere.

use arrow::array::RecordBatch;
use stoa_exec::{CancelToken, Error, LeafRows, Result};
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::{Failure, FailureKind, Gather};

/// The rows of a chunk of a leaf. If they cannot be read that is no fault of who asked for them: the leaf is to be named.
pub(super) fn rows_of(chunk: Vec<u8>) -> std::result::Result<Vec<RecordBatch>, Failure> {
    let unreadable = |failure: Failure| Failure::new(FailureKind::Fatal, failure.message);
    Ok(read_chunk(chunk).map_err(unreadable)?.1)
}

/// Reads the rows of a fragment.
pub(super) type ReadRows<'a> = dyn FnMut(&mut Reader<'_, '_>) -> Result<()> + 'a;

/// The rows of a fragment on its leaves.
pub(super) struct Reader<'a, 'b> {
    gather: &'a mut Gather<'b>,
    cancel: &'a CancelToken,
}

impl<'a, 'b> Reader<'a, 'b> {
    pub fn new(gather: &'a mut Gather<'b>, cancel: &'a CancelToken) -> Reader<'a, 'b> {
        Reader { gather, cancel }
    }

    /// The next rows of any leaf, with its place among those of the fragment. `None`: there are no more.
    pub fn any(&mut self) -> Result<Option<(usize, Vec<RecordBatch>)>> {
        self.take(None)
    }

    fn take(&mut self, of: Option<usize>) -> Result<Option<(usize, Vec<RecordBatch>)>> {
        self.cancel.check()?;
        match self.gather.next(of) {
            Some((leaf, chunk)) => match rows_of(chunk) {
                Ok(batches) => Ok(Some((leaf, batches))),
                Err(failure) => {
                    self.gather.fail(Some(leaf), failure);
                    Err(Error::Cancelled)
                }
            },
            None if self.gather.has_failed() => Err(Error::Cancelled),
            None => Ok(None),
        }
    }
}

impl LeafRows for Reader<'_, '_> {
    fn leaves(&self) -> usize {
        self.gather.fragments()
    }

    fn next(&mut self, leaf: usize) -> Result<Option<Vec<RecordBatch>>> {
        Ok(self.take(Some(leaf))?.map(|(_, batches)| batches))
    }
}
