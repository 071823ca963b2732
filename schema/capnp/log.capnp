# What a record of the log of a data directory says; docs/format.md draws the file around it.
@0xe3c1f6a09b7d2451;

using Manifest = import "manifest.capnp";

# All changes of a record are made, or none is.
struct Record {
  changes @0 :List(Change);
}

struct Change {
  union {
    createTable @0 :Manifest.Table;      # without segments; as many partitions as it has
    dropTable @1 :UInt64;                # by its number, as everywhere here
    createView @2 :Manifest.View;        # or replaces it
    dropView @3 :Text;
    insert @4 :Rows;                     # into memory
    attach @5 :Segments;                 # rows that were loaded
    delete @6 :Addresses;
    rewrite @7 :Rewrite;                 # the same rows elsewhere
    alterTable @8 :Manifest.Table;       # another definition; without segments
    truncateTable @9 :UInt64;
  }
}

struct Rows {
  table @0 :UInt64;
  partition @1 :UInt32;
  batch @2 :Data;                        # the message of an Arrow IPC record batch of the table's columns, without schema
  body @3 :Data;                         # its body
}

struct Segments {
  table @0 :UInt64;
  partition @1 :UInt32;
  segments @2 :List(Manifest.SegmentEntry);
}

struct Addresses {
  table @0 :UInt64;
  partition @1 :UInt32;
  rows @2 :Data;                         # a Roaring bitmap of 64-bit addresses
}

struct Rewrite {
  table @0 :UInt64;
  partition @1 :UInt32;
  through @2 :UInt64;                    # the rows in memory before this number are in the segments
  removed @3 :List(UInt64);              # so are those of these segments
  segments @4 :List(Manifest.SegmentEntry);
}
