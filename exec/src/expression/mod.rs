//! Scalar expressions: compiled once, evaluated per batch.
//!
//! [`Expression::compile`] turns a plan expression into a closed set of physical nodes whose strategies are chosen from the types
//! and the [`Bounds`] of their operands. What it keeps true: a result is right for every input or an [`crate::Error::User`]; narrow
//! decimals appear only where the bounds prove that they fit; a part that may fail is evaluated only for the rows that need it in
//! AND, OR, CASE and COALESCE.

mod arithmetic;
mod bits;
pub(crate) mod bounds;
mod calendar;
mod case;
mod cast;
mod compare;
mod compile;
mod describe;
mod entries;
mod function;
mod list;
mod logic;
mod node;
mod pattern;
mod predicate;
mod single_row;
#[cfg(test)]
mod tests;
mod text;
mod value;

use std::collections::HashMap;

use arrow::array::{ArrayRef, BooleanArray, new_empty_array};
use stoa_plan::{DataType, Expr, Literal, ParameterId};

pub(crate) use entries::same;
pub use predicate::scan_predicate;
pub use value::literal;
pub(crate) use value::{Evaluated, Ints, from_i64, from_i128, int_at};

use crate::{Batch, Bounds, Layout, Result, Settings};

/// The values of scalar subplans that ran before.
pub type Parameters = HashMap<ParameterId, Literal>;

/// A compiled expression; shared by the workers of a stage.
#[derive(Debug)]
pub struct Expression {
    root: node::Compiled,
    text: String,
}

impl Expression {
    /// Compiles an expression over the columns of `layout`.
    ///
    /// # Errors
    /// If the plan is malformed or uses what cannot run.
    pub fn compile(expr: &Expr, layout: &Layout, parameters: &Parameters, settings: &Settings) -> Result<Expression> {
        let root = compile::Compiler { layout, parameters, settings }.root(expr)?;
        Ok(Expression { root, text: describe::describe(expr, layout) })
    }

    /// The value for every row of the batch, `batch.rows` long, canonical or in an encoded form of [`crate::batch`].
    ///
    /// # Errors
    /// Overflow, division by zero, bad casts and the like.
    pub fn evaluate(&self, batch: &Batch) -> Result<ArrayRef> {
        if batch.rows == 0 {
            return Ok(new_empty_array(&self.root.ty.to_arrow()));
        }
        self.root.evaluate(batch)?.into_array(batch.rows)
    }

    /// The rows for which a boolean expression is true (no NULLs in the result).
    ///
    /// # Errors
    /// As [`Expression::evaluate`].
    pub fn filter(&self, batch: &Batch) -> Result<BooleanArray> {
        if batch.rows == 0 {
            return Ok(BooleanArray::from(Vec::<bool>::new()));
        }
        let value = self.root.boolean(batch)?;
        Ok(BooleanArray::new(logic::truths(&value), None))
    }

    /// What is known of its values.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.root.bounds
    }

    /// The logical type.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.root.ty
    }

    /// For people.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.text
    }

    /// The value, if it is the same for all rows: one element.
    #[must_use]
    pub fn constant(&self) -> Option<&ArrayRef> {
        self.root.constant()
    }

    /// The position of the column that it is, if it is a bare column.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        if let node::Node::Column(position) = self.root.node { Some(position) } else { None }
    }

    /// Whether two evaluations may differ (`random()`).
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        self.root.volatile
    }
}
