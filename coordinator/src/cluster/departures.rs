//! Leaves that are not online any more: nobody waits for them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Shared;
use crate::catalog::LeafState;

/// How often it is looked whether this is to end.
const LOOK: Duration = Duration::from_millis(500);

/// Gives up every leaf that goes offline, until it is told to end. A leaf that died breaks its connections itself; one that hangs, or
/// that the network cut off, keeps whoever called it waiting.
pub(super) fn give_up(shared: &Shared, ended: &AtomicBool) {
    let (mut version, mut online) = (0, BTreeSet::new());
    while !ended.load(Ordering::Relaxed) {
        let catalog = shared.control.catalog();
        if catalog.version != version {
            let leaves = catalog.leaves.values().filter(|leaf| leaf.state == LeafState::Online);
            let now: BTreeSet<String> = leaves.map(|leaf| leaf.address.clone()).collect();
            online.difference(&now).for_each(|address: &String| shared.leaves.hang_up(address));
            (version, online) = (catalog.version, now);
        }
        shared.control.wait_for_change(version, LOOK);
    }
}
