//! Where a row is in its table: one number, so that a query can carry it like a value.
//!
//! ```text
//! bits 50..64  the ordinal of the partition in its database
//! bit  49      1: in memory; 0: in a segment
//! bits  0..49  in memory: the row's number in its partition; in a segment: the segment's number, and the row in 20 bits
//! ```
//!
//! An address is right for the state of the table that gave it. Rows keep their addresses until a flush or a merge moves them.

/// Bits of a row in a segment.
const ROW_BITS: u32 = 20;
const MEMORY: u64 = 1 << 49;
const PLACE: u64 = MEMORY - 1;
const PARTITION_SHIFT: u32 = 50;

/// The place of a row in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A row in memory, by its number.
    Memory(u64),
    /// A row of a segment.
    Segment {
        /// The segment.
        id: u64,
        /// The row.
        row: u32,
    },
}

impl Place {
    /// The address in partition `ordinal`.
    pub(crate) fn address(self, ordinal: u32) -> u64 {
        let place = match self {
            Place::Memory(number) => MEMORY | number,
            Place::Segment { id, row } => id << ROW_BITS | u64::from(row),
        };
        u64::from(ordinal) << PARTITION_SHIFT | place
    }

    /// The partition's ordinal and the place of an address.
    pub(crate) fn of(address: u64) -> (u32, Place) {
        let (ordinal, place) = ((address >> PARTITION_SHIFT) as u32, address & PLACE);
        if address & MEMORY != 0 {
            return (ordinal, Place::Memory(place));
        }
        (ordinal, Place::Segment { id: place >> ROW_BITS, row: (place & ((1 << ROW_BITS) - 1)) as u32 })
    }
}

/// The ordinal of the partition that an address is in.
#[must_use]
pub fn partition_of_address(address: u64) -> u32 {
    Place::of(address).0
}

/// The address of the same place in partition `ordinal`: each data directory counts its own partitions.
#[must_use]
pub fn address_in_partition(address: u64, ordinal: u32) -> u64 {
    Place::of(address).1.address(ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        for place in [Place::Memory(0), Place::Memory(PLACE), Place::Segment { id: 0, row: 0 }] {
            assert_eq!(Place::of(place.address(0)), (0, place));
        }
        let last = Place::Segment { id: (1 << 29) - 1, row: (1 << ROW_BITS) - 1 };
        assert_eq!(Place::of(last.address(crate::MAX_PARTITIONS - 1)), (crate::MAX_PARTITIONS - 1, last));
    }
}
