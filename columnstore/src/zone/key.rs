//! Keys: values as ordered 128-bit integers.

use crate::Datum;
use crate::native::{float_of_order, float_order};
use crate::types::Domain;
use crate::zone::{Span, Zone};

/// How the values of one segment's column become keys.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum KeySpace {
    /// A value is its key.
    Integer,
    /// By the total order.
    Float,
    /// The eight bytes after `prefix`, which every value starts with. Exact if no value is longer than that and none has a zero byte.
    Bytes { prefix: Vec<u8>, exact: bool },
}

/// The key of a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) key: i128,
    /// A value has this key exactly if it is this constant.
    pub(crate) exact: bool,
}

/// The key of the rest of a string: its first eight bytes, padded with zeros, as a big-endian number.
#[inline]
pub(crate) fn string_key(rest: &[u8]) -> u64 {
    if let Some(head) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*head);
    }
    let mut bytes = [0; 8];
    bytes[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(bytes)
}

impl KeySpace {
    /// The space of a column without block zones: what its segment's zone tells.
    pub(crate) fn of_zone(domain: Domain, zone: &Zone) -> KeySpace {
        match (domain, &zone.min, &zone.max) {
            (Domain::Integer, ..) => KeySpace::Integer,
            (Domain::Float, ..) => KeySpace::Float,
            (Domain::Bytes, Some(Datum::Bytes(min)), Some(Datum::Bytes(max))) => {
                let shared = min.iter().zip(max).take_while(|(a, b)| a == b).count();
                KeySpace::Bytes { prefix: min[..shared].to_vec(), exact: false }
            }
            (Domain::Bytes, ..) => KeySpace::Bytes { prefix: Vec::new(), exact: false },
        }
    }

    /// The key of a constant; `None` if it is of another domain.
    pub(crate) fn key(&self, datum: &Datum) -> Option<Key> {
        match (self, datum) {
            (KeySpace::Integer, Datum::Int(value)) => Some(Key { key: *value, exact: true }),
            (KeySpace::Float, Datum::Float(value)) => Some(Key { key: i128::from(float_order(*value)), exact: false }),
            (KeySpace::Bytes { prefix, exact }, Datum::Bytes(bytes)) => Some(match bytes.strip_prefix(prefix.as_slice()) {
                Some(rest) => {
                    let exact = *exact && rest.len() <= 8 && memchr::memchr(0, rest).is_none();
                    Key { key: i128::from(string_key(rest)), exact }
                }
                // Outside of what any value can be: certain.
                None if bytes < prefix => Key { key: -1, exact: true },
                None => Key { key: 1 << 64, exact: true },
            }),
            _ => None,
        }
    }

    /// The span of a zone.
    pub(crate) fn span(&self, zone: &Zone) -> Span {
        let (nulls, rows) = (zone.nulls as usize, zone.rows as usize);
        if zone.is_all_null() {
            return Span { nulls, rows, ..Span::EMPTY };
        }
        let key = |bound: &Option<Datum>| bound.as_ref().and_then(|b| self.key(b)).map(|k| k.key);
        Span { min: key(&zone.min).unwrap_or(i128::MIN), max: key(&zone.max).unwrap_or(i128::MAX), nulls, rows }
    }

    /// The zone of a span, in the column's terms; string bounds are only prefixes and rounded outwards.
    pub(crate) fn zone(&self, span: &Span) -> Zone {
        let (nulls, rows) = (span.nulls as u64, span.rows as u64);
        if span.min > span.max {
            return Zone { min: None, max: None, exact: true, nulls, rows };
        }
        let float = |key: i128| i64::try_from(key).ok().map(|k| Datum::Float(float_of_order(k)));
        let (min, max, exact) = match self {
            KeySpace::Integer => (Some(Datum::Int(span.min)), Some(Datum::Int(span.max)), true),
            KeySpace::Float => (float(span.min), float(span.max), true),
            KeySpace::Bytes { prefix, exact } => {
                let min = u64::try_from(span.min).ok().map(|key| bytes_of(prefix, key, true));
                let max = u64::try_from(span.max).ok();
                // Without exact keys, the value may go on after its eight bytes.
                let max = if *exact { max } else { max.and_then(|key| key.checked_add(1)) };
                (min, max.map(|key| bytes_of(prefix, key, *exact)), *exact)
            }
        };
        Zone { min, max, exact, nulls, rows }
    }
}

/// A string that has this key: the shortest (`trimmed`), or with its zeros.
fn bytes_of(prefix: &[u8], key: u64, trimmed: bool) -> Datum {
    let mut bytes = prefix.to_vec();
    bytes.extend(key.to_be_bytes());
    while trimmed && bytes.len() > prefix.len() && bytes.last() == Some(&0) {
        bytes.pop();
    }
    Datum::Bytes(bytes)
}
