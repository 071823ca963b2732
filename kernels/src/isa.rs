//! The instruction set levels, and the only place that detects CPU features.
//!
//! A level stands for a whole set of features. [`isa`] is the level that kernels use: the best one that the CPU has, or a
//! lower one when the environment variable `STOA_ISA` names it (`scalar`, `avx2`, `avx512`). A level that the CPU lacks
//! is never run: [`Isa::usable`] lowers it first, which is what makes the safe functions of this crate sound.

use std::sync::OnceLock;

/// An instruction set level; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What the compilation target guarantees: SSE2 on x86-64, NEON on aarch64.
    Scalar,
    /// AVX2, BMI1, BMI2, LZCNT and POPCNT.
    Avx2,
    /// The above and AVX-512 F, BW, CD, DQ, VL, VBMI, VBMI2 and VPOPCNTDQ (Ice Lake, Zen 4 and later).
    Avx512,
}

impl Isa {
    /// Every level, lowest first.
    pub const ALL: [Isa; 3] = [Isa::Scalar, Isa::Avx2, Isa::Avx512];

    /// The levels that this CPU can run, lowest first.
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|level| *level <= supported())
    }

    /// The name that `STOA_ISA` takes.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The level of that name, upper or lower case.
    pub fn from_name(name: &str) -> Option<Isa> {
        Isa::ALL.into_iter().find(|level| level.name().eq_ignore_ascii_case(name.trim()))
    }

    /// This level, or the best one of this CPU if that is lower.
    #[inline]
    pub fn usable(self) -> Isa {
        self.min(supported())
    }

    /// Runs `body` compiled for this level. The body has to be `#[inline(always)]` down to its loops, or else it keeps
    /// the code of the lowest level.
    #[inline(always)]
    pub(crate) fn run<R>(self, body: impl FnOnce() -> R) -> R {
        match self.usable() {
            Isa::Scalar => body(),
            // SAFETY: `usable` returns a level only if the CPU has all of its features.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => unsafe { run_avx2(body) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => unsafe { run_avx512(body) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => body(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx2<R>(body: impl FnOnce() -> R) -> R {
    body()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,avx512vpopcntdq")]
#[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
fn run_avx512<R>(body: impl FnOnce() -> R) -> R {
    body()
}

/// The level that kernels use, found once.
#[inline]
pub fn isa() -> Isa {
    static LEVEL: OnceLock<Isa> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let wanted = std::env::var("STOA_ISA").ok().and_then(|name| Isa::from_name(&name));
        wanted.map_or(supported(), Isa::usable)
    })
}

/// The best level that this CPU has, found once.
#[inline]
pub fn supported() -> Isa {
    static LEVEL: OnceLock<Isa> = OnceLock::new();
    *LEVEL.get_or_init(detect)
}

#[cfg(target_arch = "x86_64")]
fn detect() -> Isa {
    macro_rules! all { ($($feature:tt),*) => { $(is_x86_feature_detected!($feature))&&* } }
    if !all!("avx2", "bmi1", "bmi2", "lzcnt", "popcnt") {
        return Isa::Scalar;
    }
    if all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512vbmi", "avx512vbmi2", "avx512vpopcntdq") {
        return Isa::Avx512;
    }
    Isa::Avx2
}

#[cfg(not(target_arch = "x86_64"))]
fn detect() -> Isa {
    Isa::Scalar
}

#[cfg(test)]
mod tests {
    //! Names round-trip and no level is used that the CPU lacks.
    use super::*;

    #[test]
    fn names() {
        for level in Isa::ALL {
            assert_eq!(Isa::from_name(level.name()), Some(level));
            assert!(level.usable() <= supported());
        }
        assert_eq!(Isa::from_name(" AVX2 "), Some(Isa::Avx2));
        assert_eq!(Isa::from_name("sse9"), None);
        assert!(isa() <= supported());
        assert_eq!(Isa::available().next(), Some(Isa::Scalar));
    }
}
