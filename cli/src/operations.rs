//! What operators see and say of a node: its log, its metrics, its health, its end.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use stoa_exec::Admission;
use stoa_rpc::{Io, Limits, Listener, Page, serve_pages};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::args::{LogFormat, LogLevel, NodeArgs};
use crate::{Error, Result};

/// Bounds of the histograms of times, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0];
/// How long a connection has for bytes that were handed to it.
const LAST_BYTES: Duration = Duration::from_millis(100);
/// Readers of pages at once.
const READERS: usize = 16;

/// Logs to standard error from now on.
///
/// # Errors
/// If this process logs already.
pub fn log(node: &NodeArgs) -> Result<()> {
    let level = match node.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    // The consensus library tells every step of its own.
    let targets = Targets::new().with_default(level).with_target("openraft", level.min(LevelFilter::ERROR));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_target(false);
    let registry = tracing_subscriber::registry();
    let begun = match node.log_format {
        LogFormat::Text => registry.with(lines.with_filter(targets)).try_init(),
        LogFormat::Json => registry.with(lines.json().with_filter(targets)).try_init(),
    };
    begun.map_err(|e| Error::Invalid(format!("the log cannot be opened: {e}")))
}

/// What a node says of its health: `Err` is why it cannot serve.
pub type Health = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// Serves `/metrics` and `/health`, if the arguments say where.
///
/// # Errors
/// If the address cannot be listened on.
pub fn watchable(io: &Io, node: &NodeArgs, admission: &Arc<Admission>, health: Health) -> Result<Option<Listener>> {
    let Some(address) = &node.metrics else { return Ok(None) };
    let recorder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS);
    let handle = recorder.and_then(PrometheusBuilder::install_recorder);
    let handle = handle.map_err(|e| Error::Invalid(format!("metrics cannot be kept: {e}")))?;
    metrics::gauge!("stoa_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    let admission = admission.clone();
    let pages = Arc::new(move |path: &str| match path {
        "/metrics" => Page { status: 200, text: render(&handle, &admission) },
        "/health" => match health() {
            Ok(()) => Page { status: 200, text: "ok\n".to_owned() },
            Err(why) => Page { status: 503, text: format!("{why}\n") },
        },
        _ => Page { status: 404, text: "there are /metrics and /health\n".to_owned() },
    });
    let limits = Limits { connections: READERS, insecure: node.insecure || node.insecure_metrics };
    let listener = serve_pages(io, address, limits, pages)?;
    tracing::info!(address = %listener.address(), "metrics and health are served");
    Ok(Some(listener))
}

fn render(handle: &PrometheusHandle, admission: &Admission) -> String {
    let (running, waiting) = admission.load();
    metrics::gauge!("stoa_queries_running").set(running as f64);
    metrics::gauge!("stoa_queries_waiting").set(waiting as f64);
    metrics::gauge!("stoa_memory_used_bytes").set(admission.memory().used() as f64);
    metrics::gauge!("stoa_memory_limit_bytes").set(admission.memory().limit() as f64);
    handle.run_upkeep();
    handle.render()
}

/// Ctrl-C, or the system's wish that the node ends. The second one ends the process at once.
///
/// # Errors
/// If signals cannot be waited for.
pub fn signals() -> Result<Receiver<()>> {
    let (sender, told) = mpsc::channel();
    let on_signal = move || {
        // The receiver is gone when the node is ending: it is told for the second time.
        if sender.send(()).is_err() {
            std::process::exit(1);
        }
    };
    ctrlc::set_handler(on_signal).map_err(|e| Error::Invalid(format!("cannot wait for signals: {e}")))?;
    Ok(told)
}

/// Takes no more connections, gives what runs some time to end, then cancels it.
pub fn wind_down(listener: &Listener, patience: Duration, running: &dyn Fn() -> usize, cancel: &dyn Fn()) {
    listener.close();
    let began = Instant::now();
    let running = || running().max(listener.calls());
    tracing::info!(running = running(), "shutting down");
    while running() > 0 && began.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(10));
    }
    if running() > 0 {
        tracing::warn!(running = running(), "what still runs is cancelled");
        cancel();
        while running() > 0 && began.elapsed() < patience + Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    // The last bytes of the last answer.
    std::thread::sleep(LAST_BYTES);
}
