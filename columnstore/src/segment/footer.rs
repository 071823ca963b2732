//! The footer of a segment: what each column is, where its blobs are, and its statistics.

use arrow::datatypes::DataType;
use capnp::message::{Builder, ReaderOptions};
use stoa_schema::segment_capnp::{blob, bounds, column, segment_footer};

use crate::Datum;
use crate::encoding::Encoding;
use crate::segment::file::Blob;
use crate::sketch::Sketch;
use crate::types::{read_type, write_type};
use crate::zone::Zone;

/// What the footer says about one column.
#[derive(Clone, Debug)]
pub(crate) struct ColumnFooter {
    pub(crate) ty: DataType,
    pub(crate) encoding: Encoding,
    pub(crate) data: Blob,
    pub(crate) block_zones: Blob,
    pub(crate) bitmap_index: Blob,
    pub(crate) zone: Zone,
    pub(crate) distinct: u64,
    pub(crate) sketch: Sketch,
    pub(crate) raw_bytes: u64,
}

/// The footer's bytes.
pub(crate) fn encode_footer(rows: usize, columns: &[ColumnFooter]) -> Vec<u8> {
    let mut message = Builder::new_default();
    let mut footer = message.init_root::<segment_footer::Builder<'_>>();
    footer.set_rows(rows as u64);
    let mut list = footer.init_columns(columns.len() as u32);
    for (i, from) in columns.iter().enumerate() {
        let mut to = list.reborrow().get(i as u32);
        write_type(&from.ty, to.reborrow().init_type());
        to.set_encoding(from.encoding as u8);
        write_blob(from.data, to.reborrow().init_data());
        write_blob(from.block_zones, to.reborrow().init_block_zones());
        write_blob(from.bitmap_index, to.reborrow().init_bitmap_index());
        to.set_nulls(from.zone.nulls);
        write_bounds(&from.zone, to.reborrow().init_bounds());
        to.set_distinct(from.distinct);
        to.set_sketch(&from.sketch.to_bytes());
        to.set_raw_bytes(from.raw_bytes);
    }
    capnp::serialize::write_message_to_words(&message)
}

fn write_blob(from: Blob, mut to: blob::Builder<'_>) {
    to.set_offset(from.offset);
    to.set_length(from.length);
    to.set_checksum(from.checksum);
}

fn write_bounds(zone: &Zone, mut to: bounds::Builder<'_>) {
    match (&zone.min, &zone.max) {
        (Some(Datum::Int(min)), Some(Datum::Int(max))) => {
            let mut integer = to.init_integer();
            integer.set_min_low(*min as u64);
            integer.set_min_high((min >> 64) as i64);
            integer.set_max_low(*max as u64);
            integer.set_max_high((max >> 64) as i64);
        }
        (Some(Datum::Float(min)), Some(Datum::Float(max))) => {
            let mut float = to.init_float();
            float.set_min(*min);
            float.set_max(*max);
        }
        (Some(Datum::Bytes(min)), max) => {
            let mut bytes = to.init_bytes();
            bytes.set_min(min);
            bytes.set_min_exact(zone.exact);
            bytes.set_max_exact(zone.exact);
            match max {
                Some(Datum::Bytes(max)) => bytes.set_max(max),
                _ => bytes.set_max_unbounded(true),
            }
        }
        _ => to.set_none(()),
    }
}

/// Reads a footer; `Err` says what is wrong with it.
pub(crate) fn decode_footer(bytes: &[u8]) -> Result<(u64, Vec<ColumnFooter>), String> {
    let damaged = |e: capnp::Error| format!("its footer cannot be read ({e})");
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(bytes.len().saturating_mul(2)));
    let message = capnp::serialize::read_message(bytes, options).map_err(damaged)?;
    let footer = message.get_root::<segment_footer::Reader<'_>>().map_err(damaged)?;
    let rows = footer.get_rows();
    let columns = footer.get_columns().map_err(damaged)?;
    let read = columns.iter().map(|c| read_column(c, rows).map_err(damaged)?);
    Ok((rows, read.collect::<Result<_, String>>()?))
}

/// The outer error is the message's, the inner one the content's.
fn read_column(from: column::Reader<'_>, rows: u64) -> capnp::Result<Result<ColumnFooter, String>> {
    let Some(encoding) = Encoding::from_tag(from.get_encoding()) else {
        return Ok(Err(format!("unknown encoding {}", from.get_encoding())));
    };
    let Some(sketch) = Sketch::from_bytes(from.get_sketch()?) else {
        return Ok(Err("its distinct-count sketch is wrong".into()));
    };
    let ty = match read_type(from.get_type()?) {
        Ok(ty) => ty,
        Err(what) => return Ok(Err(what)),
    };
    let nulls = from.get_nulls();
    if nulls > rows {
        return Ok(Err(format!("{nulls} NULLs in {rows} rows")));
    }
    Ok(Ok(ColumnFooter {
        ty,
        encoding,
        data: read_blob(from.get_data()?),
        block_zones: read_blob(from.get_block_zones()?),
        bitmap_index: read_blob(from.get_bitmap_index()?),
        zone: read_bounds(from.get_bounds()?, nulls, rows)?,
        distinct: from.get_distinct(),
        sketch,
        raw_bytes: from.get_raw_bytes(),
    }))
}

fn read_blob(from: blob::Reader<'_>) -> Blob {
    Blob { offset: from.get_offset(), length: from.get_length(), checksum: from.get_checksum() }
}

fn read_bounds(from: bounds::Reader<'_>, nulls: u64, rows: u64) -> capnp::Result<Zone> {
    let joined = |low: u64, high: i64| Datum::Int(i128::from(high) << 64 | i128::from(low));
    let (min, max, exact) = match from.which()? {
        bounds::None(()) => (None, None, nulls == rows),
        bounds::Integer(i) => {
            let min = joined(i.get_min_low(), i.get_min_high());
            (Some(min), Some(joined(i.get_max_low(), i.get_max_high())), true)
        }
        bounds::Float(f) => (Some(Datum::Float(f.get_min())), Some(Datum::Float(f.get_max())), true),
        bounds::Bytes(b) => {
            let max = if b.get_max_unbounded() { None } else { Some(Datum::Bytes(b.get_max()?.to_vec())) };
            (Some(Datum::Bytes(b.get_min()?.to_vec())), max, b.get_min_exact() && b.get_max_exact())
        }
    };
    Ok(Zone { min, max, exact, nulls, rows })
}
