//! A predicate prepared for zone maps: bounds turned into keys once, then a verdict per block is a few comparisons.

use std::sync::Arc;

use crate::native::float_order;
use crate::predicate::KeyMembers;
use crate::zone::key::{Key, KeySpace};
use crate::zone::{Span, Verdict};
use crate::{Datum, KeySet, Predicate};

/// A prepared predicate.
#[derive(Clone, Debug)]
pub(crate) enum ZoneTest {
    /// Zone maps say nothing: the predicate is a function, or its constant is of another type.
    Unknown,
    /// No value passes, NULL neither.
    Never,
    IsNull,
    IsNotNull,
    /// A span outside of `outer` has no passing value; one inside of `inner` has passing values only. Both bounds included.
    Range {
        outer: (i128, i128),
        inner: (i128, i128),
    },
    NotEqual(Key),
    /// Ascending.
    In(Vec<Key>),
    Keys(Arc<KeySet>),
}

impl ZoneTest {
    pub(crate) fn new(predicate: &Predicate, space: &KeySpace) -> ZoneTest {
        match predicate {
            Predicate::IsNull => ZoneTest::IsNull,
            Predicate::IsNotNull => ZoneTest::IsNotNull,
            Predicate::Range { low, high } => range(low.as_ref(), high.as_ref(), space).unwrap_or(ZoneTest::Unknown),
            Predicate::NotEqual(value) => space.key(value).map_or(ZoneTest::Unknown, ZoneTest::NotEqual),
            Predicate::In(values) => {
                let keys: Option<Vec<Key>> = values.iter().map(|v| space.key(v)).collect();
                keys.map_or(ZoneTest::Unknown, |mut keys| {
                    keys.sort_unstable_by_key(|k| (k.key, k.exact));
                    ZoneTest::In(keys)
                })
            }
            Predicate::KeySet(set) if *space == KeySpace::Integer => ZoneTest::Keys(Arc::clone(set)),
            Predicate::KeySet(_) | Predicate::Function(_) => ZoneTest::Unknown,
        }
    }

    /// What the span says.
    pub(crate) fn verdict(&self, span: &Span) -> Verdict {
        let all_null = span.nulls == span.rows;
        match self {
            ZoneTest::Unknown => return Verdict::Some,
            ZoneTest::IsNull if all_null => return Verdict::All,
            ZoneTest::IsNull => return if span.nulls == 0 { Verdict::None } else { Verdict::Some },
            _ if all_null => return Verdict::None,
            _ => {}
        }
        let verdict = match self {
            ZoneTest::Never => Verdict::None,
            ZoneTest::Unknown | ZoneTest::IsNull => Verdict::Some,
            ZoneTest::IsNotNull => Verdict::All,
            ZoneTest::Range { outer, inner } => {
                if span.max < outer.0 || span.min > outer.1 {
                    Verdict::None
                } else if span.min >= inner.0 && span.max <= inner.1 {
                    Verdict::All
                } else {
                    Verdict::Some
                }
            }
            ZoneTest::NotEqual(key) => {
                if key.key < span.min || key.key > span.max {
                    Verdict::All
                } else if key.exact && span.min == span.max {
                    Verdict::None
                } else {
                    Verdict::Some
                }
            }
            ZoneTest::In(keys) => in_keys(keys, span),
            ZoneTest::Keys(set) => in_set(set, span),
        };
        // A NULL passes none of these.
        if verdict == Verdict::All && span.nulls > 0 { Verdict::Some } else { verdict }
    }
}

type Bound<'a> = Option<&'a (Datum, bool)>;

/// `None` if a bound is of another domain.
fn range(low: Bound<'_>, high: Bound<'_>, space: &KeySpace) -> Option<ZoneTest> {
    let (mut outer, mut inner) = ((i128::MIN, i128::MAX), (i128::MIN, i128::MAX));
    if *space == KeySpace::Float {
        // NaN is beyond the infinities; a block that has one is never taken whole, so that nothing rests on how it compares.
        inner = (i128::from(float_order(f64::NEG_INFINITY)), i128::from(float_order(f64::INFINITY)));
    }
    if let Some((value, inclusive)) = low {
        let key = space.key(value)?;
        let above = key.key.checked_add(1);
        outer.0 = if *inclusive || !key.exact { Some(key.key) } else { above }.unwrap_or(i128::MAX);
        if outer.0 == key.key && key.exact && !inclusive {
            return Some(ZoneTest::Never);
        }
        inner.0 = inner.0.max(if key.exact { outer.0 } else { above.unwrap_or(i128::MAX) });
    }
    if let Some((value, inclusive)) = high {
        let key = space.key(value)?;
        let below = key.key.checked_sub(1);
        outer.1 = if *inclusive || !key.exact { Some(key.key) } else { below }.unwrap_or(i128::MIN);
        if outer.1 == key.key && key.exact && !inclusive {
            return Some(ZoneTest::Never);
        }
        inner.1 = inner.1.min(if key.exact { outer.1 } else { below.unwrap_or(i128::MIN) });
    }
    Some(if outer.0 > outer.1 { ZoneTest::Never } else { ZoneTest::Range { outer, inner } })
}

fn in_keys(keys: &[Key], span: &Span) -> Verdict {
    let first = keys.partition_point(|k| k.key < span.min);
    match keys.get(first) {
        Some(key) if key.key <= span.max => {
            let same = keys[first..].iter().take_while(|k| k.key == key.key);
            if span.min == span.max && same.last().is_some_and(|k| k.exact) { Verdict::All } else { Verdict::Some }
        }
        _ => Verdict::None,
    }
}

/// Never [`Verdict::All`] unless the set has every key of its range.
fn in_set(set: &KeySet, span: &Span) -> Verdict {
    let low = span.min.max(i128::from(set.min));
    let high = span.max.min(i128::from(set.max));
    if set.is_empty() || low > high {
        return Verdict::None;
    }
    match &set.members {
        KeyMembers::All if low == span.min && high == span.max => Verdict::All,
        KeyMembers::All | KeyMembers::Bloom(_) => Verdict::Some,
        KeyMembers::Bits(bits) => {
            let bit = |key: i128| (key - i128::from(set.min)) as u64;
            if any_bit(bits, bit(low), bit(high)) { Verdict::Some } else { Verdict::None }
        }
    }
}

/// Whether a bit of `first..=last` is set. Looks at no more than [`MOST_WORDS`] words and says yes beyond.
fn any_bit(bits: &[u64], first: u64, last: u64) -> bool {
    const MOST_WORDS: u64 = 256;
    let (first_word, last_word) = (first >> 6, last >> 6);
    if last_word - first_word > MOST_WORDS {
        return true;
    }
    (first_word..=last_word).any(|i| {
        let mut word = bits.get(i as usize).copied().unwrap_or(0);
        if i == first_word {
            word &= u64::MAX << (first & 63);
        }
        if i == last_word {
            word &= u64::MAX >> (63 - (last & 63));
        }
        word != 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::string_key;

    fn span(min: i128, max: i128, nulls: usize) -> Span {
        Span { min, max, nulls, rows: 100 }
    }

    fn int_range(low: Option<(i128, bool)>, high: Option<(i128, bool)>) -> ZoneTest {
        let bound = |b: Option<(i128, bool)>| b.map(|(v, inclusive)| (Datum::Int(v), inclusive));
        ZoneTest::new(&Predicate::Range { low: bound(low), high: bound(high) }, &KeySpace::Integer)
    }

    #[test]
    fn ranges_of_integers() {
        let test = int_range(Some((10, true)), Some((20, false)));
        assert_eq!(test.verdict(&span(20, 30, 0)), Verdict::None);
        assert_eq!(test.verdict(&span(0, 9, 0)), Verdict::None);
        assert_eq!(test.verdict(&span(10, 19, 0)), Verdict::All);
        assert_eq!(test.verdict(&span(10, 19, 1)), Verdict::Some);
        assert_eq!(test.verdict(&span(10, 20, 0)), Verdict::Some);
        assert_eq!(test.verdict(&Span { nulls: 100, rows: 100, ..Span::EMPTY }), Verdict::None);
        assert_eq!(int_range(Some((i128::MAX, false)), None).verdict(&span(i128::MIN, i128::MAX, 0)), Verdict::None);
        assert_eq!(int_range(None, Some((i128::MIN, false))).verdict(&span(i128::MIN, 0, 0)), Verdict::None);
        assert_eq!(int_range(Some((5, false)), Some((6, false))).verdict(&span(0, 9, 0)), Verdict::None);
        assert_eq!(int_range(None, None).verdict(&span(0, 9, 0)), Verdict::All);
    }

    #[test]
    fn lists_and_sets() {
        let test = ZoneTest::new(&Predicate::In(vec![Datum::Int(7), Datum::Int(3)]), &KeySpace::Integer);
        assert_eq!(test.verdict(&span(4, 6, 0)), Verdict::None);
        assert_eq!(test.verdict(&span(4, 7, 0)), Verdict::Some);
        assert_eq!(test.verdict(&span(3, 3, 0)), Verdict::All);
        let mut bits = vec![0u64; 4];
        bits[2] = 1 << 5; // key 100 + 133
        let set = KeySet { min: 100, max: 355, keys: 1, members: KeyMembers::Bits(bits) };
        let test = ZoneTest::new(&Predicate::KeySet(Arc::new(set)), &KeySpace::Integer);
        assert_eq!(test.verdict(&span(0, 99, 0)), Verdict::None);
        assert_eq!(test.verdict(&span(0, 232, 0)), Verdict::None);
        assert_eq!(test.verdict(&span(233, 233, 0)), Verdict::Some);
        assert_eq!(test.verdict(&span(234, 1000, 0)), Verdict::None);
    }

    #[test]
    fn strings_share_a_prefix() {
        let space = KeySpace::Bytes { prefix: b"Customer#".to_vec(), exact: false };
        let test = |low: &str, high: &str| {
            let bound = |s: &str| Some((Datum::Bytes(s.as_bytes().to_vec()), true));
            ZoneTest::new(&Predicate::Range { low: bound(low), high: bound(high) }, &space)
        };
        let key = |s: &str| i128::from(string_key(s.as_bytes()));
        let block = span(key("00000100x"), key("00000200x"), 0);
        assert_eq!(test("Customer#00000300", "Customer#00000400").verdict(&block), Verdict::None);
        assert_eq!(test("Customer#00000099", "Customer#00000400").verdict(&block), Verdict::All);
        assert_eq!(test("Customer#00000100", "Customer#00000400").verdict(&block), Verdict::Some);
        assert_eq!(test("A", "Customer").verdict(&block), Verdict::None);
        assert_eq!(test("A", "D").verdict(&block), Verdict::All);
        let not = ZoneTest::new(&Predicate::NotEqual(Datum::Bytes(b"Customer#000001".to_vec())), &space);
        assert_eq!(not.verdict(&block), Verdict::All);
    }
}
