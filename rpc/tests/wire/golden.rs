//! Golden messages of heartbeats, copies and backups, as they are written, and as the nodes read them.

use std::sync::Arc;
use std::time::Duration;

use capnp::capability::{Rc, Request, Results};
use capnp::message::ReaderOptions;
use capnp::serialize;
use capnp::traits::Owned;
use capnp_rpc::new_client;
use stoa_rpc::backup::{BackupPlace, BackupSetup, Copied, FrozenPartition};
use stoa_rpc::leaf::{Change, OptimizeHow};
use stoa_rpc::replication::{
    CopyOrder, CopyReport, CopyRole, FedReport, FedState, HeldCopy, Holdings, Orders, Position, Record, Report, RoleOrder,
};
use stoa_rpc::{Io, LeafPool, Limits, Security, serve_leaf};
use stoa_schema::leaf_capnp::{self as wire, backup, entered, fed_copy, gate, leaf, report};

use crate::leaves::Scribe;
use crate::messages::{check, golden, message};
use crate::raw::{serve, talk};

const PLACE: (&str, &str) = ("/backups", "d-1");

/// Fills the call of a golden message.
fn fill<P: Owned, R>(request: &mut Request<P, R>, name: &str) {
    let bytes = golden(name);
    let read = serialize::read_message(&bytes[..], ReaderOptions::new()).unwrap();
    request.set(read.get_root().unwrap()).unwrap();
}

/// Answers with a golden message.
fn answer<R: Owned>(results: &mut Results<R>, name: &str) -> capnp::Result<()> {
    let read = serialize::read_message(&golden(name)[..], ReaderOptions::new())?;
    results.set(read.get_root()?)
}

fn position() -> Position {
    Position { lsn: 21, term: 22, checksum: 23 }
}

fn write_position(mut to: wire::position::Builder<'_>) {
    to.set_lsn(21);
    to.set_term(22);
    to.set_checksum(23);
}

fn orders() -> Orders {
    let master = RoleOrder::Master { in_sync: vec!["a:1".into()], feed: vec!["b:2".into(), "c:3".into()] };
    let copy = |ordinal, role| CopyOrder { database: "d".into(), ordinal, term: 6, role, asynchronous: ordinal == 4 };
    let copies = vec![copy(4, master), copy(5, RoleOrder::Replica)];
    Orders { version: 1, processed: (2, 3), copies, supersedes: 7, catalog: vec![8, 9] }
}

fn write_orders() -> Vec<u8> {
    message(|m| {
        let mut to = m.init_root::<leaf::heartbeat_params::Builder<'_>>().init_orders();
        to.set_version(1);
        to.set_incarnation(2);
        to.set_sequence(3);
        to.set_supersedes(7);
        to.set_catalog(&[8, 9]);
        let mut copies = to.init_copies(2);
        for (i, ordinal) in [(0, 4), (1, 5)] {
            let mut copy = copies.reborrow().get(i);
            copy.set_database("d");
            copy.set_ordinal(ordinal);
            copy.set_term(6);
            copy.set_async(ordinal == 4);
        }
        let mut master = copies.reborrow().get(0).init_role().init_master();
        master.reborrow().init_in_sync(1).set(0, "a:1");
        let mut feed = master.init_feed(2);
        feed.set(0, "b:2");
        feed.set(1, "c:3");
        copies.get(1).init_role().set_replica(());
    })
}

const STATES: [(FedState, report::State); 5] = [
    (FedState::Connecting, report::State::Connecting),
    (FedState::Copying, report::State::Copying),
    (FedState::Following, report::State::Following),
    (FedState::InSync, report::State::InSync),
    (FedState::Failed, report::State::Failed),
];

const ROLES: [(CopyRole, report::Role); 3] =
    [(CopyRole::None, report::Role::None), (CopyRole::Master, report::Role::Master), (CopyRole::Replica, report::Role::Replica)];

fn reported() -> Report {
    let fed = |(state, _)| FedReport { address: "a:1".into(), state, lsn: 11, failure: "gone".into(), copied: (12, 13) };
    let copy = |(role, _)| CopyReport {
        database: "d".into(),
        ordinal: 7,
        term: 8,
        role,
        position: position(),
        failure: "full".into(),
        fed: if role == CopyRole::Master { STATES.map(fed).to_vec() } else { vec![] },
        bytes: 9,
    };
    Report { incarnation: 1, sequence: 2, version: 3, copies: ROLES.map(copy).to_vec(), free: Some(4), rate: 5, kept: 6 }
}

fn write_report() -> Vec<u8> {
    message(|m| {
        let mut to = m.init_root::<leaf::heartbeat_results::Builder<'_>>().init_result().init_report();
        to.set_incarnation(1);
        to.set_sequence(2);
        to.set_version(3);
        to.set_free(4);
        to.set_rate(5);
        to.set_kept(6);
        let mut copies = to.init_copies(3);
        for (i, (role, named)) in (0..).zip(ROLES) {
            let mut copy = copies.reborrow().get(i);
            copy.set_database("d");
            copy.set_ordinal(7);
            copy.set_term(8);
            copy.set_role(named);
            copy.set_failure("full");
            copy.set_bytes(9);
            write_position(copy.reborrow().init_position());
            let mut fed = copy.init_fed(if role == CopyRole::Master { 5 } else { 0 });
            for (j, (_, state)) in (0..fed.len()).zip(STATES) {
                let mut to = fed.reborrow().get(j);
                to.set_address("a:1");
                to.set_state(state);
                to.set_lsn(11);
                to.set_failure("gone");
                to.set_bytes_copied(12);
                to.set_bytes_to_copy(13);
            }
        }
    })
}

fn held() -> Holdings {
    let tables = vec![vec![4], vec![5, 6]];
    let copies = vec![HeldCopy { database: "d".into(), ordinal: 1, term: 2, position: position(), bytes: 3, tables }];
    Holdings { catalog: vec![7, 8], copies, silent: Duration::from_millis(9) }
}

fn write_holdings() -> Vec<u8> {
    message(|m| {
        let mut to = m.init_root::<leaf::holdings_results::Builder<'_>>().init_result().init_held();
        to.set_catalog(&[7, 8]);
        to.set_silent_millis(9);
        let mut copy = to.init_copies(1).get(0);
        copy.set_database("d");
        copy.set_ordinal(1);
        copy.set_term(2);
        copy.set_bytes(3);
        write_position(copy.reborrow().init_position());
        let mut tables = copy.init_tables(2);
        tables.set(0, &[4]);
        tables.set(1, &[5, 6]);
    })
}

fn write_place(mut to: wire::backup_place::Builder<'_>) {
    to.set_place(PLACE.0);
    to.set_name(PLACE.1);
}

/// What masters and their replicas say.
fn copies() -> Vec<(&'static str, Vec<u8>)> {
    let feed = message(|m| {
        let mut to: leaf::feed_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_ordinal(3);
        to.set_term(4);
    });
    let fed = message(|m| {
        write_position(m.init_root::<leaf::feed_results::Builder<'_>>().init_result().init_open().init_position());
    });
    let records = message(|m| {
        let mut to = m.init_root::<fed_copy::write_params::Builder<'_>>().init_records(2);
        for (i, more) in [(0, true), (1, false)] {
            let mut record = to.reborrow().get(i);
            record.set_lsn(5);
            record.set_term(6);
            record.set_body(&[7, i as u8]);
            record.set_more(more);
        }
    });
    let stands = message(|m| write_position(m.init_root::<fed_copy::write_results::Builder<'_>>().init_result().init_position()));
    let file = message(|m| {
        let mut to: fed_copy::file_params::Builder<'_> = m.init_root();
        to.set_name("manifest");
        to.set_data(&[8, 9]);
        to.set_last(true);
    });
    vec![
        ("leaf-orders", write_orders()),
        ("leaf-report", write_report()),
        ("leaf-holdings", write_holdings()),
        ("leaf-feed", feed),
        ("leaf-fed", fed),
        ("fed-records", records),
        ("fed-stands", stands),
        ("fed-file", file),
    ]
}

/// Backups, and changes that came with them.
fn backups() -> Vec<(&'static str, Vec<u8>)> {
    let setup = message(|m| {
        let mut to = m.init_root::<leaf::backup_params::Builder<'_>>().init_setup();
        to.set_database("d");
        to.set_ordinals(&[1, u32::MAX][..]).unwrap();
        to.init_tables(1).set(0, &[2, 3]);
    });
    let restore = message(|m| {
        let mut to: leaf::restore_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_ordinal(1);
        write_place(to.init_from());
    });
    let frozen = message(|m| {
        let to = m.init_root::<backup::freeze_results::Builder<'_>>().init_result();
        let mut to = to.init_partitions(1).get(0);
        to.set_ordinal(1);
        to.set_lsn(2);
        let mut doubt = to.init_in_doubt(1).get(0);
        doubt.set_transaction(3);
        doubt.set_decider(4);
    });
    let asked = message(|m| {
        let mut to: backup::committed_params::Builder<'_> = m.init_root();
        to.set_ordinal(1);
        to.set_transactions(&[3, 5][..]).unwrap();
    });
    let committed = message(|m| {
        let mut to = m.init_root::<backup::committed_results::Builder<'_>>().init_result();
        to.set_transactions(&[3][..]).unwrap();
    });
    let copy = message(|m| {
        let mut to: backup::copy_params::Builder<'_> = m.init_root();
        to.set_ordinal(1);
        to.set_anew(true);
        to.set_committed(&[3][..]).unwrap();
        write_place(to.init_to());
    });
    let copied = message(|m| {
        let mut to = m.init_root::<backup::copy_results::Builder<'_>>().init_result().init_counts();
        to.set_files(6);
        to.set_bytes(7);
        to.set_kept(8);
    });
    vec![
        ("leaf-backup", setup),
        ("leaf-restore", restore),
        ("backup-frozen", frozen),
        ("backup-committed-params", asked),
        ("backup-committed", committed),
        ("backup-copy", copy),
        ("backup-copied", copied),
    ]
}

/// What is asked of tables.
fn tables() -> Vec<(&'static str, Vec<u8>)> {
    let alter = message(|m| {
        let mut to = m.init_root::<leaf::change_params::Builder<'_>>().init_change().init_alter_table();
        to.set_database("d");
        to.set_definition(&[1, 2]);
    });
    let statistics = message(|m| {
        let mut to: leaf::statistics_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_ordinals(&[0, 3][..]).unwrap();
    });
    let known = message(|m| m.init_root::<leaf::statistics_results::Builder<'_>>().init_result().set_tables(&[4, 5]));
    let optimize = message(|m| {
        let mut to: leaf::optimize_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_table("t");
        to.set_how(wire::OptimizeHow::Full);
    });
    vec![("leaf-alter", alter), ("leaf-statistics-params", statistics), ("leaf-statistics", known), ("leaf-optimize", optimize)]
}

#[test]
fn messages_are_what_they_were() {
    [copies(), backups(), tables()].iter().flatten().for_each(|(name, bytes)| check(name, bytes));
}

async fn enter(gate: &gate::Client) -> leaf::Client {
    let mut request = gate.enter_request();
    request.get().init_hello().set_major(stoa_rpc::MAJOR);
    let response = request.send().promise.await.unwrap();
    match response.get().unwrap().get_result().unwrap().which().unwrap() {
        entered::Leaf(leaf) => leaf.unwrap(),
        entered::Failure(failure) => panic!("{:?}", failure.unwrap().get_message()),
    }
}

/// Sends the golden messages of calls to a leaf.
async fn ask(gate: gate::Client) {
    let leaf = enter(&gate).await;
    macro_rules! ask {
        ($object:ident.$request:ident, $name:expr) => {{
            let mut request = $object.$request();
            fill(&mut request, $name);
            request.send().promise.await.unwrap()
        }};
    }
    ask!(leaf.heartbeat_request, "leaf-orders");
    ask!(leaf.change_request, "leaf-alter");
    ask!(leaf.statistics_request, "leaf-statistics-params");
    ask!(leaf.optimize_request, "leaf-optimize");
    ask!(leaf.restore_request, "leaf-restore");
    let fed = ask!(leaf.feed_request, "leaf-feed");
    let wire::fed::Open(open) = fed.get().unwrap().get_result().unwrap().which().unwrap() else { panic!("no copy") };
    let copy = open.get_copy().unwrap();
    ask!(copy.write_request, "fed-records");
    ask!(copy.file_request, "fed-file");
    let begun = ask!(leaf.backup_request, "leaf-backup");
    let wire::backup_begun::Backup(backup) = begun.get().unwrap().get_result().unwrap().which().unwrap() else {
        panic!("no backup")
    };
    let backup = backup.unwrap();
    ask!(backup.committed_request, "backup-committed-params");
    ask!(backup.copy_request, "backup-copy");
}

#[test]
fn a_leaf_reads_what_coordinators_and_masters_wrote() {
    let (io, scribe) = (Io::start("test-io").unwrap(), Scribe::default());
    let listener = serve_leaf(&io, "127.0.0.1:0", &Security::default(), Limits::default(), Arc::new(scribe.clone())).unwrap();
    talk(&listener.address().to_string(), async |gate| ask(gate).await);

    let alter = Change::AlterTable { database: "d".into(), definition: vec![1, 2] };
    let place = BackupPlace { place: PLACE.0.into(), name: PLACE.1.into() };
    let record = |i, more| Record { lsn: 5, term: 6, body: vec![7, i], more };
    let setup = BackupSetup { database: "d".into(), ordinals: vec![1, u32::MAX], tables: vec![vec![2, 3]] };
    let expected = [
        format!("{:?}", orders()),
        format!("{alter:?}"),
        format!("{:?}", ("statistics", "d", [0, 3])),
        format!("{:?}", ("optimize", "d", "t", OptimizeHow::Full)),
        format!("{:?}", ("restore", "d", 1, &place)),
        format!("{:?}", ("feed", "d", 3, 4)),
        format!("{:?}", [record(0, true), record(1, false)]),
        format!("{:?}", ("file", "manifest", [8, 9], true)),
        format!("{setup:?}"),
        format!("{:?}", ("committed", 1, [3, 5])),
        format!("{:?}", ("copy", 1, &place, true, [3])),
    ];
    assert_eq!(*scribe.0.lock(), expected);
}

/// A leaf that answers with the golden messages.
struct GoldenLeaf;

impl gate::Server for GoldenLeaf {
    async fn enter(self: Rc<Self>, _: gate::EnterParams, mut results: gate::EnterResults) -> capnp::Result<()> {
        let mut result = results.get().init_result();
        result.set_major(stoa_rpc::MAJOR);
        result.set_leaf(new_client(GoldenLeaf));
        Ok(())
    }
}

impl leaf::Server for GoldenLeaf {
    async fn heartbeat(self: Rc<Self>, _: leaf::HeartbeatParams, mut results: leaf::HeartbeatResults) -> capnp::Result<()> {
        answer(&mut results, "leaf-report")
    }

    async fn holdings(self: Rc<Self>, _: leaf::HoldingsParams, mut results: leaf::HoldingsResults) -> capnp::Result<()> {
        answer(&mut results, "leaf-holdings")
    }

    async fn statistics(self: Rc<Self>, _: leaf::StatisticsParams, mut results: leaf::StatisticsResults) -> capnp::Result<()> {
        answer(&mut results, "leaf-statistics")
    }

    async fn feed(self: Rc<Self>, _: leaf::FeedParams, mut results: leaf::FeedResults) -> capnp::Result<()> {
        answer(&mut results, "leaf-fed")?;
        let wire::fed::Open(mut open) = results.get().get_result()?.which()? else { panic!("no copy") };
        open.set_copy(new_client(GoldenLeaf));
        Ok(())
    }

    async fn backup(self: Rc<Self>, _: leaf::BackupParams, mut results: leaf::BackupResults) -> capnp::Result<()> {
        results.get().init_result().set_backup(new_client(GoldenLeaf));
        Ok(())
    }
}

impl fed_copy::Server for GoldenLeaf {
    async fn write(self: Rc<Self>, _: fed_copy::WriteParams, mut results: fed_copy::WriteResults) -> capnp::Result<()> {
        answer(&mut results, "fed-stands")
    }
}

impl backup::Server for GoldenLeaf {
    async fn freeze(self: Rc<Self>, _: backup::FreezeParams, mut results: backup::FreezeResults) -> capnp::Result<()> {
        answer(&mut results, "backup-frozen")
    }

    async fn committed(self: Rc<Self>, _: backup::CommittedParams, mut results: backup::CommittedResults) -> capnp::Result<()> {
        answer(&mut results, "backup-committed")
    }

    async fn copy(self: Rc<Self>, _: backup::CopyParams, mut results: backup::CopyResults) -> capnp::Result<()> {
        answer(&mut results, "backup-copied")
    }
}

#[test]
fn coordinators_and_masters_read_what_a_leaf_wrote() {
    let address = serve(|| new_client::<gate::Client, _>(GoldenLeaf).client);
    let leaf = LeafPool::new(Io::start("test-io").unwrap(), Security::default()).leaf(&address).unwrap();
    assert_eq!(leaf.heartbeat(&Arc::new(Orders::default())).unwrap(), reported());
    assert_eq!(leaf.holdings().unwrap(), held());
    assert_eq!(leaf.statistics("d", &[]).unwrap(), [4, 5]);
    let (copy, stands) = leaf.feed("d", 3, 4).unwrap();
    assert_eq!((stands, copy.write(vec![]).unwrap()), (position(), position()));
    let setup = BackupSetup { database: "d".into(), ordinals: vec![], tables: vec![] };
    let backup = leaf.backup(setup).unwrap();
    assert_eq!(backup.freeze().unwrap(), [FrozenPartition { ordinal: 1, lsn: 2, in_doubt: vec![(3, 4)] }]);
    assert_eq!(backup.committed(1, &[]).unwrap(), [3]);
    let place = BackupPlace { place: PLACE.0.into(), name: PLACE.1.into() };
    assert_eq!(backup.copy(1, &place, true, &[]).unwrap(), Copied { files: 6, bytes: 7, kept: 8 });
}
