//! Rows on their way into a partition.

use std::sync::Arc;

use stoa_columnstore::{Origin, RowNames, TableWriter};
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::leaf::Load;
use stoa_rpc::{Failure, FailureKind, Result, RowOrigin};

use crate::storage_failure;
use crate::transaction::Part;

/// A load into one partition. Dropped before its commit, nothing of it stays.
pub(crate) struct PartitionLoad {
    /// `None` once it is committed, or given to its transaction.
    writer: Option<TableWriter>,
    /// Of the transaction that commits it; `None`: it commits by itself.
    part: Option<Arc<Part>>,
    /// Where the next rows come from, if they follow those before.
    next: Option<Origin>,
    pool: Arc<rayon::ThreadPool>,
}

impl PartitionLoad {
    pub fn new(writer: TableWriter, part: Option<Arc<Part>>, pool: Arc<rayon::ThreadPool>) -> PartitionLoad {
        PartitionLoad { writer: Some(writer), part, next: None, pool }
    }
}

fn origin(sent: &RowOrigin) -> Origin {
    let unit = if sent.lines { RowNames::LINES } else { RowNames::ROWS };
    let all = Origin::new(&sent.file.as_str().into(), RowNames { unit, first: sent.first });
    // Other partitions have the rows between these.
    if sent.numbers.is_empty() { all } else { all.picked(&sent.numbers) }
}

/// The load is over.
fn over() -> Failure {
    Failure::new(FailureKind::Fatal, "this load has ended")
}

impl Load for PartitionLoad {
    fn write(&mut self, chunk: Vec<u8>, sent: Option<RowOrigin>) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(over)?;
        let (_, batches) = read_chunk(chunk)?;
        let mut next = sent.as_ref().map(origin).or_else(|| self.next.take());
        let push = || {
            batches.iter().try_for_each(|batch| {
                writer.table().def.check_rows(batch)?;
                let after = next.as_ref().map(|next| next.after(batch.num_rows()));
                writer.push_from(batch, std::mem::replace(&mut next, after))
            })
        };
        self.pool.install(push).map_err(|e| storage_failure(&e))?;
        self.next = next;
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        if let Some(part) = &self.part {
            let writer = self.writer.take().ok_or_else(over)?;
            return self.pool.install(|| part.attach(writer));
        }
        let writer = self.writer.as_mut().ok_or_else(over)?;
        self.pool.install(|| writer.prepare()).map_err(|e| storage_failure(&e))
    }

    fn commit(&mut self) -> Result<()> {
        let writer = self.writer.take().ok_or_else(over)?;
        writer.commit().map(drop).map_err(|e| storage_failure(&e))
    }
}
