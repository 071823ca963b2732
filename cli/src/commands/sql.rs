//! `stoa sql`: statements from the command line, a file or standard input, or the shell.

use std::io::{self, IsTerminal, Read, Write};

use stoa_exec::CancelToken;

use crate::args::SqlArgs;
use crate::engine::Engine;
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
            return shell::run(&Engine::open(&args.engine)?, args.format);
        }
        (None, None) => read_standard_input()?,
    };
    let engine = Engine::open(&args.engine)?;
    let cancel = CancelToken::default();
    let on_interrupt = cancel.clone();
    // A second handler in one process would fail; the first one serves then.
    let _ = ctrlc::set_handler(move || on_interrupt.cancel());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut print = |outcome| Ok(output::write_outcome(&mut out, args.format, &outcome)?);
    let outcome = progress::watch(|progress| engine.run_with(&text, &cancel, progress, &mut print));
    out.flush()?;
    outcome
}

fn read_standard_input() -> Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
