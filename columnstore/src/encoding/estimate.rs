//! Which encoding a column gets: every candidate's size, known exactly for numbers and from samples for strings, times a penalty for
//! what reading costs.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use hashbrown::HashSet;

use super::compressed::{self, Codec};
use super::condition::Kind;
use super::nulls::Nulls;
use super::residual::Residuals;
use super::values::{Keys, keys, residuals, strings};
use super::width::PACKED;
use super::{Encoded, Encoding, bitpacked, constant, delta, dictionary, float, fsst, packed, plain, runlength};
use crate::{Error, Result};

/// A dictionary has no more entries.
const DICTIONARY_LIMIT: usize = 1 << 16;

/// Fewer bytes of strings in a segment, or strings of less than 32 bytes, are not worth slower reading.
const BULKY: usize = 16 << 20;

/// What a byte of an encoding weighs against a byte of bit-packing: how much smaller it must be before its slower reading pays.
fn weight(encoding: Encoding) -> f64 {
    match encoding {
        Encoding::Plain => 0.95,
        Encoding::Constant | Encoding::BitPacked | Encoding::Fsst => 1.0,
        Encoding::Dictionary => 1.2,
        Encoding::ScaledFloat => 1.1,
        // A step at a time, and no row without those before it: for keys that are all but consecutive.
        Encoding::Delta => 6.0,
        Encoding::RunLength => 1.5,
        // One row costs a block.
        Encoding::Lz4 | Encoding::Zstd => 1.5,
    }
}

/// A blob: NULLs and payload.
fn blob(array: &ArrayRef, encoding: Encoding, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<Encoded> {
    let mut bytes = Vec::new();
    Nulls::write(array.nulls(), &mut bytes);
    write(&mut bytes)?;
    Ok(Encoded { encoding, bytes })
}

fn kind_of(array: &ArrayRef) -> Result<Kind> {
    let rows = array.len();
    if rows == 0 || rows > 1 << 20 {
        return Err(Error::Invalid(format!("a segment of {rows} rows")));
    }
    Kind::of(array.data_type()).ok_or_else(|| Error::Invalid(format!("a column cannot be of type {}", array.data_type())))
}

/// Encodes with the best encoding.
pub(super) fn encode(array: &ArrayRef) -> Result<Encoded> {
    let kind = kind_of(array)?;
    if array.null_count() == array.len() {
        return blob(array, Encoding::Constant, |out| constant::write(array, 0, out));
    }
    let encoded = match kind {
        Kind::Bool => None,
        Kind::Int { .. } => integers(array)?,
        Kind::Float32 | Kind::Float64 => floats(array, kind)?,
        Kind::Utf8 | Kind::Binary => texts(array)?,
    };
    match encoded {
        Some(encoded) => Ok(encoded),
        None => match encode_as(Encoding::Constant, array)? {
            Some(encoded) => Ok(encoded),
            None => blob(array, Encoding::Plain, |out| plain::write(array, kind, out)),
        },
    }
}

/// Encodes with the given encoding; `None` if it does not fit the column.
pub(super) fn encode_as(encoding: Encoding, array: &ArrayRef) -> Result<Option<Encoded>> {
    let kind = kind_of(array)?;
    let fixed = !matches!(kind, Kind::Bool | Kind::Utf8 | Kind::Binary);
    match encoding {
        Encoding::Plain => blob(array, encoding, |out| plain::write(array, kind, out)).map(Some),
        Encoding::Constant => {
            let keys = keys(array)?;
            if runlength::ends(&keys).len() != 1 {
                return Ok(None);
            }
            let row = array.nulls().and_then(|n| n.valid_indices().next()).unwrap_or(0);
            blob(array, encoding, |out| constant::write(array, row, out)).map(Some)
        }
        Encoding::RunLength if fixed => {
            let ends = runlength::ends(&keys(array)?);
            let entries = runlength::encode_entries(array, &ends)?;
            blob(array, encoding, |out| runlength::write(&entries, &ends, out)).map(Some)
        }
        Encoding::Dictionary if kind != Kind::Bool => {
            let Some(distinct) = dictionary::distinct(&keys(array)?, DICTIONARY_LIMIT) else { return Ok(None) };
            let entries = dictionary::encode_entries(array, &distinct.rows)?;
            blob(array, encoding, |out| dictionary::write(&entries, &distinct, out)).map(Some)
        }
        Encoding::BitPacked => residuals(array).map(|r| bit_packed(array, &r)).transpose(),
        Encoding::Delta => {
            let Some(residuals) = residuals(array) else { return Ok(None) };
            let Some(steps) = delta::steps(&residuals) else { return Ok(None) };
            blob(array, encoding, |out| {
                delta::write(&residuals, &steps, out);
                Ok(())
            })
            .map(Some)
        }
        Encoding::ScaledFloat => scaled(array, kind)?.map(|s| scaled_float(array, &s)).transpose(),
        Encoding::Fsst => {
            let Some(values) = strings(array) else { return Ok(None) };
            blob(array, encoding, |out| fsst::write(&values, &fsst::train(&values), out)).map(Some)
        }
        Encoding::Lz4 | Encoding::Zstd => {
            let Some(values) = strings(array) else { return Ok(None) };
            let codec = if encoding == Encoding::Lz4 { Codec::Lz4 } else { Codec::Zstd };
            blob(array, encoding, |out| compressed::write(codec, &values, out)).map(Some)
        }
        Encoding::RunLength | Encoding::Dictionary => Ok(None),
    }
}

fn bit_packed(array: &ArrayRef, residuals: &Residuals) -> Result<Encoded> {
    blob(array, Encoding::BitPacked, |out| {
        bitpacked::write(residuals, out);
        Ok(())
    })
}

fn scaled(array: &ArrayRef, kind: Kind) -> Result<Option<float::Scaled>> {
    if kind != Kind::Float64 {
        return Ok(None);
    }
    let floats = array.as_primitive::<Float64Type>();
    let mut last = floats.iter().flatten().next().unwrap_or(0.0);
    let values: Vec<f64> = floats
        .iter()
        .map(|value| {
            last = value.unwrap_or(last);
            last
        })
        .collect();
    Ok(float::scale(&values))
}

fn scaled_float(array: &ArrayRef, scaled: &float::Scaled) -> Result<Encoded> {
    blob(array, Encoding::ScaledFloat, |out| {
        float::write(scaled, out);
        Ok(())
    })
}

/// Entries of another encoding: small, decoded when the column is opened.
pub(super) fn encode_entries(array: &ArrayRef) -> Result<Encoded> {
    let kind = kind_of(array)?;
    let without_nulls = |encoding, write: &dyn Fn(&mut Vec<u8>) -> Result<()>| {
        let mut bytes = vec![0];
        write(&mut bytes)?;
        Ok::<_, Error>(Encoded { encoding, bytes })
    };
    let plain = without_nulls(Encoding::Plain, &|out| plain::write(array, kind, out))?;
    let other = match kind {
        Kind::Int { .. } => residuals(array).map(|r| {
            without_nulls(Encoding::BitPacked, &|out| {
                bitpacked::write(&r, out);
                Ok(())
            })
        }),
        Kind::Utf8 | Kind::Binary if plain.bytes.len() > 16_384 => {
            strings(array).map(|v| without_nulls(Encoding::Fsst, &|out| fsst::write(&v, &fsst::train(&v), out)))
        }
        _ => None,
    };
    Ok(other.transpose()?.filter(|other| other.bytes.len() * 10 < plain.bytes.len() * 8).unwrap_or(plain))
}

/// Whether a sample looks as if there were few distinct values.
fn repeats<T: Copy + Eq + std::hash::Hash>(values: &[T]) -> bool {
    let step = (values.len() / 4096).max(1);
    let sample: HashSet<T> = values.iter().step_by(step).copied().collect();
    sample.len() * 5 <= values.len().div_ceil(step) * 3
}

fn few(keys: &Keys<'_>) -> bool {
    match keys {
        Keys::Narrow(values) => repeats(values),
        Keys::Wide(values) => repeats(values),
        Keys::Bytes(values) => repeats(values),
    }
}

/// A candidate: its encoding, its size, and how to write it.
struct Candidates {
    best: Option<(f64, Encoding)>,
}

impl Candidates {
    fn offer(&mut self, encoding: Encoding, bytes: usize) {
        let score = bytes as f64 * weight(encoding);
        if self.best.is_none_or(|(best, _)| score < best) {
            self.best = Some((score, encoding));
        }
    }

    fn best(&self) -> Option<Encoding> {
        self.best.map(|(_, encoding)| encoding)
    }
}

/// Run-length and dictionary for any fixed-width type, offered if they may pay; what was built on the way is used.
fn by_value(array: &ArrayRef, keys: &Keys<'_>, rival: usize, candidates: &mut Candidates) -> Result<[Option<Encoded>; 2]> {
    let ends = runlength::ends(keys);
    let mut built = [None, None];
    if ends.len() * 8 <= array.len() {
        let entries = runlength::encode_entries(array, &ends)?;
        candidates.offer(Encoding::RunLength, runlength::size(&entries, &ends));
        if candidates.best() == Some(Encoding::RunLength) {
            built[0] = Some(blob(array, Encoding::RunLength, |out| runlength::write(&entries, &ends, out))?);
        }
    }
    if rival > array.len()
        && few(keys)
        && let Some(distinct) = dictionary::distinct(keys, DICTIONARY_LIMIT.min(array.len() / 2))
    {
        let entries = dictionary::encode_entries(array, &distinct.rows)?;
        candidates.offer(Encoding::Dictionary, dictionary::size(&entries, &distinct));
        if candidates.best() == Some(Encoding::Dictionary) {
            built[1] = Some(blob(array, Encoding::Dictionary, |out| dictionary::write(&entries, &distinct, out))?);
        }
    }
    Ok(built)
}

fn integers(array: &ArrayRef) -> Result<Option<Encoded>> {
    let mut candidates = Candidates { best: None };
    let kind = kind_of(array)?;
    let Kind::Int { bytes, .. } = kind else { return Ok(None) };
    candidates.offer(Encoding::Plain, bytes * array.len());
    let Some(mut residuals) = residuals(array) else {
        let [runs, dictionary] = by_value(array, &keys(array)?, bytes * array.len(), &mut candidates)?;
        return Ok(pick(&candidates, runs, dictionary));
    };
    if residuals.values.iter().all(|v| *v == 0) {
        return encode_as(Encoding::Constant, array);
    }
    let packed = bitpacked::size(&residuals);
    candidates.offer(Encoding::BitPacked, packed);
    let steps = delta::steps(&residuals);
    if let Some(steps) = &steps {
        candidates.offer(Encoding::Delta, delta::size(steps));
    }
    let keys = Keys::Narrow(std::mem::take(&mut residuals.values));
    let [runs, dictionary] = by_value(array, &keys, packed, &mut candidates)?;
    if let Keys::Narrow(values) = keys {
        residuals.values = values;
    }
    match (candidates.best(), steps) {
        (Some(Encoding::BitPacked), _) => bit_packed(array, &residuals).map(Some),
        (Some(Encoding::Delta), Some(steps)) => blob(array, Encoding::Delta, |out| {
            delta::write(&residuals, &steps, out);
            Ok(())
        })
        .map(Some),
        _ => Ok(pick(&candidates, runs, dictionary)),
    }
}

fn pick(candidates: &Candidates, runs: Option<Encoded>, dictionary: Option<Encoded>) -> Option<Encoded> {
    match candidates.best() {
        Some(Encoding::RunLength) => runs,
        Some(Encoding::Dictionary) => dictionary,
        _ => None,
    }
}

fn floats(array: &ArrayRef, kind: Kind) -> Result<Option<Encoded>> {
    let mut candidates = Candidates { best: None };
    let width = if kind == Kind::Float32 { 4 } else { 8 };
    candidates.offer(Encoding::Plain, width * array.len());
    let scaled = scaled(array, kind)?;
    let mut rival = width * array.len();
    if let Some(scaled) = &scaled {
        rival = rival.min(float::size(scaled));
        candidates.offer(Encoding::ScaledFloat, float::size(scaled));
    }
    let keys = keys(array)?;
    if runlength::ends(&keys).len() == 1 {
        return Ok(None);
    }
    let [runs, dictionary] = by_value(array, &keys, rival, &mut candidates)?;
    match (candidates.best(), scaled) {
        (Some(Encoding::ScaledFloat), Some(scaled)) => scaled_float(array, &scaled).map(Some),
        _ => Ok(pick(&candidates, runs, dictionary)),
    }
}

/// Stored bytes of some blocks from all over, decoded, with FSST, with LZ4 and with zstd.
struct Sample {
    bytes: usize,
    fsst: usize,
    lz4: usize,
    zstd: usize,
}

fn sample(values: &[&[u8]], compressor: &::fsst::Compressor) -> Result<Sample> {
    let blocks = values.len().div_ceil(PACKED);
    let mut sample = Sample { bytes: 0, fsst: 0, lz4: 0, zstd: 0 };
    for block in values.chunks(PACKED).step_by(blocks.div_ceil(4)) {
        sample.bytes += block.iter().map(|v| v.len()).sum::<usize>();
        sample.fsst += block.iter().map(|v| compressor.compress(v).len()).sum::<usize>() + 4 * PACKED / fsst::GROUP;
        sample.lz4 += compressed::block(Codec::Lz4, block)?.len();
        sample.zstd += compressed::block(Codec::Zstd, block)?.len();
    }
    Ok(sample)
}

fn texts(array: &ArrayRef) -> Result<Option<Encoded>> {
    let Some(values) = strings(array) else { return Ok(None) };
    let mut candidates = Candidates { best: None };
    let compressor = fsst::train(&values);
    let total: usize = values.iter().map(|v| v.len()).sum();
    let lengths: Vec<u64> = values.iter().map(|v| v.len() as u64).collect();
    let framing = packed::size(&lengths, true);
    let sample = sample(&values, &compressor)?;
    let share = |part: usize| (part as f64 / sample.bytes.max(1) as f64 * total as f64) as usize + framing;
    candidates.offer(Encoding::Plain, total + framing);
    candidates.offer(Encoding::Fsst, share(sample.fsst) + 9 * compressor.n_symbols());
    if total >= BULKY && total >= values.len() * 32 {
        candidates.offer(Encoding::Lz4, share(sample.lz4));
        candidates.offer(Encoding::Zstd, share(sample.zstd));
    }
    let keys = keys(array)?;
    if few(&keys)
        && let Some(distinct) = dictionary::distinct(&keys, DICTIONARY_LIMIT.min(array.len().div_ceil(2)))
    {
        if distinct.rows.len() == 1 {
            return encode_as(Encoding::Constant, array);
        }
        let entries = dictionary::encode_entries(array, &distinct.rows)?;
        // Codes are so much better to work on than strings that a dictionary may even be larger.
        let size = dictionary::size(&entries, &distinct);
        if size < total + framing && size < 2 * share(sample.fsst.min(sample.zstd)) {
            return blob(array, Encoding::Dictionary, |out| dictionary::write(&entries, &distinct, out)).map(Some);
        }
    }
    match candidates.best() {
        Some(Encoding::Fsst) => blob(array, Encoding::Fsst, |out| fsst::write(&values, &compressor, out)).map(Some),
        Some(encoding) => encode_as(encoding, array),
        None => Ok(None),
    }
}
