//! `stoa sql`: statements from the command line, a file or standard input, or the shell.

use std::io::{self, IsTerminal, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stoa_exec::CancelToken;

use crate::args::SqlArgs;
use crate::connection::Connection;
use crate::{Error, Result, output, progress, shell};

/// How long a cancelled statement may take to end in order.
const GRACE: Duration = Duration::from_millis(50);

/// Runs the command.
///
/// # Errors
/// The first statement's error; the statements before it stay done.
pub fn run(args: &SqlArgs) -> Result<()> {
    let text = match (&args.command, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(path)) if path.as_os_str() == "-" => read_standard_input()?,
        (None, Some(path)) => std::fs::read_to_string(path).map_err(Error::file(path))?,
        (None, None) if io::stdin().is_terminal() => {
            return shell::run(&Connection::open(&args.engine)?, args.format);
        }
        (None, None) => read_standard_input()?,
    };
    let connection = Connection::open(&args.engine)?;
    let cancel = CancelToken::default();
    let ended = Arc::new(AtomicBool::new(false));
    let (on_interrupt, over) = (cancel.clone(), ended.clone());
    // A second handler in one process would fail; the first one serves then.
    let _ = ctrlc::set_handler(move || interrupted(&on_interrupt, &over));
    let mut out = io::BufWriter::new(Cancellable { out: io::stdout().lock(), cancel: &cancel });
    let mut printer = output::Printer::new(args.format);
    let mut print = |outcome| {
        let written = printer.outcome(&mut out, &outcome);
        cancel.check()?;
        Ok(written?)
    };
    let mut outcome = progress::watch(|progress| connection.run(&text, &cancel, progress, &mut print));
    if outcome.is_ok() {
        let written = printer.finish(&mut out);
        outcome = cancel.check().map_err(Error::from).and_then(|()| Ok(written?));
    }
    if ended.swap(true, Ordering::SeqCst) {
        // The handler is about to end the process, and has said why.
        std::thread::park();
    }
    outcome.and(Ok(out.flush()?))
}

/// Cancels what runs. If it does not end at once the process does: a query may be in the middle of a large allocation, or of giving one
/// back. Whatever was being written is absent then, as after any sudden end.
fn interrupted(cancel: &CancelToken, ended: &AtomicBool) {
    cancel.cancel();
    std::thread::sleep(GRACE);
    if !ended.swap(true, Ordering::SeqCst) {
        eprintln!("error: {}", stoa_exec::Error::Cancelled);
        std::process::exit(1);
    }
}

/// An output that ends where the statement is cancelled.
struct Cancellable<'a, W> {
    out: W,
    cancel: &'a CancelToken,
}

impl<W: Write> Write for Cancellable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn read_standard_input() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
