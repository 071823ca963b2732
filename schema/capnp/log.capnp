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
    prepare @10 :Prepared;               # changes that a transaction over several directories may make
    resolve @11 :Outcome;                # they are made, or never will be
    decide @12 :Outcome;                 # whether the transaction commits, in the directory that decides
    forget @13 :List(UInt64);            # decisions that nobody will ask for any more
  }
}

struct Prepared {
  transaction @0 :UInt64;                # unique among all directories
  decider @1 :UInt32;                    # the ordinal of the partition that decides
  changes @2 :List(Change);              # none of prepare, resolve, decide, forget
}

struct Outcome {
  transaction @0 :UInt64;
  commit @1 :Bool;
}

struct Rows {
  table @0 :UInt64;
  partition @1 :UInt32;
  batch @2 :Data;                        # before version 3: the message of an Arrow IPC record batch of the table's columns, without schema
  body @3 :Data;                         # and its body
  rows @4 :Data;                         # the table's columns, as docs/format.md draws them; batch and body are empty then
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
