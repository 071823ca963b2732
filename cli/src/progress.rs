//! Progress bars on standard error, shown only to people.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use stoa_exec::Progress;

/// Work that runs longer than this shows a progress bar.
const PATIENCE: Duration = Duration::from_secs(2);

/// A bar that counts up to `total` of `unit`; hidden where standard error is no terminal.
pub(crate) fn bar(total: u64, what: &str, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(10));
    let template = format!("{{msg:28}} {{bar:30}} {{human_pos}}/{{human_len}} {unit} {{elapsed}} (eta {{eta}})");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    spinner.set_message(what.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Runs `work`, which advances the progress that it is given, and shows a bar once it has taken a while.
pub(crate) fn watch<T>(work: impl FnOnce(&Progress) -> T) -> T {
    let (finished, progress) = (AtomicBool::new(false), Progress::default());
    std::thread::scope(|scope| {
        let bar = scope.spawn(|| show(&finished, &progress));
        let outcome = work(&progress);
        finished.store(true, Ordering::Relaxed);
        bar.thread().unpark();
        outcome
    })
}

/// Shows a bar of the morsels done until the work is finished.
fn show(finished: &AtomicBool, progress: &Progress) {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if finished.load(Ordering::Relaxed) {
            return;
        }
        std::thread::park_timeout(PATIENCE.saturating_sub(start.elapsed()));
    }
    let what = "running, Ctrl-C cancels";
    // A cluster does not say how far it is.
    let bar = if progress.total() > 0 { bar(progress.total(), what, "morsels") } else { spinner(what) };
    while !finished.load(Ordering::Relaxed) {
        bar.set_length(progress.total());
        bar.set_position(progress.done());
        std::thread::park_timeout(Duration::from_millis(50));
    }
    bar.finish_and_clear();
}
