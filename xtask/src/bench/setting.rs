//! Settings of the kernel's that are others while something is measured.

use std::fs;

use anyhow::{Context as _, ensure};

/// CRIU keeps pages in pipes of this size, which root may ask for.
const PIPE_BYTES: u64 = 16 << 20;
const PIPE_LIMIT: &str = "/proc/sys/fs/pipe-max-size";
/// Free blocks of fewer pages are not offered to the host of a virtual machine: two to the power of what the file says.
const REPORTING: &str = "/sys/module/page_reporting/parameters/page_reporting_order";
/// No block is as large (x86-64: `MAX_PAGE_ORDER` is 10).
const NEVER: u64 = 11;

/// A setting that is raised for as long as this lives.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    path: &'static str,
    /// What the machine had, to be put back.
    before: Option<String>,
}

impl Setting {
    /// Pipes may be large enough for CRIU.
    ///
    /// # Errors
    /// Who may not do so.
    pub(super) fn large_pipes() -> anyhow::Result<Self> {
        Self::raise(PIPE_LIMIT, PIPE_BYTES)
    }

    /// The machine keeps memory that is free. What its host has taken back takes seconds for a GiB when it is touched next,
    /// whoever does it: no property of those who are compared, and another one from minute to minute.
    ///
    /// # Errors
    /// It has no such host, or its kernel takes no such order (mainline, from 6.2 on, none above `MAX_PAGE_ORDER`).
    pub(super) fn keep_free_memory() -> anyhow::Result<Self> {
        Self::raise(REPORTING, NEVER)
    }

    fn raise(path: &'static str, least: u64) -> anyhow::Result<Self> {
        let read = || fs::read_to_string(path).with_context(|| format!("reading {path}"));
        let number = |text: &str| text.trim().parse::<u64>().with_context(|| format!("{path}: {text:?}"));
        let text = read()?;
        let is_low = number(&text)? < least;
        let raised = Self { path, before: is_low.then_some(text) };
        if is_low {
            fs::write(path, least.to_string())
                .with_context(|| format!("raising {path} to {least}, which takes root"))?;
            ensure!(number(&read()?)? >= least, "{path} stays as it is");
        }
        Ok(raised)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(self.path, before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a setting of the kernel's: what is written is there.
    fn raised(name: &str, value: &str, least: u64) -> (&'static str, anyhow::Result<Setting>) {
        let path = std::env::temp_dir().join(format!("posthaste-{name}-{}", std::process::id()));
        fs::write(&path, value).expect("a file");
        let path: &'static str = Box::leak(path.display().to_string().into_boxed_str());
        (path, Setting::raise(path, least))
    }

    #[test]
    fn a_setting_is_put_back_as_it_was() {
        let (path, setting) = raised("low", "9\n", 11);
        assert_eq!(fs::read_to_string(path).expect("it is there"), "11");
        drop(setting.expect("it may be written"));
        assert_eq!(fs::read_to_string(path).expect("it is there"), "9\n");
        fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn what_is_high_enough_stays() {
        let (path, setting) = raised("high", "12\n", 11);
        fs::write(path, "13\n").expect("a file");
        drop(setting.expect("nothing is written"));
        assert_eq!(fs::read_to_string(path).expect("it is there"), "13\n");
        fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn what_is_no_number_is_an_error_and_stays() {
        let (path, setting) = raised("none", "-1\n", 11);
        assert!(setting.is_err());
        assert_eq!(fs::read_to_string(path).expect("it is there"), "-1\n");
        fs::remove_file(path).expect("it is there");
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(Setting::raise("/proc/sys/fs/no-such-setting", 1).is_err());
    }
}
