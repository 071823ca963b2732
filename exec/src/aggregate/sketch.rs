//! Approximate counts of distinct values: hashes while they are few, then HyperLogLog (Flajolet et al. 2007, with linear counting).

use arrow::array::{Array, ArrayRef};

use super::hash::column_hashes;
use super::slot::Ids;
use super::values::Cursor;
use crate::{Error, Result};

const BITS: u32 = 12;
const REGISTERS: usize = 1 << BITS;
const FEW: usize = 128;

#[derive(Clone, Debug)]
enum Sketch {
    /// Distinct hashes, ascending.
    Few(Vec<u64>),
    Registers(Box<[u8]>),
}

impl Sketch {
    fn add(&mut self, hash: u64) {
        match self {
            Sketch::Few(hashes) => {
                let Err(at) = hashes.binary_search(&hash) else { return };
                hashes.insert(at, hash);
                if hashes.len() > FEW {
                    let all = std::mem::take(hashes);
                    *self = Sketch::Registers(vec![0; REGISTERS].into());
                    all.into_iter().for_each(|h| self.add(h));
                }
            }
            Sketch::Registers(registers) => {
                let rank = ((hash << BITS) | (1 << (BITS - 1))).leading_zeros() as u8 + 1;
                let register = &mut registers[(hash >> (64 - BITS)) as usize];
                *register = (*register).max(rank);
            }
        }
    }

    fn merge(&mut self, other: &Sketch) {
        match other {
            Sketch::Few(hashes) => hashes.iter().for_each(|h| self.add(*h)),
            Sketch::Registers(theirs) => {
                if let Sketch::Few(hashes) = self {
                    let all = std::mem::take(hashes);
                    *self = other.clone();
                    all.into_iter().for_each(|h| self.add(h));
                } else if let Sketch::Registers(ours) = self {
                    ours.iter_mut().zip(theirs.iter()).for_each(|(a, b)| *a = (*a).max(*b));
                }
            }
        }
    }

    fn estimate(&self) -> u64 {
        let registers = match self {
            Sketch::Few(hashes) => return hashes.len() as u64,
            Sketch::Registers(registers) => registers,
        };
        let m = REGISTERS as f64;
        let sum: f64 = registers.iter().map(|r| 2f64.powi(-i32::from(*r))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let zeros = registers.iter().filter(|r| **r == 0).count();
        if raw <= 2.5 * m && zeros > 0 { (m * (m / zeros as f64).ln()).round() as u64 } else { raw.round() as u64 }
    }
}

/// Sketches per group.
#[derive(Debug, Default)]
pub(crate) struct Sketches(Vec<Sketch>);

impl Sketches {
    pub(crate) fn resize(&mut self, groups: usize) {
        self.0.resize(groups, Sketch::Few(Vec::new()));
    }

    pub(crate) fn memory(&self) -> usize {
        let one = |s: &Sketch| match s {
            Sketch::Few(hashes) => hashes.capacity() * 8,
            Sketch::Registers(_) => REGISTERS,
        };
        self.0.capacity() * size_of::<Sketch>() + self.0.iter().map(one).sum::<usize>()
    }

    pub(crate) fn update(&mut self, ids: &Ids<'_>, values: &ArrayRef) -> Result<()> {
        let hashes = column_hashes(values)?;
        for (row, hash) in hashes.into_iter().enumerate().filter(|(row, _)| values.is_valid(*row)) {
            self.0[ids.at(row)].add(hash);
        }
        Ok(())
    }

    pub(crate) fn merge(&mut self, other: &Sketches, pairs: &[(u32, u32)]) {
        for (from, to) in pairs {
            self.0[*to as usize].merge(&other.0[*from as usize]);
        }
    }

    pub(crate) fn estimate(&self, group: usize) -> u64 {
        self.0[group].estimate()
    }

    pub(crate) fn write(&self, group: usize, out: &mut Vec<u8>) {
        match &self.0[group] {
            Sketch::Few(hashes) => {
                out.push(hashes.len() as u8);
                hashes.iter().for_each(|h| out.extend_from_slice(&h.to_le_bytes()));
            }
            Sketch::Registers(registers) => {
                out.push(u8::MAX);
                out.extend_from_slice(registers);
            }
        }
    }

    pub(crate) fn read(&mut self, group: usize, from: &mut Cursor<'_>) -> Result<()> {
        let other = match from.byte()? {
            u8::MAX => Sketch::Registers(from.take(REGISTERS)?.into()),
            n if usize::from(n) <= FEW => {
                let hashes = from.take(usize::from(n) * 8)?.chunks_exact(8);
                let mut all = Sketch::Few(Vec::new());
                hashes.for_each(|h| all.add(u64::from_le_bytes(h.try_into().unwrap_or_default())));
                all
            }
            _ => return Err(Error::Internal("a serialized sketch is damaged".into())),
        };
        self.0[group].merge(&other);
        Ok(())
    }
}
