//! What becomes of statements whose coordinator is lost while they run, against coordinators that do as they are told.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use parking_lot::Mutex;
use stoa_client::{
    AdminCommand, Cancelled, Client, Failure, FailureKind, Login, Options, Output, Parameter, Part, Result, Security,
};
use stoa_rpc::admin::AdminReply;
use stoa_rpc::ipc::chunk;
use stoa_rpc::peer::PeerService;
use stoa_rpc::session::{
    Answer, AnswerPart, CoordinatorService, PreparedService, RANDOM, SessionService, StatementOutcome, TableLoad,
};
use stoa_rpc::{Io, Limits, Listener, RowOrigin, serve_coordinator};

/// What a coordinator does next with a statement, or the end of a load.
#[derive(Debug)]
enum Does {
    /// Says so, and is done.
    Says(&'static str),
    /// Gives one row, and goes on.
    Gives,
    /// Says so, and goes on.
    Tells(&'static str),
    /// Is about to decide on a transaction of this number, and goes on.
    Decides(u64),
    /// Is lost.
    Dies,
    /// Takes no more statements from the next one on, and is done.
    Closes,
}
use Does::{Closes, Decides, Dies, Gives, Says, Tells};

/// Coordinators, and what they do and find out next, whichever is asked.
struct Fakes {
    io: Io,
    listeners: Mutex<Vec<Option<Listener>>>,
    closing: Mutex<Option<usize>>,
    does: Mutex<VecDeque<Does>>,
    finds: Mutex<VecDeque<StatementOutcome>>,
    log: Mutex<Vec<String>>,
    /// Numbers that came with statements, or were asked for.
    numbers: Mutex<Vec<u64>>,
}

struct Fake(Arc<Fakes>, usize);

#[derive(Clone)]
struct FakeSession {
    fakes: Arc<Fakes>,
    own: usize,
    open: Arc<Mutex<bool>>,
}

impl CoordinatorService for Fake {
    fn enter(&self, login: &Login, _: bool) -> Result<Arc<dyn SessionService>> {
        self.0.log.lock().push(format!("{}: enter{}", self.1, if login.lost { ", transaction lost" } else { "" }));
        Ok(Arc::new(FakeSession { fakes: self.0.clone(), own: self.1, open: Arc::new(Mutex::new(login.lost)) }))
    }

    fn peer(&self) -> Arc<dyn PeerService> {
        unreachable!("no coordinator asks")
    }
}

fn row() -> RecordBatch {
    RecordBatch::try_from_iter([("a", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap()
}

fn nothing<T>() -> Result<T> {
    Err(Failure::new(FailureKind::User, "nobody asks for that"))
}

impl FakeSession {
    fn write_down(&self, what: impl std::fmt::Display) {
        self.fakes.log.lock().push(format!("{}: {what}", self.own));
    }

    /// Ends the connections of the coordinator, as the end of its process would.
    fn die<T>(&self) -> Result<T> {
        self.fakes.listeners.lock()[self.own] = None;
        std::thread::sleep(Duration::from_millis(500));
        nothing()
    }
}

impl SessionService for FakeSession {
    fn execute(&self, sql: &str, answer: &mut dyn Answer, _: &Cancelled) -> Result<()> {
        self.write_down(sql);
        let decisions = answer.decisions().unwrap();
        self.fakes.numbers.lock().push(decisions.number());
        loop {
            let next = self.fakes.does.lock().pop_front();
            match next.unwrap_or_else(|| panic!("{sql} has come too often")) {
                Says(text) => {
                    *self.open.lock() = (sql == "BEGIN" || *self.open.lock()) && sql != "COMMIT";
                    return answer.part(AnswerPart::Text(text.to_owned()));
                }
                Gives => {
                    answer.part(AnswerPart::Columns(chunk(&row().schema(), &[])?))?;
                    answer.part(AnswerPart::Rows(chunk(&row().schema(), &[row()])?))?;
                    // The client takes them in its own time.
                    std::thread::sleep(Duration::from_millis(500));
                }
                Tells(text) => {
                    answer.part(AnswerPart::Text(text.to_owned()))?;
                    std::thread::sleep(Duration::from_millis(500));
                }
                Decides(number) => decisions.note(number)?,
                Dies => return self.die(),
                Closes => {
                    *self.fakes.closing.lock() = Some(self.own);
                    // No more connections either.
                    self.fakes.listeners.lock()[self.own].as_ref().unwrap().close();
                    return Ok(());
                }
            }
        }
    }

    fn execute_plan(&self, _: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        assert!(answer.decisions().is_none());
        self.write_down("a plan");
        match self.fakes.does.lock().pop_front() {
            Some(Dies) => self.die(),
            _ if cancelled.load(Ordering::Relaxed) => nothing(),
            _ => {
                answer.part(AnswerPart::Columns(chunk(&row().schema(), &[])?))?;
                answer.part(AnswerPart::Rows(chunk(&row().schema(), &[row()])?))
            }
        }
    }

    fn prepare(&self, sql: &str) -> Result<Arc<dyn PreparedService>> {
        self.write_down(format!("prepare {sql}"));
        Ok(Arc::new(self.clone()))
    }

    fn load(&self, table: &str, statement: u64) -> Result<Box<dyn TableLoad>> {
        self.write_down(format!("load into {table}"));
        self.fakes.numbers.lock().push(statement);
        Ok(Box::new(self.clone()))
    }

    fn outcome(&self, sql: &str, transactions: &[u64], _: &Cancelled) -> Result<StatementOutcome> {
        self.write_down(format!("what came of '{sql}'? {} numbers", transactions.len()));
        self.fakes.numbers.lock().extend(transactions);
        let found = self.fakes.finds.lock().pop_front();
        let found = found.map_or_else(|| self.die(), Ok)?;
        if found == StatementOutcome::Committed {
            *self.open.lock() = false;
        }
        Ok(found)
    }

    fn in_transaction(&self) -> bool {
        *self.open.lock()
    }

    fn closing(&self) -> bool {
        *self.fakes.closing.lock() == Some(self.own)
    }

    fn describe(&self, _: &str) -> Result<Vec<u8>> {
        nothing()
    }

    fn names(&self) -> Result<Vec<String>> {
        nothing()
    }

    fn admin(&self, _: &AdminCommand, _: &Cancelled) -> Result<AdminReply> {
        nothing()
    }
}

impl PreparedService for FakeSession {
    fn parameters(&self) -> u32 {
        1
    }

    fn execute(&self, _: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        SessionService::execute(self, "what is prepared", answer, cancelled)
    }
}

impl TableLoad for FakeSession {
    fn write(&mut self, _: Vec<u8>, _: Option<RowOrigin>) -> Result<()> {
        Ok(())
    }

    fn finish(&mut self) -> Result<u64> {
        match self.fakes.does.lock().pop_front() {
            Some(Dies) => self.die(),
            _ => Ok(17),
        }
    }
}

/// A client of so many coordinators, which do and find out these things.
fn start(does: impl IntoIterator<Item = Does>, finds: impl IntoIterator<Item = StatementOutcome>) -> (Arc<Fakes>, Client) {
    let fakes = Arc::new(Fakes {
        io: Io::start("test-io").unwrap(),
        listeners: Mutex::default(),
        closing: Mutex::default(),
        does: Mutex::new(does.into_iter().collect()),
        finds: Mutex::new(finds.into_iter().collect()),
        log: Mutex::default(),
        numbers: Mutex::default(),
    });
    let security = Security::default();
    // A port that one test gives back another one may get, and clients come back to it: each has an address of its own.
    static TESTS: AtomicU8 = AtomicU8::new(2);
    let own_address = format!("127.0.0.{}:0", TESTS.fetch_add(1, Ordering::Relaxed));
    let addresses: Vec<String> = (0..12)
        .map(|own| {
            let service = Arc::new(Fake(fakes.clone(), own));
            let listener = serve_coordinator(&fakes.io, &own_address, &security, Limits::default(), service).unwrap();
            let address = listener.address().to_string();
            fakes.listeners.lock().push(Some(listener));
            address
        })
        .collect();
    let client = Client::connect(&Options { addresses, login: Login::default(), security }).unwrap();
    (fakes, client)
}

/// What a statement said, or why it failed.
fn said(client: &Client, sql: &str) -> std::result::Result<Vec<String>, String> {
    let mut all = Vec::new();
    let ran = client.execute(sql, &Cancelled::default(), &mut |output| {
        all.push(match output {
            Output::Text(text) => text,
            other => format!("{other:?}"),
        });
        Ok(())
    });
    ran.map(|()| all).map_err(|failure| failure.message)
}

const COMMITTED: StatementOutcome = StatementOutcome::Committed;
const NEVER: StatementOutcome = StatementOutcome::Never;
const DONE: &str = "done: the coordinator was lost after it had been committed";

#[test]
fn what_was_committed_is_done_and_what_was_not_is_run_again() {
    let (fakes, client) = start([Dies, Decides(RANDOM | 7), Dies, Dies, Says("1 rows inserted")], [COMMITTED, NEVER, NEVER]);
    assert_eq!(said(&client, "INSERT 1"), Ok(vec![DONE.to_owned()]));
    assert_eq!(said(&client, "INSERT 2"), Ok(vec!["1 rows inserted".to_owned()]));
    let log = fakes.log.lock();
    let expected = [
        "0: enter",
        "0: INSERT 1",
        "1: enter",
        "1: what came of 'INSERT 1'? 1 numbers",
        "1: INSERT 2",
        "2: enter",
        "2: what came of 'INSERT 2'? 2 numbers",
        "2: INSERT 2",
        "3: enter",
        "3: what came of 'INSERT 2'? 1 numbers",
        "3: INSERT 2",
    ];
    assert_eq!(*log, expected);
    // Each run has a number of its own, and is asked for by it and by all that were noted.
    let numbers = fakes.numbers.lock();
    assert!(numbers.iter().all(|number| number & RANDOM != 0), "{numbers:?}");
    let [first, asked_first, second, asked_second, noted, third, asked_third, last] = numbers[..] else { panic!("{numbers:?}") };
    assert_eq!((asked_first, asked_second, noted, asked_third), (first, second, RANDOM | 7, third));
    assert!(first != second && second != third && third != last);
}

#[test]
fn what_cannot_be_found_out_is_said() {
    let unknown = StatementOutcome::Unknown("it is several statements".into());
    let (_fakes, client) = start([Dies, Says("fine")], [unknown]);
    let failed = said(&client, "INSERT; INSERT").unwrap_err();
    assert!(failed.contains("whether it was done is not known (it is several statements; "), "{failed}");
    assert_eq!(said(&client, "next"), Ok(vec!["fine".to_owned()]));
}

#[test]
fn others_are_asked_when_those_that_are_asked_are_lost_too() {
    // The first three that are asked die.
    let (fakes, client) = start([Dies], []);
    std::thread::scope(|scope| {
        let ran = scope.spawn(|| said(&client, "INSERT"));
        while fakes.log.lock().iter().filter(|line| line.contains("what came of")).count() < 3 {
            std::thread::sleep(Duration::from_millis(5));
        }
        fakes.finds.lock().extend([COMMITTED, COMMITTED]);
        assert_eq!(ran.join().unwrap(), Ok(vec![DONE.to_owned()]));
    });
}

#[test]
fn a_statement_that_ends_every_coordinator_has_an_end() {
    let (_fakes, client) = start((0..10).map(|_| Dies), (0..10).map(|_| NEVER));
    let failed = said(&client, "INSERT").unwrap_err();
    assert!(failed.contains("10 times a coordinator was lost while the statement ran, and nothing of it was done"), "{failed}");
}

#[test]
fn rows_that_were_handed_on_are_not_made_again() {
    let (fakes, client) = start([Gives, Dies, Gives, Dies, Gives, Says("end")], [NEVER, NEVER]);
    let mut parts = Vec::new();
    let streamed = client.stream("SELECT 1", &Cancelled::default(), &mut |part| {
        parts.push(part);
        Ok(())
    });
    let failure = streamed.unwrap_err();
    assert!(failure.kind == FailureKind::Retryable && failure.message.contains("run the statement again"), "{failure}");
    assert!(matches!(&parts[..], [Part::Columns(_), Part::Rows(_)]), "{parts:?}");
    // Of one whose rows were kept here it does not matter.
    let outputs = said(&client, "SELECT 2").unwrap();
    assert!(outputs.len() == 2 && outputs[0].matches("PrimitiveArray").count() == 1, "{outputs:?}");
    assert_eq!(fakes.log.lock().iter().filter(|line| line.contains(": SELECT 2")).count(), 2);
}

#[test]
fn what_was_said_is_said_once() {
    let first = [Tells("begun"), Tells("2 rows"), Dies, Tells("begun"), Tells("3 rows"), Says("committed")];
    let (_fakes, client) = start(first.into_iter().chain([Tells("begun"), Dies]), [NEVER, COMMITTED]);
    assert_eq!(said(&client, "BEGIN; UPDATE; COMMIT").unwrap(), ["begun", "2 rows", "3 rows", "committed"]);
    assert_eq!(said(&client, "BEGIN; UPDATE; COMMIT").unwrap(), ["begun", DONE]);
}

#[test]
fn a_session_knows_that_its_transaction_was_lost() {
    let does = [Says("begun"), Dies, Says("lost"), Dies, Says("free"), Says("begun"), Says("lost too")];
    let (fakes, client) = start(does, [NEVER, COMMITTED]);
    for (sql, expected) in [("BEGIN", "begun"), ("INSERT", "lost"), ("COMMIT", DONE), ("INSERT", "free"), ("BEGIN", "begun")] {
        assert_eq!(said(&client, sql), Ok(vec![expected.to_owned()]), "{sql}");
    }
    // The last one is lost between two statements, and who sends the next may not notice it before.
    fakes.listeners.lock()[2] = None;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(said(&client, "INSERT"), Ok(vec!["lost too".to_owned()]));
    let entered: Vec<String> = fakes.log.lock().iter().filter(|line| line.contains("enter")).cloned().collect();
    assert_eq!(entered, ["0: enter", "1: enter, transaction lost", "2: enter, transaction lost", "3: enter, transaction lost"]);
}

#[test]
fn who_is_refused_goes_on_elsewhere() {
    let (fakes, client) = start([Closes, Says("fine")], []);
    assert_eq!(said(&client, "INSERT"), Ok(vec![]));
    assert_eq!(said(&client, "CREATE"), Ok(vec!["fine".to_owned()]));
    assert_eq!(*fakes.log.lock(), ["0: enter", "0: INSERT", "1: enter", "1: CREATE"]);
}

#[test]
fn plans_run_again() {
    let (fakes, client) = start([Dies], []);
    assert_eq!(client.query_plan(b"plan").unwrap().batches, [row()]);
    assert_eq!(*fakes.log.lock(), ["0: enter", "0: a plan", "1: enter", "1: a plan"]);
}

#[test]
fn prepared_statements_are_prepared_anew() {
    let (fakes, client) = start([Dies, Says("done")], [NEVER]);
    let prepared = client.prepare("INSERT ?").unwrap();
    let mut all = Vec::new();
    prepared
        .execute(&[Parameter::Int(1)], &Cancelled::default(), &mut |output| {
            all.push(output);
            Ok(())
        })
        .unwrap();
    assert_eq!(all, [Output::Text("done".into())]);
    assert!(fakes.log.lock().ends_with(&["1: prepare INSERT ?".to_owned(), "1: what is prepared".to_owned()]));
}

#[test]
fn the_end_of_a_load_is_found_out() {
    let finish = |finds: StatementOutcome| {
        let (fakes, client) = start([Dies], [finds]);
        let mut load = client.load("t").unwrap();
        (0..3).for_each(|_| load.push(&row()).unwrap());
        let done = load.finish();
        let numbers = fakes.numbers.lock();
        assert!(matches!(numbers[..], [own, asked] if own == asked && own & RANDOM != 0), "{numbers:?}");
        assert!(fakes.log.lock().contains(&"1: what came of ''? 1 numbers".to_owned()));
        done.map_err(|failure| failure.message)
    };
    assert_eq!(finish(COMMITTED), Ok(3));
    let never = finish(NEVER).unwrap_err();
    assert!(never.contains("none of its rows is there, load them again"), "{never}");
    let unknown = finish(StatementOutcome::Unknown("partition 2 does not answer".into())).unwrap_err();
    assert!(unknown.contains("is not known (partition 2 does not answer; "), "{unknown}");
}
