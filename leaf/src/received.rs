//! Rows of other fragments on their way into a query.

use std::sync::Arc;

use arrow::array::RecordBatch;
use stoa_exec::{Reservation, row_bytes};
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::leaf::Delivery;
use stoa_rpc::{ChunkSink, Failure, Result};

use crate::failure;
use crate::query::Query;

/// Rows from one sender. They are the query's once all have come.
pub(crate) struct Incoming {
    query: Arc<Query>,
    number: u32,
    batches: Vec<RecordBatch>,
    reservation: Reservation,
}

impl Incoming {
    pub fn new(query: Arc<Query>, number: u32) -> Incoming {
        let reservation = query.memory().reserve("rows from other leaves");
        Incoming { query, number, batches: vec![], reservation }
    }

    /// Takes rows that are here already.
    pub fn take(&mut self, batches: &[RecordBatch]) -> Result<()> {
        for batch in batches {
            self.reservation.grow(row_bytes(batch)).map_err(failure)?;
            self.batches.push(batch.clone());
        }
        Ok(())
    }
}

impl ChunkSink for Incoming {
    fn write(&mut self, chunk: Vec<u8>) -> Result<()> {
        if self.query.is_cancelled() {
            return Err(Failure::cancelled());
        }
        let (_, batches) = read_chunk(chunk)?;
        self.take(&batches)
    }
}

impl Delivery for Incoming {
    fn finish(&mut self) -> Result<()> {
        let reservation = std::mem::replace(&mut self.reservation, self.query.memory().reserve("rows from other leaves"));
        self.query.received(self.number, std::mem::take(&mut self.batches), reservation);
        Ok(())
    }
}
