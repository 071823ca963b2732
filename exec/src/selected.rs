//! The rows of columns whose bit in a mask is set, by the compress kernels where values are of fixed width.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, DictionaryArray, PrimitiveArray, StringViewArray,
};
use arrow::buffer::{Buffer, ScalarBuffer};
use arrow::compute::filter;
use arrow::datatypes::{ArrowNativeType, DataType as Arrow, UInt32Type};
use arrow::downcast_primitive_array;
use stoa_kernels::filter::Fixed;

use crate::Result;

/// Which rows are kept, as words for kernels and as Arrow has it.
pub(crate) struct Kept<'a> {
    mask: &'a BooleanArray,
    words: Vec<u64>,
    /// Number of rows that are kept.
    pub count: usize,
}

impl<'a> Kept<'a> {
    /// The rows for which `mask`, which has no NULLs, is true.
    pub fn new(mask: &'a BooleanArray) -> Kept<'a> {
        let mut words: Vec<u64> = mask.values().bit_chunks().iter_padded().collect();
        words.truncate(mask.len().div_ceil(64));
        Kept { mask, words, count: mask.true_count() }
    }

    /// The rows of a column that are kept.
    pub fn column(&self, column: &ArrayRef) -> Result<ArrayRef> {
        if self.count == self.mask.len() {
            return Ok(column.clone());
        }
        match self.compressed(column) {
            Some(compressed) => Ok(compressed),
            None => Ok(filter(column, self.mask)?),
        }
    }

    /// The elements of a slice that are kept.
    pub fn values<T: Fixed>(&self, values: &[T]) -> Vec<T> {
        let mut kept = Vec::new();
        stoa_kernels::filter::filter(values, &self.words, &mut kept);
        kept
    }

    /// The rows of a column without NULLs whose values are of fixed width.
    fn compressed(&self, column: &ArrayRef) -> Option<ArrayRef> {
        if column.null_count() > 0 || column.len() != self.mask.len() {
            return None;
        }
        let column: &dyn Array = column;
        match column.data_type() {
            Arrow::Utf8View => {
                let strings = column.as_string_view();
                let views = self.values(strings.views());
                // SAFETY: each view is a view of the input, whose buffers are the same.
                Some(Arc::new(unsafe { StringViewArray::new_unchecked(views.into(), strings.data_buffers().to_vec(), None) }))
            }
            Arrow::Dictionary(..) => {
                let dictionary = column.as_dictionary_opt::<UInt32Type>()?;
                let keys = self.primitive(dictionary.keys())?;
                // SAFETY: each key is a key of the input, whose values are the same.
                Some(Arc::new(unsafe { DictionaryArray::new_unchecked(keys, dictionary.values().clone()) }))
            }
            _ => downcast_primitive_array!(
                column => Some(Arc::new(self.primitive(column)?) as ArrayRef),
                _ => None
            ),
        }
    }

    fn primitive<T: ArrowPrimitiveType>(&self, column: &PrimitiveArray<T>) -> Option<PrimitiveArray<T>> {
        let buffer = column.values().inner().clone();
        let kept = match size_of::<T::Native>() {
            1 => self.buffer::<u8>(buffer),
            2 => self.buffer::<u16>(buffer),
            4 => self.buffer::<u32>(buffer),
            8 => self.buffer::<u64>(buffer),
            16 if align_of::<T::Native>() == align_of::<u128>() => self.buffer::<u128>(buffer),
            _ => return None,
        };
        let values = ScalarBuffer::<T::Native>::new(kept, 0, self.count);
        Some(PrimitiveArray::<T>::new(values, None).with_data_type(column.data_type().clone()))
    }

    fn buffer<T: Fixed + ArrowNativeType>(&self, values: Buffer) -> Buffer {
        let values = ScalarBuffer::<T>::new(values, 0, self.mask.len());
        Buffer::from_vec(self.values(&values))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Decimal128Array, Int8Array, Int16Array, Int64Array, StringArray, UInt32Array};

    use super::*;

    fn columns(rows: usize) -> Vec<ArrayRef> {
        let i = 0..rows as i64;
        let text = |i: i64| format!("a string that is long enough for a buffer {i}");
        let values: ArrayRef = Arc::new(StringViewArray::from(vec!["x", "y", "a third entry of the dictionary"]));
        let keys = UInt32Array::from_iter_values(i.clone().map(|i| (i % 3) as u32));
        vec![
            Arc::new(Int8Array::from_iter_values(i.clone().map(|i| i as i8))),
            Arc::new(Int16Array::from_iter_values(i.clone().map(|i| i as i16))),
            Arc::new(Date32Array::from_iter_values(i.clone().map(|i| i as i32))),
            Arc::new(Int64Array::from_iter_values(i.clone())),
            Arc::new(i.clone().map(|i| (i % 5 > 0).then_some(i)).collect::<Int64Array>()),
            Arc::new(
                Decimal128Array::from_iter_values(i.clone().map(i128::from)).with_precision_and_scale(38, 4).expect("scale"),
            ),
            Arc::new(StringViewArray::from_iter_values(i.clone().map(text))),
            Arc::new(StringArray::from_iter_values(i.clone().map(text))),
            Arc::new(BooleanArray::from_iter(i.map(|i| Some(i % 7 > 2)))),
            Arc::new(DictionaryArray::new(keys, values)),
        ]
    }

    #[test]
    fn as_arrow_filters() {
        for rows in [0, 1, 63, 64, 65, 1000] {
            for (offset, rows) in [(0, rows), (rows / 3, rows - rows / 3)] {
                for modulus in [1, 2, 9, 2000] {
                    let mask =
                        BooleanArray::from_iter((0..offset + rows).map(|i| Some((i * i) % modulus == 0))).slice(offset, rows);
                    let kept = Kept::new(&mask);
                    assert_eq!(kept.count, mask.true_count());
                    for column in columns(offset + rows) {
                        let column = column.slice(offset, rows);
                        assert_eq!(&kept.column(&column).expect("kept"), &filter(&column, &mask).expect("filter"));
                    }
                }
            }
        }
    }
}
