//! Expressions over one string column, once per dictionary entry.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Scalar, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{is_null, take};
use arrow::datatypes::{DataType as Arrow, UInt32Type};
use parking_lot::Mutex;
use stoa_plan::DataType;

use super::node::Compiled;
use super::value::Evaluated;
use crate::{Batch, Result};

/// Wraps an expression that reads one string column only.
pub(crate) struct PerEntry {
    column: usize,
    inner: Compiled,
    cache: Mutex<Vec<Known>>,
}

/// The results for one dictionary.
#[derive(Clone)]
struct Known {
    entries: ArrayRef,
    /// One per entry; `None` if the expression fails for some entry, which rows may not hold.
    results: Option<ArrayRef>,
    /// For NULL.
    for_null: Option<ArrayRef>,
}

/// Dictionaries remembered.
const REMEMBERED: usize = 32;

impl PerEntry {
    pub(crate) fn new(column: usize, inner: Compiled) -> PerEntry {
        PerEntry { column, inner, cache: Mutex::new(Vec::new()) }
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let array = &batch.columns[self.column];
        let Some(dictionary) = array.as_dictionary_opt::<UInt32Type>() else { return self.inner.evaluate(batch) };
        let known = self.known(dictionary.values());
        let Some(results) = known.results else { return self.inner.evaluate(batch) };
        let keys = dictionary.keys();
        if *results.data_type() == Arrow::Utf8View && known.for_null.is_none() && results.null_count() == 0 {
            let result = DictionaryArray::<UInt32Type>::new(keys.clone(), results);
            return Ok(Evaluated::Array(Arc::new(result)));
        }
        let mut result = take(&results, keys, None)?;
        if let (Some(value), true) = (known.for_null, keys.null_count() > 0) {
            result = zip(&is_null(keys)?, &Scalar::new(value), &result)?;
        }
        Ok(Evaluated::Array(result))
    }

    fn known(&self, entries: &ArrayRef) -> Known {
        let mut cache = self.cache.lock();
        if let Some(at) = cache.iter().position(|k| same(&k.entries, entries)) {
            return cache[at].clone();
        }
        drop(cache);
        let known = Known {
            entries: entries.clone(),
            results: self.over(entries.clone()).ok(),
            for_null: self.over(new_null_array(&DataType::Utf8.to_arrow(), 1)).ok().filter(|v| v.is_valid(0)),
        };
        cache = self.cache.lock();
        if cache.len() >= REMEMBERED {
            cache.remove(0);
        }
        cache.push(known.clone());
        known
    }

    fn over(&self, entries: ArrayRef) -> Result<ArrayRef> {
        let rows = entries.len();
        let batch = Batch { columns: vec![entries; self.column + 1], rows };
        let value = self.inner.evaluate(&batch)?.into_array(rows)?;
        crate::batch::canonical(&value, self.inner.ty)
    }
}

/// Whether two dictionaries are one object.
pub(crate) fn same(a: &ArrayRef, b: &ArrayRef) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl fmt::Debug for PerEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerEntry").field("column", &self.column).field("inner", &self.inner).finish_non_exhaustive()
    }
}
