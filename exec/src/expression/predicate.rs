//! Conjuncts over one column as predicates in the column's own terms.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float32Type, Float64Type};
use stoa_columnstore::predicate::ValueFunction;
use stoa_columnstore::{Datum, Predicate};
use stoa_plan::{BinaryOp, ColumnId, DataType, Expr, ScanColumn, UnaryOp};

use super::compile::Compiler;
use super::{Expression, Parameters, bounds, value};
use crate::{Batch, Bounds, Layout, LayoutColumn, Result, Settings};

/// Turns a conjunct over exactly one of `columns` into a predicate in the column's own terms; `None` if it reads several or none,
/// or may differ from one evaluation to the next.
///
/// # Errors
/// As [`Expression::compile`].
pub fn scan_predicate(
    expr: &Expr,
    columns: &[ScanColumn],
    parameters: &Parameters,
    settings: &Settings,
) -> Result<Option<(ColumnId, Predicate)>> {
    let [id] = expr.columns()[..] else { return Ok(None) };
    let Some(column) = columns.iter().find(|c| c.field.id == id) else { return Ok(None) };
    let maker = Maker { id, ty: column.field.ty, parameters, settings };
    if let Some(predicate) = maker.native(expr)? {
        return Ok(Some((id, predicate)));
    }
    let layout = Layout { columns: vec![LayoutColumn { field: column.field.clone(), bounds: Bounds::default() }] };
    let compiled = Expression::compile(expr, &layout, parameters, settings)?;
    if compiled.is_volatile() {
        return Ok(None);
    }
    let description = compiled.description().to_owned();
    let function = move |array: &ArrayRef| {
        let batch = Batch { columns: vec![array.clone()], rows: array.len() };
        compiled.filter(&batch).map_err(|error| match error {
            crate::Error::Storage(error) => error,
            crate::Error::User(what) => stoa_columnstore::Error::Function(what),
            other => stoa_columnstore::Error::Invalid(other.to_string()),
        })
    };
    Ok(Some((id, Predicate::Function(ValueFunction { description, function: Arc::new(function) }))))
}

struct Maker<'a> {
    id: ColumnId,
    ty: DataType,
    parameters: &'a Parameters,
    settings: &'a Settings,
}

/// A constant in the column's domain.
enum Place {
    /// NULL: no comparison with it is true.
    Null,
    /// A value of the column's type.
    At(Datum),
    /// Between two neighbouring values of the column's type; this is the lower.
    Above(i128),
}

fn nothing() -> Predicate {
    Predicate::In(Vec::new())
}

impl Maker<'_> {
    fn native(&self, expr: &Expr) -> Result<Option<Predicate>> {
        Ok(match expr {
            Expr::Column(..) if self.ty == DataType::Bool => Some(exactly(1)),
            Expr::Unary { op, input } if self.is_column(input) => match op {
                UnaryOp::IsNull => Some(Predicate::IsNull),
                UnaryOp::IsNotNull => Some(Predicate::IsNotNull),
                UnaryOp::Not | UnaryOp::IsFalse if self.ty == DataType::Bool => Some(exactly(0)),
                UnaryOp::IsTrue if self.ty == DataType::Bool => Some(exactly(1)),
                _ => None,
            },
            Expr::Binary { op: BinaryOp::And, left, right, .. } => {
                let both = self.native(left)?.zip(self.native(right)?);
                both.and_then(|(a, b)| intersect(a, b))
            }
            Expr::Binary { op: BinaryOp::Or, left, right, .. } => {
                let both = self.native(left)?.zip(self.native(right)?);
                both.and_then(|(a, b)| unite(a, b))
            }
            Expr::Binary { op, left, right, .. } if self.is_column(left) => self.constant(right)?.and_then(|c| compare(*op, c)),
            Expr::Binary { op, left, right, .. } if self.is_column(right) => {
                let Some(op) = op.mirrored() else { return Ok(None) };
                self.constant(left)?.and_then(|c| compare(op, c))
            }
            Expr::InList { input, list, negated: false } if self.is_column(input) => {
                let mut values = Vec::new();
                for item in list {
                    match self.constant(item)? {
                        None => return Ok(None),
                        Some(Place::At(datum)) => values.push(datum),
                        Some(Place::Null | Place::Above(_)) => {}
                    }
                }
                Some(Predicate::In(values))
            }
            Expr::Like { input, pattern, escape, negated: false, case_insensitive: false } if self.is_column(input) => {
                match self.constant(pattern)? {
                    Some(Place::At(Datum::Bytes(pattern))) => prefix(&pattern, *escape),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    fn is_column(&self, expr: &Expr) -> bool {
        matches!(expr, Expr::Column(id, _) if *id == self.id)
    }

    /// The place of a constant expression among the column's values; `None` if it is none or has another kind.
    fn constant(&self, expr: &Expr) -> Result<Option<Place>> {
        let layout = Layout::default();
        if !expr.columns().is_empty() {
            return Ok(None);
        }
        let compiled = Compiler { layout: &layout, parameters: self.parameters, settings: self.settings }.root(expr)?;
        let Some(array) = compiled.constant() else { return Ok(None) };
        if array.logical_null_count() > 0 {
            return Ok(Some(Place::Null));
        }
        if let (Some(_), Some(_)) = (bounds::of_type(self.ty), bounds::of_type(compiled.ty)) {
            let time = |ty| matches!(ty, DataType::Date | DataType::Timestamp);
            if (time(self.ty) || time(compiled.ty)) && self.ty != compiled.ty {
                return Ok(None);
            }
            let shift = bounds::scale(self.ty) - bounds::scale(compiled.ty);
            let Some(power) = bounds::power_of_ten(shift.unsigned_abs()) else { return Ok(None) };
            let v = value::int_at(array, 0)?;
            if shift >= 0 {
                return Ok(v.checked_mul(power).map(|v| Place::At(Datum::Int(v))));
            }
            let floor = v.div_euclid(power);
            return Ok(Some(if v.rem_euclid(power) == 0 { Place::At(Datum::Int(floor)) } else { Place::Above(floor) }));
        }
        if self.ty != compiled.ty {
            return Ok(None);
        }
        let canonical = crate::batch::canonical(array, self.ty)?;
        Ok(match self.ty {
            DataType::Float64 => Some(Place::At(Datum::Float(canonical.as_primitive::<Float64Type>().value(0)))),
            DataType::Float32 => Some(Place::At(Datum::Float(canonical.as_primitive::<Float32Type>().value(0).into()))),
            DataType::Utf8 => Some(Place::At(Datum::Bytes(canonical.as_string_view().value(0).into()))),
            DataType::Binary => Some(Place::At(Datum::Bytes(canonical.as_binary::<i32>().value(0).into()))),
            _ => None,
        })
    }
}

fn exactly(value: i128) -> Predicate {
    let bound = Some((Datum::Int(value), true));
    Predicate::Range { low: bound.clone(), high: bound }
}

fn compare(op: BinaryOp, place: Place) -> Option<Predicate> {
    let datum = match place {
        Place::Null if matches!(op, BinaryOp::IsDistinctFrom | BinaryOp::IsNotDistinctFrom) => return None,
        Place::Null => return Some(nothing()),
        Place::Above(floor) => {
            let floor = Some((Datum::Int(floor), true));
            return match op {
                BinaryOp::Eq => Some(nothing()),
                BinaryOp::NotEq => Some(Predicate::IsNotNull),
                BinaryOp::Lt | BinaryOp::LtEq => Some(Predicate::Range { low: None, high: floor }),
                BinaryOp::Gt | BinaryOp::GtEq => Some(Predicate::Range { low: floor.map(|(d, _)| (d, false)), high: None }),
                _ => None,
            };
        }
        Place::At(datum) => datum,
    };
    Some(match op {
        BinaryOp::Eq => Predicate::Range { low: Some((datum.clone(), true)), high: Some((datum, true)) },
        BinaryOp::NotEq => Predicate::NotEqual(datum),
        BinaryOp::Lt => Predicate::Range { low: None, high: Some((datum, false)) },
        BinaryOp::LtEq => Predicate::Range { low: None, high: Some((datum, true)) },
        BinaryOp::Gt => Predicate::Range { low: Some((datum, false)), high: None },
        BinaryOp::GtEq => Predicate::Range { low: Some((datum, true)), high: None },
        _ => return None,
    })
}

/// `BETWEEN`: one range open above, the other below.
fn intersect(a: Predicate, b: Predicate) -> Option<Predicate> {
    match (a, b) {
        (Predicate::Range { low, high: None }, Predicate::Range { low: None, high })
        | (Predicate::Range { low: None, high }, Predicate::Range { low, high: None }) => Some(Predicate::Range { low, high }),
        _ => None,
    }
}

fn unite(a: Predicate, b: Predicate) -> Option<Predicate> {
    let list = |p: Predicate| match p {
        Predicate::In(values) => Some(values),
        Predicate::Range { low: Some((low, true)), high: Some((high, true)) } if low == high => Some(vec![low]),
        _ => None,
    };
    let mut values = list(a)?;
    values.extend(list(b)?);
    Some(Predicate::In(values))
}

/// `LIKE 'prefix%'` as a range.
fn prefix(pattern: &[u8], escape: Option<char>) -> Option<Predicate> {
    let literal = pattern.strip_suffix(b"%")?;
    let special = |b: &u8| matches!(b, b'%' | b'_' | b'\\') || escape.is_some_and(|e| !e.is_ascii() || e as u32 == u32::from(*b));
    if literal.is_empty() || literal.iter().any(special) {
        return None;
    }
    let mut end = literal.to_vec();
    *end.last_mut()? = end.last()?.checked_add(1)?;
    Some(Predicate::Range { low: Some((Datum::Bytes(literal.to_vec()), true)), high: Some((Datum::Bytes(end), false)) })
}
