//! Prepared statements of clients.

use std::sync::Arc;

use stoa_exec::CancelToken;
use stoa_plan::{DataType, Literal, Value};
use stoa_rpc::session::{Answer, Cancelled, Parameter, PreparedService};
use stoa_rpc::{Failure, FailureKind, Result};

use crate::cluster::Witness;
use crate::service::{Told, followed, send};
use crate::statements::Statements;
use crate::{Error, Prepared, Session};

/// A statement that a client prepared.
pub(crate) struct ClientStatement {
    pub session: Session,
    pub witness: Arc<Witness>,
    pub statements: Statements,
    pub user: String,
    pub database: String,
    pub prepared: Prepared,
}

impl PreparedService for ClientStatement {
    fn parameters(&self) -> u32 {
        self.prepared.parameters() as u32
    }

    fn execute(&self, values: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let values = (1..).zip(values).map(|(number, value)| literal(number, value)).collect::<Result<Vec<_>>>()?;
        let (cancel, progress) = (CancelToken::from(cancelled.clone()), followed(answer));
        let _call = self.witness.begin(answer.decisions()).map_err(Error::into_failure)?;
        let mut each = |outcome| send(answer, outcome);
        let run = || {
            let ran = self.session.run_prepared(&self.prepared, &values, &cancel, &progress, &mut each);
            ran.map_err(Told::into_failure)
        };
        self.statements.run(&self.user, &self.database, self.prepared.sql(), cancelled, run)
    }
}

/// The value of the parameter with this number.
fn literal(number: usize, value: &Parameter) -> Result<Literal> {
    let (ty, value) = match value {
        Parameter::Null => (DataType::Null, Value::Null),
        Parameter::Bool(v) => (DataType::Bool, Value::Bool(*v)),
        Parameter::Int(v) => (DataType::Int64, Value::Int(*v)),
        Parameter::Float(v) => (DataType::Float64, Value::Float(*v)),
        Parameter::Decimal(text) => {
            let wrong = || Failure::new(FailureKind::User, format!("the value of parameter {number} is no decimal: '{text}'"));
            decimal(text).ok_or_else(wrong)?
        }
        Parameter::String(v) => (DataType::Utf8, Value::Str(v.clone())),
        Parameter::Date(v) => (DataType::Date, Value::Int((*v).into())),
        Parameter::Timestamp(v) => (DataType::Timestamp, Value::Int(*v)),
        Parameter::Bytes(v) => (DataType::Binary, Value::Bytes(v.clone())),
    };
    Ok(Literal { ty, value })
}

/// `-12.50` as 1250 with two digits behind the point.
fn decimal(text: &str) -> Option<(DataType, Value)> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || all.len() > 38 || !all.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i128 = all.parse().ok()?;
    let ty = DataType::Decimal { precision: 38, scale: fraction.len() as i8 };
    Some((ty, Value::Decimal(if text.starts_with('-') { -value } else { value })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        let ty = |scale| DataType::Decimal { precision: 38, scale };
        assert_eq!(decimal("-12.50"), Some((ty(2), Value::Decimal(-1250))));
        assert_eq!(decimal("+.5"), Some((ty(1), Value::Decimal(5))));
        assert_eq!(decimal("18446744073709551616"), Some((ty(0), Value::Decimal(1 << 64))));
        for wrong in ["", "-", ".", "1e3", "1,5", "--1", " 1", "1.2.3", "٣", &"9".repeat(39)] {
            assert_eq!(decimal(wrong), None, "{wrong}");
        }
    }
}
