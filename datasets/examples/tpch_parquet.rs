//! Writes the TPC-H tables as Parquet files: `cargo run --release -p stoa-datasets --example tpch_parquet -- SCALE FOLDER`.
//!
//! Other engines and `stoa load` read the same files, so that loads can be compared.

use std::fs::{File, create_dir_all};
use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use stoa_datasets::tpch::TABLES;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [scale, folder] = arguments.as_slice() else { return Err("usage: tpch_parquet SCALE FOLDER".into()) };
    let (scale, folder): (f64, &Path) = (scale.parse()?, Path::new(folder));
    create_dir_all(folder)?;
    for table in &TABLES {
        let file = File::create(folder.join(format!("{}.parquet", table.name)))?;
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_max_row_group_row_count(Some(1 << 18)).build();
        let mut writer = None;
        let parts = table.parts(scale);
        for part in 1..=parts {
            for batch in table.generate(scale, part, parts) {
                let batch = batch?;
                if writer.is_none() {
                    writer = Some(ArrowWriter::try_new(file.try_clone()?, batch.schema(), Some(properties.clone()))?);
                }
                if let Some(writer) = &mut writer {
                    writer.write(&batch)?;
                }
            }
        }
        if let Some(writer) = writer {
            writer.close()?;
        }
        println!("{}", table.name);
    }
    Ok(())
}
