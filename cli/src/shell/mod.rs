//! The interactive shell: history, statements over several lines, completion, backslash commands, a progress bar, Ctrl-C.

mod input;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Config, Editor};
use stoa_exec::CancelToken;

use self::input::Input;
use crate::args::Format;
use crate::connection::Connection;
use crate::engine::Outcome;
use crate::progress;
use crate::{Result, output};

const HELP: &str = "\
Statements end with ';' and may span lines. Ctrl-C cancels a running query, Ctrl-D leaves.
  \\d           tables and views
  \\d NAME      columns of a table
  \\timing      show or hide how long statements take
  \\format F    table, csv, json, tsv or arrow
  \\i FILE      run the statements of a file
  \\q           leave
  \\?           this help";

/// What the user has set.
struct Shell<'a> {
    connection: &'a Connection,
    format: Format,
    timing: bool,
    running: Arc<Mutex<Option<CancelToken>>>,
}

/// Runs the shell until the user leaves.
///
/// # Errors
/// If the terminal fails; errors of statements are printed and the shell goes on.
pub(crate) fn run(connection: &Connection, format: Format) -> Result<()> {
    let mut shell = Shell { connection, format, timing: true, running: Arc::default() };
    let running = shell.running.clone();
    // While a line is edited the editor sees Ctrl-C itself; this handler acts while a query runs.
    let _ = ctrlc::set_handler(move || {
        if let Some(token) = running.lock().as_ref() {
            token.cancel();
        }
    });
    let config = Config::builder().auto_add_history(true).completion_type(CompletionType::List).build();
    let mut editor = Editor::<Input<'_>, DefaultHistory>::with_config(config).map_err(io::Error::other)?;
    editor.set_helper(Some(Input::new(connection)));
    let history = history_file();
    if let Some(path) = &history {
        // No history yet is no error.
        let _ = editor.load_history(path);
    }
    println!("stoa {} on {}. \\? for help.", env!("CARGO_PKG_VERSION"), connection.describe());
    loop {
        match editor.readline("stoa> ") {
            Ok(line) => {
                if shell.execute(line.trim()).is_break() {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(io::Error::other(error).into()),
        }
    }
    if let Some(path) = &history {
        // A history that cannot be kept is not worth an error on leaving.
        let _ = editor.save_history(path);
    }
    Ok(())
}

fn history_file() -> Option<PathBuf> {
    std::env::var_os("STOA_HISTORY").map(PathBuf::from).or_else(|| std::env::home_dir().map(|home| home.join(".stoa_history")))
}

impl Shell<'_> {
    fn execute(&mut self, line: &str) -> std::ops::ControlFlow<()> {
        if line.is_empty() {
            return std::ops::ControlFlow::Continue(());
        }
        let outcome = match line.strip_prefix('\\') {
            Some("q" | "quit") => return std::ops::ControlFlow::Break(()),
            Some(command) => self.backslash(command),
            None => self.statements(line),
        };
        if let Err(error) = outcome {
            eprintln!("error: {error}");
        }
        std::ops::ControlFlow::Continue(())
    }

    fn backslash(&mut self, command: &str) -> Result<()> {
        let (name, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim().trim_end_matches(';');
        match name {
            "?" | "h" | "help" => println!("{HELP}"),
            "timing" => {
                self.timing = !self.timing;
                println!("timing is {}", if self.timing { "on" } else { "off" });
            }
            "d" if argument.is_empty() => self.statements("SHOW TABLES")?,
            "d" => self.statements(&format!("DESCRIBE `{}`", argument.replace('`', "``")))?,
            "format" => match <Format as clap::ValueEnum>::from_str(argument, true) {
                Ok(format) => self.format = format,
                Err(_) => println!("formats are table, csv, json, tsv, arrow"),
            },
            "i" => {
                let text = std::fs::read_to_string(argument).map_err(crate::Error::file(argument))?;
                self.statements(&text)?;
            }
            _ => println!("there is no command \\{name}\n{HELP}"),
        }
        Ok(())
    }

    fn statements(&self, text: &str) -> Result<()> {
        let cancel = CancelToken::default();
        *self.running.lock() = Some(cancel.clone());
        let start = Instant::now();
        let mut printer = output::Printer::new(self.format);
        let mut print = |outcome| print(&mut printer, &outcome);
        let mut outcome = progress::watch(|progress| self.connection.run(text, &cancel, progress, &mut print));
        if outcome.is_ok() {
            let mut out = io::stdout().lock();
            outcome = printer.finish(&mut out).and_then(|()| out.flush()).map_err(Into::into);
        }
        *self.running.lock() = None;
        if self.timing {
            println!("{:.1} ms", start.elapsed().as_secs_f64() * 1e3);
        }
        outcome
    }
}

fn print(printer: &mut output::Printer, outcome: &Outcome) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    printer.outcome(&mut out, outcome)?;
    if let Outcome::Done(message) = outcome {
        writeln!(out, "{message}")?;
    }
    out.flush()?;
    Ok(())
}
