//! The physical nodes of an expression and their evaluation.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::compute::filter;
use stoa_plan::DataType;

use super::arithmetic::{Arithmetic, FloatArithmetic};
use super::bits::Bits;
use super::calendar::{DatePart, IntervalArithmetic};
use super::case::{Case, Coalesce};
use super::cast::Cast;
use super::compare::Compare;
use super::entries::PerEntry;
use super::function::Call;
use super::list::InList;
use super::logic::{Is, Logic};
use super::pattern::Pattern;
use super::text::{Concat, Substring};
use super::value::Evaluated;
use crate::{Batch, Bounds, Result};

/// A compiled node with what is known of it.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) node: Node,
    /// Logical type.
    pub(crate) ty: DataType,
    /// Range of its integer values.
    pub(crate) bounds: Bounds,
    /// Whether its evaluation may fail for some values.
    pub(crate) fallible: bool,
    /// Rough nanoseconds a row.
    pub(crate) cost: u32,
    /// Positions of the columns that it reads, ascending.
    pub(crate) columns: Vec<usize>,
    /// Whether two evaluations may differ (`random()`).
    pub(crate) volatile: bool,
}

/// The closed set of physical nodes.
#[derive(Debug)]
pub(crate) enum Node {
    Column(usize),
    Constant(ArrayRef),
    Arithmetic(Box<Arithmetic>),
    Float(Box<FloatArithmetic>),
    Bits(Box<Bits>),
    Interval(Box<IntervalArithmetic>),
    Compare(Box<Compare>),
    Logic(Box<Logic>),
    Is(Box<Is>),
    Case(Box<Case>),
    Coalesce(Box<Coalesce>),
    Cast(Box<Cast>),
    InList(Box<InList>),
    Pattern(Box<Pattern>),
    DatePart(Box<DatePart>),
    Substring(Box<Substring>),
    Concat(Box<Concat>),
    Call(Box<Call>),
    PerEntry(Box<PerEntry>),
}

impl Compiled {
    /// Evaluates for every row of the batch.
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        match &self.node {
            Node::Column(position) => Ok(Evaluated::Array(batch.columns[*position].clone())),
            Node::Constant(array) => Ok(Evaluated::Scalar(array.clone())),
            Node::Arithmetic(node) => node.evaluate(batch),
            Node::Float(node) => node.evaluate(batch),
            Node::Bits(node) => node.evaluate(batch),
            Node::Interval(node) => node.evaluate(batch),
            Node::Compare(node) => node.evaluate(batch),
            Node::Logic(node) => node.evaluate(batch),
            Node::Is(node) => node.evaluate(batch),
            Node::Case(node) => node.evaluate(batch),
            Node::Coalesce(node) => node.evaluate(batch),
            Node::Cast(node) => node.evaluate(batch),
            Node::InList(node) => node.evaluate(batch),
            Node::Pattern(node) => node.evaluate(batch),
            Node::DatePart(node) => node.evaluate(batch),
            Node::Substring(node) => node.evaluate(batch),
            Node::Concat(node) => node.evaluate(batch),
            Node::Call(node) => node.evaluate(batch),
            Node::PerEntry(node) => node.evaluate(batch),
        }
    }

    /// Evaluates to the canonical form, a scalar staying one element.
    pub(crate) fn canonical(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.evaluate(batch)?;
        let array = crate::batch::canonical(value.array(), self.ty)?;
        Ok(value.with(array))
    }

    /// Evaluates a boolean expression.
    pub(crate) fn boolean(&self, batch: &Batch) -> Result<BooleanArray> {
        let array = self.canonical(batch)?.into_array(batch.rows)?;
        array
            .as_any()
            .downcast_ref::<BooleanArray>()
            .cloned()
            .ok_or_else(|| crate::Error::Internal(format!("a condition of type {}", array.data_type())))
    }

    /// Evaluates to a dense array in 64 bits or canonical form (no dictionary).
    pub(crate) fn flat(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.evaluate(batch)?;
        if matches!(value.array().data_type(), arrow::datatypes::DataType::Dictionary(..)) {
            let array = crate::batch::canonical(value.array(), self.ty)?;
            return Ok(value.with(array));
        }
        Ok(value)
    }

    /// The constant, if it is one.
    pub(crate) fn constant(&self) -> Option<&ArrayRef> {
        if let Node::Constant(array) = &self.node { Some(array) } else { None }
    }
}

/// The rows of `batch` where `keep` is true; only `columns` are filtered, the others must not be read.
pub(crate) fn select(batch: &Batch, columns: &[usize], keep: &BooleanArray) -> Result<Batch> {
    let mut selected = batch.columns.clone();
    for column in columns {
        selected[*column] = filter(&batch.columns[*column], keep)?;
    }
    Ok(Batch { columns: selected, rows: keep.true_count() })
}

/// A boolean array as a value.
pub(crate) fn booleans(array: BooleanArray) -> Evaluated {
    Evaluated::Array(Arc::new(array))
}
