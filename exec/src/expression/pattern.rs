//! LIKE, ILIKE and regular expressions.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, MAX_INLINE_VIEW_LEN, StringViewArray};
use arrow::buffer::{BooleanBuffer, MutableBuffer, NullBuffer};
use arrow::util::bit_util;
use memchr::memmem::Finder;
use regex::{Regex, RegexBuilder};
use stoa_plan::DataType;

use super::node::Compiled;
use super::value::Evaluated;
use crate::{Batch, Error, Result};

/// `input [NOT] LIKE pattern` or `input ~ pattern`.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) input: Compiled,
    pub(crate) pattern: Compiled,
    pub(crate) language: Language,
    pub(crate) negated: bool,
    /// The matcher of a constant pattern.
    pub(crate) compiled: Option<Matcher>,
}

/// How a pattern is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Language {
    /// SQL's LIKE.
    Like { escape: Option<char>, case_insensitive: bool },
    /// A regular expression.
    Regex { case_insensitive: bool },
}

/// A pattern ready to be matched.
#[derive(Debug)]
pub(crate) enum Matcher {
    /// The literal pieces of a LIKE with `%` only: anchored at the start, at the end, and those between in order.
    Pieces { prefix: String, middle: Vec<Finder<'static>>, suffix: String },
    /// No `%` at all.
    Exact(String),
    /// The rest.
    Regex(Regex),
}

impl Matcher {
    pub(crate) fn new(pattern: &str, language: Language) -> Result<Matcher> {
        match language {
            Language::Regex { case_insensitive } => regex(pattern, case_insensitive),
            Language::Like { escape, case_insensitive } => Matcher::like(pattern, escape.unwrap_or('\\'), case_insensitive),
        }
    }

    fn like(pattern: &str, escape: char, case_insensitive: bool) -> Result<Matcher> {
        let mut pieces = vec![String::new()];
        let mut expression = String::from("(?s)^");
        let mut plain = !case_insensitive;
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => {
                    pieces.push(String::new());
                    expression.push_str(".*");
                }
                '_' => {
                    plain = false;
                    expression.push('.');
                }
                _ => {
                    let literal = if c == escape { chars.next().unwrap_or(c) } else { c };
                    if let Some(last) = pieces.last_mut() {
                        last.push(literal);
                    }
                    expression.push_str(&regex::escape(literal.encode_utf8(&mut [0; 4])));
                }
            }
        }
        if !plain {
            expression.push('$');
            return regex(&expression, case_insensitive);
        }
        let suffix = pieces.pop().unwrap_or_default();
        if pieces.is_empty() {
            return Ok(Matcher::Exact(suffix));
        }
        let prefix = pieces.remove(0);
        let middle = pieces.iter().filter(|p| !p.is_empty()).map(|p| Finder::new(p.as_bytes()).into_owned()).collect();
        Ok(Matcher::Pieces { prefix, middle, suffix })
    }

    pub(crate) fn is_match(&self, text: &str) -> bool {
        match self {
            Matcher::Exact(exact) => text == exact,
            Matcher::Regex(regex) => regex.is_match(text),
            Matcher::Pieces { prefix, middle, suffix } => {
                let bytes = text.as_bytes();
                if bytes.len() < prefix.len() + suffix.len()
                    || !(prefix.is_empty() || text.starts_with(prefix.as_str()))
                    || !(suffix.is_empty() || text.ends_with(suffix.as_str()))
                {
                    return false;
                }
                let mut rest = &bytes[prefix.len()..bytes.len() - suffix.len()];
                for piece in middle {
                    let Some(at) = piece.find(rest) else { return false };
                    rest = &rest[at + piece.needle().len()..];
                }
                true
            }
        }
    }
}

impl Matcher {
    /// Which strings match; NULLs do not.
    fn matches(&self, strings: &StringViewArray) -> BooleanBuffer {
        if let Matcher::Pieces { middle, .. } = self
            && let Some(rarest) = middle.iter().max_by_key(|piece| piece.needle().len())
            && let Some(hits) = self.search(strings, rarest)
        {
            return hits;
        }
        let valid = |row| strings.nulls().is_none_or(|n| n.is_valid(row));
        BooleanBuffer::collect_bool(strings.len(), |row| valid(row) && self.is_match(strings.value(row)))
    }

    /// Searches one piece in the bytes of all strings at once and looks closer at the few strings that have it. Declines (`None`) if
    /// the strings do not lie in order in one buffer, as decoded ones do.
    fn search(&self, strings: &StringViewArray, piece: &Finder<'static>) -> Option<BooleanBuffer> {
        let [bytes] = strings.data_buffers() else { return None };
        let valid = |row| strings.nulls().is_none_or(|n| n.is_valid(row));
        let mut hits = MutableBuffer::from_len_zeroed(strings.len().div_ceil(64) * 8);
        let mut set = |row| bit_util::set_bit(hits.as_slice_mut(), row);
        // `next` is where the next hit begins; everything before `searched` is known to hold none but that one.
        let (mut searched, mut next) = (0, 0);
        for (row, view) in strings.views().iter().enumerate() {
            let length = *view as u32;
            if length <= MAX_INLINE_VIEW_LEN {
                if valid(row) && self.is_match(strings.value(row)) {
                    set(row);
                }
                continue;
            }
            let start = (*view >> 96) as usize;
            if start < searched {
                return None;
            }
            searched = start + length as usize;
            if next < start {
                next = piece.find(bytes.get(start..)?).map_or(usize::MAX, |at| start + at);
            }
            if next < searched && valid(row) && self.is_match(strings.value(row)) {
                set(row);
            }
        }
        Some(BooleanBuffer::new(hits.into(), 0, strings.len()))
    }
}

fn regex(pattern: &str, case_insensitive: bool) -> Result<Matcher> {
    let built = RegexBuilder::new(pattern).case_insensitive(case_insensitive).build();
    built.map(Matcher::Regex).map_err(|e| Error::User(format!("bad regular expression '{pattern}': {e}")))
}

impl Pattern {
    pub(crate) fn evaluate(&self, batch: &Batch) -> Result<Evaluated> {
        let value = self.input.flat(batch)?;
        let text = crate::batch::canonical(value.array(), DataType::Utf8)?;
        let strings = text.as_string_view();
        if let Some(matcher) = &self.compiled {
            let hits = matcher.matches(strings);
            let hits = if self.negated { !&hits } else { hits };
            return Ok(value.with(Arc::new(BooleanArray::new(hits, strings.nulls().cloned()))));
        }
        let patterns = crate::batch::canonical(&self.pattern.flat(batch)?.into_array(batch.rows)?, DataType::Utf8)?;
        let text = value.into_array(batch.rows)?;
        let text = crate::batch::canonical(&text, DataType::Utf8)?;
        let (strings, patterns) = (text.as_string_view(), patterns.as_string_view());
        let nulls = NullBuffer::union(strings.nulls(), patterns.nulls());
        let mut last: Option<(String, Matcher)> = None;
        let mut hits = vec![false; batch.rows];
        for (row, hit) in hits.iter_mut().enumerate() {
            if nulls.as_ref().is_some_and(|n| n.is_null(row)) {
                continue;
            }
            let pattern = patterns.value(row);
            let matcher = match &mut last {
                Some((known, matcher)) if known == pattern => matcher,
                slot => &mut slot.insert((pattern.to_owned(), Matcher::new(pattern, self.language)?)).1,
            };
            *hit = matcher.is_match(strings.value(row)) != self.negated;
        }
        Ok(Evaluated::Array(Arc::new(BooleanArray::new(hits.into(), nulls))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::UInt32Array;
    use arrow::compute::take;

    use super::*;

    /// LIKE by definition.
    fn like(text: &[char], pattern: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('%', rest)) => (0..=text.len()).any(|n| like(&text[n..], rest)),
            Some(('_', rest)) => !text.is_empty() && like(&text[1..], rest),
            Some((c, rest)) => text.first() == Some(c) && like(&text[1..], rest),
        }
    }

    #[test]
    fn like_is_as_defined() {
        let words = |alphabet: &[char], max: usize| {
            let mut all = vec![String::new()];
            let mut from = 0;
            for _ in 0..max {
                let end = all.len();
                for i in from..end {
                    for c in alphabet {
                        all.push(format!("{}{c}", all[i]));
                    }
                }
                from = end;
            }
            all
        };
        let texts = words(&['a', 'ß', '\n'], 4);
        for pattern in words(&['a', 'ß', '%', '_'], 4) {
            let matcher = Matcher::new(&pattern, Language::Like { escape: None, case_insensitive: false }).unwrap();
            for text in &texts {
                let chars = |s: &str| s.chars().collect::<Vec<_>>();
                assert_eq!(matcher.is_match(text), like(&chars(text), &chars(&pattern)), "{text:?} LIKE {pattern:?}");
            }
        }
    }

    /// Searching all strings at once is the same as looking at each: with pieces that cross from one string into the next, short
    /// strings between long ones, NULLs, and strings out of order.
    #[test]
    fn searching_is_matching() {
        let mut state = 7u64;
        let mut random = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let like = Language::Like { escape: None, case_insensitive: false };
        for pattern in ["%ab%", "%aba%b%", "a%bb%a", "%a%bab%", "%b%a", "b%"] {
            let matcher = Matcher::new(pattern, like).unwrap();
            for _ in 0..200 {
                let text = |random: &mut dyn FnMut(u64) -> u64| -> String {
                    let length = random(24);
                    (0..length).map(|_| if random(2) == 0 { 'a' } else { 'b' }).collect()
                };
                let texts: Vec<Option<String>> = (0..random(70)).map(|_| (random(6) > 0).then(|| text(&mut random))).collect();
                let strings = StringViewArray::from_iter(texts.iter().map(Option::as_deref));
                let order: UInt32Array = (0..texts.len() as u32).rev().collect();
                for strings in [strings.clone(), take(&strings, &order, None).unwrap().as_string_view().clone()] {
                    let expected: Vec<bool> = strings.iter().map(|s| s.is_some_and(|s| matcher.is_match(s))).collect();
                    assert_eq!(matcher.matches(&strings).iter().collect::<Vec<_>>(), expected, "{pattern} {strings:?}");
                }
            }
        }
    }

    #[test]
    fn escapes_and_case() {
        let like = |escape, case_insensitive| Language::Like { escape, case_insensitive };
        assert!(Matcher::new("10!%", like(Some('!'), false)).unwrap().is_match("10%"));
        assert!(!Matcher::new("10!%", like(Some('!'), false)).unwrap().is_match("100"));
        assert!(Matcher::new("a\\_b", like(None, false)).unwrap().is_match("a_b"));
        assert!(Matcher::new("%GREEN%", like(None, true)).unwrap().is_match("light green ink"));
        assert!(Matcher::new("(", Language::Regex { case_insensitive: false }).is_err());
    }
}
