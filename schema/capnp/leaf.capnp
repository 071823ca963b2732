# What coordinators and other leaves ask of a leaf.
@0x9fd2b86a1c4e7035;

using Common = import "common.capnp";
using Done = Common.Done;
using Failure = Common.Failure;
using RowOrigin = Common.RowOrigin;
using RowSink = Common.RowSink;

# What a leaf's port offers before it knows who speaks.
interface Gate {
  enter @0 (hello :Common.Hello) -> (result :Entered);
}

struct Entered {
  union {
    leaf @0 :Leaf;
    failure @1 :Failure;
  }
  major @2 :UInt16;          # of the leaf
  minor @3 :UInt16;
}

interface Leaf {
  # Is it there, and what has it? Heartbeats call this.
  status @0 () -> (status :Status);

  # Prepares for the fragments of a query. The query ends, and all that it holds here is freed, when the capability is dropped.
  begin @1 (setup :QuerySetup) -> (result :Begun);

  # Rows of another fragment for a query that has begun here.
  receive @2 (query :UInt64, number :UInt32) -> (result :Received);

  # Creates and drops databases, partitions and tables.
  change @3 (change :Change) -> (result :Done);

  # Rows into one partition of a table; `ordinal` 0xffffffff: into the leaf's copy of a REFERENCE table.
  load @4 (database :Text, table :Text, ordinal :UInt32) -> (result :Loading);

  # Statistics of a database's tables over the partitions that the leaf has, for planning.
  statistics @5 (database :Text, ordinals :List(UInt32)) -> (result :Statistics);

  # Begins to change rows of some partitions. Dropped before it is prepared or committed, the transaction has changed nothing.
  # `blind`: it reads nothing, and what it sees matters only when it prepares or commits.
  beginTransaction @6 (setup :TransactionSetup, blind :Bool) -> (result :TransactionBegun);

  # Makes what a transaction prepared in a partition, or drops it; `ordinal` 0xffffffff: the REFERENCE tables, here and below.
  # `moment`: the one from which it counts; 0: not known.
  resolve @7 (database :Text, ordinal :UInt32, transaction :UInt64, commit :Bool, moment :UInt64) -> (result :Done);

  # Whether a transaction commits that a partition decides on. One that it does not know never will from now on.
  outcome @8 (database :Text, ordinal :UInt32, transaction :UInt64) -> (result :Decision);

  # Nobody will ask for these outcomes any more.
  forget @9 (database :Text, ordinal :UInt32, transactions :List(UInt64)) -> (result :Done);

  # Flushes or merges the partitions of a table that are here.
  optimize @10 (database :Text, table :Text, how :OptimizeHow) -> (result :Done);

  # How each partition of each table stands.
  mergeStatus @11 (database :Text) -> (result :MergeStatus);

  # Transactions that are prepared here and whose outcome the leaf does not know. Heartbeats call this too.
  inDoubt @12 () -> (transactions :List(InDoubt));

  # The coordinator that leads says what it wants of the leaf's copies, and the leaf how they stand. Called again and again.
  heartbeat @13 (orders :Orders) -> (result :Heartbeat);

  # Another leaf, the master of a partition for a term, feeds the copy that is here. Whoever fed it before is refused from now on.
  feed @14 (database :Text, ordinal :UInt32, term :UInt64) -> (result :Fed);

  # Gives a copy of a partition up: its files go.
  dropPartition @15 (database :Text, ordinal :UInt32) -> (result :Done);

  # Begins a backup of partitions: commits to them wait until their state is taken, a few seconds at most. Dropped, it has ended.
  backup @16 (setup :BackupSetup) -> (result :BackupBegun);

  # Makes a partition that is here, and empty, what it was in a backup.
  restore @17 (database :Text, ordinal :UInt32, from :BackupPlace) -> (result :Done);

  # All that a catalog can be made of again.
  holdings @18 () -> (result :Holdings);

  # Begins a query, runs the only fragment that it has here, and ends it; `rows` as in Query.run. Since version 1.1.
  query @19 (setup :QuerySetup, fragment :Fragment, sink :RowSink) -> (result :Ran, rows :Data);

  # How far a query is here: morsels that are done, and morsels of what has begun. Whoever waits for a fragment asks now and then.
  progress @20 (query :UInt64) -> (done :UInt64, total :UInt64);
}

struct Holdings {
  union {
    held :group {
      catalog @0 :Data;      # the last one that it got to keep; empty: none
      copies @1 :List(Copy); # ordinal 0xffffffff: REFERENCE tables
      silentMillis @2 :UInt64;   # how long no coordinator has given it orders
    }
    failure @3 :Failure;
  }

  struct Copy {
    database @0 :Text;
    ordinal @1 :UInt32;
    term @2 :UInt64;         # that it acts for
    position @3 :Position;
    bytes @4 :UInt64;
    tables @5 :List(Data);   # messages of manifest.capnp's Table, without partitions
  }
}

struct BackupSetup {
  database @0 :Text;
  ordinals @1 :List(UInt32); # 0xffffffff: the REFERENCE tables
  tables @2 :List(Data);     # messages of manifest.capnp's Table, without partitions: those that the backup is to have
}

struct BackupBegun {
  union {
    backup @0 :Backup;
    failure @1 :Failure;
  }
}

# Where a backup is: a folder that every node has under this path, or s3://BUCKET/PREFIX; and its name there.
struct BackupPlace {
  place @0 :Text;
  name @1 :Text;
}

# A backup of some partitions of a leaf.
interface Backup {
  # Takes the state of every partition; commits go on then. A hold that was over before is a retryable failure.
  freeze @0 () -> (result :Frozen);

  # Which of these transactions a partition has decided to commit, in the state that was taken.
  committed @1 (ordinal :UInt32, transactions :List(UInt64)) -> (result :Committed);

  # Copies the state of a partition. Those of its transactions in doubt that `committed` names commit in it, the others do not.
  copy @2 (ordinal :UInt32, to :BackupPlace, anew :Bool, committed :List(UInt64)) -> (result :Copied);
}

struct Frozen {
  union {
    partitions @0 :List(Partition);
    failure @1 :Failure;
  }

  struct Partition {
    ordinal @0 :UInt32;
    lsn @1 :UInt64;
    inDoubt @2 :List(InDoubt);     # `database` is empty
  }
}

struct Committed {
  union {
    transactions @0 :List(UInt64);
    failure @1 :Failure;
  }
}

struct Copied {
  union {
    counts :group {
      files @0 :UInt64;      # segment files that were copied
      bytes @1 :UInt64;      # of those
      kept @2 :UInt64;       # segment files that were there from earlier backups
    }
    failure @3 :Failure;
  }
}

# What the catalog says of a leaf's copies.
struct Orders {
  version @0 :UInt64;              # of the catalog; a leaf keeps to the highest that it has seen
  incarnation @1 :UInt64;          # of the leaf whose report was the last one that was dealt with
  sequence @2 :UInt64;             # of that report: everything in it is in the catalog, or refused
  copies @3 :List(Copy);           # every copy that the leaf is to have
  supersedes @4 :UInt64;           # a version that the leaf says it keeps to and that no catalog has had; 0: none
  catalog @5 :Data;                # the catalog, to be kept against the loss of all coordinators; empty: the leaf has it

  struct Copy {
    database @0 :Text;
    ordinal @1 :UInt32;
    term @2 :UInt64;
    role :union {
      replica @3 :Void;            # the master will feed it
      master :group {
        inSync @4 :List(Text);     # addresses of leaves without which no commit is acknowledged
        feed @5 :List(Text);       # addresses of leaves whose copies are to be brought up to date
      }
    }
    async @6 :Bool;                # rows count before they are on disk (DURABILITY ASYNC); since version 1.1
  }
}

struct Heartbeat {
  union {
    report @0 :Report;
    failure @1 :Failure;
  }
}

# How the copies of a leaf stand.
struct Report {
  incarnation @0 :UInt64;          # of the process: another one after every start
  sequence @1 :UInt64;             # counts the reports of the process
  version @2 :UInt64;              # of the orders that it keeps to; 0: none yet
  copies @3 :List(Copy);
  free @4 :UInt64;                 # bytes of the disk that its data is on, 1 if it is full; 0: not known
  rate @5 :UInt64;                 # bytes a second of copies that it makes anew elsewhere; 0: not known
  kept @6 :UInt64;                 # version of the catalog that it has got to keep; 0: none

  struct Copy {
    database @0 :Text;
    ordinal @1 :UInt32;
    term @2 :UInt64;               # that it acts for
    role @3 :Role;
    position @4 :Position;
    failure @5 :Text;              # why it cannot do what it was told; empty: it can
    fed @6 :List(FedCopy);         # a master: the copies that it feeds
    bytes @7 :UInt64;              # of its files: segments, log, and the manifest with rows in memory
  }

  struct FedCopy {
    address @0 :Text;
    state @1 :State;
    lsn @2 :UInt64;                # up to which it has everything
    failure @3 :Text;              # of the last try; empty: none
    bytesCopied @4 :UInt64;        # of a copy that is made anew
    bytesToCopy @5 :UInt64;
  }

  enum Role {
    none @0;                       # it waits for orders
    master @1;
    replica @2;
  }

  enum State {
    connecting @0;
    copying @1;                    # all of it, anew
    following @2;                  # behind
    inSync @3;                     # no commit is acknowledged without it
    failed @4;
  }
}

# The last record of a copy's log.
struct Position {
  lsn @0 :UInt64;
  term @1 :UInt64;
  checksum @2 :UInt64;             # of its body
}

struct Fed {
  union {
    open :group {
      copy @0 :FedCopy;
      position @1 :Position;       # where the copy stands; all zero: it is empty
    }
    failure @2 :Failure;
  }
}

# A copy that is fed. Calls come one after the other.
interface FedCopy {
  # Records that follow, whose segment files are there. They last when it returns.
  write @0 (records :List(Record)) -> (result :Stands);
  # The next bytes of a file, by its name in the data directory; `last`: it is whole, and lasts when this returns.
  file @1 (name :Text, data :Data, last :Bool) -> (result :Done);
  # From now on files are those of a new copy, which takes the place of this one when it is finished; "manifest" is the last.
  copyAnew @2 () -> (result :Done);
  finishCopy @3 () -> (result :Stands);
}

struct Record {
  lsn @0 :UInt64;
  term @1 :UInt64;
  body @2 :Data;
  more @3 :Bool;                   # the next record of this call, or of the next one, goes on with this body
}

struct Stands {
  union {
    position @0 :Position;
    failure @1 :Failure;
  }
}

struct Status {
  databases @0 :List(Database);

  struct Database {
    name @0 :Text;
    ordinals @1 :List(UInt32);   # of the partitions that are here
    bytes @2 :UInt64;            # of their segments
  }
}

struct QuerySetup {
  query @0 :UInt64;          # unique in the cluster
  database @1 :Text;
  ordinals @2 :List(UInt32); # of the partitions that this leaf reads
  address @3 :Text;          # by which others know this leaf
  moment @4 :UInt64;         # what is read is as it was then, in microseconds since 1970; 0: as it is now
}

struct InDoubt {
  database @0 :Text;
  ordinal @1 :UInt32;        # of the partition that waits
  transaction @2 :UInt64;
  decider @3 :UInt32;        # of the partition that decides
}

struct TransactionSetup {
  transaction @0 :UInt64;    # unique in the cluster, for ever
  database @1 :Text;
  address @2 :Text;          # by which others know this leaf
  ordinals @3 :List(UInt32); # of the partitions that the transaction may read and change here
  moment @4 :UInt64;         # what it sees is as it was then; 0: as it is now
}

struct TransactionBegun {
  union {
    transaction @0 :Transaction;
    failure @1 :Failure;
  }
}

# Changes of rows, in the order in which they come. What is said to be of an ordinal may be of 0xffffffff, the REFERENCE tables.
interface Transaction {
  # A query that sees what the transaction sees now; `query` is its number.
  query @0 (query :UInt64) -> (result :Begun);
  # Adds rows.
  insert @1 (table :Text, ordinal :UInt32, rows :NumberedRows) -> (result :Done);
  # Deletes rows, all of one partition.
  delete @2 (table :Text, ordinal :UInt32, addresses :List(UInt64)) -> (result :Done);
  # Which of these rows have a unique key that is there.
  duplicates @3 (table :Text, ordinal :UInt32, rows :NumberedRows) -> (result :Duplicates);
  # Rows by their addresses, in that order.
  read @4 (table :Text, ordinal :UInt32, addresses :List(UInt64)) -> (result :RowsRead);
  # Where `undo` goes back to.
  savepoint @5 () -> (result :Done);
  undo @6 () -> (result :Done);
  # Makes the changes of some partitions last, to be resolved; `decider` is the partition that will decide. `moment`: the earliest from
  # which they may count; 0: nothing was changed there.
  prepare @7 (ordinals :List(UInt32), decider :UInt32) -> (result :Done, moment :UInt64);
  # Commits the changes of one partition; `deciding`: and with them the transaction everywhere. `prepared`: the latest moment that the
  # others gave when they prepared, 0 without others. `moment`: the one from which it counts.
  commit @8 (ordinal :UInt32, deciding :Bool, prepared :UInt64) -> (result :Done, moment :UInt64);
  # Deletes rows by their values, as many as there are in the chunk: a copy of a REFERENCE table has them elsewhere.
  deleteRows @9 (table :Text, ordinal :UInt32, chunk :Data) -> (result :Done);
  # Takes many rows, which are of the transaction once the load is prepared. The transaction commits them, not the load.
  load @10 (table :Text, ordinal :UInt32) -> (result :Loading);
  # Removes all rows of a table.
  truncate @11 (table :Text, ordinal :UInt32) -> (result :Done);
}

struct NumberedRows {
  chunk @0 :Data;            # an Arrow IPC stream
  numbers @1 :List(UInt32);  # of each row, in messages
}

struct Duplicates {
  union {
    found :group {           # of the same length
      rows @0 :List(UInt32); # their places in the chunk
      addresses @1 :List(UInt64);
    }
    failure @2 :Failure;
  }
}

struct RowsRead {
  union {
    chunk @0 :Data;
    failure @1 :Failure;
  }
}

struct Decision {
  union {
    commit @0 :Bool;
    failure @1 :Failure;
  }
  moment @2 :UInt64;         # from which it counts
}

enum OptimizeHow {
  merge @0;
  full @1;
  flush @2;
}

struct MergeStatus {
  union {
    partitions @0 :List(Partition);
    failure @1 :Failure;
  }

  struct Partition {
    table @0 :Text;
    ordinal @1 :UInt32;
    segments @2 :UInt64;
    toMerge @3 :UInt64;      # segments that are to be merged
    rowsInMemory @4 :UInt64;
    deletedRows @5 :UInt64;  # that still take room
    state @6 :Text;          # idle, flushing, merging, waiting or failed; empty: a leaf that does not say
    error @7 :Text;          # why what was tried last failed; empty: it did not
  }
}

struct Begun {
  union {
    query @0 :Query;
    failure @1 :Failure;
  }
}

interface Query {
  # Runs a fragment. The rows go to `sink`, or to other leaves; it returns when they are there. `rows`: an Arrow IPC stream of the last
  # ones, which the sink did not get; empty: none.
  run @0 (fragment :Fragment, sink :RowSink) -> (result :Ran, rows :Data);
  # Stops what runs.
  cancel @1 () -> ();
}

struct Fragment {
  plan @0 :Data;             # a message of plan.capnp, complete in itself
  destination :union {
    caller @1 :Void;
    leaves :group {          # a broadcast
      number @2 :UInt32;     # under which they receive the rows
      addresses @3 :List(Text);
    }
    shuffle :group {         # each row to the leaf that owns the partition of the hash of its keys
      shuffleNumber @5 :UInt32;
      keys @6 :List(UInt32); # columns, as positions among those of the fragment
      to @7 :List(Text);     # addresses
      owners @8 :List(UInt32);  # for each partition a position in `to`
    }
  }
  filters @4 :List(Filter);  # results are right without them
  rowsInAnswer @9 :Bool;     # the last rows may come in the answer, if they are few
}

# The keys of a run-time filter.
struct Filter {
  id @0 :UInt32;             # as the plan names it
  min @1 :Int64;             # smallest and largest key
  max @2 :Int64;
  keys @3 :UInt64;           # how many; 0: no row passes
  members :union {
    all @4 :Void;            # every value from min to max
    bits @5 :List(UInt64);   # bit `key - min`, from the lowest of the first word
    bloom @6 :List(UInt64);  # a blocked Bloom filter: a power of two of words
  }
}

struct Ran {
  union {
    profile :group {
      nodes @0 :List(Common.NodeProfile);
      wallNanos @1 :UInt64;
      peakMemory @2 :UInt64;
      sentBytes @4 :UInt64;  # of rows, to wherever they went
    }
    failure @3 :Failure;
  }
}

struct Received {
  union {
    sink @0 :RowSink;
    failure @1 :Failure;
  }
}

struct Change {
  union {
    createPartitions :group {    # the database is made if it is not there
      database @0 :Text;
      ordinals @1 :List(UInt32);
    }
    dropDatabase @2 :Text;
    createTable :group {         # in every partition of the database that is here
      database @3 :Text;
      definition @4 :Data;       # a message of manifest.capnp's Table, without partitions
    }
    dropTable :group {
      database @5 :Text;
      table @6 :Text;
    }
    truncateTable :group {       # all rows go
      database @7 :Text;
      table @8 :Text;
    }
    alterTable :group {          # in every partition of the database that is here; one of a later version stays as it is
      database @9 :Text;
      definition @10 :Data;      # as in createTable
    }
  }
}

struct Loading {
  union {
    load @0 :Load;
    failure @1 :Failure;
  }
}

# Rows on their way into a partition. Dropped before `commit`, nothing of them stays.
interface Load {
  # Without `origin` the rows follow those before, or come from nowhere that messages could name.
  write @0 (chunk :Data, origin :RowOrigin) -> (result :Done);
  prepare @1 () -> (result :Done);   # all rows are durable, none is visible
  commit @2 () -> (result :Done);    # all are visible
}

struct Statistics {
  union {
    tables @0 :Data;           # a message of statistics.capnp
    failure @1 :Failure;
  }
}
