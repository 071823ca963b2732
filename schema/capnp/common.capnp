# What the interfaces of all nodes share.
@0xb7c3a9d05e2f4186;

# The first thing that either side of a connection says. A node answers a newer or older one by the rules of the version: the minor
# version only adds, so the neighbours of one talk to each other; another major version is refused.
struct Hello {
  major @0 :UInt16;
  minor @1 :UInt16;
  secret @2 :Data;           # the cluster's; empty where none is set
}

# Why a call could not be done. Exceptions of the RPC system itself mean that the other side is gone or does not follow the protocol.
struct Failure {
  kind @0 :Kind;
  message @1 :Text;          # for people: names the thing and, where there is one, the way out
  moment @2 :UInt64;         # other than 0: what was asked for is of an earlier moment than this one, the first that can be had

  enum Kind {
    user @0;                 # change the query or the data
    retryable @1;            # the same may succeed later
    fatal @2;                # neither will help
    cancelled @3;            # somebody asked for it
    memory @4;               # past a limit of memory
    denied @5;               # wrong secret, user, password, or not allowed
    conflict @6;             # another transaction came first: the same may succeed at once
    duplicateKey @7;         # there is a row with the same unique key
    altered @8;              # the call is of another definition of a table than the one that is there: plan it anew
  }
}

# The outcome of a call that only does something.
struct Done {
  union {
    done @0 :Void;
    failure @1 :Failure;
  }
}

# Where rows of a load came from, as messages say it.
struct RowOrigin {
  file @0 :Text;             # empty: no file
  lines @1 :Bool;            # lines of it, not rows
  first @2 :UInt64;          # the number of the first
  numbers @3 :List(UInt32);  # of each row, counted from `first`, ascending; empty: they follow each other
}

# Takes rows. The next chunk may be sent before the last was answered; a receiver that falls behind answers late.
interface RowSink {
  write @0 (chunk :Data) -> ();  # an Arrow IPC stream: schema and record batches
  # No more will come but the rows of `chunk`, if it is not empty; unless this is called, the rows are not complete. Only nodes since
  # version 1.1 look at `chunk`.
  done @1 (chunk :Data) -> ();
}

# What a plan node did.
struct NodeProfile {
  node @0 :UInt32;           # as the plan numbers it
  rows @1 :UInt64;
  batches @2 :UInt64;
  nanos @3 :UInt64;          # summed over threads
  memory @4 :UInt64;         # the most bytes that it held
  scan @5 :ScanProfile;      # absent but for scans
  notes @6 :List(Text);      # strategies and the like
}

struct ScanProfile {
  segments @0 :UInt64;
  segmentsSkipped @1 :UInt64;
  blocks @2 :UInt64;
  blocksSkipped @3 :UInt64;
  blocksByIndex @4 :UInt64;
  rows @5 :UInt64;
  rowsSelected @6 :UInt64;
  valuesDecoded @7 :UInt64;
}
