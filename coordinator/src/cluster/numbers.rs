//! Numbers for queries and transactions.

use std::sync::atomic::{AtomicU64, Ordering};

use stoa_rpc::session::RANDOM;

/// Numbers for queries and transactions, unique among the coordinators of a cluster and all of their starts: the time in microseconds is
/// in them, and no number comes twice or before an earlier one.
#[derive(Default)]
pub struct QueryNumbers(AtomicU64);

/// Bits of a number that tell the time: until the year 2112.
const TIME_BITS: u32 = 52;

impl QueryNumbers {
    pub(super) fn next(&self, node: u64) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = since.as_micros() as u64;
        let following = |last: u64| now.max(last + 1);
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(following(last))).unwrap_or(0);
        // Random ones have the highest bit set.
        (node << TIME_BITS | following(last) & ((1 << TIME_BITS) - 1)) & !RANDOM
    }
}
