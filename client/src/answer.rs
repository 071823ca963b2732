//! What statements give, for those who asked.

use stoa_rpc::Result;
use stoa_rpc::ipc::read_chunk;
use stoa_rpc::session::{Answer, AnswerPart, HowFar};

use crate::{Output, Part, Rows};

/// Takes what a statement gives, which may be run again.
pub(crate) trait Taker: Answer {
    /// Whether the caller has got rows of it: another run may give others.
    fn handed(&self) -> bool;

    /// It is run again: what came and was not handed on does not count.
    fn begin_anew(&mut self);
}

/// Puts the parts of an answer together.
pub(crate) struct Outputs<'a> {
    rows: Option<Rows>,
    handed: bool,
    each: &'a mut dyn FnMut(Output) -> Result<()>,
}

impl<'a> Outputs<'a> {
    pub fn new(each: &'a mut dyn FnMut(Output) -> Result<()>) -> Outputs<'a> {
        Outputs { rows: None, handed: false, each }
    }

    /// Hands on the rows that have come.
    pub fn flush(&mut self) -> Result<()> {
        let Some(rows) = self.rows.take() else { return Ok(()) };
        self.handed = true;
        (self.each)(Output::Rows(rows))
    }
}

impl Answer for Outputs<'_> {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        match read(part)? {
            Part::Rows(batches) => {
                if let Some(rows) = &mut self.rows {
                    rows.batches.extend(batches);
                }
                Ok(())
            }
            Part::Columns(schema) => {
                self.flush()?;
                self.rows = Some(Rows { schema, batches: vec![] });
                Ok(())
            }
            Part::Text(text) => {
                self.flush()?;
                (self.each)(Output::Text(text))
            }
            Part::Plan(text) => {
                self.flush()?;
                self.handed = true;
                (self.each)(Output::Plan(text))
            }
        }
    }
}

impl Taker for Outputs<'_> {
    fn handed(&self) -> bool {
        self.handed
    }

    fn begin_anew(&mut self) {
        self.rows = None;
    }
}

/// Hands parts on.
pub(crate) struct Parts<'a> {
    each: &'a mut dyn FnMut(Part) -> Result<()>,
    follow: Option<&'a mut dyn FnMut(HowFar)>,
    handed: bool,
}

impl<'a> Parts<'a> {
    pub fn new(each: &'a mut dyn FnMut(Part) -> Result<()>, follow: Option<&'a mut dyn FnMut(HowFar)>) -> Parts<'a> {
        Parts { each, follow, handed: false }
    }
}

impl Answer for Parts<'_> {
    fn part(&mut self, part: AnswerPart) -> Result<()> {
        self.handed |= !matches!(part, AnswerPart::Text(_));
        (self.each)(read(part)?)
    }

    fn follows(&self) -> bool {
        self.follow.is_some()
    }

    fn follow(&mut self, how_far: HowFar) {
        if let Some(follow) = &mut self.follow {
            follow(how_far);
        }
    }
}

impl Taker for Parts<'_> {
    fn handed(&self) -> bool {
        self.handed
    }

    fn begin_anew(&mut self) {}
}

fn read(part: AnswerPart) -> Result<Part> {
    Ok(match part {
        AnswerPart::Columns(chunk) => Part::Columns(read_chunk(chunk)?.0),
        AnswerPart::Rows(chunk) => Part::Rows(read_chunk(chunk)?.1),
        AnswerPart::Text(text) => Part::Text(text),
        AnswerPart::Plan(text) => Part::Plan(text),
    })
}
