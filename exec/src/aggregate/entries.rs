//! Groups of rows whose keys are all dictionary encoded: one small table from the entries of a row's keys to its group, so that rows
//! of known groups are grouped without a look at what the entries say.

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray};
use arrow::datatypes::UInt32Type;

use crate::expression::same;

/// Bits of all keys' entry numbers together, at most.
const MOST_BITS: u32 = 12;

/// Groups by entries of the dictionaries met last; other dictionaries start anew. It only remembers groups that others have found.
#[derive(Debug, Default)]
pub(crate) struct EntryGroups {
    /// The dictionaries and the bits of their entry numbers.
    dictionaries: Vec<(ArrayRef, u32)>,
    /// Group by entry numbers, the first key's highest, plus one; 0 if not known yet. Its length is a power of two.
    groups: Vec<u32>,
}

fn dictionary(key: &ArrayRef) -> Option<&DictionaryArray<UInt32Type>> {
    key.as_dictionary_opt::<UInt32Type>().filter(|keys| keys.keys().null_count() == 0)
}

impl EntryGroups {
    /// Gets ready for a batch. `false` declines: a key is not dictionary encoded, has NULLs, or there are too many entries.
    pub(crate) fn enter(&mut self, keys: &[ArrayRef], rows: usize) -> bool {
        if keys.is_empty() || keys.iter().any(|key| dictionary(key).is_none_or(|d| d.len() != rows)) {
            return false;
        }
        let values = || keys.iter().filter_map(dictionary).map(DictionaryArray::values);
        let current =
            self.dictionaries.len() == keys.len() && values().zip(&self.dictionaries).all(|(v, (known, _))| same(v, known));
        if !current {
            let bits = |values: &ArrayRef| values.len().next_power_of_two().trailing_zeros();
            let total: u32 = values().map(bits).sum();
            self.dictionaries.clear();
            if total > MOST_BITS {
                return false;
            }
            self.dictionaries.extend(values().map(|v| (v.clone(), bits(v))));
            self.groups.clear();
            self.groups.resize(1 << total, 0);
        }
        true
    }

    /// The entry numbers of each row as one number.
    fn numbers(&self, keys: &[ArrayRef], out: &mut Vec<u32>) {
        out.clear();
        for (at, (key, (_, bits))) in keys.iter().filter_map(dictionary).zip(&self.dictionaries).enumerate() {
            let entries = key.keys().values();
            if at == 0 {
                out.extend_from_slice(entries);
            } else {
                out.iter_mut().zip(entries.iter()).for_each(|(number, entry)| *number = *number << bits | entry);
            }
        }
    }

    /// The groups of the rows of a batch that was entered; `false` if the group of one is not known.
    pub(crate) fn assign(&self, keys: &[ArrayRef], ids: &mut Vec<u32>) -> bool {
        self.numbers(keys, ids);
        let groups = self.groups.as_slice();
        let mut least = u32::MAX;
        for id in ids.iter_mut() {
            let group = groups[*id as usize & (groups.len() - 1)];
            least = least.min(group);
            *id = group.wrapping_sub(1);
        }
        least > 0
    }

    /// Remembers the groups of the rows of a batch that was entered.
    pub(crate) fn learn(&mut self, keys: &[ArrayRef], ids: &[u32]) {
        let mut numbers = Vec::new();
        self.numbers(keys, &mut numbers);
        let last = self.groups.len() - 1;
        numbers.iter().zip(ids).for_each(|(number, id)| self.groups[*number as usize & last] = id + 1);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{StringViewArray, UInt32Array};
    use stoa_plan::DataType;

    use super::super::groups::{Choice, Groups};
    use super::*;
    use crate::{Bounds, CancelToken};

    /// Groups by dictionary entries are those of the plain strings: with changing dictionaries, entries that repeat or are NULL,
    /// batches with NULLs in between, and dictionaries that are too large.
    #[test]
    fn groups_by_entries_are_groups_by_strings() {
        let mut state = 11u64;
        let mut random = |n: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % n
        };
        let choice = Choice { dense_bits: 20, pack: true, hash_zero: false, cancel: CancelToken::default() };
        for keys in 1..4 {
            let types = vec![(DataType::Utf8, Bounds::default()); keys];
            let (mut fast, mut slow) =
                (Groups::new(&types, choice.clone()).unwrap(), Groups::new(&types, choice.clone()).unwrap());
            let rows_only = Choice { pack: false, ..choice.clone() };
            let mut reference = Groups::new(&types, rows_only).unwrap();
            let dictionary = |random: &mut dyn FnMut(usize) -> usize, most: usize| -> ArrayRef {
                let entries =
                    (0..1 + random(most)).map(|_| (random(9) > 0).then(|| format!("text {}", random(12)))).collect::<Vec<_>>();
                Arc::new(StringViewArray::from(entries))
            };
            let mut dictionaries: Vec<ArrayRef> = (0..keys).map(|_| dictionary(&mut random, 6)).collect();
            let mut by_entries = 0;
            for step in 0..60 {
                if random(4) == 0 {
                    let most = if random(5) == 0 { 3000 } else { 9 };
                    dictionaries[random(keys)] = dictionary(&mut random, most);
                }
                let rows = random(50);
                let nulls = random(5) == 0;
                let encode = |values: &ArrayRef, random: &mut dyn FnMut(usize) -> usize| -> ArrayRef {
                    let codes: UInt32Array =
                        (0..rows).map(|_| (!nulls || random(3) > 0).then(|| random(values.len()) as u32)).collect();
                    Arc::new(DictionaryArray::new(codes, values.clone()))
                };
                let encoded: Vec<ArrayRef> = dictionaries.iter().map(|values| encode(values, &mut random)).collect();
                let plain: Vec<ArrayRef> =
                    encoded.iter().map(|key| crate::batch::canonical(key, DataType::Utf8).unwrap()).collect();
                let (mut a, mut b, mut c) = (vec![], vec![], vec![]);
                fast.assign(&encoded, rows, &mut a).unwrap();
                slow.assign(&plain, rows, &mut b).unwrap();
                reference.assign(&plain, rows, &mut c).unwrap();
                assert_eq!(a, b, "step {step}");
                assert_eq!(a, c, "step {step}");
                by_entries += usize::from(EntryGroups::default().enter(&encoded, rows));
            }
            assert!(by_entries > 10);
        }
    }
}
