//! A fragment whose rows leave while it runs.

use std::time::Instant;

use arrow::array::RecordBatch;
use rayon::ThreadPool;
use stoa_plan::Query;

use crate::flow::Flow;
use crate::profile::{Profile, Progress};
use crate::query::{Storage, guarded, output_batches, output_schema, with_schema};
use crate::remote::fragment_executor;
use crate::{QueryContext, Received, Result};

/// Runs a fragment as [`crate::execute_fragment`] does, on the threads of `pool`, and hands its rows to `each` on the calling thread:
/// while it runs, if nothing in it must see all of them first. Another thread may watch `progress`.
///
/// # Errors
/// As [`crate::execute`], and those of `each`.
pub fn stream_fragment(
    query: &Query,
    storage: &dyn Storage,
    received: &Received,
    ctx: &QueryContext,
    progress: &Progress,
    pool: &ThreadPool,
    each: &mut dyn FnMut(&[RecordBatch]) -> Result<()>,
) -> Result<Profile> {
    guarded(|| {
        let started = Instant::now();
        let exec = pool.install(|| fragment_executor(query, storage, received, ctx, progress))?;
        // Whether a NULL comes is only known at the end.
        let schema = output_schema(&query.output, |_| true);
        Flow::new(&exec, Some(pool)).fragment(&query.root, &mut |rows| {
            let batches = pool.install(|| with_schema(&schema, output_batches(&query.output, &rows, &ctx.cancel)?))?;
            each(&batches)?;
            Ok(true)
        })?;
        Ok(exec.recorder.finish(started.elapsed(), ctx.memory.peak()))
    })
}
