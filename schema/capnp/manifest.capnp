# The manifest of a data directory: which tables exist and which segment files are theirs. Together they are the state
# of the directory at one moment; the log has what came later.
@0xd6f0a2b7c4183e55;

using Segment = import "segment.capnp";

struct Manifest {
  sequence @0 :UInt64;       # one more with every commit
  nextTableId @1 :UInt64;
  nextSegmentId @2 :UInt64;
  tables @3 :List(Table);
  views @4 :List(View);
  firstLog @5 :UInt64;       # the log file with the records after this state; those of a smaller number are done with
  term @6 :UInt64;
  pending @7 :List(Data);    # transactions that are prepared, and decisions: bodies of records of the log
  checksum @8 :UInt64;       # of the body of the last record
}

enum BitmapIndex {
  auto @0;
  declared @1;
  none @2;
}

struct Column {
  name @0 :Text;
  type @1 :Segment.ColumnType;
  nullable @2 :Bool;
  bitmapIndex @3 :BitmapIndex;
  sqlType @4 :Text;          # as declared, e.g. VARCHAR(25)
  number @5 :UInt32;         # which column of the stored rows it is; of no meaning if the table's nextColumn is 0
  initial @6 :Data;          # its value in rows from before it was there: a constant blob; empty: NULL
}

struct Table {
  id @0 :UInt64;
  name @1 :Text;
  columns @2 :List(Column);
  shardKey @3 :List(UInt32); # ordinals of columns
  sortKey @4 :List(UInt32);
  reference @5 :Bool;
  partitions @6 :List(Partition);
  uniqueKeys @7 :List(UniqueKey);
  nextColumn @8 :UInt32;     # the number of the next column that is added; 0: columns are numbered by their ordinals
  version @9 :UInt64;        # goes up with every change of the definition
}

struct UniqueKey {
  name @0 :Text;
  columns @1 :List(UInt32);
}

struct Partition {
  segments @0 :List(SegmentEntry);
  firstRow @1 :UInt64;       # the number of the first row in memory
  memory @2 :List(MemoryRows);
  deleted @3 :Data;          # a Roaring bitmap of the numbers of deleted rows in memory
}

# Consecutive rows in memory, as log.capnp has rows.
struct MemoryRows {
  batch @0 :Data;
  body @1 :Data;
  rows @2 :Data;
}

struct SegmentEntry {
  id @0 :UInt64;
  rows @1 :UInt64;
  length @2 :UInt64;         # of the file, in bytes
  footerChecksum @3 :UInt64; # as the file's trailer has it
  deleted @4 :Data;          # a Roaring bitmap of deleted rows; empty: none
  columns @5 :List(UInt32);  # numbers of the file's columns; empty: those of the table as it is defined here
}

struct View {
  name @0 :Text;
  sql @1 :Text;
}
