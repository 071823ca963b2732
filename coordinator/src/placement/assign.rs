//! Even assignment at least cost: the one optimizer under every rebalance.
//!
//! Items are put in bins so that, in this order, the bins are as even as they can be, they are so together with what they have besides,
//! and the sum of costs is least. It is a minimum-cost flow with a convex cost on the bins: each item starts where it is cheapest, then
//! items are passed along shortest paths from fuller bins to emptier ones for as long as that helps. Each path is a shortest one, so no
//! cycle of negative cost ever arises and the end is the optimum.

/// A bin in which an item may be, and what it costs there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    /// The bin.
    pub bin: usize,
    /// The cost.
    pub cost: i64,
}

/// The cheapest way to pass one item from a bin directly to another.
#[derive(Clone, Copy)]
struct Pass {
    cost: i64,
    item: usize,
}

/// A way from a bin to another over any number of passes.
#[derive(Clone, Copy)]
struct Path {
    cost: i64,
    /// The bin before the last pass.
    from: usize,
}

/// A place for items.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bin {
    /// What it has besides.
    pub besides: usize,
    /// What an item adds to that.
    pub item: usize,
}

struct Assignment<'a> {
    choices: &'a [Vec<Choice>],
    bins: &'a [Bin],
    /// The bin of each item.
    at: Vec<usize>,
    /// The items of each bin.
    members: Vec<Vec<usize>>,
    passes: Vec<Vec<Option<Pass>>>,
}

/// Chooses a bin for each item. Every item has at least one choice.
pub(super) fn assign(choices: &[Vec<Choice>], bins: &[Bin]) -> Vec<usize> {
    let cheapest = |item: &Vec<Choice>| item.iter().min_by_key(|choice| choice.cost).map_or(0, |choice| choice.bin);
    let at: Vec<usize> = choices.iter().map(cheapest).collect();
    let count = bins.len();
    let mut members = vec![Vec::new(); count];
    for (item, bin) in at.iter().enumerate() {
        members[*bin].push(item);
    }
    let mut assignment = Assignment { choices, bins, at, members, passes: vec![vec![None; count]; count] };
    for bin in 0..count {
        assignment.refresh(bin);
    }
    while assignment.improve() {}
    assignment.at
}

impl Assignment<'_> {
    /// Finds anew the cheapest passes out of a bin.
    fn refresh(&mut self, bin: usize) {
        let mut row = vec![None; self.bins.len()];
        for &item in &self.members[bin] {
            let here = self.cost(item, bin);
            for choice in &self.choices[item] {
                let cost = choice.cost - here;
                let best: &mut Option<Pass> = &mut row[choice.bin];
                if choice.bin != bin && best.is_none_or(|best| cost < best.cost) {
                    *best = Some(Pass { cost, item });
                }
            }
        }
        self.passes[bin] = row;
    }

    fn cost(&self, item: usize, bin: usize) -> i64 {
        self.choices[item].iter().find(|choice| choice.bin == bin).map_or(0, |choice| choice.cost)
    }

    /// Passes items along one path that makes things better. False: there is none.
    fn improve(&mut self) -> bool {
        let size = |bin: usize| self.members[bin].len() as i64;
        let all = |bin: usize| self.bins[bin].besides as i64 + self.bins[bin].item as i64 * size(bin);
        let mut sources: Vec<usize> = (0..self.bins.len()).collect();
        sources.sort_by_key(|bin| -size(*bin));
        for source in sources {
            let paths = self.paths(source);
            let more = |bin: usize| all(bin) - all(source) + self.bins[bin].item as i64;
            let gain = |bin: usize| paths[bin].map(|path| ((size(bin) - size(source) + 1, more(bin), path.cost), bin));
            let best = (0..self.bins.len()).filter(|bin| *bin != source).filter_map(gain).min();
            if let Some((gain, bin)) = best
                && gain < (0, 0, 0)
            {
                self.pass(source, bin, &paths);
                return true;
            }
        }
        false
    }

    /// The shortest ways from a bin to each other one (Bellman and Ford; costs may be negative, cycles are not).
    fn paths(&self, source: usize) -> Vec<Option<Path>> {
        let mut paths = vec![None; self.bins.len()];
        paths[source] = Some(Path { cost: 0, from: source });
        for _ in 1..self.bins.len() {
            let mut changed = false;
            for from in 0..self.bins.len() {
                let Some(Path { cost: so_far, .. }) = paths[from] else { continue };
                for (path, pass) in paths.iter_mut().zip(&self.passes[from]) {
                    let Some(pass) = pass else { continue };
                    let cost = so_far + pass.cost;
                    if path.is_none_or(|path: Path| cost < path.cost) {
                        *path = Some(Path { cost, from });
                        changed = true;
                    }
                }
            }
            if !changed {
                break;
            }
        }
        paths
    }

    /// Passes one item along each pass of a path.
    fn pass(&mut self, source: usize, target: usize, paths: &[Option<Path>]) {
        let mut touched = vec![target];
        let mut to = target;
        while to != source {
            let Some(from) = paths[to].map(|path| path.from) else { break };
            if let Some(pass) = self.passes[from][to] {
                self.members[from].retain(|item| *item != pass.item);
                self.members[to].push(pass.item);
                self.at[pass.item] = to;
            }
            touched.push(from);
            to = from;
        }
        for bin in touched {
            self.refresh(bin);
        }
    }
}
