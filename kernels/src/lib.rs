//! SIMD kernels of Stoa: slices in, slices out.
//!
//! This crate is the only home of intrinsics and of the choice between instruction sets. It knows no files, no Arrow and
//! no SQL, and its hot paths allocate nothing (results are appended to vectors that the caller reuses).
//!
//! Conventions that hold for every kernel:
//!
//! - A *mask* is a `&[u64]`: bit `i % 64` of word `i / 64` stands for row `i`, least significant bit first. Bits past the
//!   last row are 0 in every mask that a kernel writes, and have to be 0 in every mask that a kernel reads.
//! - A *selection* is a `&[u32]` of ascending row numbers.
//! - Each kernel has a dispatching form (`mask::popcount`) and a `_with` form that takes the [`Isa`] (`mask::popcount_with`),
//!   so that one process can test every level that the CPU has.
//! - The scalar body is the specification. Most kernels are that body compiled once for each level ([`isa`] explains
//!   how), so that LLVM vectorizes it; on aarch64 this is how NEON is reached. Intrinsics stand only where a benchmark
//!   in `benches/` shows that they are needed.
//! - Wrong lengths (a mask too short for its values, say) are errors of the caller and panic, like indexing. What can come
//!   from a file, such as dictionary codes, is checked and reported as a value.

pub mod aggregate;
pub mod arith;
pub mod bitpack;
pub mod compare;
pub mod decode;
pub mod filter;
pub mod gather;
pub mod grouped;
pub mod hash;
pub mod isa;
pub mod mask;
pub mod probe;
pub mod string;

pub use isa::{Isa, isa};
