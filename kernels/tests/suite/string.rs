//! Substrings and patterns.
use crate::{Numbers, levels, mask_of};
use proptest::prelude::*;
use stoa_kernels::mask;
use stoa_kernels::string::{self, Like};

/// The pattern by definition, on characters.
fn like(pattern: &[char], text: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['%', rest @ ..], _) => (0..=text.len()).any(|at| like(rest, &text[at..])),
        (['_', rest @ ..], [_, text @ ..]) => like(rest, text),
        (['\\', literal, rest @ ..], [first, text @ ..]) => literal == first && like(rest, text),
        ([literal, rest @ ..], [first, text @ ..]) => literal == first && like(rest, text),
        _ => false,
    }
}

fn column(texts: &[String]) -> (Vec<u32>, Vec<u8>) {
    let mut offsets = vec![0];
    let mut data = Vec::new();
    for text in texts {
        data.extend_from_slice(text.as_bytes());
        offsets.push(data.len() as u32);
    }
    (offsets, data)
}

#[test]
fn substrings() {
    for length in [0, 1, 2, 30, 31, 32, 33, 63, 64, 65, 66, 127, 128, 129, 200] {
        let text: Vec<u8> = Numbers(length as u64).take(length).into_iter().map(|value| b'a' + (value % 3) as u8).collect();
        for size in [0, 1, 2, 3, 5, 17, 40, 64, 65] {
            for first in 0..length {
                let needle = &text[first..(first + size).min(length)];
                let expected = (0..=length - needle.len()).find(|at| text[*at..].starts_with(needle));
                for isa in levels() {
                    assert_eq!(string::find_with(isa, &text, needle), expected, "{isa:?} {length} {first}");
                    assert_eq!(
                        string::find_with(isa, &text, b"bad"),
                        string::find_with(stoa_kernels::Isa::Scalar, &text, b"bad")
                    );
                }
            }
        }
    }
}

#[test]
fn columns() {
    let mut numbers = Numbers(6);
    let texts: Vec<String> = (0..150)
        .map(|_| {
            let length = numbers.draw() as usize % 100;
            (0..length).map(|_| ['a', 'b', 'é'][numbers.draw() as usize % 3]).collect()
        })
        .collect();
    let (offsets, data) = column(&texts);
    let mut mask = vec![1; 3];
    string::prefix(&offsets, &data, "ab".as_bytes(), &mut mask);
    assert_eq!(mask, mask_of(texts.iter().map(|text| text.starts_with("ab"))));
    let pattern = Like::new("%aé%b_é%", None);
    let expected = mask_of(texts.iter().map(|text| pattern.matches(text.as_bytes())));
    assert!(mask::any(&expected));
    for isa in levels() {
        string::contains_with(isa, &offsets, &data, "aéb".as_bytes(), &mut mask);
        assert_eq!(mask, mask_of(texts.iter().map(|text| text.contains("aéb"))));
        pattern.matches_offsets_with(isa, &offsets, &data, &mut mask);
        assert_eq!(mask, expected);
    }
    pattern.matches_each(texts.iter().map(String::as_bytes), &mut mask);
    assert_eq!(mask, expected);
}

#[test]
fn offsets_out_of_range_read_as_empty() {
    let mut mask = [0];
    string::contains(&[0, 9, 2, 3], b"abc", b"c", &mut mask);
    assert_eq!(mask, [0b100]);
}

#[test]
fn parts_of_patterns() {
    assert_eq!(Like::new("a\\%b", Some('\\')).exact(), Some("a%b".as_bytes()));
    assert_eq!(Like::new("a\\%b", None).exact(), None);
    assert_eq!(Like::new("a_b", None).exact(), None);
    assert_eq!(Like::new("ab\\", Some('\\')).exact(), Some("ab\\".as_bytes()));
    assert_eq!(Like::new("ab_c%", None).prefix(), b"ab");
    assert_eq!(Like::new("ab%", None).only_prefix(), Some("ab".as_bytes()));
    assert_eq!(Like::new("ab%c", None).only_prefix(), None);
    assert!(Like::new("!%!!", Some('!')).matches(b"%!"));
    assert!(Like::new("", None).matches(b"") && !Like::new("", None).matches(b"a") && Like::new("%", None).matches(b""));
}

proptest! {
    #[test]
    fn any_pattern(pattern in "[ab%_é\\\\]{0,8}", text in "[abé%_]{0,12}", long in "[ab]{0,90}") {
        // A lone escape at the end stands for itself, which the definition above leaves out.
        prop_assume!(pattern.chars().rev().take_while(|character| *character == '\\').count() % 2 == 0);
        let characters: Vec<char> = pattern.chars().collect();
        let compiled = Like::new(&pattern, Some('\\'));
        for text in [&text, &long, &format!("{long}{text}")] {
            let expected = like(&characters, &text.chars().collect::<Vec<_>>());
            for isa in levels() {
                prop_assert_eq!(compiled.matches_with(isa, text.as_bytes()), expected);
            }
        }
    }
}
