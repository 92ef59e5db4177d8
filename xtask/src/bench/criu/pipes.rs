//! Pipes that are as large as CRIU wants them.

use std::fs;

use anyhow::Context as _;

/// CRIU keeps pages in pipes of this size, which root may ask for.
const PIPE_BYTES: u64 = 16 << 20;
const PIPE_LIMIT: &str = "/proc/sys/fs/pipe-max-size";

/// Pipes may be large enough for CRIU for as long as this lives.
#[derive(Clone, Debug)]
pub(in crate::bench) struct PipeLimit {
    /// The machine's own limit, to be put back.
    before: Option<String>,
}

impl PipeLimit {
    /// Raises it, if it is lower.
    ///
    /// # Errors
    /// Who may not do so.
    pub(super) fn raise() -> anyhow::Result<Self> {
        let limit = fs::read_to_string(PIPE_LIMIT).with_context(|| format!("reading {PIPE_LIMIT}"))?;
        let is_low = limit.trim().parse().is_ok_and(|bytes: u64| bytes < PIPE_BYTES);
        if is_low {
            fs::write(PIPE_LIMIT, PIPE_BYTES.to_string())
                .with_context(|| format!("raising {PIPE_LIMIT}, which takes root"))?;
        }
        Ok(Self { before: is_low.then_some(limit) })
    }
}

impl Drop for PipeLimit {
    fn drop(&mut self) {
        if let Some(limit) = &self.before {
            let _ = fs::write(PIPE_LIMIT, limit);
        }
    }
}
