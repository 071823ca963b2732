//! The 22 query texts and the answers that two independent engines agreed on, at scale 0.01, 0.1 and 1.

/// Number of queries.
pub const QUERY_COUNT: usize = 22;

const QUERIES: [&str; QUERY_COUNT] = [
    include_str!("../../tpch/queries/q01.sql"),
    include_str!("../../tpch/queries/q02.sql"),
    include_str!("../../tpch/queries/q03.sql"),
    include_str!("../../tpch/queries/q04.sql"),
    include_str!("../../tpch/queries/q05.sql"),
    include_str!("../../tpch/queries/q06.sql"),
    include_str!("../../tpch/queries/q07.sql"),
    include_str!("../../tpch/queries/q08.sql"),
    include_str!("../../tpch/queries/q09.sql"),
    include_str!("../../tpch/queries/q10.sql"),
    include_str!("../../tpch/queries/q11.sql"),
    include_str!("../../tpch/queries/q12.sql"),
    include_str!("../../tpch/queries/q13.sql"),
    include_str!("../../tpch/queries/q14.sql"),
    include_str!("../../tpch/queries/q15.sql"),
    include_str!("../../tpch/queries/q16.sql"),
    include_str!("../../tpch/queries/q17.sql"),
    include_str!("../../tpch/queries/q18.sql"),
    include_str!("../../tpch/queries/q19.sql"),
    include_str!("../../tpch/queries/q20.sql"),
    include_str!("../../tpch/queries/q21.sql"),
    include_str!("../../tpch/queries/q22.sql"),
];

const ANSWERS_001: [&str; QUERY_COUNT] = [
    include_str!("../../tpch/answers/sf0.01/q01.csv"),
    include_str!("../../tpch/answers/sf0.01/q02.csv"),
    include_str!("../../tpch/answers/sf0.01/q03.csv"),
    include_str!("../../tpch/answers/sf0.01/q04.csv"),
    include_str!("../../tpch/answers/sf0.01/q05.csv"),
    include_str!("../../tpch/answers/sf0.01/q06.csv"),
    include_str!("../../tpch/answers/sf0.01/q07.csv"),
    include_str!("../../tpch/answers/sf0.01/q08.csv"),
    include_str!("../../tpch/answers/sf0.01/q09.csv"),
    include_str!("../../tpch/answers/sf0.01/q10.csv"),
    include_str!("../../tpch/answers/sf0.01/q11.csv"),
    include_str!("../../tpch/answers/sf0.01/q12.csv"),
    include_str!("../../tpch/answers/sf0.01/q13.csv"),
    include_str!("../../tpch/answers/sf0.01/q14.csv"),
    include_str!("../../tpch/answers/sf0.01/q15.csv"),
    include_str!("../../tpch/answers/sf0.01/q16.csv"),
    include_str!("../../tpch/answers/sf0.01/q17.csv"),
    include_str!("../../tpch/answers/sf0.01/q18.csv"),
    include_str!("../../tpch/answers/sf0.01/q19.csv"),
    include_str!("../../tpch/answers/sf0.01/q20.csv"),
    include_str!("../../tpch/answers/sf0.01/q21.csv"),
    include_str!("../../tpch/answers/sf0.01/q22.csv"),
];

const ANSWERS_01: [&str; QUERY_COUNT] = [
    include_str!("../../tpch/answers/sf0.1/q01.csv"),
    include_str!("../../tpch/answers/sf0.1/q02.csv"),
    include_str!("../../tpch/answers/sf0.1/q03.csv"),
    include_str!("../../tpch/answers/sf0.1/q04.csv"),
    include_str!("../../tpch/answers/sf0.1/q05.csv"),
    include_str!("../../tpch/answers/sf0.1/q06.csv"),
    include_str!("../../tpch/answers/sf0.1/q07.csv"),
    include_str!("../../tpch/answers/sf0.1/q08.csv"),
    include_str!("../../tpch/answers/sf0.1/q09.csv"),
    include_str!("../../tpch/answers/sf0.1/q10.csv"),
    include_str!("../../tpch/answers/sf0.1/q11.csv"),
    include_str!("../../tpch/answers/sf0.1/q12.csv"),
    include_str!("../../tpch/answers/sf0.1/q13.csv"),
    include_str!("../../tpch/answers/sf0.1/q14.csv"),
    include_str!("../../tpch/answers/sf0.1/q15.csv"),
    include_str!("../../tpch/answers/sf0.1/q16.csv"),
    include_str!("../../tpch/answers/sf0.1/q17.csv"),
    include_str!("../../tpch/answers/sf0.1/q18.csv"),
    include_str!("../../tpch/answers/sf0.1/q19.csv"),
    include_str!("../../tpch/answers/sf0.1/q20.csv"),
    include_str!("../../tpch/answers/sf0.1/q21.csv"),
    include_str!("../../tpch/answers/sf0.1/q22.csv"),
];

const ANSWERS_1: [&str; QUERY_COUNT] = [
    include_str!("../../tpch/answers/sf1/q01.csv"),
    include_str!("../../tpch/answers/sf1/q02.csv"),
    include_str!("../../tpch/answers/sf1/q03.csv"),
    include_str!("../../tpch/answers/sf1/q04.csv"),
    include_str!("../../tpch/answers/sf1/q05.csv"),
    include_str!("../../tpch/answers/sf1/q06.csv"),
    include_str!("../../tpch/answers/sf1/q07.csv"),
    include_str!("../../tpch/answers/sf1/q08.csv"),
    include_str!("../../tpch/answers/sf1/q09.csv"),
    include_str!("../../tpch/answers/sf1/q10.csv"),
    include_str!("../../tpch/answers/sf1/q11.csv"),
    include_str!("../../tpch/answers/sf1/q12.csv"),
    include_str!("../../tpch/answers/sf1/q13.csv"),
    include_str!("../../tpch/answers/sf1/q14.csv"),
    include_str!("../../tpch/answers/sf1/q15.csv"),
    include_str!("../../tpch/answers/sf1/q16.csv"),
    include_str!("../../tpch/answers/sf1/q17.csv"),
    include_str!("../../tpch/answers/sf1/q18.csv"),
    include_str!("../../tpch/answers/sf1/q19.csv"),
    include_str!("../../tpch/answers/sf1/q20.csv"),
    include_str!("../../tpch/answers/sf1/q21.csv"),
    include_str!("../../tpch/answers/sf1/q22.csv"),
];

/// The text of query `number` (1 to 22), or `None` if there is no such query.
#[must_use]
pub fn query(number: usize) -> Option<&'static str> {
    QUERIES.get(number.checked_sub(1)?).copied()
}

/// The answer to query `number` at `scale`: a header line, then rows, fields separated by `|`, NULL as an empty field. `None` if no
/// answer is known at this scale.
#[must_use]
#[allow(clippy::float_cmp, reason = "scales are exact literals")]
pub fn answer(number: usize, scale: f64) -> Option<&'static str> {
    let answers = if scale == 0.01 {
        &ANSWERS_001
    } else if scale == 0.1 {
        &ANSWERS_01
    } else if scale == 1.0 {
        &ANSWERS_1
    } else {
        return None;
    };
    answers.get(number.checked_sub(1)?).copied()
}
