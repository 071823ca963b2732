//! Parts of answers that come with the result of a call, on the wire.

use stoa_schema::coordinator_capnp::part;

use crate::session::AnswerPart;

/// Parts that a result takes along.
pub(crate) const MAX_PARTS: usize = 4096;

type List = capnp::struct_list::Owned<part::Owned>;

/// Writes parts.
pub(crate) fn write(parts: &[AnswerPart], mut to: <List as capnp::traits::Owned>::Builder<'_>) {
    for (i, part) in (0..).zip(parts) {
        let mut to = to.reborrow().get(i);
        match part {
            AnswerPart::Columns(stream) => to.set_columns(stream),
            AnswerPart::Rows(chunk) => to.set_rows(chunk),
            AnswerPart::Text(text) => to.set_text(text),
            AnswerPart::Plan(text) => to.set_plan(text),
        }
    }
}

/// Reads parts.
pub(crate) fn read(from: <List as capnp::traits::Owned>::Reader<'_>) -> capnp::Result<Vec<AnswerPart>> {
    // A list of structs without content costs its sender nothing.
    if from.len() as usize > MAX_PARTS {
        return Err(capnp::Error::failed(format!("a result does not take {} parts along", from.len())));
    }
    let part = |from: part::Reader<'_>| {
        Ok(match from.which()? {
            part::Columns(stream) => AnswerPart::Columns(stream?.to_vec()),
            part::Rows(chunk) => AnswerPart::Rows(chunk?.to_vec()),
            part::Text(text) => AnswerPart::Text(text?.to_string()?),
            part::Plan(text) => AnswerPart::Plan(text?.to_string()?),
        })
    };
    from.iter().map(part).collect()
}
