# The manifest of a data directory: which tables exist and which segment files are theirs. Replaced as a whole by every commit.
@0xd6f0a2b7c4183e55;

using Segment = import "segment.capnp";

struct Manifest {
  sequence @0 :UInt64;       # one more with every commit
  nextTableId @1 :UInt64;
  nextSegmentId @2 :UInt64;
  tables @3 :List(Table);
  views @4 :List(View);
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
}

struct Table {
  id @0 :UInt64;
  name @1 :Text;
  columns @2 :List(Column);
  shardKey @3 :List(UInt32); # ordinals of columns
  sortKey @4 :List(UInt32);
  reference @5 :Bool;
  partitions @6 :List(Partition);
}

struct Partition {
  segments @0 :List(SegmentEntry);
}

struct SegmentEntry {
  id @0 :UInt64;
  rows @1 :UInt64;
  length @2 :UInt64;         # of the file, in bytes
  footerChecksum @3 :UInt64; # as the file's trailer has it
}

struct View {
  name @0 :Text;
  sql @1 :Text;
}
