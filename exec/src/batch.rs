//! Batches of rows between operators, and what operators know about their columns.
//!
//! A column is an Arrow array in the canonical form of its logical type ([`stoa_plan::DataType::to_arrow`]) or in one of two encoded
//! forms that any operator may pass on and any operator may decline by calling [`canonical`]:
//! - **dictionary**: `Dictionary(UInt32, Utf8View)` for a string column; batches of one segment share the values array, so that work
//!   per entry can be done once per dictionary (compare the values by pointer);
//! - **narrow**: `Decimal64(18, s)` for a logical `DECIMAL(p > 18, s)` whose [`Bounds`] prove that every value fits an `i64`.

use arrow::array::{Array, ArrayRef};
use arrow::compute::cast;
use stoa_plan::{ColumnId, DataType, Field};

use crate::{Error, Result};

/// Rows in columns, all of one length, without a selection: scans and joins materialize only what is selected.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Columns in the order of the stage's [`Layout`].
    pub columns: Vec<ArrayRef>,
    /// Number of rows, also where there is no column.
    pub rows: usize,
}

impl Batch {
    /// Bytes that the columns hold; shared buffers count for each holder.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.columns.iter().map(Array::get_array_memory_size).sum()
    }

    /// The columns at these positions, without a copy.
    #[must_use]
    pub(crate) fn columns_at(&self, positions: &[usize]) -> Batch {
        Batch { columns: positions.iter().map(|i| self.columns[*i].clone()).collect(), rows: self.rows }
    }

    /// The rows `offset..offset + rows`, without a copy.
    #[must_use]
    pub fn slice(&self, offset: usize, rows: usize) -> Batch {
        Batch { columns: self.columns.iter().map(|c| c.slice(offset, rows)).collect(), rows }
    }
}

/// The columns of the batches at one point of a pipeline.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Columns, by position.
    pub columns: Vec<LayoutColumn>,
}

/// One column of a [`Layout`].
#[derive(Clone, Debug)]
pub struct LayoutColumn {
    /// Identity, name, type, nullability.
    pub field: Field,
    /// What is known of its values.
    pub bounds: Bounds,
}

/// Exact limits of a column's or expression's integer values (unscaled decimals, days, microseconds), NULLs aside. `None` where
/// nothing is known. They come from the segments' zone maps and hold for every row of the query's snapshot; arithmetic in `i64`
/// without overflow checks, packed keys and dense arrays rest on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Smallest and largest value.
    pub range: Option<(i128, i128)>,
}

impl Layout {
    /// Position of a column.
    ///
    /// # Errors
    /// [`Error::Internal`] if no column has this id: the plan is malformed.
    pub fn position(&self, id: ColumnId) -> Result<usize> {
        self.columns
            .iter()
            .position(|c| c.field.id == id)
            .ok_or_else(|| Error::Internal(format!("column {} is not in the input", id.0)))
    }
}

/// The array in the canonical form of `ty`; the array itself if it is in that form.
///
/// # Errors
/// If the array is of no encoding of `ty`.
pub fn canonical(array: &ArrayRef, ty: DataType) -> Result<ArrayRef> {
    let target = ty.to_arrow();
    if *array.data_type() == target { Ok(array.clone()) } else { Ok(cast(array, &target)?) }
}
