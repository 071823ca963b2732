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
    measure(&bar, unit);
    bar.set_message(what.to_owned());
    bar
}

/// Makes a bar that counts `unit` of what may have been a spinner.
fn measure(bar: &ProgressBar, unit: &str) {
    let template = format!("{{msg:28}} {{bar:30}} {{human_pos}}/{{human_len}} {unit} {{elapsed}} (eta {{eta}})");
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style);
    }
}

/// A spinner for work of unknown length.
pub(crate) fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    spinner.set_style(ProgressStyle::default_spinner());
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
    let bar = spinner("running, Ctrl-C cancels");
    let mut measured = false;
    while !finished.load(Ordering::Relaxed) {
        let (done, total) = progress.now();
        // Not every statement tells how far it is, and a cluster does only after a while.
        if total > 0 {
            if !std::mem::replace(&mut measured, true) {
                bar.disable_steady_tick();
                measure(&bar, "morsels");
            }
            bar.set_length(total);
            bar.set_position(done);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
    bar.finish_and_clear();
}
