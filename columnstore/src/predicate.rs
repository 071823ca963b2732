//! Predicates over one column, in the column's own terms, evaluated on encoded data.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};

/// A constant in the domain of a column.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// Integers, booleans (0, 1), dates (days), timestamps (microseconds), decimals (unscaled, at the column's scale).
    Int(i128),
    /// Floats, by their total order.
    Float(f64),
    /// Strings (their UTF-8) and binary.
    Bytes(Vec<u8>),
}

/// A filter on one column. A NULL passes only [`Predicate::IsNull`] and, if it says so, [`Predicate::Function`].
#[derive(Clone)]
pub enum Predicate {
    /// The value is NULL.
    IsNull,
    /// The value is not NULL.
    IsNotNull,
    /// Between the bounds that are given; covers `=`, `<`, `<=`, `>`, `>=` and BETWEEN.
    Range {
        /// Lower bound and whether it is included.
        low: Option<(Datum, bool)>,
        /// Upper bound and whether it is included.
        high: Option<(Datum, bool)>,
    },
    /// `<>`.
    NotEqual(Datum),
    /// `IN` a list.
    In(Vec<Datum>),
    /// A run-time join filter: the integer value is in the set. False positives are allowed, false negatives are not.
    KeySet(Arc<KeySet>),
    /// Any boolean function of the value: evaluated once per dictionary entry where the column has a dictionary, else on the
    /// decoded values of the rows still selected. It receives an array of the column's canonical type and answers one boolean per
    /// element; NULL counts as false.
    Function(ValueFunction),
}

/// What a [`ValueFunction`] calls.
pub type ArrayFunction = dyn Fn(&ArrayRef) -> crate::Result<BooleanArray> + Send + Sync;

/// A boolean function of an array of values.
#[derive(Clone)]
pub struct ValueFunction {
    /// For people, e.g. `p_name LIKE '%green%'`.
    pub description: String,
    /// The function.
    pub function: Arc<ArrayFunction>,
}

impl fmt::Display for Predicate {
    /// What kind of filter it is, for people; the plan shows the constants.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Predicate::IsNull => f.write_str("IS NULL"),
            Predicate::IsNotNull => f.write_str("IS NOT NULL"),
            Predicate::Range { .. } => f.write_str("range"),
            Predicate::NotEqual(_) => f.write_str("not equal"),
            Predicate::In(values) => write!(f, "one of {} values", values.len()),
            Predicate::KeySet(set) => write!(f, "run-time filter of {} join keys", set.len()),
            Predicate::Function(function) => f.write_str(&function.description),
        }
    }
}

impl fmt::Debug for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Predicate::IsNull => f.write_str("IS NULL"),
            Predicate::IsNotNull => f.write_str("IS NOT NULL"),
            Predicate::Range { low, high } => write!(f, "RANGE {low:?} .. {high:?}"),
            Predicate::NotEqual(value) => write!(f, "<> {value:?}"),
            Predicate::In(values) => write!(f, "IN {values:?}"),
            Predicate::KeySet(set) => write!(f, "IN {} join keys", set.len()),
            Predicate::Function(function) => f.write_str(&function.description),
        }
    }
}

impl fmt::Debug for ValueFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.description)
    }
}

/// A set of integer join keys: exact bits over a dense range, or a Bloom filter over a sparse one.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// Smallest key.
    pub min: i64,
    /// Largest key.
    pub max: i64,
    /// Number of distinct keys, or of keys inserted.
    pub keys: usize,
    /// Membership of `min..=max`.
    pub members: KeyMembers,
}

/// How a [`KeySet`] stores its members.
#[derive(Clone, Debug)]
pub enum KeyMembers {
    /// Every value between `min` and `max`.
    All,
    /// Bit `key - min`.
    Bits(Vec<u64>),
    /// A blocked Bloom filter: a power of two of 64-bit words; see [`KeySet::bloom_bits`].
    Bloom(Vec<u64>),
}

impl KeySet {
    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
    }

    /// Whether no key is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Word index and bits of a key in a Bloom filter of `words` words (a power of two). Register-blocked: one word, four bits
    /// (Putze et al., "Cache-, Hash- and Space-Efficient Bloom Filters").
    #[must_use]
    #[inline]
    pub fn bloom_bits(key: i64, words: usize) -> (usize, u64) {
        let h = (key as u64 ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let h = (h ^ (h >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let bits = (1 << (h & 63)) | (1 << ((h >> 6) & 63)) | (1 << ((h >> 12) & 63)) | (1 << ((h >> 18) & 63));
        ((h >> 40) as usize & (words - 1), bits)
    }

    /// Whether the key may be in the set.
    #[must_use]
    #[inline]
    pub fn contains(&self, key: i64) -> bool {
        if self.keys == 0 || key < self.min || key > self.max {
            return false;
        }
        match &self.members {
            KeyMembers::All => true,
            KeyMembers::Bits(bits) => {
                let i = key.wrapping_sub(self.min) as u64;
                bits.get((i >> 6) as usize).is_some_and(|w| w >> (i & 63) & 1 == 1)
            }
            KeyMembers::Bloom(words) => {
                let (i, bits) = KeySet::bloom_bits(key, words.len());
                words[i] & bits == bits
            }
        }
    }
}
