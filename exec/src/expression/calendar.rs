//! Dates: parts of dates, and dates with intervals.

use arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType as Arrow, IntervalMonthDayNano, IntervalMonthDayNanoType};
use stoa_plan::DataType;

use super::arithmetic::{both_nulls, nothing};
use super::node::Compiled;
use super::value::{Data, Evaluated, Ints, dates, from_i64};
use crate::{Batch, Error, Result};

const DAY: i64 = 86_400_000_000;

/// Year, month, day of a day number (Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The day number of a year, month, day.
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let y = year - i64::from(month <= 2);
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The parts with an integer loop of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Year,
    Quarter,
    Month,
    Day,
}

impl Part {
    pub(crate) fn parse(name: &str) -> Option<Part> {
        Some(match name.to_ascii_lowercase().as_str() {
            "year" | "years" => Part::Year,
            "quarter" => Part::Quarter,
            "month" | "months" => Part::Month,
            "day" | "days" => Part::Day,
            _ => return None,
        })
    }

    pub(crate) fn of(self, days: i64) -> i64 {
        let (year, month, day) = civil(days);
        match self {
            Part::Year => year,
            Part::Quarter => (month + 2) / 3,
            Part::Month => month,
            Part::Day => day,
        }
    }

    /// The values that the part takes for days of a range.
    pub(crate) fn range(self, days: (i128, i128)) -> (i128, i128) {
        match self {
            Part::Year => (civil(days.0 as i64).0.into(), civil(days.1 as i64).0.into()),
            Part::Quarter => (1, 4),
            Part::Month => (1, 12),
            Part::Day => (1, 31),
        }
    }
}

/// `date_part` of a date or timestamp.
#[derive(Debug)]
pub(crate) struct DatePart {
    pub(crate) part: Part,
    pub(crate) input: Compiled,
    pub(crate) ty: DataType,
    /// The part of every day from `first_day` on, if the input's bounds make a short table.
    pub(crate) table: Option<(i64, Vec<i32>)>,
}

/// Longest table: 70 years.
const TABLE_DAYS: i128 = 25_600;

impl DatePart {
    pub(crate) fn new(part: Part, input: Compiled, ty: DataType) -> DatePart {
        let table = match input.bounds.range {
            Some((low, high)) if input.ty == DataType::Date && high >= low && high - low < TABLE_DAYS => {
                Some((low as i64, (low as i64..=high as i64).map(|d| part.of(d) as i32).collect()))
            }
            _ => None,
        };
        DatePart { part, input, ty, table }
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.input.evaluate(batch)?;
        let unit = if self.input.ty == DataType::Timestamp { DAY } else { 1 };
        let nulls = value.array().logical_nulls();
        if let (Some((first, table)), Arrow::Date32) = (&self.table, value.array().data_type()) {
            let days = value.array().as_primitive::<arrow::datatypes::Date32Type>().values();
            let first = *first as i32;
            let out: Vec<i32> =
                days.iter().map(|d| table.get(d.wrapping_sub(first) as u32 as usize).copied().unwrap_or(0)).collect();
            if self.ty == DataType::Int32 {
                return Ok(value.with(std::sync::Arc::new(arrow::array::Int32Array::new(out.into(), nulls))));
            }
            let ints: ArrayRef = std::sync::Arc::new(arrow::array::Int32Array::new(out.into(), nulls));
            return Ok(value.with(arrow::compute::cast(&ints, &self.ty.to_arrow())?));
        }
        let ints = Ints::<i64>::of(&value)?;
        let one = |v: i64| self.part.of(v.div_euclid(unit));
        let out = match ints.values {
            Data::One(v) => vec![one(v)],
            Data::Shared(values) => values.iter().map(|v| one(*v)).collect(),
            Data::Own(values) => values.into_iter().map(one).collect(),
        };
        let array = if super::bounds::of_type(self.ty).is_some() {
            from_i64(out, nulls, self.ty)?
        } else {
            arrow::compute::cast(&from_i64(out, nulls, DataType::Int64)?, &self.ty.to_arrow())?
        };
        Ok(value.with(array))
    }
}

/// Dates and timestamps plus or minus intervals, and their differences.
#[derive(Debug)]
pub(crate) struct IntervalArithmetic {
    pub(crate) left: Compiled,
    pub(crate) right: Compiled,
    pub(crate) subtract: bool,
    pub(crate) ty: DataType,
}

impl IntervalArithmetic {
    /// Whether these operands are for this node.
    pub(crate) fn applies(left: DataType, right: DataType) -> bool {
        let time = |ty| matches!(ty, DataType::Date | DataType::Timestamp | DataType::Interval);
        time(left) || time(right)
    }

    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let (mut left, mut right) = (self.left.evaluate(batch)?, self.right.evaluate(batch)?);
        let (mut left_ty, mut right_ty) = (self.left.ty, self.right.ty);
        if left_ty == DataType::Interval && right_ty != DataType::Interval && !self.subtract {
            std::mem::swap(&mut left, &mut right);
            std::mem::swap(&mut left_ty, &mut right_ty);
        }
        let scalar = left.is_scalar() && right.is_scalar();
        let rows = if scalar { 1 } else { batch.rows };
        let array = match (left_ty, right_ty) {
            (DataType::Interval, DataType::Interval) => self.intervals(&left, &right, rows)?,
            (DataType::Date | DataType::Timestamp, DataType::Interval) => self.shift(&left, left_ty, &right, rows)?,
            (DataType::Date | DataType::Timestamp, DataType::Date | DataType::Timestamp) if self.subtract => {
                self.difference((&left, left_ty), (&right, right_ty), rows)?
            }
            (DataType::Date, _) => self.shift_days(&left, &right, rows)?,
            other => return Err(Error::Unsupported(format!("arithmetic of {other:?}"))),
        };
        Ok(if scalar { Evaluated::Scalar(array) } else { Evaluated::Array(array) })
    }

    fn shift(&self, left: &Evaluated, left_ty: DataType, right: &Evaluated, rows: usize) -> Result<ArrayRef> {
        let ints = Ints::<i64>::of(left)?;
        let spans = right.array().as_primitive::<IntervalMonthDayNanoType>();
        let Some(nulls) = both_nulls(&ints.nulls, left, &spans.nulls().cloned(), right, rows) else {
            return nothing(self.ty, rows);
        };
        let unit = if left_ty == DataType::Date { DAY } else { 1 };
        let back = if self.ty == DataType::Date { DAY } else { 1 };
        let sign = if self.subtract { -1 } else { 1 };
        let mut out = vec![0; rows];
        for (row, slot) in out.iter_mut().enumerate() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let span = spans.value(if right.is_scalar() { 0 } else { row });
            let moved = at(&ints, row).checked_mul(unit).and_then(|time| moved(time, span, sign));
            let moved = moved.map(|t| t.div_euclid(back)).filter(|t| self.ty != DataType::Date || i32::try_from(*t).is_ok());
            *slot = moved.ok_or_else(|| Error::User("overflow: the date is out of range".into()))?;
        }
        if self.ty == DataType::Date {
            return Ok(dates(out.into_iter().map(|v| v as i32).collect(), nulls));
        }
        Ok(std::sync::Arc::new(TimestampMicrosecondArray::new(out.into(), nulls)))
    }

    fn shift_days(&self, left: &Evaluated, right: &Evaluated, rows: usize) -> Result<ArrayRef> {
        let (l, r) = (Ints::<i64>::of(left)?, Ints::<i64>::of(right)?);
        let Some(nulls) = both_nulls(&l.nulls, left, &r.nulls, right, rows) else { return nothing(self.ty, rows) };
        let mut out = vec![0; rows];
        for (row, slot) in out.iter_mut().enumerate() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let (a, b) = (at(&l, row), at(&r, row));
            let sum = if self.subtract { a.checked_sub(b) } else { a.checked_add(b) };
            let sum = sum.and_then(|v| i32::try_from(v).ok());
            *slot = sum.ok_or_else(|| Error::User("overflow: the date is out of range".into()))?;
        }
        Ok(dates(out, nulls))
    }

    fn difference(&self, left: (&Evaluated, DataType), right: (&Evaluated, DataType), rows: usize) -> Result<ArrayRef> {
        let (l, r) = (Ints::<i64>::of(left.0)?, Ints::<i64>::of(right.0)?);
        let Some(nulls) = both_nulls(&l.nulls, left.0, &r.nulls, right.0, rows) else { return nothing(self.ty, rows) };
        let days = left.1 == DataType::Date && right.1 == DataType::Date;
        let unit = |ty| if ty == DataType::Date && !days { DAY } else { 1 };
        let (a, b) = (unit(left.1), unit(right.1));
        let values: Vec<i64> =
            (0..rows).map(|row| at(&l, row).wrapping_mul(a).wrapping_sub(at(&r, row).wrapping_mul(b))).collect();
        if self.ty != DataType::Interval {
            return from_i64(values, nulls, self.ty);
        }
        let span = |v: i64| {
            let (d, micros) = if days { (v, 0) } else { (v / DAY, v % DAY) };
            IntervalMonthDayNanoType::make_value(0, d as i32, micros * 1000)
        };
        Ok(spans(values.into_iter().map(span).collect(), nulls))
    }

    fn intervals(&self, left: &Evaluated, right: &Evaluated, rows: usize) -> Result<ArrayRef> {
        let (l, r) =
            (left.array().as_primitive::<IntervalMonthDayNanoType>(), right.array().as_primitive::<IntervalMonthDayNanoType>());
        let Some(nulls) = both_nulls(&l.nulls().cloned(), left, &r.nulls().cloned(), right, rows) else {
            return nothing(self.ty, rows);
        };
        let combine = |row: usize| {
            let a = l.value(if left.is_scalar() { 0 } else { row });
            let b = r.value(if right.is_scalar() { 0 } else { row });
            let (months, days, nanos) = if self.subtract {
                (a.months.checked_sub(b.months)?, a.days.checked_sub(b.days)?, a.nanoseconds.checked_sub(b.nanoseconds)?)
            } else {
                (a.months.checked_add(b.months)?, a.days.checked_add(b.days)?, a.nanoseconds.checked_add(b.nanoseconds)?)
            };
            Some(IntervalMonthDayNanoType::make_value(months, days, nanos))
        };
        let values: Option<Vec<_>> = (0..rows).map(combine).collect();
        Ok(spans(values.ok_or_else(|| Error::User("overflow of an interval".into()))?, nulls))
    }
}

fn spans(values: Vec<IntervalMonthDayNano>, nulls: Option<NullBuffer>) -> ArrayRef {
    std::sync::Arc::new(IntervalMonthDayNanoArray::new(values.into(), nulls))
}

fn at(ints: &Ints<i64>, row: usize) -> i64 {
    match &ints.values {
        Data::One(v) => *v,
        Data::Shared(values) => values[row],
        Data::Own(values) => values[row],
    }
}

/// A time in microseconds moved by an interval: months first (the day is kept within the month), then days, then the rest.
fn moved(time: i64, span: IntervalMonthDayNano, sign: i64) -> Option<i64> {
    let (mut days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    if span.months != 0 {
        let (year, month, day) = civil(days);
        let months = (year * 12 + month - 1) + sign * i64::from(span.months);
        let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
        days = days_of(year, month, day.min(month_days(year, month)));
    }
    days = days.checked_add(sign * i64::from(span.days))?;
    days.checked_mul(DAY)?.checked_add(rest)?.checked_add(sign * (span.nanoseconds / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn civil_dates_round_trip() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(days_of(1998, 9, 2), 10_471);
        let mut previous = civil(-800_000);
        for days in -799_999..800_000 {
            let (y, m, d) = civil(days);
            assert_eq!(days_of(y, m, d), days);
            let next = if previous.2 < month_days(previous.0, previous.1) {
                (previous.0, previous.1, previous.2 + 1)
            } else if previous.1 < 12 {
                (previous.0, previous.1 + 1, 1)
            } else {
                (previous.0 + 1, 1, 1)
            };
            assert_eq!((y, m, d), next);
            previous = next;
        }
    }

    #[test]
    fn months_keep_the_day_within_the_month() {
        let span = IntervalMonthDayNanoType::make_value(1, 0, 0);
        let day = |y, m, d| days_of(y, m, d) * DAY;
        assert_eq!(moved(day(2024, 1, 31), span, 1), Some(day(2024, 2, 29)));
        assert_eq!(moved(day(2023, 3, 31), span, -1), Some(day(2023, 2, 28)));
        assert_eq!(moved(day(2023, 12, 15), span, 1), Some(day(2024, 1, 15)));
    }
}
