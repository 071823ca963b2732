//! Kernels at every level that the CPU has, on data that fits the first-level cache: `cargo bench -p stoa-bench --bench
//! kernels`. The figures are elements (values, rows, or for strings texts) a second.
#![allow(missing_docs)]

use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use std::hint::black_box;
use stoa_kernels::bitpack::{self, BLOCK};
use stoa_kernels::{Isa, aggregate, arith, compare, filter, grouped, hash, mask, probe, string};

/// Reproducible numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64, count: usize) -> Vec<u64> {
        (0..count).map(|_| self.draw() % limit).collect()
    }

    /// A block's mask of about this share of rows.
    fn mask(&mut self, percent: u64) -> Vec<u64> {
        let mut mask = vec![0; BLOCK / 64];
        (0..BLOCK).filter(|_| self.draw() % 100 < percent).for_each(|row| mask::set(&mut mask, row));
        mask
    }
}

/// One measurement for each level.
fn levels(group: &mut BenchmarkGroup<'_, WallTime>, name: impl std::fmt::Display, mut body: impl FnMut(Isa)) {
    group.throughput(Throughput::Elements(BLOCK as u64));
    for isa in Isa::available() {
        group.bench_function(BenchmarkId::new(name.to_string(), isa.name()), |bencher| bencher.iter(|| body(black_box(isa))));
    }
}

fn packed(width: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let values: Vec<u64> = (0..BLOCK).map(|_| 0).scan(Numbers(width as u64), |numbers, _: u64| Some(numbers.draw())).collect();
    bitpack::pack(&values, width, &mut bytes);
    bytes
}

fn bit_packing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("unpack");
    for width in [3, 7, 8] {
        let (bytes, mut out) = (packed(width), [0; BLOCK]);
        levels(&mut group, format!("u8/{width}"), |isa| bitpack::unpack_u8_with(isa, &bytes, width, black_box(&mut out)));
    }
    for width in [3, 12, 21] {
        let (bytes, mut out) = (packed(width), [0; BLOCK]);
        levels(&mut group, format!("i32/{width}"), |isa| bitpack::unpack_i32_with(isa, &bytes, width, 9, black_box(&mut out)));
    }
    for width in [7, 12, 24, 40] {
        let (bytes, mut out) = (packed(width), [0; BLOCK]);
        levels(&mut group, format!("i64/{width}"), |isa| bitpack::unpack_i64_with(isa, &bytes, width, 9, black_box(&mut out)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("compare_packed");
    for width in [3, 7, 12, 21, 40] {
        let (bytes, mut out, high) = (packed(width), [0; 16], 1 << (width - 1));
        levels(&mut group, width, |isa| bitpack::compare_packed_with(isa, &bytes, width, 1, high, black_box(&mut out)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("in_packed");
    for width in [3, 8, 11] {
        let (bytes, mut out, set) = (packed(width), [0; 16], Numbers(5).below(u64::MAX, 32));
        levels(&mut group, width, |isa| bitpack::in_packed_with(isa, &bytes, width, &set, black_box(&mut out)));
    }
    group.finish();
}

fn comparisons(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range");
    let mut out = [0; BLOCK / 64];
    let wide: Vec<i64> = Numbers(1).below(1000, BLOCK).into_iter().map(u64::cast_signed).collect();
    levels(&mut group, "i64", |isa| compare::range_with(isa, &wide, 100, 500, black_box(&mut out)));
    let narrow: Vec<i32> = wide.iter().map(|value| *value as i32).collect();
    levels(&mut group, "i32", |isa| compare::range_with(isa, &narrow, 100, 500, black_box(&mut out)));
    let bytes: Vec<u8> = wide.iter().map(|value| *value as u8).collect();
    levels(&mut group, "u8", |isa| compare::range_with(isa, &bytes, 100, 200, black_box(&mut out)));
    let floats: Vec<f64> = wide.iter().map(|value| *value as f64).collect();
    levels(&mut group, "f64", |isa| compare::range_with(isa, &floats, 100.0, 500.0, black_box(&mut out)));
    group.finish();
    let mut group = criterion.benchmark_group("compare_slices");
    let other: Vec<i64> = wide.iter().rev().copied().collect();
    levels(&mut group, "i64", |isa| compare::compare_slices_with(isa, compare::Op::Lt, &wide, &other, black_box(&mut out)));
    let other: Vec<i32> = narrow.iter().rev().copied().collect();
    levels(&mut group, "i32", |isa| compare::compare_slices_with(isa, compare::Op::Lt, &narrow, &other, black_box(&mut out)));
    group.finish();
}

fn moves(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("to_selection");
    for percent in [2, 50, 98] {
        let (bits, mut out) = (Numbers(percent).mask(percent), Vec::with_capacity(2 * BLOCK));
        levels(&mut group, format!("{percent}%"), |isa| {
            out.clear();
            mask::to_selection_with(isa, &bits, 0, black_box(&mut out));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("filter");
    let values = Numbers(2).below(u64::MAX, BLOCK);
    macro_rules! width {
        ($type:ty) => {
            let narrow: Vec<$type> = values.iter().map(|value| *value as $type).collect();
            for percent in [2, 50, 98] {
                let (bits, mut out) = (Numbers(percent).mask(percent), Vec::with_capacity(2 * BLOCK));
                levels(&mut group, format!("{}/{percent}%", stringify!($type)), |isa| {
                    out.clear();
                    filter::filter_with(isa, &narrow, &bits, black_box(&mut out));
                });
            }
        };
    }
    width!(u8);
    width!(u16);
    width!(u32);
    width!(u64);
    width!(u128);
    group.finish();
}

fn aggregates(criterion: &mut Criterion) {
    let values: Vec<i64> = Numbers(3).below(1 << 40, BLOCK).into_iter().map(u64::cast_signed).collect();
    let half = Numbers(50).mask(50);
    let mut group = criterion.benchmark_group("sum");
    levels(&mut group, "exact", |isa| _ = black_box(aggregate::sum_with(isa, &values, None)));
    levels(&mut group, "exact/mask", |isa| _ = black_box(aggregate::sum_with(isa, &values, Some(&half))));
    levels(&mut group, "wrapping/mask", |isa| _ = black_box(aggregate::wrapping_sum_with(isa, &values, Some(&half))));
    levels(&mut group, "min_max", |isa| _ = black_box(aggregate::min_max_with(isa, &values, None)));
    group.finish();
    let mut group = criterion.benchmark_group("grouped_sum");
    for count in [4, 8, 25, 200] {
        let groups: Vec<u8> = Numbers(4).below(count, BLOCK).into_iter().map(|group| group as u8).collect();
        let mut sums = vec![0i64; count as usize];
        levels(&mut group, format!("{count}"), |isa| {
            grouped::wrapping_sum_with(isa, &groups, &values, None, black_box(&mut sums));
        });
        let wide: Vec<u32> = groups.iter().map(|group| u32::from(*group)).collect();
        // Numbers of this width go into registers where they can.
        levels(&mut group, format!("{count}/u32"), |isa| {
            grouped::wrapping_sum_with(isa, &wide, &values, None, black_box(&mut sums));
        });
        levels(&mut group, format!("{count}/mask"), |isa| {
            grouped::wrapping_sum_with(isa, &groups, &values, Some(&half), black_box(&mut sums));
        });
        let mut sums = vec![0i128; count as usize];
        levels(&mut group, format!("{count}/exact"), |isa| {
            grouped::sum_with(isa, &groups, &values, None, black_box(&mut sums));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("arith");
    let mut out = vec![0i64; BLOCK];
    levels(&mut group, "mul", |isa| arith::slices_with(isa, arith::Op::Mul, &values, &values, black_box(&mut out)));
    levels(&mut group, "100-x", |isa| arith::reversed_with(isa, arith::Op::Sub, 100, &values, black_box(&mut out)));
    group.finish();
}

fn hashes_and_probes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hash");
    let (values, mut out) = (Numbers(6).below(u64::MAX, BLOCK), vec![0; BLOCK]);
    levels(&mut group, "u64", |isa| hash::hash_u64_with(isa, &values, 1, black_box(&mut out)));
    group.finish();
    let mut group = criterion.benchmark_group("bitset_probe");
    let keys: Vec<i64> = Numbers(7).below(100_000, BLOCK).into_iter().map(u64::cast_signed).collect();
    let bits = Numbers(8).below(u64::MAX, 100_000 / 64 + 1);
    for percent in [2, 100] {
        let before = Numbers(percent).mask(percent);
        levels(&mut group, format!("{percent}%"), |isa| {
            let mut mask = before.clone();
            probe::bitset_probe_with(isa, &keys, 0, &bits, black_box(&mut mask));
        });
    }
    group.finish();
}

fn strings(criterion: &mut Criterion) {
    let words = ["regular", "accounts", "sleep", "furiously", "special", "packages", "carefully", "requests", "among", "the"];
    let (mut offsets, mut data, mut numbers) = (vec![0u32], Vec::new(), Numbers(10));
    for _ in 0..BLOCK {
        for _ in 0..3 + numbers.draw() % 8 {
            data.extend_from_slice(words[numbers.draw() as usize % words.len()].as_bytes());
            data.push(b' ');
        }
        offsets.push(data.len() as u32);
    }
    let mut group = criterion.benchmark_group("strings");
    let mut out = [0; BLOCK / 64];
    levels(&mut group, "contains", |isa| string::contains_with(isa, &offsets, &data, b"special", black_box(&mut out)));
    let pattern = string::Like::new("%special%requests%", None);
    levels(&mut group, "like", |isa| pattern.matches_offsets_with(isa, &offsets, &data, black_box(&mut out)));
    group.finish();
}

criterion_group!(kernels, bit_packing, comparisons, moves, aggregates, hashes_and_probes, strings);
criterion_main!(kernels);
