//! `stoa sql`: statements from the command line, a file or standard input, or the shell.

use std::io::{self, IsTerminal, Read, Write};

use stoa_exec::CancelToken;

use crate::args::SqlArgs;
use crate::connection::Connection;
use crate::{Error, Result, output, progress, shell};

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
    let on_interrupt = cancel.clone();
    // A second handler in one process would fail; the first one serves then.
    let _ = ctrlc::set_handler(move || on_interrupt.cancel());
    let mut out = io::BufWriter::new(Cancellable { out: io::stdout().lock(), cancel: &cancel });
    let mut print = |outcome| {
        let written = output::write_outcome(&mut out, args.format, &outcome);
        cancel.check()?;
        Ok(written?)
    };
    let outcome = progress::watch(|progress| connection.run(&text, &cancel, progress, &mut print));
    outcome.and(Ok(out.flush()?))
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
