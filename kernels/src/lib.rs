//! stoa-kernels
