//! Counts what a message builds, so that encoder and decoder stop at the same limits.

use stoa_schema::limits::{MAX_EXPRESSION_DEPTH, MAX_EXPRESSIONS, MAX_LIST, MAX_PLAN_DEPTH, MAX_PLAN_NODES};

use super::CodecError;

/// What a query has used up so far.
#[derive(Default)]
pub(super) struct Budget {
    nodes: usize,
    expressions: usize,
}

impl Budget {
    /// Counts a plan node at `depth`, the root's being 1.
    pub(super) fn node(&mut self, depth: usize) -> Result<(), CodecError> {
        self.nodes += 1;
        length("nested plan nodes", depth, MAX_PLAN_DEPTH)?;
        length("plan nodes", self.nodes, MAX_PLAN_NODES)?;
        Ok(())
    }

    /// Counts an expression at `depth`, the outermost's being 1.
    pub(super) fn expression(&mut self, depth: usize) -> Result<(), CodecError> {
        self.expressions += 1;
        length("nested expressions", depth, MAX_EXPRESSION_DEPTH)?;
        length("expressions", self.expressions, MAX_EXPRESSIONS)?;
        Ok(())
    }
}

/// `length` as Cap'n Proto counts, if it is within `limit`.
pub(super) fn length(what: &'static str, length: usize, limit: usize) -> Result<u32, CodecError> {
    if length > limit {
        return Err(CodecError::TooLarge { what, limit });
    }
    u32::try_from(length).map_err(|_| CodecError::TooLarge { what, limit: u32::MAX as usize })
}

/// [`length`] of a list that has no limit of its own.
pub(super) fn list(what: &'static str, len: usize) -> Result<u32, CodecError> {
    length(what, len, MAX_LIST)
}
