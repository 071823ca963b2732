//! The command line of `stoa`.

mod admin;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use admin::{AdminCommand, Scope};

/// Stoa, a distributed SQL engine for analytics.
#[derive(Debug, Parser)]
#[command(name = "stoa", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// A file with options, in TOML: `queries = 100`, for one command in a table `[leaf]`
    #[arg(long, global = true, value_name = "FILE", env = "STOA_CONFIG")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run SQL on a data directory: statements, a file, or a shell
    Sql(SqlArgs),
    /// Load CSV, .tbl or Parquet files into a table
    Load(LoadArgs),
    /// Generate TPC-H, load it, run the 22 queries and check the answers
    Tpch(TpchArgs),
    /// Show segments, encodings, sizes, zone maps and indexes
    Inspect(InspectArgs),
    /// Look for damage: verify checksums, log, indexes and keys of a data directory or of a leaf's
    Check(CheckArgs),
    /// Run a leaf of a cluster: it stores partitions and runs the fragments of queries over them
    Leaf(LeafArgs),
    /// Run a coordinator of a cluster: it keeps the catalog, plans queries and merges what the leaves compute
    Coordinator(CoordinatorArgs),
    /// Administer a cluster: its nodes, its databases, what runs
    Admin(AdminArgs),
    /// Start, stop or look at a cluster on this machine, a process a node
    #[command(subcommand)]
    Cluster(ClusterCommand),
}

/// Where a node keeps its data and listens.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Data directory of the node; made if it is not there
    #[arg(long, value_name = "DIR", env = "STOA_DATA")]
    pub data: PathBuf,
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", env = "STOA_LISTEN", default_value = "127.0.0.1:0")]
    pub listen: String,
    /// The cluster's secret; who does not know it is turned away
    #[arg(long, env = "STOA_SECRET", default_value = "", hide_default_value = true, hide_env_values = true)]
    pub secret: String,
    /// Seconds without a word after which a leaf counts as hung, and what runs on it fails; no limit on how long a query takes
    #[arg(long, value_name = "SECONDS", env = "STOA_LEAF_SILENCE", default_value_t = 10.0, value_parser = parse_seconds)]
    pub leaf_silence: f64,
    /// Memory that all queries together may hold on this node, e.g. 4GiB [default: 70% of the machine's]
    #[arg(long, value_name = "BYTES", env = "STOA_MEMORY_LIMIT", value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// Memory that one query may hold on this node [default: all of --memory-limit]
    #[arg(long, value_name = "BYTES", env = "STOA_QUERY_MEMORY", value_parser = parse_bytes)]
    pub query_memory: Option<usize>,
    /// Queries that run at once; the next ones wait
    #[arg(long, value_name = "N", env = "STOA_QUERIES", default_value_t = 256)]
    pub queries: usize,
    /// Queries that wait; one more is sent away
    #[arg(long, value_name = "N", env = "STOA_QUEUE", default_value_t = 128)]
    pub queue: usize,
    /// Seconds that a query waits before it is sent away
    #[arg(long, value_name = "SECONDS", env = "STOA_QUEUE_TIMEOUT", default_value_t = 5.0, value_parser = parse_seconds)]
    pub queue_timeout: f64,
    /// Seconds that running queries have to end when the node is told to; then they are cancelled
    #[arg(long, value_name = "SECONDS", env = "STOA_SHUTDOWN_TIMEOUT", default_value_t = 10.0, value_parser = parse_seconds)]
    pub shutdown_timeout: f64,
    /// Serve /metrics (Prometheus) and /health over HTTP here
    #[arg(long, value_name = "HOST:PORT", env = "STOA_METRICS")]
    pub metrics: Option<String>,
    /// What is logged to standard error
    #[arg(long, value_enum, env = "STOA_LOG_LEVEL", default_value_t = LogLevel::Info)]
    pub log_level: LogLevel,
    /// Form of the log
    #[arg(long, value_enum, env = "STOA_LOG_FORMAT", default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Log statements that take longer as warnings
    #[arg(long, value_name = "SECONDS", env = "STOA_SLOW_QUERY", default_value_t = 10.0, value_parser = parse_seconds)]
    pub slow_query: f64,
    /// Connections at once
    #[arg(long, value_name = "N", env = "STOA_CONNECTIONS", default_value_t = 1024)]
    pub connections: usize,
    /// Certificate that the node shows, in PEM: it takes encrypted connections only
    #[arg(long, value_name = "FILE", env = "STOA_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate, in PEM
    #[arg(long, value_name = "FILE", env = "STOA_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Certificates of the authorities that other nodes are trusted by, in PEM: connections to them are encrypted
    #[arg(long, value_name = "FILE", env = "STOA_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Listen beyond this machine even without TLS or a secret, with all ports
    #[arg(long, env = "STOA_INSECURE", value_parser = BoolishValueParser::new())]
    pub insecure: bool,
    /// Serve --metrics beyond this machine, to whoever asks; the other port stays guarded
    #[arg(long, env = "STOA_INSECURE_METRICS", value_parser = BoolishValueParser::new())]
    pub insecure_metrics: bool,
}

/// `stoa leaf`.
#[derive(Debug, Args)]
pub struct LeafArgs {
    /// Where it is.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Worker threads [default: one a core]
    #[arg(long, value_name = "N", env = "STOA_THREADS")]
    pub threads: Option<usize>,
    /// Bytes a second that this leaf sends at most to make copies of its partitions on other leaves, e.g. 100MiB [default: no limit]
    #[arg(long, value_name = "BYTES", env = "STOA_COPY_RATE", value_parser = parse_bytes)]
    pub copy_rate: Option<usize>,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed
    Error,
    /// And what may become a problem
    Warn,
    /// And what changed
    Info,
    /// And every statement and fragment
    Debug,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object a line
    Json,
}

/// `stoa coordinator`.
#[derive(Debug, Args)]
pub struct CoordinatorArgs {
    /// Where it is.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Make a new cluster if the data directory has none; not together with --join
    #[arg(long, env = "STOA_BOOTSTRAP", value_parser = BoolishValueParser::new())]
    pub bootstrap: bool,
    /// Join the cluster of this coordinator; without it, and without --bootstrap, a new coordinator waits for ADD AGGREGATOR
    #[arg(long, value_name = "HOST:PORT", env = "STOA_JOIN")]
    pub join: Option<String>,
    /// Seconds for which a statement is run again when leaves fail under it, before the client is told; 0: never
    #[arg(long, value_name = "SECONDS", env = "STOA_RETRY_SECONDS", default_value_t = 30.0, value_parser = parse_seconds)]
    pub retry_seconds: f64,
    /// Where other coordinators reach this one [default: where it listens]
    #[arg(long, value_name = "HOST:PORT", env = "STOA_ADVERTISE")]
    pub advertise: Option<String>,
    /// Seconds without an answer after which a leaf is off line, and replicas take over
    #[arg(long, value_name = "SECONDS", env = "STOA_FAILOVER_SILENT", default_value_t = 3.0, value_parser = parse_seconds)]
    pub failover_silent: f64,
    /// Seconds of refused connections after which a leaf is off line, and replicas take over
    #[arg(long, value_name = "SECONDS", env = "STOA_FAILOVER_REFUSED", default_value_t = 1.0, value_parser = parse_seconds)]
    pub failover_refused: f64,
}

/// `stoa admin`.
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The cluster.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// How to print listings
    #[arg(long, value_enum, default_value_t = Format::Table, global = true)]
    pub format: Format,
    /// What to do.
    #[command(subcommand)]
    pub command: AdminCommand,
}

/// `stoa cluster`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Start a cluster, new or stopped before, and say how to connect
    Start {
        /// Folder of the cluster; made if it is not there
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Coordinators of a new cluster
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=9))]
        coordinators: u32,
        /// Leaves of a new cluster
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
        leaves: u32,
        /// Encrypt all connections, with an authority and a certificate that are made for a new cluster
        #[arg(long)]
        tls: bool,
        /// Worker threads of each leaf [default: the cores, divided among the leaves]
        #[arg(long, value_name = "N")]
        threads: Option<usize>,
    },
    /// Stop the nodes of a cluster
    Stop {
        /// Folder of the cluster
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Show the nodes of a cluster
    Status {
        /// Folder of the cluster
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Where the data is and what a query may use of the machine.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Data directory; made if it is not there [default: ./stoa-data]
    #[arg(long, global = true, value_name = "DIR", env = "STOA_DATA")]
    pub data: Option<PathBuf>,
    /// Coordinators of a cluster, instead of a data directory; the first that answers serves
    #[arg(long, global = true, value_name = "HOST:PORT", env = "STOA_CONNECT", value_delimiter = ',')]
    pub connect: Vec<String>,
    /// User of the cluster
    #[arg(long, global = true, env = "STOA_USER", default_value = "root")]
    pub user: String,
    /// Password of the user
    #[arg(long, global = true, env = "STOA_PASSWORD", default_value = "", hide_default_value = true, hide_env_values = true)]
    pub password: String,
    /// Database of the cluster
    #[arg(long, global = true, env = "STOA_DATABASE", default_value = "stoa")]
    pub database: String,
    /// The cluster's secret
    #[arg(long, global = true, env = "STOA_SECRET", default_value = "", hide_default_value = true, hide_env_values = true)]
    pub secret: String,
    /// Certificates of the authorities that nodes are trusted by, in PEM: connections are encrypted
    #[arg(long, global = true, value_name = "FILE", env = "STOA_TLS_CA")]
    pub tls_ca: Option<PathBuf>,
    /// Memory that one query may hold, e.g. 4GiB [default: 70% of the machine's]
    #[arg(long, global = true, value_name = "BYTES", env = "STOA_MEMORY_LIMIT", value_parser = parse_bytes)]
    pub memory_limit: Option<usize>,
    /// Worker threads [default: one a core]
    #[arg(long, global = true, value_name = "N", env = "STOA_THREADS")]
    pub threads: Option<usize>,
}

impl EngineArgs {
    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &Path {
        self.data.as_deref().unwrap_or(Path::new("./stoa-data"))
    }
}

impl Cli {
    /// Reads arguments. Of two that exclude each other the one on the command line counts, then the one of the environment, then the one
    /// of the file.
    ///
    /// # Errors
    /// If they are wrong, or two that exclude each other are at the same place.
    pub fn read(mut command: clap::Command, arguments: Vec<OsString>) -> Result<Cli, clap::Error> {
        let matches = command.try_get_matches_from_mut(arguments)?;
        let mut cli = Cli::from_arg_matches(&matches)?;
        let chosen = matches.subcommand().map_or(Ok(()), |(_, of_command)| cli.choose(of_command));
        chosen.map_err(|what| command.error(ErrorKind::ArgumentConflict, what))?;
        Ok(cli)
    }

    fn choose(&mut self, matches: &ArgMatches) -> Result<(), String> {
        let engine = match &mut self.command {
            Command::Sql(args) => &mut args.engine,
            Command::Load(args) => &mut args.engine,
            Command::Tpch(args) => &mut args.engine,
            Command::Inspect(args) => &mut args.engine,
            Command::Coordinator(args) => {
                if args.bootstrap && args.join.is_some() {
                    match stronger(matches, "bootstrap", "join")? {
                        "join" => args.bootstrap = false,
                        _ => args.join = None,
                    }
                }
                return Ok(());
            }
            // It is about clusters only.
            Command::Admin(_) | Command::Check(_) | Command::Leaf(_) | Command::Cluster(_) => return Ok(()),
        };
        if engine.data.is_some() && !engine.connect.is_empty() {
            match stronger(matches, "data", "connect")? {
                "data" => engine.connect.clear(),
                _ => engine.data = None,
            }
        }
        Ok(())
    }
}

/// Which of two options that exclude each other counts.
fn stronger<'a>(matches: &ArgMatches, one: &'a str, other: &'a str) -> Result<&'a str, String> {
    let place = |option: &str| matches.value_source(option).unwrap_or(ValueSource::DefaultValue);
    if place(one) != place(other) {
        return Ok(if place(one) > place(other) { one } else { other });
    }
    let (place, way_out) = match place(one) {
        ValueSource::CommandLine => ("on the command line", "leave one out"),
        ValueSource::EnvVariable => ("in the environment", "say one of them on the command line, or unset one"),
        _ => ("in the configuration file", "say one of them on the command line, or take one out"),
    };
    Err(format!("--{one} and --{other} are both {place}, and only one can be: {way_out}"))
}

/// `stoa sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// Engine options.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Run these statements and exit
    #[arg(short = 'c', long = "command", value_name = "SQL", conflicts_with = "file")]
    pub command: Option<String>,
    /// Run the statements of this file and exit; `-` reads standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// How to print results
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns with a frame
    Table,
    /// RFC 4180 with a header line; NULL is an empty field
    Csv,
    /// One object a row in an array
    Json,
    /// Tab-separated with a header line; tab, newline and backslash are escaped; NULL is \N
    Tsv,
    /// An Arrow IPC stream
    Arrow,
}

/// `stoa load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Engine options.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// The table
    pub table: String,
    /// Files: .csv, .tbl, .parquet; `-` reads CSV from standard input
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Create the table, with columns and types inferred from the first file
    #[arg(long)]
    pub create: bool,
    /// Field delimiter [default: `,`; `|` for .tbl, where each line ends with one]
    #[arg(long, value_name = "C", value_parser = parse_delimiter)]
    pub delimiter: Option<u8>,
    /// The first line of each file names its columns: they are matched by name, or by position where the table has none of the names
    #[arg(long)]
    pub header: bool,
}

/// `stoa tpch`.
#[derive(Debug, Args)]
pub struct TpchArgs {
    /// Engine options.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Scale factor: 1 is about 1 GB of raw data
    #[arg(long, default_value_t = 1.0, value_parser = parse_scale)]
    pub scale: f64,
    /// Timed runs of each query after one warm-up; the best counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Queries to run, e.g. 1,6,14 [default: all]
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=22))]
    pub queries: Vec<u32>,
    /// Write the times to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// `stoa inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Engine options.
    #[command(flatten)]
    pub engine: EngineArgs,
    /// Only this table, with every segment
    pub table: Option<String>,
}

/// `stoa check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Data directory, or directory of a leaf; nobody may have it open
    #[arg(long, value_name = "DIR", env = "STOA_DATA", default_value = "./stoa-data")]
    pub data: PathBuf,
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..digits].parse().map_err(|_| format!("'{text}' is not a number of bytes such as 512MiB or 4GiB"))?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" | "kib" => 1024.0,
        "m" | "mb" | "mib" => 1024.0 * 1024.0,
        "g" | "gb" | "gib" => 1024.0 * 1024.0 * 1024.0,
        unit => return Err(format!("'{unit}' is not a unit of bytes: use KiB, MiB or GiB")),
    };
    Ok((number * unit) as usize)
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err(format!("'{text}' is not a number of seconds")),
    }
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        b"\\t" => Ok(b'\t'),
        [byte] if !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err(format!("'{text}' is not a delimiter: give one character of ASCII, or \\t")),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 1000.0 => Ok(scale),
        _ => Err(format!("'{text}' is not a scale factor: give a number above 0 and up to 1000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_a_node_has_a_variable() {
        use clap::CommandFactory;
        let command = Cli::command();
        for node in ["leaf", "coordinator"] {
            let node = command.find_subcommand(node).unwrap();
            for option in
                node.get_arguments().filter(|arg| arg.get_long().is_some_and(|name| name != "help" && name != "version"))
            {
                let long = option.get_long().unwrap();
                let expected = format!("STOA_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(option.get_env(), Some(expected.as_ref()), "--{long} of {}", node.get_name());
            }
        }
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("4GiB"), Ok(4 << 30));
        assert_eq!(parse_bytes("1.5k"), Ok(1536));
        assert!(parse_bytes("much").is_err());
        assert!(parse_bytes("4 parsecs").is_err());
    }
}
