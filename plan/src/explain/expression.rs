//! Expressions and literals as text, close to SQL.

use super::{Names, joined};
use crate::{BinaryOp, DataType, Expr, Literal, UnaryOp, Value};

impl Names {
    pub(super) fn expr(&self, expr: &Expr) -> String {
        match expr {
            Expr::Column(id, _) => self.column(*id),
            Expr::Literal(literal) => text(literal),
            Expr::Parameter(id, _) => format!("${}", id.0),
            Expr::Binary { op, left, right, .. } => {
                format!("{} {} {}", self.operand(left, *op, false), symbol(*op), self.operand(right, *op, true))
            }
            Expr::Unary { op, input } => self.unary(*op, input),
            Expr::Cast { input, ty, safe } => {
                format!("{}({} AS {})", if *safe { "TRY_CAST" } else { "CAST" }, self.expr(input), type_name(*ty))
            }
            Expr::Case { branches, otherwise, .. } => {
                let mut out = "CASE".to_owned();
                for (condition, result) in branches {
                    out += &format!(" WHEN {} THEN {}", self.expr(condition), self.expr(result));
                }
                if let Some(otherwise) = otherwise {
                    out += &format!(" ELSE {}", self.expr(otherwise));
                }
                out + " END"
            }
            Expr::InList { input, list, negated } => {
                format!("{}{} IN ({})", self.atom(input), not(*negated), joined(list.iter().map(|e| self.expr(e))))
            }
            Expr::Like { input, pattern, escape, negated, case_insensitive } => {
                let like = if *case_insensitive { "ILIKE" } else { "LIKE" };
                let escape = escape.map(|c| format!(" ESCAPE '{c}'")).unwrap_or_default();
                format!("{}{} {like} {}{escape}", self.atom(input), not(*negated), self.atom(pattern))
            }
            Expr::Function { name, args, .. } => format!("{name}({})", joined(args.iter().map(|e| self.expr(e)))),
        }
    }

    fn unary(&self, op: UnaryOp, input: &Expr) -> String {
        let after = match op {
            UnaryOp::Not => return format!("NOT {}", self.atom(input)),
            UnaryOp::Negate => return format!("-{}", self.atom(input)),
            UnaryOp::IsNull => "IS NULL",
            UnaryOp::IsNotNull => "IS NOT NULL",
            UnaryOp::IsTrue => "IS TRUE",
            UnaryOp::IsNotTrue => "IS NOT TRUE",
            UnaryOp::IsFalse => "IS FALSE",
            UnaryOp::IsNotFalse => "IS NOT FALSE",
            UnaryOp::IsUnknown => "IS UNKNOWN",
            UnaryOp::IsNotUnknown => "IS NOT UNKNOWN",
        };
        format!("{} {after}", self.atom(input))
    }

    /// In parentheses if it is an operator's result.
    fn atom(&self, expr: &Expr) -> String {
        match expr {
            Expr::Binary { .. } | Expr::Unary { .. } | Expr::InList { .. } | Expr::Like { .. } => {
                format!("({})", self.expr(expr))
            }
            _ => self.expr(expr),
        }
    }

    fn operand(&self, expr: &Expr, outer: BinaryOp, right: bool) -> String {
        let weaker = match expr {
            Expr::Binary { op, .. } => {
                let (inner, outer) = (precedence(*op), precedence(outer));
                inner < outer || (inner == outer && right)
            }
            Expr::Unary { .. } | Expr::InList { .. } | Expr::Like { .. } => precedence(outer) > precedence(BinaryOp::And),
            _ => false,
        };
        if weaker { format!("({})", self.expr(expr)) } else { self.expr(expr) }
    }
}

fn not(negated: bool) -> &'static str {
    if negated { " NOT" } else { "" }
}

fn precedence(op: BinaryOp) -> u8 {
    use BinaryOp as B;
    match op {
        B::Or => 1,
        B::And => 2,
        B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq | B::IsDistinctFrom | B::IsNotDistinctFrom => 4,
        B::RegexMatch | B::RegexIMatch | B::RegexNotMatch | B::RegexNotIMatch => 4,
        B::BitOr | B::BitXor | B::BitAnd | B::ShiftLeft | B::ShiftRight | B::Concat => 5,
        B::Add | B::Sub => 6,
        B::Mul | B::Div | B::Mod => 7,
    }
}

fn symbol(op: BinaryOp) -> &'static str {
    use BinaryOp as B;
    match op {
        B::Eq => "=",
        B::NotEq => "<>",
        B::Lt => "<",
        B::LtEq => "<=",
        B::Gt => ">",
        B::GtEq => ">=",
        B::IsDistinctFrom => "IS DISTINCT FROM",
        B::IsNotDistinctFrom => "IS NOT DISTINCT FROM",
        B::And => "AND",
        B::Or => "OR",
        B::Add => "+",
        B::Sub => "-",
        B::Mul => "*",
        B::Div => "/",
        B::Mod => "%",
        B::BitAnd => "&",
        B::BitOr => "|",
        B::BitXor => "^",
        B::ShiftLeft => "<<",
        B::ShiftRight => ">>",
        B::Concat => "||",
        B::RegexMatch => "~",
        B::RegexIMatch => "~*",
        B::RegexNotMatch => "!~",
        B::RegexNotIMatch => "!~*",
    }
}

fn type_name(ty: DataType) -> String {
    match ty {
        DataType::Decimal { precision, scale } => format!("DECIMAL({precision},{scale})"),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 => "VARCHAR".to_owned(),
        other => format!("{other:?}").to_uppercase(),
    }
}

fn text(literal: &Literal) -> String {
    match (&literal.value, literal.ty) {
        (Value::Null, _) => "NULL".to_owned(),
        (Value::Bool(value), _) => if *value { "TRUE" } else { "FALSE" }.to_owned(),
        (Value::Int(days), DataType::Date) => format!("'{}'", date(*days)),
        (Value::Int(micros), DataType::Timestamp) => {
            let (day, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
            let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
            let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
            format!("'{} {clock}{fraction}'", date(day))
        }
        (Value::Int(value), _) => value.to_string(),
        (Value::UInt(value), _) => value.to_string(),
        (Value::Float(value), _) => format!("{value:?}"),
        (Value::Decimal(value), DataType::Decimal { scale, .. }) if scale > 0 => decimal(*value, scale.unsigned_abs()),
        (Value::Decimal(value), _) => value.to_string(),
        (Value::Str(value), _) => format!("'{}'", value.replace('\'', "''")),
        (Value::Bytes(value), _) => format!("X'{}'", value.iter().map(|b| format!("{b:02X}")).collect::<String>()),
        (Value::Interval { months, days, nanos }, _) => format!("INTERVAL {months} months {days} days {nanos} ns"),
    }
}

fn decimal(unscaled: i128, scale: u8) -> String {
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    format!("{}{whole}.{fraction}", if unscaled < 0 { "-" } else { "" })
}

/// The civil date of a day number (days since 1970-01-01), by the usual era arithmetic of 400 years.
fn date(days: i64) -> String {
    let shifted = i128::from(days) + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(8036), "1992-01-02");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(11_016), "2000-02-29");
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(150, 2), "1.50");
    }
}
