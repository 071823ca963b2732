//! Parquet files: row groups are decoded in parallel and loaded in order.

use std::fs::File;
use std::path::Path;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use indicatif::ProgressBar;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use rayon::prelude::*;
use stoa_columnstore::TableDef;

use super::{Push, advance, match_columns};
use crate::{Error, Result};

/// Rows of a decoded batch.
const BATCH_ROWS: usize = 32 * 1024;

pub(super) fn schema(path: &Path) -> Result<SchemaRef> {
    Ok(metadata(path)?.schema().clone())
}

fn metadata(path: &Path) -> Result<ArrowReaderMetadata> {
    let file = File::open(path).map_err(Error::file(path))?;
    ArrowReaderMetadata::load(&file, ArrowReaderOptions::default()).map_err(|e| broken(path, &e))
}

fn broken(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Load(format!("{}: {error}", path.display()))
}

pub(super) fn read(pool: &rayon::ThreadPool, path: &Path, def: &TableDef, bar: &ProgressBar, push: &mut Push<'_>) -> Result<()> {
    let metadata = metadata(path)?;
    let names: Vec<String> = metadata.schema().fields().iter().map(|field| field.name().clone()).collect();
    let columns = match_columns(path, def, &names)?;
    let groups: Vec<usize> = (0..metadata.metadata().num_row_groups()).collect();
    for chunk in groups.chunks(pool.current_num_threads()) {
        let decoded: Vec<Vec<RecordBatch>> =
            pool.install(|| chunk.par_iter().map(|group| read_group(path, &metadata, *group)).collect::<Result<_>>())?;
        for batch in decoded.into_iter().flatten() {
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let arrays = columns.iter().map(|i| batch.column(*i).clone()).collect();
            let fields: Vec<_> = columns.iter().map(|i| batch.schema().field(*i).clone()).collect();
            let schema = std::sync::Arc::new(arrow::datatypes::Schema::new(fields));
            push(&RecordBatch::try_new_with_options(schema, arrays, &options).map_err(|e| broken(path, &e))?)?;
        }
        advance(bar, chunk.iter().map(|g| metadata.metadata().row_group(*g).compressed_size().max(0) as u64).sum());
    }
    Ok(())
}

fn read_group(path: &Path, metadata: &ArrowReaderMetadata, group: usize) -> Result<Vec<RecordBatch>> {
    // Opened anew: clones of a file share its position, and another thread would move it between a seek and its read.
    let file = File::open(path).map_err(Error::file(path))?;
    ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
        .with_row_groups(vec![group])
        .with_batch_size(BATCH_ROWS)
        .build()
        .map_err(|e| broken(path, &e))?
        .collect::<std::result::Result<_, _>>()
        .map_err(|e| broken(path, &e))
}
