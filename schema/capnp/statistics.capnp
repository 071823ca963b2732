# Statistics of tables, for planning.
@0xc84e6f1d7a93b052;

using Plan = import "plan.capnp";

struct Statistics {
  tables @0 :List(Table);
}

struct Table {
  name @0 :Text;
  rows @1 :UInt64;
  bytes @2 :UInt64;          # on disk
  partitions @3 :UInt32;     # over which they are
  columns @4 :List(Column);  # in the order of the table's definition
}

struct Column {
  min @0 :Plan.Literal;      # absent: not known
  max @1 :Plan.Literal;
  distinct @2 :Float64;      # estimated; negative: not known
  nulls @3 :UInt64;
  averageLength @4 :Float64; # of strings, in bytes; negative: not known
}
