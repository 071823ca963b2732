//! INSERT of plain literals: its rows without a plan.
//!
//! What is not exactly covered here (expressions, conversions that round or may fail, names in another case) has no rows here and goes
//! by [`crate::bind_insert`], which decides what it means. Where there are rows here, they are the ones that its plan yields.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal64Array, Decimal128Array, PrimitiveArray, RecordBatch, StringViewArray,
    UInt32Array,
};
use arrow::compute::take;
use arrow::datatypes::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_schema::{Field, Schema};
use chrono::{Datelike, NaiveDate, NaiveDateTime};
use stoa_plan::DataType;

use crate::lexeme::{Lexeme, Lexemes};
use crate::{Catalog, Insert, TableInfo};

/// Numbers of so many digits are exact as DOUBLE.
const MAX_DIGITS: usize = 15;
/// Moments of these years have a form in nanoseconds too, in which the front end may keep them.
const YEARS: std::ops::RangeInclusive<i32> = 1700..=2200;

/// The rows of an INSERT of plain literals, as [`crate::bind_insert`]'s plan would yield them; `None` if that has to decide.
#[must_use]
pub fn literal_rows(insert: &Insert, catalog: &dyn Catalog) -> Option<RecordBatch> {
    let mut literals = Literals::read(insert.source.lexemes())?;
    if !literals.rest.next().is_none_or(|next| next.is("ON")) {
        return None;
    }
    let table = catalog.table(&insert.table)?;
    let from = sources(&table, &literals.columns)?;
    let width = if literals.columns.is_empty() { table.columns.len() } else { literals.columns.len() };
    if literals.rows.iter().any(|row| row.len() != width) {
        return None;
    }
    let mut fields = Vec::with_capacity(from.len());
    let mut arrays = Vec::with_capacity(from.len());
    for (column, from) in table.columns.iter().zip(from) {
        fields.push(Field::new(&column.name, column.ty.to_arrow(), column.nullable));
        if let (None, Some(default)) = (from, &column.default) {
            let rows = UInt32Array::from(vec![0; literals.rows.len()]);
            arrays.push(take(default, &rows, None).ok()?);
            continue;
        }
        let values: Vec<Constant<'_>> = literals.rows.iter().map(|row| from.map_or(Constant::Null, |at| row[at])).collect();
        if !column.nullable && values.contains(&Constant::Null) {
            return None;
        }
        arrays.push(array(column.ty, &values)?);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()
}

/// For each column of the table, which of the given values it takes.
fn sources(table: &TableInfo, columns: &[Word<'_>]) -> Option<Vec<Option<usize>>> {
    if columns.is_empty() {
        return Some((0..table.columns.len()).map(Some).collect());
    }
    let mut from = vec![None; table.columns.len()];
    for (at, word) in columns.iter().enumerate() {
        let name = word.folded()?;
        let column = table.columns.iter().position(|column| column.name == name)?;
        if from[column].replace(at).is_some() {
            return None;
        }
    }
    // Unquoted names may mean a column whose name is not in lower case.
    let lower = |name: &str| !name.contains(|c: char| !c.is_ascii() || c.is_ascii_uppercase());
    table.columns.iter().all(|column| lower(&column.name)).then_some(from)
}

/// A name as it was written.
pub(crate) struct Word<'a> {
    value: &'a str,
    quoted: bool,
}

impl Word<'_> {
    /// The name that it stands for; `None` where folding it is not for here.
    pub(crate) fn folded(&self) -> Option<Cow<'_, str>> {
        match self.quoted {
            true => Some(Cow::Borrowed(self.value)),
            false => self.value.is_ascii().then(|| Cow::Owned(self.value.to_ascii_lowercase())),
        }
    }
}

/// The parts of an INSERT or REPLACE of plain literals.
pub(crate) struct Literals<'a> {
    /// It is a REPLACE.
    pub(crate) replace: bool,
    pub(crate) table: Word<'a>,
    columns: Vec<Word<'a>>,
    rows: Vec<Vec<Constant<'a>>>,
    /// What follows the rows.
    pub(crate) rest: Lexemes<'a>,
}

/// A literal.
#[derive(Clone, Copy, PartialEq)]
enum Constant<'a> {
    Null,
    Bool(bool),
    /// The digits, and whether a minus is before them.
    Number(&'a str, bool),
    /// The text, and whether the quotes in it are doubled yet.
    Text(&'a str, bool),
    Date(&'a str),
    Timestamp(&'a str),
}

impl<'a> Literals<'a> {
    /// `INSERT INTO table [(columns)] VALUES (literal, ...), ...`; `None` if it begins otherwise.
    pub(crate) fn read(lexemes: Lexemes<'a>) -> Option<Literals<'a>> {
        let mut reader = Reader { rest: lexemes };
        let replace = reader.takes_word("REPLACE");
        if !replace && !reader.takes_word("INSERT") {
            return None;
        }
        reader.takes_word("INTO").then_some(())?;
        let table = reader.name()?;
        let mut columns = Vec::new();
        if reader.takes(b'(') {
            columns = reader.list(Reader::name)?;
        }
        reader.takes_word("VALUES").then_some(())?;
        let mut rows = Vec::new();
        loop {
            reader.takes(b'(').then_some(())?;
            rows.push(reader.list(Reader::constant)?);
            if !reader.takes(b',') {
                break;
            }
        }
        Some(Literals { replace, table, columns, rows, rest: reader.rest })
    }
}

/// What is still to be read.
struct Reader<'a> {
    rest: Lexemes<'a>,
}

impl<'a> Reader<'a> {
    fn takes_if(&mut self, is_it: impl FnOnce(Lexeme<'a>) -> bool) -> bool {
        let mut rest = self.rest;
        let taken = rest.next().is_some_and(is_it);
        if taken {
            self.rest = rest;
        }
        taken
    }

    fn takes(&mut self, symbol: u8) -> bool {
        self.takes_if(|next| next == Lexeme::Symbol(symbol))
    }

    fn takes_word(&mut self, word: &str) -> bool {
        self.takes_if(|next| next.is(word))
    }

    /// What follows an opening parenthesis, up to the closing one.
    fn list<T>(&mut self, element: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut list = vec![element(self)?];
        while self.takes(b',') {
            list.push(element(self)?);
        }
        self.takes(b')').then_some(list)
    }

    /// A name that the parser takes for nothing else.
    fn name(&mut self) -> Option<Word<'a>> {
        const OTHERS: [&str; 9] = ["DEFAULT", "DIRECTORY", "FROM", "FUNCTION", "LOCAL", "SELECT", "TABLE", "VALUES", "WITH"];
        match self.rest.next()? {
            Lexeme::Name(value) => Some(Word { value, quoted: true }),
            Lexeme::Word(value) if !OTHERS.iter().any(|other| value.eq_ignore_ascii_case(other)) => {
                Some(Word { value, quoted: false })
            }
            _ => None,
        }
    }

    fn constant(&mut self) -> Option<Constant<'a>> {
        match self.rest.next()? {
            Lexeme::Text(text, doubled) => Some(Constant::Text(text, doubled)),
            Lexeme::Number(digits) => Some(Constant::Number(digits, false)),
            Lexeme::Symbol(b'-') => match self.rest.next()? {
                Lexeme::Number(digits) => Some(Constant::Number(digits, true)),
                _ => None,
            },
            Lexeme::Symbol(b'(') => {
                let negative = self.takes(b'-');
                let Lexeme::Number(digits) = self.rest.next()? else { return None };
                self.takes(b')').then_some(Constant::Number(digits, negative))
            }
            word @ Lexeme::Word(_) => self.word(word),
            _ => None,
        }
    }

    fn word(&mut self, word: Lexeme<'a>) -> Option<Constant<'a>> {
        let plain = [("NULL", Constant::Null), ("TRUE", Constant::Bool(true)), ("FALSE", Constant::Bool(false))];
        if let Some((_, constant)) = plain.iter().find(|(name, _)| word.is(name)) {
            return Some(*constant);
        }
        let (date, timestamp) = (word.is("DATE"), word.is("TIMESTAMP"));
        match self.rest.next().filter(|_| date || timestamp)? {
            Lexeme::Text(text, false) => Some(if date { Constant::Date(text) } else { Constant::Timestamp(text) }),
            _ => None,
        }
    }
}

/// Values as a column of a type; `None` if one is not exactly a value of it.
fn array(ty: DataType, values: &[Constant<'_>]) -> Option<ArrayRef> {
    Some(match ty {
        DataType::Bool => Arc::new(BooleanArray::from(all(values, |value| match value {
            Constant::Bool(value) => Some(value),
            _ => None,
        })?)),
        DataType::Int8 => integers::<Int8Type>(values)?,
        DataType::Int16 => integers::<Int16Type>(values)?,
        DataType::Int32 => integers::<Int32Type>(values)?,
        DataType::Int64 => integers::<Int64Type>(values)?,
        DataType::UInt8 => integers::<UInt8Type>(values)?,
        DataType::UInt16 => integers::<UInt16Type>(values)?,
        DataType::UInt32 => integers::<UInt32Type>(values)?,
        DataType::UInt64 => integers::<UInt64Type>(values)?,
        DataType::Float32 => primitive::<Float32Type>(values, |value| Some(float(value)? as f32).filter(|v| v.is_finite()))?,
        DataType::Float64 => primitive::<Float64Type>(values, float)?,
        DataType::Decimal { precision, scale } => {
            let decimals = all(values, |value| decimal(value, precision, scale))?;
            if precision > 18 {
                Arc::new(Decimal128Array::from(decimals).with_precision_and_scale(precision, scale).ok()?)
            } else {
                let small = |value: Option<i128>| value.map(i64::try_from).transpose().ok();
                let decimals = decimals.into_iter().map(small).collect::<Option<Vec<Option<i64>>>>()?;
                Arc::new(Decimal64Array::from(decimals).with_precision_and_scale(precision, scale).ok()?)
            }
        }
        DataType::Utf8 => Arc::new(StringViewArray::from_iter(all(values, |value| match value {
            Constant::Text(text, false) => Some(Cow::Borrowed(text)),
            Constant::Text(text, true) => Some(Cow::Owned(text.replace("''", "'"))),
            _ => None,
        })?)),
        DataType::Date => primitive::<Date32Type>(values, |value| match value {
            Constant::Text(text, false) | Constant::Date(text) => days(date(text)?),
            _ => None,
        })?,
        DataType::Timestamp => primitive::<TimestampMicrosecondType>(values, |value| match value {
            Constant::Text(text, false) | Constant::Timestamp(text) => Some(moment(text)?.and_utc().timestamp_micros()),
            _ => None,
        })?,
        DataType::Null | DataType::Interval | DataType::Binary => return None,
    })
}

/// The values of what is not NULL; `None` if one has none.
fn all<'a, T>(values: &[Constant<'a>], value: impl Fn(Constant<'a>) -> Option<T>) -> Option<Vec<Option<T>>> {
    let one = |constant: &Constant<'a>| match constant {
        Constant::Null => Some(None),
        constant => value(*constant).map(Some),
    };
    values.iter().map(one).collect()
}

fn primitive<T: ArrowPrimitiveType>(
    values: &[Constant<'_>],
    value: impl Fn(Constant<'_>) -> Option<T::Native>,
) -> Option<ArrayRef> {
    Some(Arc::new(all(values, value)?.into_iter().collect::<PrimitiveArray<T>>()))
}

fn integers<T: ArrowPrimitiveType<Native: TryFrom<i128>>>(values: &[Constant<'_>]) -> Option<ArrayRef> {
    primitive::<T>(values, |value| T::Native::try_from(integer(value)?).ok())
}

fn integer(value: Constant<'_>) -> Option<i128> {
    let Constant::Number(digits, negative) = value else { return None };
    if !is_digits(digits) {
        return None;
    }
    let number = i128::from(digits.parse::<u64>().ok()?);
    Some(if negative { -number } else { number })
}

/// A number of few digits: without its point, and how many digits follow that.
fn scaled(value: Constant<'_>) -> Option<(i64, u32)> {
    let Constant::Number(digits, negative) = value else { return None };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    if !is_digits(whole) || !fraction.is_none_or(is_digits) {
        return None;
    }
    let fraction = fraction.unwrap_or_default();
    if whole.len() + fraction.len() > MAX_DIGITS {
        return None;
    }
    let number = whole.bytes().chain(fraction.bytes()).fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    Some((if negative { -number } else { number }, fraction.len() as u32))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The number that is written at a place of a text.
fn number_at(text: &str, place: std::ops::Range<usize>) -> Option<u32> {
    text.get(place).filter(|part| is_digits(part))?.parse().ok()
}

/// A number with an exponent is a DOUBLE. Of others, both parts are exact, so that the quotient is the nearest DOUBLE.
fn float(value: Constant<'_>) -> Option<f64> {
    if let Constant::Number(digits, negative) = value
        && digits.contains(['e', 'E'])
    {
        let number = digits.parse::<f64>().ok().filter(|number| number.is_finite())?;
        return Some(if negative { -number } else { number });
    }
    let (number, scale) = scaled(value)?;
    Some(number as f64 / 10i64.pow(scale) as f64)
}

fn decimal(value: Constant<'_>, precision: u8, scale: i8) -> Option<i128> {
    let (number, given) = scaled(value)?;
    let more = u32::try_from(scale).ok()?.checked_sub(given)?;
    let number = i128::from(number).checked_mul(10i128.checked_pow(more)?)?;
    (number.unsigned_abs() < 10u128.checked_pow(precision.into())?).then_some(number)
}

/// `YYYY-MM-DD`.
fn date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = number_at(text, 0..4)?.try_into().ok()?;
    let date = NaiveDate::from_ymd_opt(year, number_at(text, 5..7)?, number_at(text, 8..10)?)?;
    YEARS.contains(&date.year()).then_some(date)
}

fn days(date: NaiveDate) -> Option<i32> {
    i32::try_from(date.signed_duration_since(NaiveDate::from_ymd_opt(1970, 1, 1)?).num_days()).ok()
}

/// `YYYY-MM-DD HH:MM:SS`, with up to six digits of a second.
fn moment(text: &str) -> Option<NaiveDateTime> {
    let bytes = text.as_bytes();
    if bytes.len() < 19 || bytes[10] != b' ' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let micros = match text.get(19..)? {
        "" => 0,
        rest => {
            let fraction = rest.strip_prefix('.').filter(|digits| is_digits(digits) && digits.len() <= 6)?;
            fraction.parse::<u32>().ok()? * 10u32.pow(6 - u32::try_from(fraction.len()).ok()?)
        }
    };
    let (hour, minute, second) = (number_at(text, 11..13)?, number_at(text, 14..16)?, number_at(text, 17..19)?);
    date(text.get(..10)?)?.and_hms_micro_opt(hour, minute, second, micros)
}
