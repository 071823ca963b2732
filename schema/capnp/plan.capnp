# The plan of a query: what a client or a coordinator submits for execution, and what a leaf receives as a fragment.
#
# This is a public interface. The rules by which it grows:
# - Fields, union members and enumerants are only added, with the next free number; none is renumbered, retyped or removed.
# - A writer that uses something a reader of version N would misread sets `requires` to the version that introduced it. A reader
#   refuses a message that requires more than it knows, and any union member or enumerant that it does not know.
# - A field that is absent reads as zero, false or empty; what that means is the behaviour from before the field was there.
# - Lists and depths are limited: schema/src/limits.rs has the figures.
#
# Every column of a query has one number, a ColumnId. A node defines columns by listing Fields; expressions above it name them by
# number. A reader checks that every column that is used is an output of the node below, with the type that it is used with.
@0xe3a1f8c05b7d4296;

using ColumnId = UInt32;     # names a column within one query
using ParameterId = UInt32;  # names the value of a scalar subplan within one query
using FilterId = UInt32;     # names a run-time filter within one query

# The root of a message.
struct Query {
  version @0 :UInt32;        # of the writer's schema, for people who read messages
  requires @1 :UInt32;       # lowest version that a reader must know to run this plan; 0: any
  subplans @2 :List(Subplan);  # run before the root, in this order; each may use the ones before it
  root @3 :Plan;             # its rows are the result
  output @4 :List(Field);    # names and order of the result's columns: ids are outputs of the root
}

# A plan that runs before the root.
struct Subplan {
  plan @0 :Plan;
  union {
    scalar @1 :ParameterId;  # one column, at most one row, becomes a parameter; no row: NULL; more than one: the user's error
    shared @2 :UInt32;       # rows are kept and read by SubplanScan nodes with this number
    received @3 :UInt32;     # rows that other fragments sent here under this number, read the same way; the plan only names columns
    filter @4 :FilterId;     # the keys of a run-time filter that another fragment published; the plan only names their column
  }
}

# A column that a node produces.
struct Field {
  id @0 :ColumnId;
  name @1 :Text;             # for people; need not be unique
  type @2 :Type;
  nullable @3 :Bool;
}

# A logical type.
struct Type {
  union {
    null @0 :Void;           # of a bare NULL
    bool @1 :Void;
    int8 @2 :Void;
    int16 @3 :Void;
    int32 @4 :Void;
    int64 @5 :Void;
    uint8 @6 :Void;
    uint16 @7 :Void;
    uint32 @8 :Void;
    uint64 @9 :Void;
    float32 @10 :Void;
    float64 @11 :Void;
    decimal :group {         # 1 <= precision <= 38, 0 <= scale <= precision
      precision @12 :UInt8;
      scale @13 :Int8;
    }
    date @14 :Void;          # days since 1970-01-01
    timestamp @15 :Void;     # microseconds since 1970-01-01 00:00:00, no time zone
    interval @16 :Void;      # months, days, nanoseconds; in expressions only
    utf8 @17 :Void;
    binary @18 :Void;
  }
}

# A constant. The member of the union fits the type, or is null.
struct Literal {
  type @0 :Type;
  union {
    null @1 :Void;
    bool @2 :Bool;
    int @3 :Int64;           # int8 to int64, date, timestamp
    uint @4 :UInt64;         # uint8 to uint64
    float @5 :Float64;       # float32, float64
    decimal :group {         # the unscaled value, two's complement, 128 bits in two halves
      low @6 :UInt64;
      high @7 :Int64;
    }
    string @8 :Text;
    bytes @9 :Data;
    interval :group {
      months @10 :Int32;
      days @11 :Int32;
      nanos @12 :Int64;
    }
  }
}

# A scalar expression. All casts are explicit: both sides of a comparison have one type (decimals may differ in precision and scale).
struct Expression {
  union {
    column :group {
      id @0 :ColumnId;
      type @1 :Type;         # as the defining field has it
    }
    literal @2 :Literal;
    parameter :group {       # the value of a scalar subplan
      id @3 :ParameterId;
      type @4 :Type;
    }
    binary :group {
      operator @5 :BinaryOperator;
      left @6 :Expression;
      right @7 :Expression;
      type @8 :Type;         # of the result
    }
    unary :group {
      operator @9 :UnaryOperator;
      input @10 :Expression;
    }
    cast :group {
      input @11 :Expression;
      type @12 :Type;
      safe @13 :Bool;        # TRY_CAST: a value that does not fit is NULL
    }
    case :group {
      branches @14 :List(Branch);
      otherwise @15 :Expression;  # absent: NULL
      type @16 :Type;
    }
    inList :group {
      input @17 :Expression;
      list @18 :List(Expression);
      negated @19 :Bool;
    }
    like :group {
      input @20 :Expression;
      pattern @21 :Expression;    # with % and _
      escape @22 :UInt32;         # a Unicode scalar value; 0: none
      negated @23 :Bool;
      caseInsensitive @24 :Bool;
    }
    function :group {
      name @25 :Text;             # lower case, as the function library names it
      args @26 :List(Expression);
      type @27 :Type;             # of the result
    }
  }
}

# One `WHEN condition THEN result`.
struct Branch {
  condition @0 :Expression;
  result @1 :Expression;
}

enum BinaryOperator {
  eq @0;
  notEq @1;
  lt @2;
  ltEq @3;
  gt @4;
  gtEq @5;
  isDistinctFrom @6;
  isNotDistinctFrom @7;
  and @8;
  or @9;
  add @10;
  sub @11;
  mul @12;
  div @13;
  mod @14;
  bitAnd @15;
  bitOr @16;
  bitXor @17;
  shiftLeft @18;
  shiftRight @19;
  concat @20;
  regexMatch @21;       # ~
  regexIMatch @22;      # ~*
  regexNotMatch @23;    # !~
  regexNotIMatch @24;   # !~*
}

enum UnaryOperator {
  not @0;
  negate @1;
  isNull @2;
  isNotNull @3;
  isTrue @4;
  isNotTrue @5;
  isFalse @6;
  isNotFalse @7;
  isUnknown @8;
  isNotUnknown @9;
}

# A node of the plan and the tree below it.
struct Plan {
  id @0 :UInt32;             # unique within the query, or 0 in all nodes: not numbered; profiles refer to it
  rows @1 :Float64;          # estimated output rows; 0: no estimate
  union {
    scan @2 :Scan;
    values @3 :Values;
    subplanScan @4 :SubplanScan;
    filter :group {          # keeps the rows for which the predicate is true
      input @5 :Plan;
      predicate @6 :Expression;
    }
    project :group {         # outputs exactly these; an expression that is a bare column may keep its id
      input @7 :Plan;
      expressions @8 :List(Computed);
    }
    join @9 :Join;
    aggregate @10 :Aggregate;
    sort :group {
      input @11 :Plan;
      keys @12 :List(SortKey);  # most significant first
      limit @13 :RowLimit;      # with it the node is a top-k
    }
    limit :group {
      input @14 :Plan;
      limit @15 :RowLimit;
    }
    union :group {           # all rows of all inputs
      inputs @16 :List(UnionInput);
      fields @17 :List(Field);
    }
    window :group {          # the input's columns and one per call
      input @18 :Plan;
      calls @19 :List(WindowCall);
    }
    exchange @20 :Exchange;
    repeat :group {          # every row as often as the expression, an Int64, says; NULL is 0
      input @21 :Plan;
      times @22 :Expression;
    }
  }
}

# A column and the expression that computes it; both have one type.
struct Computed {
  field @0 :Field;
  expression @1 :Expression;
}

# Rows `skip`, `skip + 1`, ... of a node's output, at most `fetch` of them.
struct RowLimit {
  skip @0 :UInt64;
  union {
    all @1 :Void;
    fetch @2 :UInt64;
  }
}

# Reads a table.
struct Scan {
  table @0 :Text;
  columns @1 :List(ScanColumn);         # produced
  filters @2 :List(Expression);         # all of them must be true; over columns and filterColumns
  filterColumns @3 :List(ScanColumn);   # only read by the filters, not produced
  runtimeFilters @4 :List(RuntimeFilter);  # may be applied if they are ready in time; results are right without them
  reference @5 :Bool;                   # a REFERENCE table: every leaf has all of it
  shardKey @6 :List(UInt32);            # ordinals of the table's shard key
  revision @7 :UInt64;                  # of the definition that the ordinals are of; 0: whichever is there
}

# A column of a table.
struct ScanColumn {
  ordinal @0 :UInt32;        # position in the table, from 0
  field @1 :Field;
}

# A filter that a join of the same query publishes, and the column of the scan that it applies to.
struct RuntimeFilter {
  filter @0 :FilterId;
  column @1 :ColumnId;
}

# Literal rows.
struct Values {
  fields @0 :List(Field);
  rows @1 :List(Row);

  struct Row {
    expressions @0 :List(Expression);  # one per field; constant: no columns
  }
}

# Reads the rows of a shared subplan.
struct SubplanScan {
  subplan @0 :UInt32;
  columns @1 :List(Column);

  struct Column {
    source @0 :ColumnId;     # inside the subplan
    field @1 :Field;
  }
}

# Joins two inputs. Output: the columns of left, then right; for semi and anti joins those of one side; for mark joins those of
# the left side and the mark.
struct Join {
  left @0 :Plan;
  right @1 :Plan;
  kind :union {
    inner @2 :Void;
    left @3 :Void;
    right @4 :Void;
    full @5 :Void;
    leftSemi @6 :Void;
    leftAnti @7 :Void;
    rightSemi @8 :Void;
    rightAnti @9 :Void;
    leftMark @10 :Field;     # every left row and whether it has a match; NULL where IN of SQL says so
  }
  on @11 :List(Equality);    # all of them must hold
  nullEqualsNull @12 :Bool;  # NULL equals NULL in `on`
  residual @13 :Expression;  # what else must hold; absent: nothing
  build @14 :Side;           # the side that is built into a table
  publishes @15 :List(Publication);

  struct Equality {
    left @0 :Expression;
    right @1 :Expression;
  }

  # A run-time filter over the build side's keys, there when the build is complete.
  struct Publication {
    filter @0 :FilterId;
    on @1 :UInt32;           # index into `on`
  }
}

enum Side {
  left @0;
  right @1;
}

# Groups and aggregates. Output: the keys, the grouping id if any, the calls (in the partial phase an opaque binary state each).
struct Aggregate {
  input @0 :Plan;
  keys @1 :List(Computed);   # none: one group, also over no rows
  groupingSets @2 :List(GroupingSet);  # none: one set of all keys
  groupingId @3 :Field;      # of type uint32: bit n-1-i is set where key i of n is rolled up; absent: none
  calls @4 :List(Call);
  phase @5 :Phase;

  struct GroupingSet {
    keys @0 :List(UInt32);   # indexes of the keys that the set keeps; the others are NULL
  }

  struct Call {
    field @0 :Field;
    function @1 :AggregateFunction;
    args @2 :List(Expression);
    distinct @3 :Bool;
    filter @4 :Expression;   # absent: every row
    orderBy @5 :List(SortKey);
    type @6 :Type;           # of the final value
  }
}

enum Phase {
  single @0;   # rows to values, in one node
  partial @1;  # rows to states, in a fragment
  final @2;    # states to values; the input gathers a partial aggregate with the same keys and calls
}

enum AggregateFunction {
  count @0;             # without an argument: rows; with some: rows where none of them is NULL
  sum @1;
  avg @2;
  min @3;
  max @4;
  varPop @5;
  varSamp @6;
  stddevPop @7;
  stddevSamp @8;
  covarPop @9;
  covarSamp @10;
  corr @11;
  median @12;
  percentileCont @13;   # the value and the literal fraction
  approxDistinct @14;
  approxPercentile @15; # the value and the literal fraction
  boolAnd @16;
  boolOr @17;
  bitAnd @18;
  bitOr @19;
  bitXor @20;
  stringAgg @21;        # the value and the separator
  firstValue @22;
  lastValue @23;
  anyValue @24;
  regrSlope @25;
  regrIntercept @26;
  regrR2 @27;
  regrCount @28;
  regrAvgx @29;
  regrAvgy @30;
  regrSxx @31;
  regrSyy @32;
  regrSxy @33;
}

# One key of a sort.
struct SortKey {
  expression @0 :Expression;
  descending @1 :Bool;
  nullsFirst @2 :Bool;
}

# One input of a union: column `columns[i]` becomes output column i.
struct UnionInput {
  plan @0 :Plan;
  columns @1 :List(ColumnId);
}

# A window function over the rows of its input.
struct WindowCall {
  field @0 :Field;
  function @1 :Text;
  args @2 :List(Expression);
  partitionBy @3 :List(Expression);
  orderBy @4 :List(SortKey);
  frame @5 :Text;            # ROWS BETWEEN ... AND ...
}

# Moves rows from the fragments below it, which run once a partition, to those above it.
struct Exchange {
  input @0 :Plan;
  union {
    gather @1 :Void;         # to the one merging fragment
    broadcast @2 :Void;      # whole, to every partition's fragment
    shuffle @3 :List(Expression);  # by hash of these
  }
}
