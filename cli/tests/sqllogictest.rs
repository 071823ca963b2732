//! Runs every file of `tests/slt/` on every shape of the engine: as shipped, and under hostile settings that make each collision,
//! boundary and merge path run. Each file on each shape is a test of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::{DBOutput, DefaultColumnType};
use stoa::engine::{Engine, Outcome, Setup};
use stoa_exec::{CancelToken, Progress, Settings};

mod leaves;

/// A shape of the engine.
struct Shape {
    name: &'static str,
    setup: fn() -> Setup,
    /// Leaves of a cluster; 0: a data directory in this process.
    leaves: usize,
}

fn plain() -> Setup {
    Setup { memory_limit: 1 << 30, threads: 2, settings: Settings::default(), storage: stoa_columnstore::Options::default() }
}

const SHAPES: &[Shape] = &[
    Shape { name: "plain", setup: plain, leaves: 0 },
    Shape {
        name: "tiny_vectors",
        setup: || {
            let mut setup = plain();
            setup.settings.vector_size = 2;
            setup.storage.segment_rows = 64;
            setup
        },
        leaves: 0,
    },
    Shape {
        name: "equal_hashes",
        setup: || {
            let mut setup = plain();
            setup.settings.hash_zero = true;
            setup.settings.serialize_states = true;
            setup.storage.default_partitions = 5;
            setup
        },
        leaves: 0,
    },
    Shape {
        name: "no_fast_paths",
        setup: || {
            let mut setup = plain();
            setup.settings.no_fast_paths = true;
            setup.storage.default_partitions = 1;
            setup
        },
        leaves: 0,
    },
    Shape {
        name: "eager_maintenance",
        setup: || {
            let mut setup = plain();
            setup.storage.eager_maintenance = true;
            setup.storage.flush_rows = 4;
            setup.storage.segment_rows = 32;
            setup.storage.default_partitions = 3;
            setup
        },
        leaves: 0,
    },
    Shape {
        name: "all_in_memory",
        setup: || {
            let mut setup = plain();
            setup.storage.flush_rows = usize::MAX;
            setup.storage.flush_bytes = usize::MAX;
            setup.storage.default_partitions = 2;
            setup
        },
        leaves: 0,
    },
    Shape {
        name: "one_leaf",
        setup: || {
            let mut setup = plain();
            setup.storage.default_partitions = 1;
            setup
        },
        leaves: 1,
    },
    Shape {
        name: "two_leaves",
        setup: || {
            let mut setup = plain();
            setup.storage.default_partitions = 5;
            setup.settings.vector_size = 3;
            setup
        },
        leaves: 2,
    },
    Shape {
        name: "four_leaves",
        setup: || {
            let mut setup = plain();
            setup.storage.default_partitions = 16;
            setup.settings.no_fast_paths = true;
            setup
        },
        leaves: 4,
    },
    Shape {
        name: "shuffled",
        setup: || {
            let mut setup = plain();
            setup.storage.default_partitions = 7;
            setup.settings.always_shuffle = true;
            setup
        },
        leaves: 3,
    },
];

/// One engine, or cluster, on a folder of its own.
struct Connection {
    place: Place,
    _folder: tempfile::TempDir,
}

enum Place {
    Embedded(Engine),
    Cluster(leaves::Leaves),
}

impl Connection {
    fn open(setup: &Setup, leaves: usize) -> Connection {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = if leaves == 0 {
            Place::Embedded(Engine::with_setup(folder.path(), setup).expect("an empty data directory opens"))
        } else {
            let (settings, storage) = (&setup.settings, &setup.storage);
            Place::Cluster(leaves::Leaves::start(folder.path(), leaves, storage.default_partitions, settings, storage))
        };
        Connection { place, _folder: folder }
    }
}

impl sqllogictest::DB for Connection {
    type Error = stoa::Error;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, stoa::Error> {
        let mut output = DBOutput::StatementComplete(0);
        let mut each = |outcome| {
            match (outcome, &mut output) {
                (Outcome::Rows { schema, batches }, output) => {
                    let types = vec![DefaultColumnType::Any; schema.fields().len()];
                    *output = DBOutput::Rows { types, rows: rows(&batches) };
                }
                (Outcome::More(batches), DBOutput::Rows { rows: all, .. }) => all.extend(rows(&batches)),
                _ => {}
            }
            Ok(())
        };
        match &self.place {
            Place::Embedded(engine) => engine.run(sql, &CancelToken::default(), &mut each)?,
            Place::Cluster(leaves) => leaves.session.run(sql, &CancelToken::default(), &Progress::default(), &mut each)?,
        }
        Ok(output)
    }

    fn engine_name(&self) -> &'static str {
        "stoa"
    }
}

/// The values as text: NULL, `(empty)`, floats to 9 significant digits.
fn rows(batches: &[arrow::array::RecordBatch]) -> Vec<Vec<String>> {
    use arrow::array::Array;
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::new().with_timestamp_format(Some("%Y-%m-%d %H:%M:%S%.f"));
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).expect("a formatter")).collect();
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(batch.columns()).map(|(column, array)| {
                if array.is_null(row) || array.data_type() == &arrow::datatypes::DataType::Null {
                    return "NULL".to_owned();
                }
                let text = column.value(row).to_string();
                if text.is_empty() {
                    return "(empty)".to_owned();
                }
                if array.data_type().is_floating() { float(&text) } else { text }
            });
            rows.push(cells.collect());
        }
    }
    rows
}

/// Nine significant digits, so that the order of additions does not show.
fn float(text: &str) -> String {
    let value: f64 = text.parse().unwrap_or(f64::NAN);
    if !value.is_finite() || value == 0.0 {
        return if value == 0.0 { "0".to_owned() } else { value.to_string() };
    }
    let digits = (8 - value.abs().log10().floor() as i32).clamp(0, 17) as usize;
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

fn run_file(path: &Path, setup: &Setup, leaves: usize) -> Result<(), Failed> {
    let mut runner = sqllogictest::Runner::new(|| async { Ok(Connection::open(setup, leaves)) });
    runner.run_file(path).map_err(|e| Failed::from(e.to_string()))
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).expect("tests/slt").filter_map(|e| Some(e.ok()?.path())).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "slt"));
    files.sort();
    files
}

/// The instruction set is chosen once a process: the lower levels run in processes of their own.
fn run_with_isa(level: &str) -> Result<(), Failed> {
    let this = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new(this).env("STOA_ISA", level).arg("plain::").output().map_err(|e| e.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned().into()) }
}

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for shape in SHAPES {
        for file in files() {
            let name = format!("{}::{}", shape.name, file.file_stem().unwrap_or_default().to_string_lossy());
            trials.push(Trial::test(name, move || run_file(&file, &(shape.setup)(), shape.leaves)));
        }
    }
    if std::env::var_os("STOA_ISA").is_none() {
        for level in ["scalar", "avx2"] {
            trials.push(Trial::test(format!("isa::{level}"), move || run_with_isa(level)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
