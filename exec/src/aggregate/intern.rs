//! Strings to small numbers, once per dictionary entry.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, StringViewBuilder};
use arrow::datatypes::UInt32Type;

use super::bytes::ByteSet;
use crate::expression::same;
use crate::{CancelToken, Result};

/// The distinct strings seen, numbered from 0 in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Interner {
    set: ByteSet,
    /// Codes of the entries of dictionaries seen.
    dictionaries: Vec<(ArrayRef, Vec<u32>)>,
}

const REMEMBERED: usize = 8;
/// The code of an entry that no row has had yet.
const UNKNOWN: u32 = u32::MAX;

impl Interner {
    pub(crate) fn len(&self) -> usize {
        self.set.len()
    }

    pub(crate) fn memory(&self) -> usize {
        let dictionaries: usize = self.dictionaries.iter().map(|(_, map)| map.capacity() * 4).sum();
        self.set.memory() + dictionaries
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
            out.push(if strings.is_null(row) { 0 } else { self.set.number(strings.value(row).as_bytes(), hash_zero) + 1 });
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
                    *known =
                        if strings.is_null(entry) { 0 } else { self.set.number(strings.value(entry).as_bytes(), hash_zero) + 1 };
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
    pub(crate) fn strings(&self, cancel: &CancelToken) -> Result<ArrayRef> {
        let mut builder = StringViewBuilder::with_capacity(self.set.len());
        for piece in cancel.pieces(self.set.len()) {
            piece?.for_each(|id| builder.append_value(String::from_utf8_lossy(self.set.get(id as u32))));
        }
        Ok(Arc::new(builder.finish()))
    }
}
