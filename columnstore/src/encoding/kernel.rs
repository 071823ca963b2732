//! The kernels that encodings call, in the shapes in which they call them.

/// Values of a packed block.
pub(super) const PACKED: usize = 1024;
/// Mask words of a block.
pub(super) const WORDS: usize = PACKED / 64;

/// The largest value of a width.
#[inline]
pub(super) fn width_max(width: u8) -> u64 {
    if width >= 64 { u64::MAX } else { (1 << width) - 1 }
}

/// Bits that a value needs.
#[inline]
pub(super) fn bits(value: u64) -> u8 {
    (64 - value.leading_zeros()) as u8
}

/// Bytes of a packed block.
pub(super) fn packed_bytes(width: u8) -> usize {
    128 * usize::from(width)
}

fn lane_bits(width: u8) -> usize {
    match width {
        0..=8 => 8,
        9..=16 => 16,
        17..=32 => 32,
        _ => 64,
    }
}

/// Packs up to 1024 values.
pub(super) fn pack(values: &[u64], width: u8, out: &mut Vec<u8>) {
    let (width, lane) = (usize::from(width), lane_bits(width));
    let lanes = PACKED / lane;
    let start = out.len();
    out.resize(start + 128 * width, 0);
    let bytes = &mut out[start..];
    for (i, &value) in values.iter().enumerate() {
        let (l, bit) = (i % lanes, i / lanes * width);
        for b in 0..width {
            let at = bit + b;
            let position = ((at / lane) * lanes + l) * (lane / 8) + (at % lane) / 8;
            bytes[position] |= ((value >> b & 1) as u8) << (at % 8);
        }
    }
}

/// One value of a packed block.
#[inline]
pub(super) fn get(packed: &[u8], width: u8, i: usize) -> u64 {
    if width == 0 {
        return 0;
    }
    let (w, lane) = (usize::from(width), lane_bits(width));
    let lanes = PACKED / lane;
    let (l, bit) = (i % lanes, i / lanes * w);
    let word = |k: usize| {
        let mut raw = [0; 8];
        let at = (k * lanes + l) * (lane / 8);
        raw[..lane / 8].copy_from_slice(&packed[at..at + lane / 8]);
        u128::from(u64::from_le_bytes(raw))
    };
    let (k, shift) = (bit / lane, bit % lane);
    let mut value = word(k);
    if shift + w > lane {
        value |= word(k + 1) << lane;
    }
    (value >> shift) as u64 & width_max(width)
}

/// Unpacks and adds a base.
pub(super) fn unpack_i64(packed: &[u8], width: u8, base: i64, out: &mut [i64; PACKED]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = base.wrapping_add(get(packed, width, i) as i64);
    }
}

/// Unpacks and adds a base; the width is at most 32.
pub(super) fn unpack_i32(packed: &[u8], width: u8, base: i32, out: &mut [i32; PACKED]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = base.wrapping_add(get(packed, width, i) as i32);
    }
}

/// Unpacks; the width is at most 32.
pub(super) fn unpack_u32(packed: &[u8], width: u8, out: &mut [u32; PACKED]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = get(packed, width, i) as u32;
    }
}

/// Unpacks.
pub(super) fn unpack_u64(packed: &[u8], width: u8, out: &mut [u64; PACKED]) {
    for (i, out) in out.iter_mut().enumerate() {
        *out = get(packed, width, i);
    }
}

/// Which values are in a range.
pub(super) fn compare_packed(packed: &[u8], width: u8, low: u64, high: u64, mask: &mut [u64; WORDS]) {
    *mask = [0; WORDS];
    for i in 0..PACKED {
        mask[i / 64] |= u64::from((low..=high).contains(&get(packed, width, i))) << (i % 64);
    }
}

/// Which values' bits are set.
pub(super) fn in_packed(packed: &[u8], width: u8, set: &[u64], mask: &mut [u64; WORDS]) {
    *mask = [0; WORDS];
    for i in 0..PACKED {
        let v = get(packed, width, i) as usize;
        mask[i / 64] |= set.get(v / 64).map_or(0, |w| w >> (v % 64) & 1) << (i % 64);
    }
}
