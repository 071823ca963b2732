# What administers a cluster: every statement that does, as a call. The user of the session needs the same privileges.
@0xa94c1d6f07e3b852;

using Common = import "common.capnp";
using Failure = Common.Failure;

interface Admin {
  # Nodes. Addresses are HOST:PORT, by which the other nodes reach them.
  addLeaf @0 (address :Text, group :UInt8) -> (result :Said);   # group 0: the smaller one
  removeLeaf @1 (address :Text, force :Bool) -> (result :Said);
  addCoordinator @2 (address :Text) -> (result :Said);
  removeCoordinator @3 (address :Text) -> (result :Said);

  # Databases. Zero partitions or copies: what is usual in this cluster.
  createDatabase @4 (name :Text, ifNotExists :Bool, partitions :UInt32, redundancy :UInt8, async :Bool) -> (result :Said);
  dropDatabase @5 (name :Text, ifExists :Bool) -> (result :Said);

  # Ends a statement, by its number in the process list, on whichever coordinator it runs.
  killQuery @6 (query :UInt64) -> (result :Said);

  # What there is, with the columns of SHOW LEAVES, SHOW AGGREGATORS and so on.
  leaves @7 () -> (result :Listing);
  coordinators @8 () -> (result :Listing);
  databases @9 () -> (result :Listing);
  partitions @10 (database :Text) -> (result :Listing);         # empty: the session's database
  clusterStatus @11 () -> (result :Listing);
  processList @12 () -> (result :Listing);

  # Takes a leaf out, replicas take over; lets it, or with an empty address all that are out, take part again.
  detachLeaf @13 (address :Text, force :Bool) -> (result :Said);
  attachLeaf @14 (address :Text) -> (result :Said);

  # Moves copies. They return when it is done; dropping the call does not undo it, `cancelRebalance` ends it. Where `database` is empty
  # it is all of them.
  rebalance @15 (database :Text, full :Bool) -> (result :Said); # full: together with the copies of the other databases
  restoreRedundancy @16 (database :Text) -> (result :Said);
  cancelRebalance @17 (database :Text) -> (result :Said);
  clearOrphans @18 () -> (result :Listing);                     # those that it removed

  # What these would do, with the columns of EXPLAIN; and what they do now, as SHOW REBALANCE STATUS.
  explainRebalance @19 (database :Text, full :Bool) -> (result :Listing);
  explainRestoreRedundancy @20 (database :Text) -> (result :Listing);
  explainClearOrphans @21 () -> (result :Listing);
  rebalanceStatus @22 (database :Text) -> (result :Listing);

  # Copies a database to a place, or makes it again from the newest copy there, under a new name or (empty) its own. They return when it
  # is done; dropping the call ends it.
  backup @23 (database :Text, to :Text, incremental :Bool) -> (result :Said);
  restore @24 (database :Text, newName :Text, from :Text) -> (result :Said);

  # Makes the catalog of a cluster that lost all of its coordinators from what leaves hold, on new ones; and what that would be.
  recover @25 (leaves :List(Text)) -> (result :Said);
  explainRecover @26 (leaves :List(Text)) -> (result :Listing);

  # Users.
  createUser @27 (name :Text, password :Text, ifNotExists :Bool) -> (result :Said);
  dropUser @28 (name :Text, ifExists :Bool) -> (result :Said);
  setPassword @29 (name :Text, password :Text) -> (result :Said);
  users @32 () -> (result :Listing);

  # What a user may do. `privileges`: SELECT and so on; none: all. On a table (without `database`: of the session's), a database (without
  # `table`), or, without both, everything.
  grant @30 (privileges :List(Text), database :Text, table :Text, user :Text) -> (result :Said);
  revoke @31 (privileges :List(Text), database :Text, table :Text, user :Text) -> (result :Said);
  grants @33 (user :Text) -> (result :Listing);                 # empty: of the session's
}

struct Said {
  union {
    text @0 :Text;           # what was done, for people
    failure @1 :Failure;
  }
}

struct Listing {
  union {
    rows @0 :Data;           # an Arrow IPC stream
    failure @1 :Failure;
  }
}
