//! Regular files and a directory: offsets, offsets shared by dup, append mode, names relative to a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

const RECORD: usize = 32;
/// The files start again after so many rounds.
const ROUNDS_PER_FILE: u64 = 4096;

/// The files, all in one new directory.
pub(super) struct Files {
    path: PathBuf,
    directory: File,
    /// `first` and `second` share one offset; `reader` has its own.
    first: File,
    second: File,
    reader: File,
    appended: File,
    null: File,
    zero: File,
}

impl Files {
    /// Creates the directory under the system's temporary one, and opens every file.
    pub(super) fn create() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("target-files-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        let open = |name: &str, options: &mut OpenOptions| {
            options.open(path.join(name)).with_context(|| format!("opening {name}"))
        };
        let first = open("shared", OpenOptions::new().read(true).write(true).create(true).truncate(true))?;
        fs::write(path.join("appended"), b"").context("emptying the appended file")?;
        Ok(Self {
            second: first.try_clone().context("duplicating")?,
            reader: open("shared", OpenOptions::new().read(true))?,
            appended: open("appended", OpenOptions::new().read(true).append(true))?,
            directory: open(".", OpenOptions::new().read(true))?,
            null: open("/dev/null", OpenOptions::new().read(true).write(true))?,
            zero: open("/dev/zero", OpenOptions::new().read(true))?,
            first,
            path,
        })
    }

    /// Two records more in each file, read back.
    pub(super) fn round(&mut self, round: u64) -> Result<()> {
        let place = round % ROUNDS_PER_FILE;
        if place == 0 {
            self.start_again()?;
        }
        self.shared_offset(place)?;
        self.append(place)?;
        self.devices()?;
        self.by_name(place)
    }

    /// Removes the directory and everything in it.
    pub(super) fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| format!("removing {}", self.path.display()))
    }

    fn start_again(&mut self) -> Result<()> {
        self.first.set_len(0)?;
        self.first.rewind()?;
        self.reader.rewind()?;
        self.appended.set_len(0)?;
        Ok(())
    }

    fn shared_offset(&mut self, place: u64) -> Result<()> {
        let start = place * 2 * RECORD as u64;
        let at = self.second.stream_position()?;
        ensure!(at == start, "the shared offset is {at}, not {start}");
        self.first.write_all(&record(2 * place))?;
        self.second.write_all(&record(2 * place + 1))?;
        for number in [2 * place, 2 * place + 1] {
            let mut found = [0; RECORD];
            self.reader.read_exact(&mut found).context("reading at the own offset")?;
            ensure!(found == record(number), "record {number} is {:?}", String::from_utf8_lossy(&found));
        }
        Ok(())
    }

    fn append(&mut self, place: u64) -> Result<()> {
        self.appended.seek(SeekFrom::Start(0))?;
        self.appended.write_all(&record(place))?;
        let (length, expected) = (self.appended.metadata()?.len(), (place + 1) * RECORD as u64);
        ensure!(length == expected, "the appended file has {length} bytes, not {expected}");
        let mut found = [0; RECORD];
        self.appended.read_exact_at(&mut found, place / 2 * RECORD as u64)?;
        ensure!(found == record(place / 2), "appended record {} is wrong", place / 2);
        Ok(())
    }

    fn devices(&mut self) -> Result<()> {
        let mut byte = [1];
        ensure!(self.null.read(&mut byte)? == 0, "/dev/null gave a byte");
        ensure!(self.null.write(&byte)? == 1, "/dev/null took no byte");
        self.zero.read_exact(&mut byte)?;
        ensure!(byte == [0], "/dev/zero gave {byte:?}");
        Ok(())
    }

    /// Opens the shared file by its name in the directory that is held open.
    fn by_name(&self, place: u64) -> Result<()> {
        let opened = openat(&self.directory, "shared", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
            .context("opening relative to the directory")?;
        let mut found = [0; RECORD];
        File::from(opened).read_exact_at(&mut found, place * 2 * RECORD as u64)?;
        ensure!(found == record(2 * place), "the file by that name is another one");
        Ok(())
    }
}

fn record(number: u64) -> [u8; RECORD] {
    let mut record = [b'.'; RECORD];
    let text = format!("record {number}");
    record[..text.len()].copy_from_slice(text.as_bytes());
    record[RECORD - 1] = b'\n';
    record
}
