//! Rows on their way into a partition.

use std::sync::Arc;

use stoa_columnstore::TableWriter;
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::leaf::Load;
use stoa_rpc::{Failure, FailureKind, Result};

use crate::storage_failure;
use crate::transaction::Part;

/// A load into one partition. Dropped before its commit, nothing of it stays.
pub(crate) struct PartitionLoad {
    /// `None` once it is committed, or given to its transaction.
    writer: Option<TableWriter>,
    /// Of the transaction that commits it; `None`: it commits by itself.
    part: Option<Arc<Part>>,
    pool: Arc<rayon::ThreadPool>,
}

impl PartitionLoad {
    pub fn new(mut writer: TableWriter, part: Option<Arc<Part>>, pool: Arc<rayon::ThreadPool>) -> PartitionLoad {
        // Other partitions have the rows between these.
        writer.forget_numbers();
        PartitionLoad { writer: Some(writer), part, pool }
    }
}

/// The load is over.
fn over() -> Failure {
    Failure::new(FailureKind::Fatal, "this load has ended")
}

impl Load for PartitionLoad {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        let writer = self.writer.as_mut().ok_or_else(over)?;
        let (_, batches) = read_chunk(chunk)?;
        let push = || {
            batches.iter().try_for_each(|batch| {
                writer.table().def.check_rows(batch)?;
                writer.push(batch)
            })
        };
        self.pool.install(push).map_err(|e| storage_failure(&e))
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
