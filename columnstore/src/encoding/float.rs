//! Doubles that are decimals, as integers scaled by a power of ten, with exceptions.
//!
//! ```text
//! float = exponent:u8 exceptions:u32 rows:[u32; exceptions] values:[u64; exceptions] bitpacked
//! ```
//! Value = (integer as f64) / 10^exponent, which is the double nearest to the decimal as long as the integer is below 2^53. Rows of which
//! this is not true to the last bit are exceptions: their rows, ascending, and their bits.

use super::bitpacked::{self, BitPacked};
use super::condition::{IntCondition, float_key};
use super::layout::Reader;
use super::packed::kernel_mask;
use super::residual::Residuals;
use super::span::spans;
use super::width::{PACKED, WORDS};

/// Powers of ten that a double holds exactly and that are tried.
const EXPONENTS: u8 = 15;

/// Doubles as scaled integers.
#[derive(Debug)]
pub(super) struct Scaled {
    exponent: u8,
    rows: Vec<u32>,
    values: Vec<u64>,
    integers: Residuals,
}

/// The integer from which a reader gets the very bits of the value: there is none for NaN and for -0.0, which no integer is.
fn integer(value: f64, power: f64) -> Option<i64> {
    let scaled = (value * power).round();
    if scaled.abs() >= 9_007_199_254_740_992.0 {
        return None;
    }
    let integer = scaled as i64;
    (integer as f64 / power).to_bits().eq(&value.to_bits()).then_some(integer)
}

/// Scales doubles, of which NULL rows are filled; `None` if more than one in ten would be an exception.
pub(super) fn scale(values: &[f64]) -> Option<Scaled> {
    let step = (values.len() / 1024).max(1);
    let sample: Vec<f64> = values.iter().step_by(step).copied().collect();
    let failures = |e: u8| sample.iter().filter(|v| integer(**v, 10f64.powi(e.into())).is_none()).count();
    let exponent = (0..=EXPONENTS).min_by_key(|&e| failures(e))?;
    if failures(exponent) * 8 > sample.len() {
        return None;
    }
    let power = 10f64.powi(exponent.into());
    let (mut rows, mut exceptions, mut integers) = (Vec::new(), Vec::new(), Vec::with_capacity(values.len()));
    let mut last = values.iter().find_map(|&v| integer(v, power)).unwrap_or(0);
    for (row, &value) in values.iter().enumerate() {
        if let Some(scaled) = integer(value, power) {
            last = scaled;
        } else {
            rows.push(row as u32);
            exceptions.push(value.to_bits());
        }
        integers.push(last);
    }
    if rows.len() > values.len() / 10 {
        return None;
    }
    Some(Scaled { exponent, rows, values: exceptions, integers: Residuals::new(&integers)? })
}

/// Bytes that [`write`] takes.
pub(super) fn size(scaled: &Scaled) -> usize {
    5 + 12 * scaled.rows.len() + bitpacked::size(&scaled.integers)
}

/// Writes the payload.
pub(super) fn write(scaled: &Scaled, out: &mut Vec<u8>) {
    out.push(scaled.exponent);
    out.extend((scaled.rows.len() as u32).to_le_bytes());
    scaled.rows.iter().for_each(|row| out.extend(row.to_le_bytes()));
    scaled.values.iter().for_each(|value| out.extend(value.to_le_bytes()));
    bitpacked::write(&scaled.integers, out);
}

/// A column of scaled doubles.
#[derive(Debug)]
pub(super) struct ScaledFloat {
    exponent: u8,
    power: f64,
    rows: Vec<u32>,
    values: Vec<u64>,
    integers: BitPacked,
}

impl ScaledFloat {
    /// Reads and checks the payload.
    pub(super) fn open(reader: &mut Reader, rows: usize) -> Result<Self, String> {
        let exponent = reader.u8()?;
        if exponent > EXPONENTS {
            return Err(format!("an exponent of {exponent}"));
        }
        let count = reader.u32()? as usize;
        let (exceptions, values) = (reader.u32s(count)?, reader.u64s(count)?);
        if !exceptions.is_sorted_by(|a, b| a < b) || exceptions.last().is_some_and(|&row| row as usize >= rows) {
            return Err("exceptions are out of order".into());
        }
        let integers = BitPacked::open(reader, rows)?;
        Ok(ScaledFloat { exponent, power: 10f64.powi(exponent.into()), rows: exceptions, values, integers })
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        format!("{} digits, {} exceptions, {}", self.exponent, self.rows.len(), self.integers.describe())
    }

    /// Reads rows.
    pub(super) fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Vec<f64> {
        let mut out: Vec<f64> =
            self.integers.read::<i64>(first_row, rows, selection).into_iter().map(|v| v as f64 / self.power).collect();
        if self.rows.is_empty() {
            return out;
        }
        let mut at = 0;
        for span in spans(first_row, rows, selection) {
            let start = span.block * PACKED;
            let (low, high) = self.exceptions(span.block);
            if low < high {
                let mut next = low;
                let mut position = at;
                span.each(|i| {
                    while next < high && (self.rows[next] as usize) < start + i {
                        next += 1;
                    }
                    if next < high && self.rows[next] as usize == start + i {
                        out[position] = f64::from_bits(self.values[next]);
                    }
                    position += 1;
                });
            }
            at += span.len();
        }
        out
    }

    /// The exceptions of a block.
    fn exceptions(&self, block: usize) -> (usize, usize) {
        let low = self.rows.partition_point(|&row| (row as usize) < block * PACKED);
        let high = self.rows.partition_point(|&row| (row as usize) < (block + 1) * PACKED);
        (low, high)
    }

    /// Which rows of a block of `rows` rows pass a condition on total-order keys.
    pub(super) fn mask(&self, condition: &IntCondition, block: usize, rows: usize, out: &mut [u64; WORDS]) {
        let values = self.read(block * PACKED, rows, None);
        if let IntCondition::Range(low, high) = condition {
            let bounds = (i64::try_from((*low).max(i64::MIN.into())), i64::try_from((*high).min(i64::MAX.into())));
            let (Ok(low), Ok(high)) = bounds else {
                *out = [0; WORDS];
                return;
            };
            kernel_mask(&values, out, |v| (low <= float_key(v)) & (float_key(v) <= high));
        } else {
            kernel_mask(&values, out, |v| condition.passes(float_key(v).into()));
        }
    }
}
