//! How quickly missing memory is filled by one thread that does nothing else.

use std::time::Instant;

use anyhow::Context as _;
use memory::{Addr, PageRange};
use sys::served_memory::ServedMemory;

use super::receive::install;
use super::{BLOCK, PAGE};

/// GB a second for so many MiB, in blocks of `block` bytes of a warm buffer.
///
/// # Errors
/// Memory that cannot be served.
pub(in crate::bench) fn install_gb_per_s(mib: u64, in_blocks: bool) -> anyhow::Result<f64> {
    let buffer = vec![0x5a; if in_blocks { BLOCK } else { PAGE }];
    let memory = ServedMemory::new(mib * 256)?;
    let end = memory.range().end();
    let begin = Instant::now();
    let mut at = memory.range().start();
    while at < end {
        let block = PageRange::new(at, Addr(at.0 + buffer.len() as u64)).context("a block of the memory")?;
        install(memory.uffd(), block, &buffer)?;
        at = block.end();
    }
    Ok(Instant::now().duration_since(begin).as_secs_f64().recip() * gigabytes(mib))
}

/// So many MiB in GB.
pub(in crate::bench) fn gigabytes(mib: u64) -> f64 {
    (mib << 20) as f64 / 1e9
}
