//! Sessions: statements that are sent together, cancelled while they wait, or too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use futures_util::future::LocalBoxFuture;
use parking_lot::Mutex;
use stoa_rpc::admin::{AdminCommand, AdminReply};
use stoa_rpc::peer::PeerService;
use stoa_rpc::session::{
    Answer, AnswerPart, Cancelled, CoordinatorService, Login, MAX_STATEMENTS, Parameter, PreparedService, SessionService,
    StatementOutcome, TableLoad,
};
use stoa_rpc::{Failure, FailureKind, Io, Limits, Listener, Result, RowOrigin, Security, SessionClient, serve_coordinator};
use stoa_schema::common_capnp::done;
use stoa_schema::coordinator_capnp::{answer, entered, gate, loading, outcome, prepared, prepared_statement, session};

use crate::raw::talk;

/// What statements did, in order.
type Log = Arc<Mutex<Vec<String>>>;

/// A coordinator whose statements write down when they begin and end.
#[derive(Clone, Default)]
struct Scribe(Log);

impl Scribe {
    fn run(&self, text: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        self.0.lock().push(format!("{text} begins"));
        let number: u64 = text.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
        // The first ones take the longest.
        std::thread::sleep(Duration::from_millis(20_u64.saturating_sub(number)));
        if text.contains("until cancelled") {
            while !cancelled.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        if let (Some(decisions), Some((_, other))) = (answer.decisions(), text.split_once("decides on ")) {
            let known =
                [decisions.number(), decisions.number() + other.len() as u64].map(|number| decisions.note(number).is_ok());
            self.0.lock().push(format!("{text}: {known:?}"));
        }
        self.0.lock().push(format!("{text} ends"));
        answer.part(AnswerPart::Text(text.to_owned()))?;
        for word in text.split(' ').skip(1) {
            match word {
                "pause" => std::thread::sleep(Duration::from_secs(1)),
                "chunk" => answer.part(AnswerPart::Rows(vec![7; 60_000]))?,
                "fail" => return nothing(),
                _ => {}
            }
        }
        Ok(())
    }
}

fn nothing<T>() -> Result<T> {
    Err(Failure::new(FailureKind::User, "it only writes things down"))
}

impl CoordinatorService for Scribe {
    fn enter(&self, _: &Login, _: bool) -> Result<Arc<dyn SessionService>> {
        Ok(Arc::new(self.clone()))
    }

    fn peer(&self) -> Arc<dyn PeerService> {
        unreachable!("no coordinator asks")
    }
}

impl SessionService for Scribe {
    fn execute(&self, sql: &str, answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        self.run(sql, answer, cancelled)
    }

    fn execute_plan(&self, plan: &[u8], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        self.run(std::str::from_utf8(plan).unwrap(), answer, cancelled)
    }

    fn prepare(&self, _: &str) -> Result<Arc<dyn PreparedService>> {
        Ok(Arc::new(self.clone()))
    }

    fn load(&self, table: &str, _: u64) -> Result<Box<dyn TableLoad>> {
        self.0.lock().push(format!("load into {table}"));
        Ok(Box::new(self.clone()))
    }

    fn outcome(&self, sql: &str, transactions: &[u64], _: &Cancelled) -> Result<StatementOutcome> {
        self.0.lock().push(format!("what came of {sql}? {transactions:?}"));
        Ok(StatementOutcome::Unknown(sql.to_owned()))
    }

    fn in_transaction(&self) -> bool {
        self.0.lock().iter().filter(|line| line.contains("open")).count() % 4 == 2
    }

    fn describe(&self, _: &str) -> Result<Vec<u8>> {
        nothing()
    }

    fn names(&self) -> Result<Vec<String>> {
        Ok(vec!["t".to_owned()])
    }

    fn admin(&self, _: &AdminCommand, _: &Cancelled) -> Result<AdminReply> {
        nothing()
    }
}

impl PreparedService for Scribe {
    fn parameters(&self) -> u32 {
        1
    }

    fn execute(&self, values: &[Parameter], answer: &mut dyn Answer, cancelled: &Cancelled) -> Result<()> {
        let [Parameter::Int(number)] = values else { return nothing() };
        self.run(&number.to_string(), answer, cancelled)
    }
}

/// The chunk that no load takes.
const REFUSED: u8 = 255;

impl TableLoad for Scribe {
    fn write(&mut self, chunk: Vec<u8>, _: Option<RowOrigin>) -> Result<()> {
        std::thread::sleep(Duration::from_millis(20_u64.saturating_sub(chunk[0].into())));
        self.0.lock().push(format!("chunk {}", chunk[0]));
        if chunk[0] == REFUSED { Err(Failure::new(FailureKind::User, "this one is refused")) } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<u64> {
        self.0.lock().push("finish".to_owned());
        Ok(7)
    }
}

/// Takes what comes, and counts it.
#[derive(Clone, Default)]
struct Taker(Arc<AtomicUsize>);

impl answer::Server for Taker {
    async fn text(self: Rc<Self>, _: answer::TextParams, _: answer::TextResults) -> capnp::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn rows(self: Rc<Self>, _: answer::RowsParams, _: answer::RowsResults) -> capnp::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A coordinator on a port, as long as what comes first is kept.
fn start() -> ((Io, Listener), String, Log) {
    let (io, scribe) = (Io::start("test-io").unwrap(), Scribe::default());
    let security = Security::default();
    let listener = serve_coordinator(&io, "127.0.0.1:0", &security, Limits::default(), Arc::new(scribe.clone())).unwrap();
    let address = listener.address().to_string();
    ((io, listener), address, scribe.0)
}

async fn enter(gate: &gate::Client) -> session::Client {
    let mut request = gate.enter_request();
    request.get().init_hello().set_major(stoa_rpc::MAJOR);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_result().unwrap().which().unwrap() {
        entered::Session(session) => session.unwrap(),
        entered::Failure(failure) => panic!("{:?}", failure.unwrap().get_message()),
    }
}

async fn prepare(session: &session::Client) -> prepared_statement::Client {
    let response = session.prepare_request().send().promise.await.unwrap();
    match response.get().unwrap().get_result().unwrap().which().unwrap() {
        prepared::Done(done) => done.get_statement().unwrap(),
        prepared::Failure(failure) => panic!("{:?}", failure.unwrap().get_message()),
    }
}

/// Why a call failed, if it did.
fn failure(from: done::Reader<'_>) -> Option<String> {
    match from.which().unwrap() {
        done::Done(()) => None,
        done::Failure(failure) => Some(failure.unwrap().get_message().unwrap().to_string().unwrap()),
    }
}

/// Sends a statement at once; the future waits for its end.
fn send(session: &session::Client, sql: &str) -> LocalBoxFuture<'static, Option<String>> {
    let mut request = session.execute_request();
    request.get().set_sql(sql);
    request.get().set_answer(new_client(Taker::default()));
    let promise = request.send().promise;
    Box::pin(async move { failure(promise.await.unwrap().get().unwrap().get_result().unwrap()) })
}

fn send_plan(session: &session::Client, plan: &str) -> LocalBoxFuture<'static, Option<String>> {
    let mut request = session.execute_plan_request();
    request.get().set_plan(plan.as_bytes());
    request.get().set_answer(new_client(Taker::default()));
    let promise = request.send().promise;
    Box::pin(async move { failure(promise.await.unwrap().get().unwrap().get_result().unwrap()) })
}

fn send_prepared(statement: &prepared_statement::Client, number: i64) -> LocalBoxFuture<'static, Option<String>> {
    let mut request = statement.execute_request();
    request.get().init_parameters(1).get(0).set_int(number);
    request.get().set_answer(new_client(Taker::default()));
    let promise = request.send().promise;
    Box::pin(async move { failure(promise.await.unwrap().get().unwrap().get_result().unwrap()) })
}

fn wait_for(log: &Log, line: &str) {
    let began = std::time::Instant::now();
    while !log.lock().iter().any(|other| other == line) {
        assert!(began.elapsed() < Duration::from_secs(20), "no '{line}' in {:?}", log.lock());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn statements_that_are_sent_together_run_in_their_order() {
    let (_served, address, log) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let statement = prepare(&session).await;
        let sent: Vec<_> = (0..MAX_STATEMENTS)
            .map(|n| match n % 3 {
                0 => send(&session, &n.to_string()),
                1 => send_plan(&session, &n.to_string()),
                _ => send_prepared(&statement, n as i64),
            })
            .collect();
        for ended in sent {
            assert_eq!(ended.await, None);
        }
    });
    let expected: Vec<_> = (0..MAX_STATEMENTS).flat_map(|n| [format!("{n} begins"), format!("{n} ends")]).collect();
    assert_eq!(*log.lock(), expected);
}

#[test]
fn what_waits_can_be_cancelled_and_what_runs_keeps_its_turn_until_it_has_ended() {
    let (_served, address, log) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let first = send(&session, "0 until cancelled");
        let (second, third) = (send(&session, "1"), send(&session, "2"));
        // Other calls, and other sessions, do not wait.
        assert_eq!(session.names_request().send().promise.await.unwrap().get().unwrap().get_names().unwrap().len(), 1);
        assert_eq!(send(&enter(&gate).await, "other").await, None);
        wait_for(&log, "0 until cancelled begins");
        drop(third);
        drop(first);
        assert_eq!(second.await, None);
        assert_eq!(send(&session, "3").await, None);
    });
    let mut lines = log.lock().clone();
    lines.retain(|line| !line.starts_with("other"));
    assert_eq!(lines, ["0 until cancelled begins", "0 until cancelled ends", "1 begins", "1 ends", "3 begins", "3 ends"]);
}

#[test]
fn a_connection_has_so_many_statements_under_way() {
    let (_served, address, _log) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let first = send(&session, "0 until cancelled");
        let mut waiting: Vec<_> = (1..MAX_STATEMENTS).map(|n| send(&session, &n.to_string())).collect();
        let refused = send(&session, "one more").await.unwrap();
        assert_eq!(refused, "this connection has 64 calls under way, the most that it may have: wait for answers");
        // Another session of the same connection has no more room, another connection has.
        assert!(send(&enter(&gate).await, "one more").await.is_some());
        let elsewhere = address.clone();
        let other = tokio::task::spawn_blocking(move || {
            talk(&elsewhere, async |gate: gate::Client| send(&enter(&gate).await, "elsewhere").await)
        });
        assert_eq!(other.await.unwrap(), None);
        waiting.truncate(1);
        drop(first);
        for ended in waiting {
            assert_eq!(ended.await, None);
        }
        assert_eq!(send(&session, "afterwards").await, None);
    });
}

/// Takes what comes, and knows no transaction but one.
struct Knower(u64);

impl answer::Server for Knower {
    async fn text(self: Rc<Self>, _: answer::TextParams, _: answer::TextResults) -> capnp::Result<()> {
        Ok(())
    }

    async fn deciding(self: Rc<Self>, params: answer::DecidingParams, _: answer::DecidingResults) -> capnp::Result<()> {
        if params.get()?.get_transaction() == self.0 { Ok(()) } else { Err(capnp::Error::failed("no".into())) }
    }
}

#[test]
fn a_transaction_is_decided_once_its_client_knows_it() {
    let (_served, address, log) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let call = |sql: &str, statement: u64, answer: answer::Client| {
            let mut request = session.execute_request();
            request.get().set_sql(sql);
            request.get().set_statement(statement);
            request.get().set_answer(answer);
            let promise = request.send().promise;
            async move {
                let response = promise.await.unwrap();
                (failure(response.get().unwrap().get_result().unwrap()).is_some(), response.get().unwrap().get_open())
            }
        };
        assert_eq!(call("0 decides on 12", 40, new_client(Knower(40))).await, (true, false));
        assert_eq!(call("1 decides on 34", 40, new_client(Taker::default())).await, (true, false));
        // Without a number nobody has to be told.
        assert_eq!(call("2 decides on 56", 0, new_client(Taker::default())).await, (false, false));
        assert_eq!(call("open", 1, new_client(Taker::default())).await, (false, true));
        let mut request = session.outcome_request();
        request.get().set_sql("3");
        request.get().set_transactions(&[5, 6][..]).unwrap();
        let response = request.send().promise.await.unwrap();
        let results = response.get().unwrap();
        let outcome::Unknown(why) = results.get_result().unwrap().which().unwrap() else { panic!("it is known") };
        assert_eq!((why.unwrap().to_str().unwrap(), results.get_open()), ("3", true));
    });
    let lines = log.lock().clone();
    for line in ["0 decides on 12: [true, false]", "1 decides on 34: [false, false]", "what came of 3? [5, 6]"] {
        assert!(lines.iter().any(|other| other == line), "{line} is not in {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("2 decides on 56: ")), "{lines:?}");
}

#[test]
fn chunks_of_a_load_keep_their_order() {
    let (_served, address, log) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let mut request = session.load_request();
        request.get().set_table("t");
        let response = request.send().promise.await.unwrap();
        let loading::Load(load) = response.get().unwrap().get_result().unwrap().which().unwrap() else { panic!("no load") };
        let load = load.unwrap();
        let written: Vec<_> = (0..30u8)
            .map(|n| {
                let mut request = load.write_request();
                request.get().set_chunk(&[n]);
                request.send().promise
            })
            .collect();
        let finished = load.finish_request().send().promise;
        for written in written {
            assert_eq!(failure(written.await.unwrap().get().unwrap().get_result().unwrap()), None);
        }
        assert!(finished.await.is_ok());
    });
    let mut expected = vec!["load into t".to_owned()];
    expected.extend((0..30).map(|n| format!("chunk {n}")));
    expected.push("finish".to_owned());
    assert_eq!(*log.lock(), expected);
}

#[test]
fn a_load_of_which_a_chunk_was_refused_is_not_finished() {
    let (_served, address, log) = start();
    let io = Io::start("test-client").unwrap();
    let session = SessionClient::connect(&io, &[address], &Security::default(), &Login::default()).unwrap();
    for last in [2, REFUSED] {
        let mut load = session.load("t", 0).unwrap();
        let sent = [1, REFUSED, last].map(|n| load.write(vec![n], None));
        // It is told when it has been answered: by a later chunk, or by the end.
        assert_eq!(sent, [Ok(()), Ok(()), Ok(())]);
        assert_eq!(load.flush().unwrap_err().message, "this one is refused");
        assert_eq!(load.write(vec![3], None).unwrap_err().message, "this load has failed");
        assert_eq!(load.finish().unwrap_err().message, "this load has failed");
    }
    let log = log.lock();
    assert!(!log.iter().any(|line| line == "chunk 3" || line == "finish"), "{log:?}");
}

/// How many parts of an answer came before the result of its call, and how many with it.
async fn parts(session: session::Client, sql: &'static str, whole: bool) -> (usize, usize) {
    let taker = Taker::default();
    let mut request = session.execute_request();
    request.get().set_sql(sql);
    request.get().set_whole(whole);
    request.get().set_answer(new_client(taker.clone()));
    let response = request.send().promise.await.unwrap();
    (taker.0.load(Ordering::Relaxed), response.get().unwrap().get_parts().unwrap().len() as usize)
}

#[test]
fn small_answers_come_with_the_result_to_those_who_want_that() {
    let (_running, address, _) = start();
    talk(&address, async |gate: gate::Client| {
        let session = enter(&gate).await;
        let parts = |sql, whole| parts(session.clone(), sql, whole);
        for (sql, count) in [("99", 1), ("99 chunk", 2), ("99 chunk fail", 2)] {
            // On a busy machine what is made at once may take long.
            let mut tries = 0;
            while parts(sql, true).await != (0, count) {
                tries += 1;
                assert!(tries < 20, "{sql}");
            }
        }
        assert_eq!(parts("99", false).await, (1, 0));
        assert_eq!(parts("99 chunk chunk", true).await, (3, 0));
        assert_eq!(parts("99 pause chunk", true).await, (2, 0));
        assert_eq!(parts("99 pause", true).await, (1, 0));
    });
    let io = Io::start("test-client").unwrap();
    let session = SessionClient::connect(&io, &[address], &Security::default(), &Login::default()).unwrap();
    for (sql, chunks) in [("99 chunk", 1), ("99 chunk chunk pause chunk", 3), ("99 chunk pause fail", 1), ("99 chunk fail", 1)] {
        let mut came = Came(vec![]);
        let ran = session.execute(sql, &mut came, &Cancelled::default());
        assert_eq!(ran.is_err(), sql.contains("fail"), "{sql}");
        let expected = std::iter::once(AnswerPart::Text(sql.to_owned())).chain(vec![AnswerPart::Rows(vec![7; 60_000]); chunks]);
        assert!(came.0.into_iter().eq(expected), "{sql}");
    }
}

/// Keeps what comes.
struct Came(Vec<AnswerPart>);

impl Answer for Came {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        self.0.push(part);
        Ok(())
    }
}
