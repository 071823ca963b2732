//! Strings to small numbers, once per dictionary entry.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use arrow::datatypes::UInt32Type;
use hashbrown::HashTable;

use super::hash::hash_bytes;
use crate::Result;
use crate::expression::same;

/// The distinct strings seen, numbered from 0 in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    table: HashTable<u32>,
    ends: Vec<usize>,
    data: Vec<u8>,
    /// Numbers of the entries of dictionaries seen, `u32::MAX` where not asked for yet.
    dictionaries: Vec<(ArrayRef, Vec<u32>)>,
}

const REMEMBERED: usize = 8;

impl Interner {
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn memory(&self) -> usize {
        let dictionaries: usize = self.dictionaries.iter().map(|(_, map)| map.capacity() * 4).sum();
        self.table.capacity() * 5 + self.ends.capacity() * 8 + self.data.capacity() + dictionaries
    }

    fn bytes(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        &self.data[start..self.ends[id]]
    }

    fn intern(&mut self, text: &str, hash_zero: bool) -> u32 {
        let hash = |bytes: &[u8]| if hash_zero { 0 } else { hash_bytes(bytes) };
        let wanted = hash(text.as_bytes());
        if let Some(id) = self.table.find(wanted, |id| self.bytes(*id) == text.as_bytes()) {
            return *id;
        }
        let id = self.ends.len() as u32;
        self.data.extend_from_slice(text.as_bytes());
        self.ends.push(self.data.len());
        let (data, ends) = (&self.data, &self.ends);
        self.table.insert_unique(wanted, id, |id| {
            let id = *id as usize;
            hash(&data[if id == 0 { 0 } else { ends[id - 1] }..ends[id]])
        });
        id
    }

    /// The number of each row's string plus one; 0 for NULL.
    pub(crate) fn codes(&mut self, array: &ArrayRef, hash_zero: bool, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        if let Some(dictionary) = array.as_dictionary_opt::<UInt32Type>() {
            let entries = dictionary.values();
            let strings = crate::batch::canonical(entries, stoa_plan::DataType::Utf8)?;
            let strings = strings.as_string_view();
            let mut map = self.take_map(entries);
            let keys = dictionary.keys();
            for (row, key) in keys.values().iter().enumerate() {
                if keys.is_null(row) || strings.is_null(*key as usize) {
                    out.push(0);
                    continue;
                }
                let mut id = map[*key as usize];
                if id == u32::MAX {
                    id = self.intern(strings.value(*key as usize), hash_zero);
                    map[*key as usize] = id;
                }
                out.push(id + 1);
            }
            self.dictionaries.push((entries.clone(), map));
            return Ok(());
        }
        let array = crate::batch::canonical(array, stoa_plan::DataType::Utf8)?;
        let strings = array.as_string_view();
        for row in 0..strings.len() {
            out.push(if strings.is_null(row) { 0 } else { self.intern(strings.value(row), hash_zero) + 1 });
        }
        Ok(())
    }

    fn take_map(&mut self, entries: &ArrayRef) -> Vec<u32> {
        if let Some(at) = self.dictionaries.iter().position(|(known, _)| same(known, entries)) {
            return self.dictionaries.remove(at).1;
        }
        if self.dictionaries.len() >= REMEMBERED {
            self.dictionaries.remove(0);
        }
        vec![u32::MAX; entries.len()]
    }

    /// All strings, by number.
    pub(crate) fn strings(&self) -> ArrayRef {
        let mut builder = StringViewBuilder::with_capacity(self.ends.len());
        for id in 0..self.ends.len() {
            builder.append_value(String::from_utf8_lossy(self.bytes(id as u32)));
        }
        Arc::new(builder.finish())
    }
}
