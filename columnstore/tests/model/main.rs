//! Random steps on a data directory against maps in memory, on a disk that fails and crashes.
//!
//! `STOA_MODEL_STEPS` is how many steps there are in all, `STOA_MODEL_SEED` the seed to begin with, or, without the other, the one seed to
//! run. A failure prints its seed and the last steps. A seed does the same again, but for the order in which threads come.

mod disk;
mod run;
mod state;
mod steps;

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps of a seed.
const STEPS: u64 = 250;

/// Panics of any thread.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn what_is_committed_stays_and_nothing_else() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        default(info);
    }));
    let (first, steps) = (number("STOA_MODEL_SEED"), number("STOA_MODEL_STEPS"));
    let steps = steps.unwrap_or(if first.is_some() { STEPS } else { 12_000 });
    for seed in (first.unwrap_or(1)..).take(steps.div_ceil(STEPS) as usize) {
        let mut run = run::Run::new(seed);
        for _ in 0..STEPS {
            run.step();
            assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a thread panicked");
        }
        run.end();
    }
}
