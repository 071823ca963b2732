//! What a message from outside may hold at most.
//!
//! Cap'n Proto messages are read in place, so a hostile one costs nothing until it is decoded. These figures bound what decoding
//! may cost: the words that it walks over, how deep it recurses, how much it builds. They are generous for plans that people and
//! optimizers write and small for a machine. A writer keeps to them too, so that no node makes a plan that another one refuses.

use capnp::message::ReaderOptions;

/// The version of the plan schema that this release writes and reads; see the head of `plan.capnp`.
pub const PLAN_VERSION: u32 = 1;

/// Bytes of a plan message.
pub const MAX_PLAN_BYTES: usize = 64 << 20;
/// Segments of a message (Cap'n Proto's, not the column store's).
pub const MAX_MESSAGE_SEGMENTS: usize = 64;
/// Plan nodes on the way from the root to a leaf of the tree.
pub const MAX_PLAN_DEPTH: usize = 128;
/// Plan nodes of a query.
pub const MAX_PLAN_NODES: usize = 10_000;
/// Subplans of a query.
pub const MAX_SUBPLANS: usize = 1_000;
/// Expressions on the way from the top of one to a leaf of it.
pub const MAX_EXPRESSION_DEPTH: usize = 400;
/// Expressions of a query, all together; `VALUES` rows are made of them.
pub const MAX_EXPRESSIONS: usize = 500_000;
/// Entries of any one list.
pub const MAX_LIST: usize = 100_000;
/// Columns of a node.
pub const MAX_COLUMNS: usize = 16_384;
/// Bytes of a name: of a column, a table, a function.
pub const MAX_NAME_BYTES: usize = 16_384;
/// Levels of Cap'n Proto pointers. The structs and lists around plan nodes and expressions need up to four a level.
pub const MAX_NESTING: i32 = 4 * (MAX_PLAN_DEPTH + MAX_EXPRESSION_DEPTH) as i32;

/// Reader options for a plan message of `bytes` bytes.
///
/// A decoder follows every pointer once, so it walks over hardly more than the message's own words; a message whose pointers
/// share targets to look bigger than it is (amplification) runs into the traversal limit.
#[must_use]
pub fn plan_reader_options(bytes: usize) -> ReaderOptions {
    let words = bytes.min(MAX_PLAN_BYTES) / 8;
    ReaderOptions { traversal_limit_in_words: Some(words.saturating_mul(2).saturating_add(1024)), nesting_limit: MAX_NESTING }
}
