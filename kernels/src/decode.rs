//! Dictionary decode: codes to values.

use crate::isa::{Isa, isa};
use std::fmt;

/// A code that stands for no entry of its dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeOutOfRange {
    /// The highest code.
    pub code: u32,
    /// How many entries there are.
    pub entries: usize,
}

impl fmt::Display for CodeOutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dictionary code {} is out of range: there are {} entries", self.code, self.entries)
    }
}

impl std::error::Error for CodeOutOfRange {}

/// A dictionary code.
pub trait Code: Copy + Ord + Default + Into<u32> {}

impl Code for u8 {}
impl Code for u16 {}
impl Code for u32 {}

/// Appends the entry of each code to `out`; a code out of range is an error and appends nothing.
pub fn decode<C: Code, T: Copy>(codes: &[C], entries: &[T], out: &mut Vec<T>) -> Result<(), CodeOutOfRange> {
    decode_with(isa(), codes, entries, out)
}

/// [`decode`] at a given level.
pub fn decode_with<C: Code, T: Copy>(isa: Isa, codes: &[C], entries: &[T], out: &mut Vec<T>) -> Result<(), CodeOutOfRange> {
    check_with(isa, codes, entries.len())?;
    out.extend(codes.iter().map(|code| {
        let code: u32 = (*code).into();
        // SAFETY: the highest code is in range.
        unsafe { *entries.get_unchecked(code as usize) }
    }));
    Ok(())
}

/// That every code stands for one of that many entries.
pub fn check<C: Code>(codes: &[C], entries: usize) -> Result<(), CodeOutOfRange> {
    check_with(isa(), codes, entries)
}

/// [`check`] at a given level.
pub fn check_with<C: Code>(isa: Isa, codes: &[C], entries: usize) -> Result<(), CodeOutOfRange> {
    let highest = isa.run(
        #[inline(always)]
        || codes.iter().fold(C::default(), |highest, code| highest.max(*code)),
    );
    let code: u32 = highest.into();
    if codes.is_empty() || (code as usize) < entries { Ok(()) } else { Err(CodeOutOfRange { code, entries }) }
}
