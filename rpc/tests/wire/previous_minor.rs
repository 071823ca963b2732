//! A leaf of version 1.0, which knows neither the call that is a whole query nor the question how far one is; and a coordinator of version
//! 1.1, which takes no numbers for statements.

use std::time::Duration;

use capnp::capability::Rc;
use capnp_rpc::new_client;
use stoa_rpc::leaf::{FragmentRequest, QuerySetup, RowDestination};
use stoa_rpc::session::{Cancelled, Login, SessionService, random_number};
use stoa_rpc::{FailureKind, Gather, Io, LeafPool, Security, SessionClient};
use stoa_schema::coordinator_capnp::{gate as coordinator_gate, session};
use stoa_schema::leaf_capnp::{gate, leaf, query};

use crate::raw::serve;

struct OldLeaf;

impl gate::Server for OldLeaf {
    async fn enter(self: Rc<Self>, _: gate::EnterParams, mut results: gate::EnterResults) -> capnp::Result<()> {
        let mut result = results.get().init_result();
        result.set_major(1);
        result.set_minor(0);
        result.set_leaf(new_client(OldLeaf));
        Ok(())
    }
}

impl leaf::Server for OldLeaf {
    async fn begin(self: Rc<Self>, params: leaf::BeginParams, mut results: leaf::BeginResults) -> capnp::Result<()> {
        let number = params.get()?.get_setup()?.get_query();
        results.get().init_result().set_query(new_client(OldQuery(number)));
        Ok(())
    }
}

struct OldQuery(u64);

impl query::Server for OldQuery {
    /// Gives the plan as a row, and takes its time: longer than a leaf may be silent.
    async fn run(self: Rc<Self>, params: query::RunParams, mut results: query::RunResults) -> capnp::Result<()> {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut request = params.get()?.get_sink()?.write_request();
        request.get().set_chunk(params.get()?.get_fragment()?.get_plan()?);
        request.send().promise.await?;
        results.get().init_result().init_profile().set_sent_bytes(self.0);
        Ok(())
    }
}

#[test]
fn a_query_runs_on_a_leaf_of_the_version_before() {
    let address = serve(|| new_client::<gate::Client, _>(OldLeaf).client);
    let pool = LeafPool::new(Io::start("test-io").unwrap(), Security::default()).with_silence(Duration::from_millis(300));
    let leaf = pool.leaf(&address).unwrap();
    let setup = QuerySetup { query: 42, database: "d".into(), address: address.clone(), ordinals: vec![0], moment: 0 };
    let fragment = FragmentRequest { plan: b"plan".to_vec(), destination: RowDestination::Caller, filters: vec![] };
    let running = leaf.query(setup, fragment).unwrap();
    let (mut poll, mut give_up) = (|| Ok(()), || {});
    let mut gathered = Gather::new(vec![running], &mut poll, &mut give_up);
    let mut rows = vec![];
    while let Some((_, chunk)) = gathered.next(None) {
        rows.push(chunk);
    }
    let ended = gathered.ended();
    assert_eq!(ended.into_iter().map(|ran| ran.unwrap().sent_bytes).collect::<Vec<_>>(), [42]);
    assert_eq!(rows, [b"plan"]);
    // It does not know how far that was; the error says so, and the connection stands.
    assert!(leaf.progress(42).is_err());
    assert!(leaf.begin(QuerySetup { query: 43, database: "d".into(), address, ordinals: vec![], moment: 0 }).is_ok());
}

struct OldCoordinator;

impl coordinator_gate::Server for OldCoordinator {
    async fn enter(
        self: Rc<Self>,
        _: coordinator_gate::EnterParams,
        mut results: coordinator_gate::EnterResults,
    ) -> capnp::Result<()> {
        let mut result = results.get().init_result();
        result.set_major(1);
        result.set_minor(1);
        result.set_session(new_client(OldCoordinator));
        Ok(())
    }
}

impl session::Server for OldCoordinator {}

#[test]
fn a_coordinator_of_the_version_before_is_known_as_one() {
    let address = serve(|| new_client::<coordinator_gate::Client, _>(OldCoordinator).client);
    let login = Login { lost: true, ..Login::default() };
    let session = SessionClient::connect(&Io::start("test-io").unwrap(), &[address], &Security::default(), &login).unwrap();
    assert!(!session.finds_out() && !session.in_transaction());
    let failure = session.outcome("COMMIT", &[random_number()], &Cancelled::default()).unwrap_err();
    assert!(failure.kind == FailureKind::Fatal && session.alive(), "{failure:?}");
}
