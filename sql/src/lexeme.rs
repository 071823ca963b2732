//! The parts of plain statements: those of a text, read without the parser's tokenizer, or those of its tokens.
//!
//! Reading a text knows a small part of SQL. What is outside of it is [`Lexeme::Other`]: the tokenizer has to say what that is. What is
//! within it is what the tokenizer would say.

use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

/// A part of a statement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lexeme<'a> {
    /// A word without quotes.
    Word(&'a str),
    /// A word in quotes.
    Name(&'a str),
    /// Digits, perhaps with a point and an exponent.
    Number(&'a str),
    /// A string, and whether the quotes in it are doubled yet.
    Text(&'a str, bool),
    /// `(`, `)`, `,`, `;` or `-`.
    Symbol(u8),
    /// Anything else.
    Other,
}

impl Lexeme<'_> {
    /// Whether it is a word, in whatever case.
    pub(crate) fn is(&self, word: &str) -> bool {
        matches!(self, Lexeme::Word(found) if found.eq_ignore_ascii_case(word))
    }
}

/// Parts that are still to be read.
#[derive(Clone, Copy)]
pub(crate) enum Lexemes<'a> {
    /// Of tokens.
    Tokens(&'a [TokenWithSpan]),
    /// Of a text.
    Text(&'a str),
}

impl<'a> Iterator for Lexemes<'a> {
    type Item = Lexeme<'a>;

    fn next(&mut self) -> Option<Lexeme<'a>> {
        match self {
            Lexemes::Tokens(tokens) => {
                let (first, rest) = tokens.split_first()?;
                *tokens = rest;
                Some(of_token(&first.token))
            }
            Lexemes::Text(text) => {
                let rest = text.trim_start_matches([' ', '\t', '\n', '\r']);
                let (lexeme, length) = of_text(rest)?;
                // A lexeme ends before a character that is ASCII, or at the end.
                *text = rest.get(length..).unwrap_or_default();
                Some(lexeme)
            }
        }
    }
}

fn of_token(token: &Token) -> Lexeme<'_> {
    match token {
        Token::Word(word) if word.quote_style.is_none() => Lexeme::Word(&word.value),
        Token::Word(word) => Lexeme::Name(&word.value),
        Token::Number(digits, false) => Lexeme::Number(digits),
        Token::SingleQuotedString(text) => Lexeme::Text(text, false),
        Token::LParen => Lexeme::Symbol(b'('),
        Token::RParen => Lexeme::Symbol(b')'),
        Token::Comma => Lexeme::Symbol(b','),
        Token::SemiColon => Lexeme::Symbol(b';'),
        Token::Minus => Lexeme::Symbol(b'-'),
        _ => Lexeme::Other,
    }
}

/// The first part of a text that does not begin with white space, and its bytes.
fn of_text(text: &str) -> Option<(Lexeme<'_>, usize)> {
    let bytes = text.as_bytes();
    Some(match bytes.first()? {
        // Two begin a comment.
        b'-' if bytes.get(1) == Some(&b'-') => (Lexeme::Other, text.len()),
        symbol @ (b'(' | b')' | b',' | b';' | b'-') => (Lexeme::Symbol(*symbol), 1),
        b'\'' => string(text),
        quote @ (b'"' | b'`') => name(text, *quote),
        b'0'..=b'9' | b'.' => number(text),
        b'a'..=b'z' | b'A'..=b'Z' | b'_' => {
            let length = count(bytes, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
            apart(Lexeme::Word(&text[..length]), text, length)
        }
        _ => (Lexeme::Other, text.len()),
    })
}

fn count(bytes: &[u8], is_in: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is_in(**byte)).count()
}

/// A word or a number, if what follows it cannot be part of it or change what it is.
fn apart<'a>(lexeme: Lexeme<'a>, text: &str, length: usize) -> (Lexeme<'a>, usize) {
    match text.as_bytes().get(length) {
        None | Some(b' ' | b'\t' | b'\n' | b'\r' | b'(' | b')' | b',' | b';') => (lexeme, length),
        Some(_) => (Lexeme::Other, text.len()),
    }
}

fn number(text: &str) -> (Lexeme<'_>, usize) {
    let bytes = text.as_bytes();
    let digits = |from: usize| count(&bytes[from..], |byte| byte.is_ascii_digit());
    let whole = digits(0);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') {
        end += 1 + digits(end + 1);
    }
    if end == whole + 1 && whole == 0 {
        return (Lexeme::Other, text.len());
    }
    if let Some(b'e' | b'E') = bytes.get(end) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits((end + 1 + sign).min(bytes.len()));
        end += if exponent > 0 { 1 + sign + exponent } else { 0 };
    }
    apart(Lexeme::Number(&text[..end]), text, end)
}

/// A quote within is doubled.
fn string(text: &str) -> (Lexeme<'_>, usize) {
    let (bytes, mut end, mut doubled) = (text.as_bytes(), 1, false);
    while let Some(length) = bytes.get(end..).and_then(|rest| rest.iter().position(|byte| *byte == b'\'')) {
        end += length;
        if bytes.get(end + 1) != Some(&b'\'') {
            return (Lexeme::Text(&text[1..end], doubled), end + 1);
        }
        (end, doubled) = (end + 2, true);
    }
    (Lexeme::Other, text.len())
}

fn name(text: &str, quote: u8) -> (Lexeme<'_>, usize) {
    let length = text[1..].bytes().position(|byte| byte == quote);
    match length.filter(|length| *length > 0) {
        Some(length) => apart(Lexeme::Name(&text[1..=length]), text, length + 2),
        None => (Lexeme::Other, text.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tokenize;

    /// Texts of a few pieces each, in all orders: what is read without the tokenizer is what it says.
    #[test]
    fn a_text_has_the_lexemes_of_its_tokens() {
        let pieces = [
            "INSERT", " ", "x", "_a1", "\n", "\t", "1", "0", "23.5", ".", "e", "E5", "e-3", "-", "--", "(", ")", ",", ";", "'a'",
            "''", "'it''s'", "'", "\"q\"", "\"\"", "`b`", "é", "$", "?", "@", "/*", "*/", "x'00'", "N", "L", "\\", "#", "::",
            "+", "=", "\r", "0x1F", "_1", "q'[a]'",
        ];
        let pairs = || pieces.iter().flat_map(|a| pieces.map(|b| format!("{a}{b}")));
        let mut read = 0;
        for text in pairs().flat_map(|pair| pieces.map(|c| format!("{pair}{c}"))) {
            let found: Vec<Lexeme<'_>> = Lexemes::Text(&text).collect();
            if found.contains(&Lexeme::Other) {
                continue;
            }
            let tokens = tokenize(&text).unwrap_or_else(|e| panic!("{text:?} is {found:?}, but {e}"));
            let unescaped = |lexeme: &Lexeme<'_>| match lexeme {
                Lexeme::Text(text, true) => format!("{:?}", Lexeme::Text(&text.replace("''", "'"), false)),
                other => format!("{other:?}"),
            };
            let said: Vec<String> = Lexemes::Tokens(&tokens).map(|lexeme| unescaped(&lexeme)).collect();
            assert_eq!(found.iter().map(unescaped).collect::<Vec<_>>(), said, "{text:?}");
            read += 1;
        }
        assert!(read > 5000, "{read} texts are read without the tokenizer");
    }
}
