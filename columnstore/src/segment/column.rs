//! A column of an open segment: it skips by zone maps, looks up the bitmap index, filters and reads encoded values.

use std::ops::Range;
use std::sync::OnceLock;

use arrow::array::ArrayRef;
use arrow::buffer::Buffer;

use crate::bitmap_index::{PassingValues, ValueIndex};
use crate::encoding::{EncodedColumn, PreparedPredicate};
use crate::segment::file::SegmentFile;
use crate::segment::footer::ColumnFooter;
use crate::types::domain;
use crate::zone::{BlockZones, KeySpace, Span, Verdict, Zone, ZoneTest};
use crate::{BLOCK_ROWS, Predicate, Result};

const BLOCK_WORDS: usize = BLOCK_ROWS / 64;

/// A column of a segment. Its bytes were checked against their checksum when it was opened.
pub struct Column {
    encoded: EncodedColumn,
    zone: Zone,
    segment_span: Span,
    space: KeySpace,
    blocks: Option<BlockZones>,
    index: Option<ValueIndex>,
    rows: usize,
}

/// What filters did, block by block. Counters only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilterCounters {
    /// Blocks without a passing row by their zone map.
    pub blocks_skipped: u64,
    /// Blocks that pass as a whole by their zone map.
    pub blocks_taken_whole: u64,
    /// Blocks whose values were compared.
    pub blocks_evaluated: u64,
    /// Blocks that the bitmap index answered.
    pub bitmap_index_used: u64,
}

impl FilterCounters {
    /// Adds another's counts.
    pub fn add(&mut self, other: &FilterCounters) {
        self.blocks_skipped += other.blocks_skipped;
        self.blocks_taken_whole += other.blocks_taken_whole;
        self.blocks_evaluated += other.blocks_evaluated;
        self.bitmap_index_used += other.bitmap_index_used;
    }
}

/// A predicate made ready for one column of one segment: once per segment, for all its blocks and threads.
#[derive(Debug)]
pub struct PreparedFilter {
    predicate: Predicate,
    test: ZoneTest,
    verdict: Verdict,
    way: OnceLock<Way>,
}

/// How blocks that zone maps leave open are decided.
#[derive(Debug)]
enum Way {
    Index(PassingValues),
    Encoded(PreparedPredicate),
}

impl PreparedFilter {
    /// What the segment's zone map says.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// How blocks were decided, for people; `None` if none had to be looked at.
    #[must_use]
    pub fn kernel(&self) -> Option<&'static str> {
        self.way.get().map(|way| match way {
            Way::Index(_) => "bitmap index",
            Way::Encoded(prepared) => prepared.kernel(),
        })
    }
}

impl Column {
    /// Checks and opens the blobs of a column; `Err` says what is wrong.
    pub(crate) fn open(file: &SegmentFile, footer: &ColumnFooter, rows: usize) -> std::result::Result<Column, String> {
        let data = file.blob(footer.data, "its data")?;
        let encoded = EncodedColumn::open(footer.encoding, &footer.ty, rows, data)?;
        let zone = footer.zone.clone();
        let mut space = KeySpace::of_zone(domain(&footer.ty), &zone);
        let blocks = if footer.block_zones.length == 0 {
            None
        } else {
            let blocks = BlockZones::open(file.blob(footer.block_zones, "its block zones")?, rows)?;
            if let KeySpace::Bytes { prefix, exact } = &mut space {
                let (length, exact_keys) = blocks.string_keys();
                // What all values share is what the smallest starts with.
                match &zone.min {
                    Some(crate::Datum::Bytes(min)) if min.len() >= length => *prefix = min[..length].to_vec(),
                    _ if length == 0 => prefix.clear(),
                    _ => return Err("its block zones name a prefix that it does not have".into()),
                }
                *exact = exact_keys;
            }
            Some(blocks)
        };
        let index = if footer.bitmap_index.length == 0 {
            None
        } else {
            Some(ValueIndex::open(file.blob(footer.bitmap_index, "its bitmap index")?, &footer.ty, rows)?)
        };
        Ok(Column { encoded, segment_span: space.span(&zone), zone, space, blocks, index, rows })
    }

    /// Opens a column that has nothing but its data.
    pub(super) fn without_blocks(footer: &ColumnFooter, rows: usize, data: Buffer) -> std::result::Result<Column, String> {
        let encoded = EncodedColumn::open(footer.encoding, &footer.ty, rows, data)?;
        let zone = footer.zone.clone();
        let space = KeySpace::of_zone(domain(&footer.ty), &zone);
        Ok(Column { encoded, segment_span: space.span(&zone), zone, space, blocks: None, index: None, rows })
    }

    /// The encoded values.
    #[must_use]
    pub fn encoded(&self) -> &EncodedColumn {
        &self.encoded
    }

    /// The zone map of the segment.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// The zone map of a block. String bounds are those of the first bytes, rounded outwards.
    #[must_use]
    pub fn block_zone(&self, block: usize) -> Zone {
        match &self.blocks {
            None => self.zone.clone(),
            Some(blocks) => self.space.zone(&blocks.get(block)),
        }
    }

    /// The bitmap index, if the column has one in this segment.
    #[must_use]
    pub fn bitmap_index(&self) -> Option<&ValueIndex> {
        self.index.as_ref()
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// What zone maps say about a predicate, for a block or the whole segment.
    #[must_use]
    pub fn verdict(&self, predicate: &Predicate, block: Option<usize>) -> Verdict {
        let span = block.map_or(self.segment_span, |block| self.span(block));
        ZoneTest::new(predicate, &self.space).verdict(&span)
    }

    fn span(&self, block: usize) -> Span {
        self.blocks.as_ref().map_or(self.segment_span, |blocks| blocks.get(block))
    }

    /// Makes a predicate ready for this column.
    #[must_use]
    pub fn prepare(&self, predicate: &Predicate) -> PreparedFilter {
        let test = ZoneTest::new(predicate, &self.space);
        let verdict = test.verdict(&self.segment_span);
        PreparedFilter { predicate: predicate.clone(), test, verdict, way: OnceLock::new() }
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`; see [`Column::filter_prepared`].
    ///
    /// # Errors
    /// As [`EncodedColumn::filter`].
    pub fn filter(
        &self,
        predicate: &Predicate,
        first_row: usize,
        rows: usize,
        mask: &mut [u64],
        counters: &mut FilterCounters,
    ) -> Result<()> {
        self.filter_prepared(&self.prepare(predicate), first_row, rows, mask, counters)
    }

    /// `mask` &= the predicate over rows `first_row..first_row + rows`, where `first_row` is a multiple of [`BLOCK_ROWS`], the mask
    /// has `rows.div_ceil(64)` words, and the filter was prepared by this column. Zone maps decide whole blocks first, then the
    /// bitmap index if few rows pass, else encoded values are compared. Blocks whose mask is all zero are not looked at.
    ///
    /// # Errors
    /// As [`EncodedColumn::filter`].
    pub fn filter_prepared(
        &self,
        filter: &PreparedFilter,
        first_row: usize,
        rows: usize,
        mask: &mut [u64],
        counters: &mut FilterCounters,
    ) -> Result<()> {
        let mut open = 0..0;
        for (i, first) in (0..rows).step_by(BLOCK_ROWS).enumerate() {
            let end = (first + BLOCK_ROWS).min(rows);
            let words = i * BLOCK_WORDS..(i * BLOCK_WORDS + BLOCK_WORDS).min(mask.len());
            let Some(block_mask) = mask.get_mut(words) else { break };
            let verdict = match filter.verdict {
                _ if block_mask.iter().all(|w| *w == 0) => Verdict::All,
                Verdict::Some => {
                    let verdict = filter.test.verdict(&self.span(first_row / BLOCK_ROWS + i));
                    counters.count(verdict);
                    verdict
                }
                verdict => {
                    counters.count(verdict);
                    verdict
                }
            };
            match verdict {
                Verdict::None => block_mask.fill(0),
                Verdict::All => {}
                Verdict::Some if open.end == first && !open.is_empty() => open.end = end,
                Verdict::Some => {
                    self.filter_open(filter, first_row, std::mem::replace(&mut open, first..end), mask, counters)?;
                }
            }
        }
        self.filter_open(filter, first_row, open, mask, counters)
    }

    /// Filters rows that zone maps leave open; `range` is relative to `first_row` and starts at a block.
    fn filter_open(
        &self,
        filter: &PreparedFilter,
        first_row: usize,
        range: Range<usize>,
        mask: &mut [u64],
        counters: &mut FilterCounters,
    ) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let blocks = range.len().div_ceil(BLOCK_ROWS) as u64;
        let (first, rows) = (first_row + range.start, range.len());
        let mask = &mut mask[range.start / 64..range.end.div_ceil(64)];
        match self.way(filter)? {
            Way::Index(values) => {
                counters.bitmap_index_used += blocks;
                if let Some(index) = &self.index {
                    index.filter(values, first, rows, mask);
                }
                Ok(())
            }
            Way::Encoded(prepared) => {
                counters.blocks_evaluated += blocks;
                self.encoded.filter_prepared(prepared, first, rows, mask)
            }
        }
    }

    fn way<'a>(&self, filter: &'a PreparedFilter) -> Result<&'a Way> {
        if let Some(way) = filter.way.get() {
            return Ok(way);
        }
        let of_values = match &filter.predicate {
            Predicate::Range { .. } | Predicate::In(_) | Predicate::NotEqual(_) => true,
            // A function may accept NULL, which is in no bitmap.
            Predicate::Function(_) => self.zone.nulls == 0,
            Predicate::IsNull | Predicate::IsNotNull | Predicate::KeySet(_) => false,
        };
        let passing = match &self.index {
            Some(index) if of_values => index.passing(&filter.predicate, self.rows)?,
            _ => None,
        };
        let way = match passing {
            Some(values) => Way::Index(values),
            None => Way::Encoded(self.encoded.prepare(&filter.predicate)?),
        };
        Ok(filter.way.get_or_init(|| way))
    }

    /// Reads rows; see [`EncodedColumn::read`].
    ///
    /// # Errors
    /// As [`EncodedColumn::read`].
    pub fn read(&self, first_row: usize, rows: usize, selection: Option<&[u32]>) -> Result<ArrayRef> {
        self.encoded.read(first_row, rows, selection)
    }
}

impl FilterCounters {
    fn count(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::None => self.blocks_skipped += 1,
            Verdict::All => self.blocks_taken_whole += 1,
            Verdict::Some => {}
        }
    }
}

/// A verdict from the footer alone, before the column is opened.
pub(crate) fn footer_verdict(footer: &ColumnFooter, predicate: &Predicate) -> Verdict {
    let space = KeySpace::of_zone(domain(&footer.ty), &footer.zone);
    ZoneTest::new(predicate, &space).verdict(&space.span(&footer.zone))
}
