//! Distinct byte strings, numbered from 0 in order of appearance.

use hashbrown::HashTable;

use super::hash::hash_bytes;

/// Bytes of a block, unless one string is longer.
const BLOCK: usize = 1 << 20;

/// A set of byte strings. It grows without a look at the strings: the table keeps half of each hash, and strings are in blocks that
/// stay where they are.
#[derive(Debug, Default)]
pub(crate) struct ByteSet {
    table: HashTable<(u32, u32)>,
    strings: Strings,
}

/// The hash in the table for the kept half of a string's hash.
fn spread(half: u32) -> u64 {
    u64::from(half).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl ByteSet {
    pub(crate) fn len(&self) -> usize {
        self.strings.starts.len()
    }

    pub(crate) fn memory(&self) -> usize {
        let blocks: usize = self.strings.blocks.iter().map(Vec::capacity).sum();
        self.table.capacity() * 9 + self.strings.starts.capacity() * 8 + blocks
    }

    /// The string of a number below [`ByteSet::len`].
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        self.strings.get(id)
    }

    /// The number of a string, which is added if it is new.
    pub(crate) fn number(&mut self, bytes: &[u8], hash_zero: bool) -> u32 {
        let half = if hash_zero { 0 } else { (hash_bytes(bytes) >> 32) as u32 };
        let strings = &self.strings;
        if let Some((_, id)) = self.table.find(spread(half), |(h, id)| *h == half && strings.get(*id) == bytes) {
            return *id;
        }
        let id = self.strings.push(bytes);
        self.table.insert_unique(spread(half), (half, id), |(half, _)| spread(*half));
        id
    }
}

/// Byte strings one behind the other, each in one block.
#[derive(Debug, Default)]
struct Strings {
    /// The block of each string, and where it starts there. It ends where the next one starts or the block ends.
    starts: Vec<(u32, u32)>,
    blocks: Vec<Vec<u8>>,
}

impl Strings {
    fn push(&mut self, bytes: &[u8]) -> u32 {
        let id = self.starts.len() as u32;
        if self.blocks.last().is_none_or(|block| block.capacity() - block.len() < bytes.len()) {
            // Few strings need no whole block.
            let size = if self.blocks.is_empty() { BLOCK / 64 } else { BLOCK };
            self.blocks.push(Vec::with_capacity(size.max(bytes.len())));
        }
        let number = self.blocks.len() - 1;
        let block = &mut self.blocks[number];
        self.starts.push((number as u32, block.len() as u32));
        block.extend_from_slice(bytes);
        id
    }

    fn get(&self, id: u32) -> &[u8] {
        let (block, start) = self.starts[id as usize];
        let bytes = &self.blocks[block as usize];
        match self.starts.get(id as usize + 1) {
            Some((next, end)) if *next == block => &bytes[start as usize..*end as usize],
            _ => &bytes[start as usize..],
        }
    }
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
            let long = vec![7; 2 * BLOCK];
            assert_eq!([set.number(&long, hash_zero), set.number(b"behind it", hash_zero)], [2001, 2002]);
            assert_eq!(set.len(), 2003);
            assert!(set.get(2000).is_empty() && set.get(2001) == long && set.get(2002) == b"behind it");
            assert!((0..2000).all(|n| set.get(n) == text(n)));
        }
    }
}
