//! The 22 query texts and their answers at scale 0.01, 0.1, 1 and 10.
//!
//! Two independent engines agreed on the answers up to scale 1. Those at scale 10 are DuckDB's; DataFusion's are the same but for its
//! averages of decimals (q01, q08), which it rounds to fewer digits.

/// Number of queries.
pub const QUERY_COUNT: usize = 22;

/// The files of a folder that has one for each query.
macro_rules! one_a_query {
    ($folder:literal, $extension:literal) => {
        one_a_query!($folder, $extension, "01" "02" "03" "04" "05" "06" "07" "08" "09" "10" "11"
            "12" "13" "14" "15" "16" "17" "18" "19" "20" "21" "22")
    };
    ($folder:literal, $extension:literal, $($number:literal)*) => {
        [$(include_str!(concat!("../../tpch/", $folder, "/q", $number, $extension))),*]
    };
}

const QUERIES: [&str; QUERY_COUNT] = one_a_query!("queries", ".sql");

/// By scale.
const ANSWERS: [(f64, [&str; QUERY_COUNT]); 4] = [
    (0.01, one_a_query!("answers/sf0.01", ".csv")),
    (0.1, one_a_query!("answers/sf0.1", ".csv")),
    (1.0, one_a_query!("answers/sf1", ".csv")),
    (10.0, one_a_query!("answers/sf10", ".csv")),
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
    let (_, answers) = ANSWERS.iter().find(|(known, _)| *known == scale)?;
    answers.get(number.checked_sub(1)?).copied()
}
