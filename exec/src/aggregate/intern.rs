//! Strings to small numbers, once per dictionary entry.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, StringViewBuilder};
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
    /// Codes of the entries of dictionaries seen.
    dictionaries: Vec<(ArrayRef, Vec<u32>)>,
}

const REMEMBERED: usize = 8;
/// The code of an entry that no row has had yet.
const UNKNOWN: u32 = u32::MAX;

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
            return self.entry_codes(dictionary, hash_zero, out);
        }
        let array = crate::batch::canonical(array, stoa_plan::DataType::Utf8)?;
        let strings = array.as_string_view();
        for row in 0..strings.len() {
            out.push(if strings.is_null(row) { 0 } else { self.intern(strings.value(row), hash_zero) + 1 });
        }
        Ok(())
    }

    /// Entries are looked up when a row has them for the first time; all other rows take the known code of their entry.
    fn entry_codes(&mut self, dictionary: &DictionaryArray<UInt32Type>, hash_zero: bool, out: &mut Vec<u32>) -> Result<()> {
        let entries = dictionary.values();
        let keys = dictionary.keys();
        let mut map = self.take_map(entries);
        match keys.nulls().filter(|n| n.null_count() > 0) {
            None => out.extend(keys.values().iter().map(|key| map[*key as usize])),
            Some(nulls) => {
                let code = |(key, valid): (&u32, bool)| if valid { map[*key as usize] } else { 0 };
                out.extend(keys.values().iter().zip(nulls.iter()).map(code));
            }
        }
        if out.iter().fold(0, |most, code| most.max(*code)) == UNKNOWN {
            let strings = crate::batch::canonical(entries, stoa_plan::DataType::Utf8)?;
            let strings = strings.as_string_view();
            for (code, key) in out.iter_mut().zip(keys.values()).filter(|(code, _)| **code == UNKNOWN) {
                let known = &mut map[*key as usize];
                if *known == UNKNOWN {
                    let entry = *key as usize;
                    *known = if strings.is_null(entry) { 0 } else { self.intern(strings.value(entry), hash_zero) + 1 };
                }
                *code = *known;
            }
        }
        self.dictionaries.push((entries.clone(), map));
        Ok(())
    }

    fn take_map(&mut self, entries: &ArrayRef) -> Vec<u32> {
        if let Some(at) = self.dictionaries.iter().position(|(known, _)| same(known, entries)) {
            return self.dictionaries.remove(at).1;
        }
        if self.dictionaries.len() >= REMEMBERED {
            self.dictionaries.remove(0);
        }
        vec![UNKNOWN; entries.len()]
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
