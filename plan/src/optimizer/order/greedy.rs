//! Greedy order: of all pairs of sets, join the one that makes the cheapest join, until one set is left.

use hashbrown::HashMap;

use super::{Entry, Search};
use crate::optimizer::region::{Set, bit};

impl Search<'_> {
    /// Joins all items; entries of the sets on the way are kept.
    pub(super) fn greedy(&mut self) {
        let mut sets: Vec<Set> = (0..self.region.items.len()).map(bit).collect();
        let mut tried: HashMap<(Set, Set), Option<Entry>> = HashMap::new();
        while sets.len() > 1 {
            let best = self.best(&sets, &mut tried, false).or_else(|| self.best(&sets, &mut tried, true));
            let Some((left, right)) = best else { return };
            let entry = match tried.remove(&(left, right)).flatten() {
                Some(entry) => entry,
                None => match self.joined(left, right, true) {
                    Some(entry) => entry,
                    None => return,
                },
            };
            sets.retain(|set| *set != left && *set != right);
            sets.push(left | right);
            self.entries.insert(left | right, entry);
        }
    }

    fn best(&self, sets: &[Set], tried: &mut HashMap<(Set, Set), Option<Entry>>, cross: bool) -> Option<(Set, Set)> {
        if cross {
            tried.clear();
        }
        let mut best: Option<(f64, (Set, Set))> = None;
        for left in sets {
            for right in sets.iter().filter(|right| *right != left) {
                let entry = tried.entry((*left, *right)).or_insert_with(|| self.joined(*left, *right, cross));
                // What was paid for the two sides is paid already.
                let paid = |set| self.entries.get(set).map_or(0.0, |e: &Entry| e.cost);
                let Some(price) = entry.as_ref().map(|e| e.cost - paid(left) - paid(right)) else { continue };
                if best.is_none_or(|(known, _)| price < known) {
                    best = Some((price, (*left, *right)));
                }
            }
        }
        best.map(|(_, pair)| pair)
    }
}
