//! Benchmarks of Stoa: the kernels by Criterion in `benches/`.
