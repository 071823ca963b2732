//! Distinct byte strings, numbered from 0 in order of appearance.

use hashbrown::HashTable;

use super::hash::hash_bytes;

/// A set of byte strings. The table keeps half of each hash, so that it grows without a look at the strings.
#[derive(Debug, Default)]
pub(crate) struct ByteSet {
    table: HashTable<(u32, u32)>,
    ends: Vec<usize>,
    data: Vec<u8>,
}

/// The hash in the table for the kept half of a string's hash.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl ByteSet {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn memory(&self) -> usize {
        self.table.capacity() * 9 + self.ends.capacity() * 8 + self.data.capacity()
    }

    /// The string of a number below [`ByteSet::len`].
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        slice(&self.data, &self.ends, id)
    }

    /// The number of a string, which is added if it is new.
    pub(crate) fn number(&mut self, bytes: &[u8], hash_zero: bool) -> u32 {
        let half = if hash_zero { 0 } else { (hash_bytes(bytes) >> 32) as u32 };
        let (data, ends) = (&self.data, &self.ends);
        if let Some((_, id)) = self.table.find(spread(half), |(h, id)| *h == half && slice(data, ends, *id) == bytes) {
            return *id;
        }
        let id = self.ends.len() as u32;
        self.table.insert_unique(spread(half), (half, id), |(half, _)| spread(*half));
        self.data.extend_from_slice(bytes);
        self.ends.push(self.data.len());
        id
    }
}

fn slice<'a>(data: &'a [u8], ends: &[usize], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] };
    &data[start..ends[id]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_strings_have_one_number() {
        for hash_zero in [false, true] {
            let mut set = ByteSet::default();
            let text = |n: u32| format!("{:1$}", n, n as usize % 20).into_bytes();
            for round in 0..2 {
                for n in 0..2000 {
                    assert_eq!(set.number(&text(n), hash_zero), n, "round {round}");
                }
            }
            assert_eq!(set.number(b"", hash_zero), 2000);
            assert_eq!(set.len(), 2001);
            assert!((0..2000).all(|n| set.get(n) == text(n)));
        }
    }
}
