//! Checks and generators of the repository itself.
//!
//! `cargo test -p xtask` runs the style checks of [`tidy`] over every tracked file; `cargo run -p xtask -- generate` writes the
//! Rust code of the Cap'n Proto schemas, see [`generate`]. Nothing of Stoa depends on this crate.

pub mod generate;
pub mod tidy;

use std::path::{Path, PathBuf};

/// The root of the repository that this crate was built in.
#[must_use]
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
