//! Scalar expressions: compiled once, evaluated per batch.

use std::collections::HashMap;

use arrow::array::{ArrayRef, BooleanArray};
use stoa_columnstore::Predicate;
use stoa_plan::{ColumnId, DataType, Expr, Literal, ParameterId, ScanColumn};

use crate::{Batch, Bounds, Error, Layout, Result, Settings};

/// The values of scalar subplans that ran before.
pub type Parameters = HashMap<ParameterId, Literal>;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    ty: DataType,
    bounds: Bounds,
    text: String,
}

impl Expression {
    /// Compiles an expression over the columns of `layout`.
    ///
    /// # Errors
    /// If the plan is malformed or uses what cannot run.
    pub fn compile(expr: &Expr, layout: &Layout, parameters: &Parameters, settings: &Settings) -> Result<Expression> {
        let _ = (layout, parameters, settings);
        Ok(Expression { ty: expr.data_type(), bounds: Bounds::default(), text: String::new() })
    }

    /// The value for every row of the batch, `batch.rows` long, canonical or in an encoded form of [`crate::batch`].
    ///
    /// # Errors
    /// Overflow, division by zero, bad casts and the like.
    pub fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        let _ = batch;
        Err(Error::Unsupported("expressions".into()))
    }

    /// The rows for which a boolean expression is true (no NULLs in the result).
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn filter(&self, batch: &Batch) -> Result<BooleanArray> {
        let _ = batch;
        Err(Error::Unsupported("expressions".into()))
    }

    /// What is known of its values.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The logical type.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.ty
    }

    /// For people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.text
    }
}

/// Turns a conjunct over exactly one of `columns` into a predicate in the column's own terms; `None` if it reads several or none.
///
/// # Errors
/// As [`Expression::compile`].
pub fn scan_predicate(
    expr: &Expr,
    columns: &[ScanColumn],
    parameters: &Parameters,
    settings: &Settings,
) -> Result<Option<(ColumnId, Predicate)>> {
    let _ = (expr, columns, parameters, settings);
    Ok(None)
}
