//! A mergeable estimate of how many distinct values there are: exact while few, HyperLogLog beyond.
//!
//! On disk: tag 0 and up to [`EXACT`] hashes of 8 bytes, ascending; or tag 1 and [`REGISTERS`] bytes, one register each,
//! as one zstd frame (Flajolet et al., "HyperLogLog"; standard error 1.04/sqrt(4096) = 1.6 %).

/// Distinct hashes that are kept exactly.
const EXACT: usize = 96;
/// log2 of the number of registers.
const REGISTER_BITS: u32 = 12;
const REGISTERS: usize = 1 << REGISTER_BITS;
/// Registers take a third of their size; there are few of them, so speed is no matter.
const ZSTD_LEVEL: i32 = 3;
/// Slots of the exact table; more than twice [`EXACT`], so that probes end.
const SLOTS: usize = 256;

/// The sketch. Values come in as 64-bit hashes.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// Open addressing by hash; 0 is empty, the hash 0 is stored as 1.
    exact: Option<Box<[u64; SLOTS]>>,
    count: usize,
    registers: Vec<u8>,
}

/// The hash with its bits mixed anew (the finalizer of MurmurHash3). The rows of a partition agree in the first bits of the hash of their
/// shard key, which would leave most registers of that column empty.
#[inline]
fn mixed(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ hash >> 33
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { exact: Some(Box::new([0; SLOTS])), count: 0, registers: Vec::new() }
    }
}

impl Sketch {
    /// Adds a value.
    #[inline]
    pub fn insert(&mut self, hash: u64) {
        if self.exact.is_some() { self.insert_exact(hash.max(1)) } else { self.insert_register(hash) }
    }

    fn insert_exact(&mut self, hash: u64) {
        let Some(table) = &mut self.exact else { return };
        let mut slot = hash as usize % SLOTS;
        while table[slot] != 0 {
            if table[slot] == hash {
                return;
            }
            slot = (slot + 1) % SLOTS;
        }
        if self.count < EXACT {
            table[slot] = hash;
            self.count += 1;
        } else {
            self.switch_to_registers();
            self.insert_register(hash);
        }
    }

    fn switch_to_registers(&mut self) {
        if let Some(table) = self.exact.take() {
            self.registers = vec![0; REGISTERS];
            for &hash in table.iter().filter(|h| **h != 0) {
                self.insert_register(hash);
            }
        }
    }

    #[inline]
    fn insert_register(&mut self, hash: u64) {
        let hash = mixed(hash);
        let index = (hash >> (64 - REGISTER_BITS)) as usize;
        let rank = (hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() as u8 + 1;
        if let Some(register) = self.registers.get_mut(index) {
            *register = (*register).max(rank);
        }
    }

    /// Adds all values of another sketch.
    pub fn merge(&mut self, other: &Sketch) {
        if let Some(table) = &other.exact {
            for &hash in table.iter().filter(|h| **h != 0) {
                self.insert(hash);
            }
            return;
        }
        self.switch_to_registers();
        for (mine, theirs) in self.registers.iter_mut().zip(&other.registers) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// Number of distinct values.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        if self.exact.is_some() {
            return self.count as u64;
        }
        let m = REGISTERS as f64;
        let sum: f64 = self.registers.iter().map(|r| (-f64::from(*r)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.registers.iter().filter(|r| **r == 0).count();
        if raw <= 2.5 * m && empty > 0 { (m * (m / empty as f64).ln()).round() as u64 } else { raw.round() as u64 }
    }

    /// As stored.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        match &self.exact {
            Some(table) => {
                let mut hashes: Vec<u64> = table.iter().copied().filter(|h| *h != 0).collect();
                hashes.sort_unstable();
                std::iter::once(0).chain(hashes.into_iter().flat_map(u64::to_le_bytes)).collect()
            }
            None => {
                // Compressing into memory does not fail; if it did, the sketch would be empty rather than wrong.
                let registers = zstd::bulk::compress(&self.registers, ZSTD_LEVEL);
                registers.map_or(vec![0], |registers| std::iter::once(1).chain(registers).collect())
            }
        }
    }

    /// Reads what [`Sketch::to_bytes`] wrote; `None` if it is not that.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Sketch> {
        let (tag, rest) = bytes.split_first()?;
        let mut sketch = Sketch::default();
        match tag {
            0 if rest.len() % 8 == 0 && rest.len() / 8 <= EXACT => {
                for hash in rest.chunks_exact(8) {
                    sketch.insert(u64::from_le_bytes(hash.try_into().ok()?));
                }
            }
            1 => {
                let registers = zstd::bulk::decompress(rest, REGISTERS).ok()?;
                if registers.len() != REGISTERS || registers.iter().any(|r| *r > 64) {
                    return None;
                }
                sketch.exact = None;
                sketch.registers = registers;
            }
            _ => return None,
        }
        Some(sketch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stoa_kernels::hash::shard_hash;

    #[test]
    fn estimates_are_near_and_merge() {
        for n in [0u64, 1, 2, 95, 96, 97, 200, 1000, 10_000, 1_000_000] {
            let mut whole = Sketch::default();
            let (mut a, mut b) = (Sketch::default(), Sketch::default());
            for i in 0..n {
                whole.insert(shard_hash(i));
                if i % 3 == 0 { a.insert(shard_hash(i)) } else { b.insert(shard_hash(i)) }
            }
            let error = (whole.estimate() as f64 - n as f64).abs();
            assert!(error <= if n <= 96 { 0.0 } else { n as f64 * 0.05 }, "{n}: {}", whole.estimate());
            a.merge(&b);
            assert_eq!(a.estimate(), whole.estimate());
            let back = Sketch::from_bytes(&whole.to_bytes()).unwrap();
            assert_eq!(back.estimate(), whole.estimate());
        }
        assert!(Sketch::from_bytes(&[]).is_none());
        assert!(Sketch::from_bytes(&[1, 2]).is_none());
        assert!(Sketch::from_bytes(&[0, 2]).is_none());
    }
}
