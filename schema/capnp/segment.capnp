# The footer of a segment file; docs/format.md draws the file around it.
@0xb1a6c5d40f3e9a71;

# What a column holds, independent of SQL spelling.
enum TypeKind {
  boolean @0;
  int8 @1;
  int16 @2;
  int32 @3;
  int64 @4;
  uint8 @5;
  uint16 @6;
  uint32 @7;
  uint64 @8;
  float32 @9;
  float64 @10;
  decimal64 @11;   # precision and scale given
  decimal128 @12;  # precision and scale given
  date32 @13;
  timestampMicros @14;
  utf8 @15;
  binary @16;
}

struct ColumnType {
  kind @0 :TypeKind;
  precision @1 :UInt8;
  scale @2 :Int8;
}

# A range of bytes of the file. `length` 0: absent.
struct Blob {
  offset @0 :UInt64;
  length @1 :UInt64;
  checksum @2 :UInt64;  # CRC-64/NVME of the bytes
}

# Smallest and largest value that is not NULL.
struct Bounds {
  union {
    none @0 :Void;       # every value is NULL
    integer :group {     # two's complement, 128 bits in two halves
      minLow @1 :UInt64;
      minHigh @2 :Int64;
      maxLow @3 :UInt64;
      maxHigh @4 :Int64;
    }
    float :group {
      min @5 :Float64;
      max @6 :Float64;
    }
    bytes :group {
      min @7 :Data;
      max @8 :Data;
      minExact @9 :Bool;      # otherwise `min` is a lower bound: a long value was cut
      maxExact @10 :Bool;     # otherwise `max` is an upper bound
      maxUnbounded @11 :Bool; # `max` is empty and bounds nothing
    }
  }
}

struct Column {
  type @0 :ColumnType;
  encoding @1 :UInt8;        # the tag of the encoding
  data @2 :Blob;             # the encoded values, 64-byte aligned
  blockZones @3 :Blob;       # zone maps of the 1024-row blocks
  bitmapIndex @4 :Blob;      # one Roaring bitmap per distinct value, if it pays
  nulls @5 :UInt64;
  bounds @6 :Bounds;
  distinct @7 :UInt64;       # estimate
  sketch @8 :Data;           # distinct-count sketch, mergeable over segments
  rawBytes @9 :UInt64;       # size of the values before encoding
}

struct SegmentFooter {
  rows @0 :UInt64;
  columns @1 :List(Column);
}
