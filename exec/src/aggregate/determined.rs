//! Groups whose keys are integers and strings, found by the integers alone as long as these determine the strings, as the key of a
//! table determines its other columns.
//!
//! Nothing has to be known about the data: the strings of every row are compared with those of its group, and the first row that
//! differs ends this way of grouping. Most comparisons need no look at the strings, since the rows of a group mostly come from one
//! row of a join's build side and then have the same views of the same buffers.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use arrow::buffer::{Buffer, NullBuffer, ScalarBuffer};
use stoa_plan::DataType;

use super::groups::Choice;
use super::packed::PackedGroups;
use crate::{Bounds, Error, Result};

/// The groups so far.
#[derive(Debug)]
pub(crate) struct DeterminedGroups {
    packed: PackedGroups,
    /// Positions of the integers among the keys.
    integers: Vec<usize>,
    /// Positions of the strings among the keys.
    strings: Vec<usize>,
    /// The strings of all groups, one for each of `strings`.
    texts: Vec<Texts>,
    len: usize,
}

impl DeterminedGroups {
    /// `None` if the keys are of another kind or the integers do not fit 64 bits.
    pub(crate) fn new(keys: &[(DataType, Bounds)], choice: &Choice) -> Option<DeterminedGroups> {
        let (strings, integers): (Vec<usize>, Vec<usize>) = (0..keys.len()).partition(|i| keys[*i].0 == DataType::Utf8);
        if strings.is_empty() || integers.is_empty() {
            return None;
        }
        let packed: Vec<(DataType, Bounds)> = integers.iter().map(|i| keys[*i]).collect();
        let packed = PackedGroups::new(&packed, choice)?;
        let texts = strings.iter().map(|_| Texts::default()).collect();
        Some(DeterminedGroups { packed, integers, strings, texts, len: 0 })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn memory(&self) -> usize {
        self.packed.memory() + self.texts.iter().map(Texts::memory).sum::<usize>()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{}, which determine {} string keys", self.packed.describe(), self.strings.len())
    }

    /// Positions of the keys that determine the others.
    pub(crate) fn leading(&self) -> &[usize] {
        &self.integers
    }

    /// The group of every row. `false` if the integers do not determine the strings: nothing was added then, and only
    /// [`DeterminedGroups::keys`] may be called.
    pub(crate) fn assign(&mut self, keys: &[ArrayRef], rows: usize, ids: &mut Vec<u32>) -> Result<bool> {
        let integers: Vec<ArrayRef> = self.integers.iter().map(|i| keys[*i].clone()).collect();
        if !self.packed.assign(&integers, rows, ids)? {
            return Ok(false);
        }
        for (texts, position) in self.texts.iter_mut().zip(&self.strings) {
            let strings = crate::batch::canonical(&keys[*position], DataType::Utf8)?;
            let strings = strings.as_string_view_opt().ok_or_else(|| Error::Internal("a string key is no string".into()))?;
            if !texts.add(strings, ids) {
                return Ok(false);
            }
        }
        self.len = self.packed.len();
        self.texts.iter_mut().for_each(Texts::let_go);
        Ok(true)
    }

    /// The keys of all groups, one column per key.
    pub(crate) fn keys(&self) -> Result<Vec<ArrayRef>> {
        let integers = self.integers.iter().copied().zip(self.packed.keys()?.into_iter().map(|key| key.slice(0, self.len)));
        let strings = self.strings.iter().copied().zip(self.texts.iter().map(|texts| texts.array(self.len)));
        let mut all: Vec<(usize, ArrayRef)> = integers.chain(strings).collect();
        all.sort_by_key(|(position, _)| *position);
        Ok(all.into_iter().map(|(_, key)| key).collect())
    }
}

/// The view of NULL; no string is that long.
const NULL: u128 = u128::MAX;
/// What buffers may hold besides the strings of groups before the strings are copied out of them.
const SLACK: usize = 64 << 20;

/// One string per group: views of buffers that are shared with the batches where they came from.
#[derive(Debug, Default)]
struct Texts {
    views: Vec<u128>,
    buffers: Vec<Buffer>,
    /// The numbers of buffers by address and length.
    numbers: HashMap<(usize, usize), u32>,
    /// Bytes of the strings that are not in their views.
    own: usize,
    /// Bytes of the buffers.
    held: usize,
}

fn length(view: u128) -> usize {
    view as u32 as usize
}

fn is_long(view: u128) -> bool {
    length(view) > 12 && view != NULL
}

fn buffer_of(view: u128) -> usize {
    (view >> 64) as u32 as usize
}

fn with_buffer(view: u128, number: u32) -> u128 {
    (view & !(u128::from(u32::MAX) << 64)) | (u128::from(number) << 64)
}

/// The bytes of a long view.
fn bytes(view: u128, buffers: &[Buffer]) -> Option<&[u8]> {
    let start = (view >> 96) as usize;
    buffers.get(buffer_of(view))?.as_slice().get(start..start + length(view))
}

/// A buffer of a batch that is none of ours.
const FOREIGN: u32 = u32::MAX;

impl Texts {
    fn memory(&self) -> usize {
        self.views.capacity() * size_of::<u128>() + self.own
    }

    /// Adds the strings of groups that are new. `false` if a row's string is not that of its group.
    fn add(&mut self, strings: &StringViewArray, ids: &[u32]) -> bool {
        let theirs = strings.data_buffers();
        let number = |numbers: &HashMap<_, u32>, buffer: &Buffer| {
            numbers.get(&(buffer.as_ptr() as usize, buffer.len())).copied().unwrap_or(FOREIGN)
        };
        let mut ours: Vec<u32> = theirs.iter().map(|buffer| number(&self.numbers, buffer)).collect();
        let nulls = strings.nulls().filter(|nulls| nulls.null_count() > 0);
        for (row, (view, id)) in strings.views().iter().zip(ids).enumerate() {
            let view = if nulls.is_some_and(|nulls| nulls.is_null(row)) { NULL } else { *view };
            let known = self.views.get(*id as usize).copied();
            if !is_long(view) {
                match known {
                    Some(known) if known != view => return false,
                    Some(_) => {}
                    None => self.views.push(view),
                }
                continue;
            }
            let buffer = &mut ours[buffer_of(view)];
            match known {
                Some(known) if *buffer != FOREIGN && known == with_buffer(view, *buffer) => {}
                Some(known) => {
                    if known as u64 != view as u64 || bytes(known, &self.buffers) != bytes(view, theirs) {
                        return false;
                    }
                }
                None => {
                    if *buffer == FOREIGN {
                        *buffer = self.keep(&theirs[buffer_of(view)]);
                    }
                    self.own += length(view);
                    self.views.push(with_buffer(view, *buffer));
                }
            }
        }
        true
    }

    fn keep(&mut self, buffer: &Buffer) -> u32 {
        let number = self.buffers.len() as u32;
        self.buffers.push(buffer.clone());
        self.numbers.insert((buffer.as_ptr() as usize, buffer.len()), number);
        self.held += buffer.len();
        number
    }

    /// Copies the strings if their buffers hold much else.
    fn let_go(&mut self) {
        if self.held <= 4 * self.own + SLACK {
            return;
        }
        let (views, buffers, nulls) = self.strings(self.views.len()).gc().into_parts();
        self.views = views.to_vec();
        for row in nulls.iter().flat_map(|nulls| (!nulls.inner()).set_indices().collect::<Vec<_>>()) {
            self.views[row] = NULL;
        }
        self.numbers = buffers.iter().enumerate().map(|(i, b)| ((b.as_ptr() as usize, b.len()), i as u32)).collect();
        self.held = buffers.iter().map(Buffer::len).sum();
        self.buffers = buffers.to_vec();
    }

    fn strings(&self, groups: usize) -> StringViewArray {
        let views = &self.views[..groups];
        let nulls = views.contains(&NULL).then(|| NullBuffer::from_iter(views.iter().map(|view| *view != NULL)));
        let views: Vec<u128> = views.iter().map(|view| if *view == NULL { 0 } else { *view }).collect();
        // SAFETY: every view is a valid view of a batch, its buffer number replaced by that of the same buffer in `buffers`, or the
        // view of the empty string.
        unsafe { StringViewArray::new_unchecked(ScalarBuffer::from(views), self.buffers.clone(), nulls) }
    }

    /// The strings of the first `groups` groups.
    fn array(&self, groups: usize) -> ArrayRef {
        Arc::new(self.strings(groups))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::super::groups::Groups;
    use super::*;
    use crate::CancelToken;

    fn text(n: i64, violate: bool) -> Option<String> {
        match n % 5 {
            0 => None,
            1 => Some(format!("s{n}")),
            _ => Some(format!("a string too long for a view {}", n + i64::from(violate))),
        }
    }

    /// Groups by integers are those by rows of keys: batches that share buffers and batches that do not, NULLs, and data where the
    /// integers stop determining the strings.
    #[test]
    fn groups_by_integers_are_groups_by_rows() {
        for violation in [None, Some(0), Some(7)] {
            let choice = Choice { dense_bits: 8, pack: true, hash_zero: false, cancel: CancelToken::default() };
            let small = Bounds { range: Some((0, 1000)) };
            let keys = [(DataType::Utf8, Bounds::default()), (DataType::Int64, small)];
            let keys: Vec<_> = keys.iter().copied().chain([(DataType::Utf8, Bounds::default()); 3]).collect();
            let mut groups = Groups::new(&keys, choice.clone()).unwrap();
            assert!(groups.leading().is_some());
            let mut reference = Groups::new(&keys, Choice { pack: false, ..choice }).unwrap();
            for batch in 0..10 {
                let rows: Vec<i64> = (0..100).map(|i| (i * 37 + batch * 11) % 90).collect();
                let strings = |violate: bool| -> ArrayRef {
                    Arc::new(rows.iter().map(|n| text(*n, violate && *n == 42)).collect::<StringViewArray>())
                };
                let integers: ArrayRef = Arc::new(Int64Array::from(rows.clone()));
                let (shared, other) = (strings(false), strings(violation == Some(batch)));
                let columns = vec![shared.clone(), integers, shared.clone(), other, strings(false)];
                for columns in [columns.clone(), columns.iter().map(|c| c.slice(3, 97)).collect()] {
                    let (mut a, mut b) = (vec![], vec![]);
                    groups.assign(&columns, columns[0].len(), &mut a).unwrap();
                    reference.assign(&columns, columns[0].len(), &mut b).unwrap();
                    assert_eq!(a, b, "batch {batch}");
                }
            }
            assert_eq!(groups.leading().is_some(), violation.is_none());
            assert_eq!(groups.keys().unwrap(), reference.keys().unwrap());
        }
    }

    #[test]
    fn strings_survive_their_buffers() {
        let mut texts = Texts::default();
        let batch: StringViewArray = (0..1000).map(|n| text(n, false)).collect();
        let ids: Vec<u32> = (0..1000).collect();
        assert!(texts.add(&batch, &ids));
        texts.held += SLACK * 2;
        texts.let_go();
        assert!(texts.held < SLACK);
        assert_eq!(texts.strings(1000), batch);
        assert!(texts.add(&batch, &ids));
    }
}
