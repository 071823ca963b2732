//! The checksum of everything on disk: CRC-64/NVME, computed with carry-less multiplication at memory speed.

/// The checksum of `bytes`.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::crc64_nvme(bytes)
}
