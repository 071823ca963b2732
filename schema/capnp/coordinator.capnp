# What clients ask of a coordinator, and coordinators of each other.
@0xd1a75c0e8b3f2964;

using Admin = import "admin.capnp";
using Common = import "common.capnp";
using Done = Common.Done;
using Failure = Common.Failure;
using RowOrigin = Common.RowOrigin;

# What a coordinator's port offers before it knows who speaks.
interface Gate {
  # A session of a user. `database` may be empty: the one named `stoa`. The hello of a client may have no secret: a connection has one
  # try then, and user and password must be those of a user. `lost`: the client's session before had a transaction open, which was lost with
  # its coordinator: statements fail up to the COMMIT or ROLLBACK that was to end it.
  enter @0 (hello :Common.Hello, user :Text, password :Text, database :Text, lost :Bool) -> (result :Entered);
  # Another coordinator; needs the cluster's secret.
  peer @1 (hello :Common.Hello) -> (result :PeerEntered);
}

struct Entered {
  union {
    session @0 :Session;
    failure @1 :Failure;
  }
  major @2 :UInt16;
  minor @3 :UInt16;
}

struct PeerEntered {
  union {
    peer @0 :Peer;
    failure @1 :Failure;
  }
}

# Statements, prepared ones too, run one after the other in the order in which they were sent; calls may be sent before the last was
# answered. Dropping a call, or the connection, cancels it, whether it runs or waits.
interface Session {
  # Runs statements in order up to the first that fails. `progress`: the answer wants to know how far they are. `statement`: a number that
  # the client chose at random, with the highest bit set, to ask another coordinator with what came of it if this one is lost
  # (`outcome`); 0: it will not ask. Nothing is decided then under a number that the client does not know: the first transaction has this
  # one, and the answer is told of any other before (`deciding`). Who names a number sends the next statement only once it has the result of
  # the last. `whole`: an answer that is small and made at once may come with the result, in `parts`, instead of through `answer`.
  # `open`: whether a transaction is open now. `refused`: nothing was done, as the coordinator is shutting down: ask another one.
  execute @0 (sql :Text, answer :Answer, progress :Bool, statement :UInt64, whole :Bool)
      -> (result :Done, open :Bool, refused :Bool, parts :List(Part));
  # Runs a plan, a message of plan.capnp without exchanges: the coordinator optimizes and distributes it.
  executePlan @1 (plan :Data, answer :Answer, progress :Bool, whole :Bool) -> (result :Done, refused :Bool, parts :List(Part));
  # Rows into a table, all or none. `statement`: as of `execute`.
  load @2 (table :Text, statement :UInt64) -> (result :Loading);
  # The columns of a table as an Arrow IPC stream without rows.
  describe @3 (table :Text) -> (result :Described);
  # Names of tables and views, for completion.
  names @4 () -> (names :List(Text));
  # What administers the cluster, as this session's user.
  admin @5 () -> (admin :Admin.Admin);
  # Parses one statement whose open values are each written as `?`. What is prepared ends with the connection, or when it is dropped.
  prepare @6 (sql :Text) -> (result :Prepared);
  # What came of a statement whose coordinator was lost, by its text (of a load: empty) and all numbers that its client knows of it. What
  # was not committed under one of them never will be.
  outcome @7 (sql :Text, transactions :List(UInt64)) -> (result :Outcome, open :Bool);
}

# What came of a statement.
struct Outcome {
  union {
    committed @0 :Void;        # all of it was done
    never @1 :Void;            # it changed nothing, and never will: it can be run again
    unknown @2 :Text;          # why that cannot be found out
    failure @3 :Failure;
  }
}

# What a client hands in to get results. Each call is answered when the client has taken it: this is the back-pressure.
interface Answer {
  columns @0 (stream :Data) -> ();   # a statement's rows follow; an Arrow IPC stream without rows
  rows @1 (chunk :Data) -> ();       # an Arrow IPC stream
  text @2 (text :Text, plan :Bool) -> ();  # what a statement without rows says; `plan`: the lines of EXPLAIN
  # How far a query is that takes longer than a second: what is done, and of how much, which may grow. Only if the call asked for it.
  progress @3 (done :UInt64, total :UInt64) -> ();
  # A transaction of this number is about to be decided. It is once this is answered, and not if it fails.
  deciding @4 (transaction :UInt64) -> ();
}

# What one call of `Answer` says.
struct Part {
  union {
    columns @0 :Data;
    rows @1 :Data;
    text @2 :Text;
    plan @3 :Text;
  }
}

struct Prepared {
  union {
    done :group {
      statement @0 :PreparedStatement;
      parameters @1 :UInt32; # how many values it takes
    }
    failure @2 :Failure;
  }
}

interface PreparedStatement {
  # Runs the statement with a value for each `?`, in their order. The rest is as of `Session.execute`.
  execute @0 (parameters :List(Parameter), answer :Answer, progress :Bool, statement :UInt64, whole :Bool)
      -> (result :Done, open :Bool, refused :Bool, parts :List(Part));
}

# The value of a parameter: as if it stood in the text as a literal.
struct Parameter {
  union {
    null @0 :Void;
    bool @1 :Bool;
    int @2 :Int64;
    float @3 :Float64;
    decimal @4 :Text;        # digits with a sign and a point: -12.50
    string @5 :Text;
    date @6 :Int32;          # days since 1970-01-01
    timestamp @7 :Int64;     # microseconds since 1970-01-01 00:00:00, no time zone
    bytes @8 :Data;
  }
}

struct Loading {
  union {
    load @0 :Load;
    failure @1 :Failure;
  }
}

# Rows on their way into a table. Dropped before `finish`, nothing of them stays.
interface Load {
  # `origin` is for messages; without it the rows follow those before. Its `numbers` are not looked at.
  write @0 (chunk :Data, origin :RowOrigin) -> (result :Done);
  finish @1 () -> (result :Loaded);
}

struct Loaded {
  union {
    rows @0 :UInt64;
    failure @1 :Failure;
  }
}

struct Described {
  union {
    columns @0 :Data;          # an Arrow IPC stream without rows
    failure @1 :Failure;
  }
}

# Coordinators among themselves.
interface Peer {
  # A message of the consensus for this node, and the answer to it.
  consensus @0 (message :Data) -> (result :Data);
  # A statement of a session on another coordinator that only the leader may run. Dropping the call cancels it.
  decide @1 (user :Text, database :Text, sql :Text) -> (result :Decided);
  # Gives a coordinator that has no part in a cluster its number in the caller's.
  adopt @2 (node :UInt64) -> (result :Done);
  status @3 () -> (status :PeerStatus);
  # What runs on it, as far as a user may see that.
  processes @4 (user :Text) -> (processes :List(Process));
  # Ends what has this number in its process list, if the user may.
  kill @5 (user :Text, number :UInt64) -> (found :Bool);
}

# What runs on a coordinator.
struct Process {
  number @0 :UInt64;
  user @1 :Text;
  database @2 :Text;
  text @3 :Text;
  micros @4 :UInt64;         # for which it has run
}

struct Decided {
  union {
    done :group {
      text @0 :Text;
      version @1 :UInt64;    # of the catalog in which the statement's changes are
      rows @4 :Data;         # an Arrow IPC stream, if the statement gives rows; then there is no text
    }
    failure @2 :Failure;
    notLeader @3 :Void;      # nothing was done: ask the leader
  }
}

struct PeerStatus {
  node @0 :UInt64;           # its number; 0: it has no part in a cluster
  leader @1 :Text;           # where the coordinator listens that leads, as far as this one knows; empty: none
  version @2 :UInt64;        # of its catalog
}
