//! Messages of the interfaces as the first release wrote them: a change of a schema that other versions would misread shows here.
//!
//! A message is built with every field set and compared with the committed one. A new field gets a new message; the old ones stay.

mod messages;

use messages::{check, message};
use stoa_schema::admin_capnp::{admin, listing, said};
use stoa_schema::common_capnp::{done, failure, hello, row_sink};
use stoa_schema::coordinator_capnp::{
    answer, decided, described, gate, loaded, part, peer, peer_status, prepared, prepared_statement, session,
};
use stoa_schema::leaf_capnp::{
    change, decision, duplicates, fragment, in_doubt, leaf, load, merge_status, query_setup, ran, rows_read, status, transaction,
    transaction_setup,
};

fn common() -> Vec<(&'static str, Vec<u8>)> {
    let hello = message(|m| {
        let mut to: hello::Builder<'_> = m.init_root();
        to.set_major(1);
        to.set_minor(2);
        to.set_secret(b"secret");
    });
    let failed = message(|m| {
        let to: done::Builder<'_> = m.init_root();
        let mut to = to.init_failure();
        to.set_kind(failure::Kind::Retryable);
        to.set_message("later");
    });
    let enter = message(|m| {
        let mut to: gate::enter_params::Builder<'_> = m.init_root();
        to.set_user("ada");
        to.set_password("lovelace");
        to.set_database("d");
        to.init_hello().set_major(1);
    });
    let load = message(|m| m.init_root::<session::load_params::Builder<'_>>().set_table("t"));
    let done = message(|m| m.init_root::<row_sink::done_params::Builder<'_>>().set_chunk(&[1, 2]));
    vec![("hello", hello), ("done-failure", failed), ("gate-enter", enter), ("session-load", load), ("sink-done", done)]
}

fn coordinators() -> Vec<(&'static str, Vec<u8>)> {
    let decided = message(|m| {
        let mut to = m.init_root::<decided::Builder<'_>>().init_done();
        to.set_text("table t created");
        to.set_version(7);
    });
    let status = message(|m| {
        let mut to: peer_status::Builder<'_> = m.init_root();
        to.set_node(3);
        to.set_leader("127.0.0.1:1");
        to.set_version(9);
    });
    let described = message(|m| m.init_root::<described::Builder<'_>>().set_columns(&[1, 2, 3]));
    let prepared = message(|m| m.init_root::<prepared::Builder<'_>>().init_done().set_parameters(6));
    let loaded = message(|m| m.init_root::<loaded::Builder<'_>>().set_rows(5));
    let create = message(|m| {
        let mut to: admin::create_database_params::Builder<'_> = m.init_root();
        to.set_name("d");
        to.set_if_not_exists(true);
        to.set_partitions(8);
        to.set_redundancy(2);
    });
    let text = message(|m| m.init_root::<said::Builder<'_>>().set_text("done"));
    let rows = message(|m| m.init_root::<listing::Builder<'_>>().set_rows(&[4, 5]));
    let decided_rows = message(|m| {
        let mut to = m.init_root::<decided::Builder<'_>>().init_done();
        to.set_rows(&[1, 2, 3]);
        to.set_version(7);
    });
    vec![
        ("peer-decided", decided),
        ("peer-decided-rows", decided_rows),
        ("peer-status", status),
        ("session-described", described),
        ("session-prepared", prepared),
        ("prepared-execute", values()),
        ("load-loaded", loaded),
        ("admin-create-database", create),
        ("admin-said", text),
        ("admin-listing", rows),
    ]
}

fn values() -> Vec<u8> {
    message(|m| {
        let to: prepared_statement::execute_params::Builder<'_> = m.init_root();
        let mut to = to.init_parameters(9);
        to.reborrow().get(0).set_null(());
        to.reborrow().get(1).set_bool(true);
        to.reborrow().get(2).set_int(-2);
        to.reborrow().get(3).set_float(0.5);
        to.reborrow().get(4).set_decimal("-12.50");
        to.reborrow().get(5).set_string("text");
        to.reborrow().get(6).set_date(9131);
        to.reborrow().get(7).set_timestamp(-1);
        to.reborrow().get(8).set_bytes(&[1, 2]);
    })
}

fn leaves() -> Vec<(&'static str, Vec<u8>)> {
    let setup = message(|m| {
        let mut to: query_setup::Builder<'_> = m.init_root();
        to.set_query(0x0102_0304_0506_0708);
        to.set_database("d");
        to.set_address("127.0.0.1:2");
        to.set_ordinals(&[0, 3][..]).unwrap();
    });
    let broadcast = message(|m| {
        let mut to: fragment::Builder<'_> = m.init_root();
        to.set_plan(b"plan");
        let mut filter = to.reborrow().init_filters(1).get(0);
        filter.set_id(4);
        filter.set_min(-5);
        filter.set_max(6);
        filter.set_keys(7);
        filter.init_members().set_bits(&[8][..]).unwrap();
        let mut to = to.init_destination().init_leaves();
        to.set_number(9);
        to.init_addresses(1).set(0, "a:1");
    });
    let shuffle = message(|m| {
        let mut to = m.init_root::<fragment::Builder<'_>>().init_destination().init_shuffle();
        to.set_shuffle_number(1);
        to.set_keys(&[2][..]).unwrap();
        to.set_owners(&[0, 1][..]).unwrap();
        to.init_to(2).set(1, "b:2");
    });
    let in_answer = message(|m| {
        let mut to: fragment::Builder<'_> = m.init_root();
        to.set_rows_in_answer(true);
        to.init_destination().set_caller(());
    });
    let ran_rows = message(|m| m.init_root::<leaf::query_results::Builder<'_>>().set_rows(&[16, 17]));
    let query = message(|m| {
        let mut to: leaf::query_params::Builder<'_> = m.init_root();
        to.reborrow().init_setup().set_query(18);
        to.init_fragment().set_plan(b"plan");
    });
    let ran = message(|m| {
        let mut to = m.init_root::<ran::Builder<'_>>().init_profile();
        to.set_wall_nanos(10);
        to.set_peak_memory(11);
        to.set_sent_bytes(12);
        to.init_nodes(1).get(0).set_rows(13);
    });
    let change = message(|m| {
        let mut to = m.init_root::<change::Builder<'_>>().init_create_table();
        to.set_database("d");
        to.set_definition(b"definition");
    });
    let status = message(|m| {
        let mut to = m.init_root::<status::Builder<'_>>().init_databases(1).get(0);
        to.set_name("d");
        to.set_bytes(14);
        to.set_ordinals(&[15][..]).unwrap();
    });
    vec![
        ("leaf-setup", setup),
        ("leaf-fragment-broadcast", broadcast),
        ("leaf-fragment-shuffle", shuffle),
        ("leaf-fragment-in-answer", in_answer),
        ("leaf-query", query),
        ("leaf-query-rows", ran_rows),
        ("leaf-ran", ran),
        ("leaf-change", change),
        ("leaf-status", status),
    ]
}

fn transactions() -> Vec<(&'static str, Vec<u8>)> {
    let setup = message(|m| {
        let mut to: transaction_setup::Builder<'_> = m.init_root();
        to.set_transaction(0x0102_0304_0506_0708);
        to.set_database("d");
        to.set_address("127.0.0.1:2");
        to.set_ordinals(&[0, 3][..]).unwrap();
    });
    let insert = message(|m| {
        let mut to: transaction::insert_params::Builder<'_> = m.init_root();
        to.set_table("t");
        to.set_ordinal(3);
        let mut rows = to.init_rows();
        rows.set_chunk(b"rows");
        rows.set_numbers(&[1, 5][..]).unwrap();
    });
    let delete = message(|m| {
        let mut to: transaction::delete_params::Builder<'_> = m.init_root();
        to.set_table("t");
        to.set_ordinal(3);
        to.set_addresses(&[1 << 50][..]).unwrap();
    });
    let found = message(|m| {
        let mut to = m.init_root::<duplicates::Builder<'_>>().init_found();
        to.set_rows(&[1][..]).unwrap();
        to.set_addresses(&[2][..]).unwrap();
    });
    let read = message(|m| m.init_root::<rows_read::Builder<'_>>().set_chunk(b"rows"));
    let prepare = message(|m| {
        let mut to: transaction::prepare_params::Builder<'_> = m.init_root();
        to.set_ordinals(&[3][..]).unwrap();
        to.set_decider(4);
    });
    let blind = message(|m| {
        let mut to: leaf::begin_transaction_params::Builder<'_> = m.init_root();
        to.set_blind(true);
        to.init_setup().set_transaction(5);
    });
    let truncate = message(|m| {
        let mut to: transaction::truncate_params::Builder<'_> = m.init_root();
        to.set_table("t");
        to.set_ordinal(3);
    });
    let commit = message(|m| {
        let mut to: transaction::commit_params::Builder<'_> = m.init_root();
        to.set_ordinal(4);
        to.set_deciding(true);
    });
    vec![
        ("transaction-setup", setup),
        ("transaction-insert", insert),
        ("transaction-delete", delete),
        ("transaction-duplicates", found),
        ("transaction-rows", read),
        ("transaction-prepare", prepare),
        ("transaction-commit", commit),
        ("transaction-blind", blind),
        ("transaction-truncate", truncate),
    ]
}

fn loads() -> Vec<(&'static str, Vec<u8>)> {
    let load = message(|m| {
        let mut to: transaction::load_params::Builder<'_> = m.init_root();
        to.set_table("t");
        to.set_ordinal(3);
    });
    let write = message(|m| {
        let mut to: load::write_params::Builder<'_> = m.init_root();
        to.set_chunk(b"rows");
        let mut from = to.init_origin();
        from.set_file("a.csv");
        from.set_lines(true);
        from.set_first(2);
        from.set_numbers(&[1, 5][..]).unwrap();
    });
    vec![("transaction-load", load), ("load-write", write)]
}

fn outcomes() -> Vec<(&'static str, Vec<u8>)> {
    let resolve = message(|m| {
        let mut to: leaf::resolve_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_ordinal(3);
        to.set_transaction(5);
        to.set_commit(true);
    });
    let decision = message(|m| m.init_root::<decision::Builder<'_>>().set_commit(true));
    let doubt = message(|m| {
        let mut to: in_doubt::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_ordinal(3);
        to.set_transaction(5);
        to.set_decider(4);
    });
    let merges = message(|m| {
        let mut to = m.init_root::<merge_status::Builder<'_>>().init_partitions(1).get(0);
        to.set_table("t");
        to.set_ordinal(3);
        to.set_segments(6);
        to.set_to_merge(7);
        to.set_rows_in_memory(8);
        to.set_deleted_rows(9);
    });
    let merge_state = message(|m| {
        let mut to = m.init_root::<merge_status::Builder<'_>>().init_partitions(1).get(0);
        to.set_table("t");
        to.set_state("failed");
        to.set_error("no room");
    });
    let truncate = message(|m| {
        let mut to = m.init_root::<change::Builder<'_>>().init_truncate_table();
        to.set_database("d");
        to.set_table("t");
    });
    vec![
        ("leaf-resolve", resolve),
        ("leaf-decision", decision),
        ("leaf-in-doubt", doubt),
        ("leaf-merge-status", merges),
        ("leaf-merge-state", merge_state),
        ("leaf-truncate", truncate),
    ]
}

/// What came with the moments from which commits count.
fn moments() -> Vec<(&'static str, Vec<u8>)> {
    let setup = message(|m| m.init_root::<query_setup::Builder<'_>>().set_moment(7));
    let transaction_setup = message(|m| m.init_root::<transaction_setup::Builder<'_>>().set_moment(7));
    let commit = message(|m| m.init_root::<transaction::commit_params::Builder<'_>>().set_prepared(7));
    let committed = message(|m| m.init_root::<transaction::commit_results::Builder<'_>>().set_moment(8));
    let prepared = message(|m| m.init_root::<transaction::prepare_results::Builder<'_>>().set_moment(7));
    let resolve = message(|m| m.init_root::<leaf::resolve_params::Builder<'_>>().set_moment(8));
    let decision = message(|m| {
        let mut to: decision::Builder<'_> = m.init_root();
        to.set_commit(true);
        to.set_moment(8);
    });
    let failure = message(|m| m.init_root::<failure::Builder<'_>>().set_moment(9));
    vec![
        ("leaf-setup-moment", setup),
        ("transaction-setup-moment", transaction_setup),
        ("transaction-commit-prepared", commit),
        ("transaction-committed", committed),
        ("transaction-prepared", prepared),
        ("leaf-resolve-moment", resolve),
        ("leaf-decision-moment", decision),
        ("failure-moment", failure),
    ]
}

/// What coordinators tell each other of what runs.
fn peers() -> Vec<(&'static str, Vec<u8>)> {
    let processes = message(|m| {
        let mut to = m.init_root::<peer::processes_results::Builder<'_>>().init_processes(1).get(0);
        to.set_number(4211);
        to.set_user("ada");
        to.set_database("d");
        to.set_text("SELECT 1");
        to.set_micros(1_500_000);
    });
    let seen_by = message(|m| m.init_root::<peer::processes_params::Builder<'_>>().set_user("ada"));
    let kill = message(|m| {
        let mut to: peer::kill_params::Builder<'_> = m.init_root();
        to.set_user("ada");
        to.set_number(4211);
    });
    let killed = message(|m| m.init_root::<peer::kill_results::Builder<'_>>().set_found(true));
    vec![("peer-processes", processes), ("peer-processes-params", seen_by), ("peer-kill", kill), ("peer-killed", killed)]
}

/// How far queries are.
fn progress() -> Vec<(&'static str, Vec<u8>)> {
    let execute = message(|m| {
        let mut to: session::execute_params::Builder<'_> = m.init_root();
        to.set_sql("SELECT 1");
        to.set_progress(true);
    });
    let plan = message(|m| m.init_root::<session::execute_plan_params::Builder<'_>>().set_progress(true));
    let prepared = message(|m| m.init_root::<prepared_statement::execute_params::Builder<'_>>().set_progress(true));
    let told = message(|m| {
        let mut to: answer::progress_params::Builder<'_> = m.init_root();
        to.set_done(3);
        to.set_total(4);
    });
    let asked = message(|m| m.init_root::<leaf::progress_params::Builder<'_>>().set_query(0x0102_0304_0506_0708));
    let of_leaf = message(|m| {
        let mut to: leaf::progress_results::Builder<'_> = m.init_root();
        to.set_done(1);
        to.set_total(2);
    });
    vec![
        ("session-execute-progress", execute),
        ("session-execute-plan-progress", plan),
        ("prepared-execute-progress", prepared),
        ("answer-progress", told),
        ("leaf-progress-params", asked),
        ("leaf-progress", of_leaf),
    ]
}

/// What became of calls that administer a cluster.
fn administration() -> Vec<(&'static str, Vec<u8>)> {
    let rebalance = message(|m| {
        let mut to: admin::rebalance_params::Builder<'_> = m.init_root();
        to.set_database("d");
        to.set_full(true);
    });
    let explain = message(|m| m.init_root::<admin::explain_rebalance_params::Builder<'_>>().set_full(true));
    let create = message(|m| {
        let mut to: admin::create_user_params::Builder<'_> = m.init_root();
        to.set_name("ada");
        to.set_password("secret");
        to.set_if_not_exists(true);
    });
    let set_password = message(|m| {
        let mut to: admin::set_password_params::Builder<'_> = m.init_root();
        to.set_name("ada");
        to.set_password("secret");
    });
    let grant = message(|m| {
        let mut to: admin::grant_params::Builder<'_> = m.init_root();
        to.set_privileges(&["SELECT", "INSERT"][..]).unwrap();
        to.set_database("d");
        to.set_table("t");
        to.set_user("ada");
    });
    vec![
        ("admin-rebalance-full", rebalance),
        ("admin-explain-rebalance-full", explain),
        ("admin-create-user", create),
        ("admin-set-password", set_password),
        ("admin-grant", grant),
    ]
}

/// What clients know of the transactions of their statements, and how they ask for them.
fn statements() -> Vec<(&'static str, Vec<u8>)> {
    const NUMBER: u64 = 0x8102_0304_0506_0708;
    let enter = message(|m| m.init_root::<gate::enter_params::Builder<'_>>().set_lost(true));
    let execute = message(|m| m.init_root::<session::execute_params::Builder<'_>>().set_statement(NUMBER));
    let prepared = message(|m| m.init_root::<prepared_statement::execute_params::Builder<'_>>().set_statement(NUMBER));
    let load = message(|m| m.init_root::<session::load_params::Builder<'_>>().set_statement(NUMBER));
    let executed = message(|m| {
        let mut to: session::execute_results::Builder<'_> = m.init_root();
        to.set_open(true);
        to.set_refused(true);
    });
    let deciding = message(|m| m.init_root::<answer::deciding_params::Builder<'_>>().set_transaction(NUMBER));
    let asked = message(|m| {
        let mut to: session::outcome_params::Builder<'_> = m.init_root();
        to.set_sql("COMMIT");
        to.set_transactions(&[NUMBER, NUMBER + 1][..]).unwrap();
    });
    let found = message(|m| {
        let mut to: session::outcome_results::Builder<'_> = m.init_root();
        to.set_open(true);
        to.init_result().set_unknown("why");
    });
    vec![
        ("gate-enter-lost", enter),
        ("session-execute-statement", execute),
        ("prepared-execute-statement", prepared),
        ("session-load-statement", load),
        ("session-executed-open", executed),
        ("answer-deciding", deciding),
        ("session-outcome-params", asked),
        ("session-outcome", found),
    ]
}

/// Answers that come with the result of a call.
fn whole_answers() -> Vec<(&'static str, Vec<u8>)> {
    let execute = message(|m| m.init_root::<session::execute_params::Builder<'_>>().set_whole(true));
    let plan = message(|m| m.init_root::<session::execute_plan_params::Builder<'_>>().set_whole(true));
    let prepared = message(|m| m.init_root::<prepared_statement::execute_params::Builder<'_>>().set_whole(true));
    let parts = |mut to: capnp::struct_list::Builder<'_, part::Owned>| {
        to.reborrow().get(0).set_columns(&[1, 2]);
        to.reborrow().get(1).set_rows(&[3]);
        to.reborrow().get(2).set_text("4 rows inserted");
        to.reborrow().get(3).set_plan("Scan t");
    };
    let executed = message(|m| parts(m.init_root::<session::execute_results::Builder<'_>>().init_parts(4)));
    let planned = message(|m| parts(m.init_root::<session::execute_plan_results::Builder<'_>>().init_parts(4)));
    let of_prepared = message(|m| parts(m.init_root::<prepared_statement::execute_results::Builder<'_>>().init_parts(4)));
    vec![
        ("session-execute-whole", execute),
        ("session-execute-plan-whole", plan),
        ("prepared-execute-whole", prepared),
        ("session-executed-parts", executed),
        ("session-executed-plan-parts", planned),
        ("prepared-executed-parts", of_prepared),
    ]
}

#[test]
fn messages_are_what_they_were() {
    let before = [common(), coordinators(), leaves(), transactions(), loads(), outcomes(), moments(), peers(), progress()];
    before
        .iter()
        .chain(&[statements(), administration(), whole_answers()])
        .flatten()
        .for_each(|(name, bytes)| check(name, bytes));
}
