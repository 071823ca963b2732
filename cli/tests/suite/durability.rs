//! A process that writes is killed at any moment, again and again: what it had acknowledged is there, once; what it had begun is there
//! wholly or not at all; nothing else is. `STOA_KILL_ROUNDS` says how often.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use stoa_columnstore::{CheckReport, Options};
use stoa_coordinator::{Embedded, Error, Session};
use stoa_exec::{CancelToken, Progress, Settings};

use crate::nodes::kill_rounds;

const DIRECTORY: &str = "STOA_WRITER_DIRECTORY";
const ROUND: &str = "STOA_WRITER_ROUND";
const ROUNDS: usize = 48;
/// A directory is written to so often before a new one takes its place.
const ROUNDS_PER_DIRECTORY: usize = 8;
const WRITERS: u64 = 5;
const ACCOUNTS: u64 = 16;
const READY: &str = "ready";

/// Few rows and bytes, so that flushes, merges and checkpoints happen all the time.
fn open(directory: &Path) -> (Arc<Embedded>, Session) {
    let storage =
        Options { segment_rows: 300, default_partitions: 3, flush_rows: 20, checkpoint_bytes: 10_000, ..Options::default() };
    let store = Arc::new(Embedded::open(directory, storage, Settings::default(), 2, 1 << 30).expect("it opens"));
    let session = Session::new(store.clone());
    (store, session)
}

fn run(session: &Session, sql: &str) -> Result<(), Error> {
    session.run(sql, &CancelToken::default(), &Progress::default(), &mut |_| Ok(()))
}

/// The rows of a query whose columns are all BIGINT.
fn numbers(session: &Session, sql: &str) -> Vec<Vec<u64>> {
    let result = session.query(sql, &CancelToken::default()).expect(sql);
    let row = |batch: &arrow::array::RecordBatch, row: usize| {
        batch.columns().iter().map(|column| column.as_primitive::<Int64Type>().value(row) as u64).collect()
    };
    result.batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|at| row(batch, at)).collect::<Vec<_>>()).collect()
}

/// What a writer does in one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// A row.
    Insert(u64),
    /// And away with it.
    Delete(u64),
    /// Several rows of one statement.
    Batch(u64),
    /// From an account to another, with a row that says so.
    Transfer(u64),
    /// The counter of a writer, by INSERT or UPDATE.
    Count(u64),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Insert(id) => write!(f, "insert {id}"),
            Change::Delete(id) => write!(f, "delete {id}"),
            Change::Batch(id) => write!(f, "batch {id}"),
            Change::Transfer(id) => write!(f, "transfer {id}"),
            Change::Count(id) => write!(f, "count {id}"),
        }
    }
}

impl Change {
    fn parse(text: &str) -> Change {
        let (what, id) = text.split_once(' ').expect("a change and its number");
        let id = id.parse().expect("a number");
        match what {
            "insert" => Change::Insert(id),
            "delete" => Change::Delete(id),
            "batch" => Change::Batch(id),
            "transfer" => Change::Transfer(id),
            _ => Change::Count(id),
        }
    }

    /// Account that pays, account that is paid, how much.
    fn transfer(id: u64) -> (u64, u64, u64) {
        let from = id % ACCOUNTS;
        (from, (from + 1 + id / ACCOUNTS % (ACCOUNTS - 1)) % ACCOUNTS, id % 10 + 1)
    }

    /// Some batches go to memory, some to segments at once.
    fn batch_rows(id: u64) -> u64 {
        if id.is_multiple_of(5) { 60 } else { 7 }
    }

    fn sql(self) -> String {
        match self {
            Change::Insert(id) => format!("INSERT INTO singles VALUES ({id}, 'row {id}')"),
            Change::Delete(id) => format!("DELETE FROM singles WHERE id = {id}"),
            Change::Batch(id) => {
                let rows: Vec<String> = (0..Change::batch_rows(id)).map(|i| format!("({}, {id})", id * 100 + i)).collect();
                format!("INSERT INTO batches VALUES {}", rows.join(", "))
            }
            Change::Transfer(id) => {
                let (from, to, amount) = Change::transfer(id);
                format!(
                    "BEGIN; UPDATE accounts SET amount = amount - {amount} WHERE id = {from};
                    INSERT INTO transfers VALUES ({id});
                    UPDATE accounts SET amount = amount + {amount} WHERE id = {to}; COMMIT"
                )
            }
            Change::Count(id) => format!("INSERT INTO counters VALUES ({id}, 1) ON DUPLICATE KEY UPDATE n = n + 1"),
        }
    }
}

/// The process that is killed: not a test of its own.
#[test]
#[ignore = "run by a_killed_process_loses_nothing"]
fn writer_process() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let round: u64 = std::env::var(ROUND).ok().and_then(|n| n.parse().ok()).expect("the number of the round");
    let (store, _) = open(Path::new(&directory));
    say(READY);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let session = Session::new(store.clone());
            scope.spawn(move || write_until_killed(&session, writer, round * 1_000_000 + writer * 100_000));
        }
    });
}

/// A line that the parent sees even if this process ends right then: one write, and the harness writes nothing there.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
}

fn write_until_killed(session: &Session, writer: u64, first: u64) {
    for id in first.. {
        let change = match (id - first) % 6 {
            0 | 3 => Change::Insert(id),
            1 => Change::Batch(id),
            2 => Change::Transfer(id),
            4 => Change::Count(writer),
            _ => Change::Delete(id - 5),
        };
        say(&format!("{writer} tries {change}"));
        match run(session, &change.sql()) {
            Ok(()) => say(&format!("{writer} did {change}")),
            Err(Error::Storage(error)) if error.is_retryable() => say(&format!("{writer} left {change}")),
            Err(error) => return say(&format!("{writer} failed {change}: {error}")),
        }
    }
}

/// What is in the tables, or what should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    /// The kind of a change whose effect is there, and its number.
    there: BTreeSet<(&'static str, u64)>,
    counters: BTreeMap<u64, u64>,
}

impl State {
    fn make(&mut self, change: Change) {
        match change {
            Change::Insert(id) => drop(self.there.insert(("single", id))),
            Change::Delete(id) => drop(self.there.remove(&("single", id))),
            Change::Batch(id) => drop(self.there.insert(("batch", id))),
            Change::Transfer(id) => drop(self.there.insert(("transfer", id))),
            Change::Count(id) => *self.counters.entry(id).or_default() += 1,
        }
    }

    /// Reads the tables, and checks that nothing is there in part or twice.
    fn read(session: &Session) -> State {
        let mut state = State::default();
        let mut add = |kind: &'static str, id: u64| assert!(state.there.insert((kind, id)), "{kind} {id} is there twice");
        numbers(session, "SELECT id FROM singles").into_iter().for_each(|row| add("single", row[0]));
        for row in numbers(session, "SELECT batch, count(*), count(DISTINCT id), min(id), max(id) FROM batches GROUP BY batch") {
            let (id, rows) = (row[0], Change::batch_rows(row[0]));
            assert_eq!(row[1..], [rows, rows, id * 100, id * 100 + rows - 1], "the rows of batch {id}");
            add("batch", id);
        }
        let mut accounts = vec![1_000_000; ACCOUNTS as usize];
        for row in numbers(session, "SELECT id FROM transfers") {
            add("transfer", row[0]);
            let (from, to, amount) = Change::transfer(row[0]);
            accounts[from as usize] -= amount;
            accounts[to as usize] += amount;
        }
        let expected: Vec<Vec<u64>> = (0..).zip(accounts).map(|(id, amount)| vec![id, amount]).collect();
        assert_eq!(numbers(session, "SELECT id, amount FROM accounts ORDER BY id"), expected, "a transfer is there in part");
        let wrong = "SELECT count(*) FROM singles WHERE note <> concat('row ', CAST(id AS VARCHAR(20)))";
        assert_eq!(numbers(session, wrong), [[0]]);
        for row in numbers(session, "SELECT id, n FROM counters") {
            assert!(state.counters.insert(row[0], row[1]).is_none(), "counter {} is there twice", row[0]);
        }
        state
    }

    /// Each change that was begun and not acknowledged may be there or not; everything else must be as it should.
    fn check(&self, expected: &State, begun: &[Change]) {
        let may = |change: Change| begun.contains(&change);
        for (kind, id) in self.there.symmetric_difference(&expected.there) {
            let there = self.there.contains(&(*kind, *id));
            let open = match *kind {
                "single" => may(if there { Change::Insert(*id) } else { Change::Delete(*id) }),
                "batch" => there && may(Change::Batch(*id)),
                _ => there && may(Change::Transfer(*id)),
            };
            assert!(open, "{kind} {id} is {}", if there { "there and was not written" } else { "lost" });
        }
        for writer in 0..WRITERS {
            let of = |state: &State| state.counters.get(&writer).copied().unwrap_or_default();
            let extra = u64::from(may(Change::Count(writer)));
            assert!((of(expected)..=of(expected) + extra).contains(&of(self)), "counter {writer}: {self:?} for {expected:?}");
        }
    }
}

fn create_tables(directory: &Path) {
    let (_, session) = open(directory);
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 1000000)")).collect();
    let text = format!(
        "CREATE TABLE singles (id BIGINT NOT NULL, note VARCHAR(30), PRIMARY KEY (id), SHARD KEY (id));
        CREATE TABLE batches (id BIGINT NOT NULL, batch BIGINT NOT NULL, PRIMARY KEY (id), SHARD KEY (id), SORT KEY (batch));
        CREATE TABLE accounts (id BIGINT NOT NULL, amount BIGINT NOT NULL, PRIMARY KEY (id), SHARD KEY (id));
        CREATE TABLE transfers (id BIGINT NOT NULL);
        CREATE TABLE counters (id BIGINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (id), SHARD KEY (id));
        INSERT INTO accounts VALUES {}",
        accounts.join(", ")
    );
    run(&session, &text).expect("tables");
}

/// Nothing is damaged; the last LSN. The directory is free when this returns.
fn look_for_damage(directory: &Path) -> u64 {
    let report = CheckReport::of(directory, None, &|_, _| ()).expect("it can be read");
    assert_eq!(report.damages, []);
    report.lsn
}

fn start(directory: &Path, round: usize) -> (Child, Receiver<String>) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "durability::writer_process", "--ignored", "--nocapture"]);
    command.env(DIRECTORY, directory).env(ROUND, round.to_string());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a process");
    let (send, lines) = channel();
    let from = BufReader::new(child.stderr.take().expect("a pipe"));
    std::thread::spawn(move || from.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    (child, lines)
}

/// Adds what was acknowledged to `expected`; what was begun and not acknowledged.
fn follow(lines: impl Iterator<Item = String>, expected: &mut State) -> (usize, Vec<Change>) {
    let (mut begun, mut done): (BTreeMap<String, Change>, usize) = Default::default();
    for line in lines {
        let mut words = line.splitn(3, ' ');
        let [Some(writer), Some(verb), Some(change)] = [words.next(), words.next(), words.next()] else { panic!("{line}") };
        match verb {
            "tries" => drop(begun.insert(writer.into(), Change::parse(change))),
            "did" => {
                assert_eq!(begun.remove(writer), Some(Change::parse(change)));
                expected.make(Change::parse(change));
                done += 1;
            }
            "left" => drop(begun.remove(writer)),
            _ => panic!("the writer says: {line}"),
        }
    }
    (done, begun.into_values().collect())
}

#[test]
fn a_killed_process_loses_nothing() {
    let rounds = kill_rounds(ROUNDS);
    let random = RandomState::new();
    let (mut folder, mut state, mut all) = (tempfile::tempdir().expect("a folder"), State::default(), 0);
    for round in 0..rounds {
        if round % ROUNDS_PER_DIRECTORY == 0 {
            folder = tempfile::tempdir().expect("a folder");
            create_tables(folder.path());
            state = State::default();
        }
        look_for_damage(folder.path());
        let (mut child, lines) = start(folder.path(), round);
        let first = lines.recv_timeout(Duration::from_secs(60)).expect("the writer starts");
        assert_eq!(first, READY);
        std::thread::sleep(Duration::from_millis(20 + random.hash_one(round) % 380));
        child.kill().expect("it still runs");
        child.wait().expect("it ended");
        let (done, begun) = follow(lines.iter(), &mut state);
        all += done;
        let lsn = look_for_damage(folder.path());
        let (store, session) = open(folder.path());
        assert!(store.database().lsn() >= lsn);
        let found = State::read(&session);
        found.check(&state, &begun);
        state = found;
        drop((store, session));
        look_for_damage(folder.path());
    }
    println!("{all} commits in {rounds} rounds");
    assert!(all > rounds, "the writers hardly wrote: {all} commits in {rounds} rounds");
}
