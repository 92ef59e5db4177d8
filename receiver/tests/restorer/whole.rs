//! Whole images through reserve, map, register and resume.

use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use memory::{PAGE_SIZE, PageRange};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{DescriptionKind, Manifest};
use receiver::guardian::{ExitStatus, GuardianEvent};
use receiver::policy::Policy;
use receiver::restorer::{Registered, RestoreError, Restorer, Running};
use sys::uffd::{CopyOutcome, EventLog, Uffd, UffdEvent};

use super::image::{BREAK, Code, DATA, HEAP, Image, LAZY, PID, ThreadCode, pages};
use super::{Case, Outcome, privileged};

pub(super) const CASES: &[Case] = &[
    ("a_program_goes_on_where_its_frame_says_and_its_exit_status_is_told", goes_on),
    ("memory_fields_names_and_directory_are_the_programs_own", fields_are_its_own),
    ("nothing_of_the_restorer_stays", nothing_stays),
    ("one_thread_keeps_its_id_name_and_rseq", || threads_keep(1)),
    ("eight_threads_keep_ids_names_and_rseq", || threads_keep(8)),
    ("256_threads_keep_ids_names_and_rseq", || threads_keep(256)),
    ("threads_come_and_go_until_the_last_moment", threads_of_the_last_moment),
    ("what_a_program_gives_up_late_its_threads_do_not_have", what_is_given_up_late_is_refused),
    ("what_is_missing_is_named_before_anything_is_built", missing_is_named),
    ("a_page_that_somebody_has_touched_is_not_taken_for_the_programs", touched_is_refused),
];

/// A file that the program writes to as descriptor 3.
pub(super) struct Report {
    path: PathBuf,
}

impl Report {
    pub(super) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("posthaste-restorer-{}-{name}", std::process::id()));
        std::fs::write(&path, b"").expect("a file");
        Self { path }
    }

    pub(super) fn attach(&self, image: &mut Image, fd: u32) -> u32 {
        let file = image.file(&self.path);
        image.descriptor(fd, libc::O_WRONLY | libc::O_APPEND, DescriptionKind::File { file })
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(super) fn read(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the report")
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Builds the image.
pub(super) fn build(image: &Image) -> (Restorer<Registered>, Uffd) {
    build_upon(&image.manifest, image)
}

/// Builds the image of a program that was as `first` when everything was reserved.
fn build_upon(first: &Manifest, image: &Image) -> (Restorer<Registered>, Uffd) {
    let (restorer, _) =
        Restorer::reserve(first, &Policy::default()).unwrap_or_else(|error| panic!("{}", error.line()));
    let restorer = restorer.map(&image.manifest).unwrap_or_else(|error| panic!("{}", error.line()));
    let (restorer, uffd) = restorer.register().unwrap_or_else(|error| panic!("{}", error.line()));
    for (range, bytes) in image.eager() {
        assert!(!restorer.is_registered(range));
        restorer.write(range, &bytes).unwrap_or_else(|error| panic!("{}", error.line()));
    }
    (restorer, uffd)
}

/// Builds the image and lets it run.
pub(super) fn run(image: &Image) -> (Running, Uffd) {
    resume(build(image))
}

fn resume((restorer, uffd): (Restorer<Registered>, Uffd)) -> (Running, Uffd) {
    (restorer.assemble().and_then(Restorer::resume).unwrap_or_else(|error| panic!("{}", error.line())), uffd)
}

/// Serves missing pages as pages of their own number, until the program ends; `at_first` runs at the first
/// fault, before it is answered.
pub(super) fn serve(running: &mut Running, uffd: &Uffd, mut at_first: impl FnMut(u32)) -> ExitStatus {
    let mut first = true;
    loop {
        let socket = running.guardian.readiness().expect("it tells of the exit");
        let mut interests =
            [PollFd::new(uffd.as_fd(), PollFlags::POLLIN), PollFd::new(socket, PollFlags::POLLIN)];
        let ready = poll(&mut interests, PollTimeout::from(20_000_u16)).expect("poll");
        assert!(ready > 0, "the program neither ends nor asks for a page");
        let mut log = EventLog::new(32).expect("memory");
        for event in log.read(0, uffd, 16).expect("events") {
            let UffdEvent::Fault { addr, .. } = event else { continue };
            if std::mem::take(&mut first) {
                at_first(running.pid);
            }
            let page = PageRange::page_of(addr).expect("an address");
            let bytes = vec![u8::try_from((page.start().0 - LAZY) / PAGE_SIZE).expect("few") + 1; 4096];
            assert_eq!(uffd.copy(page, &bytes).expect("copy"), CopyOutcome::Copied(1));
        }
        if let Some(GuardianEvent::ChildExited(status)) = running.guardian.event().expect("the guardian") {
            return status;
        }
    }
}

pub(super) fn main_thread(code: Code) -> ThreadCode {
    ThreadCode { tid: PID, code, name: b"handmade" }
}

fn goes_on() -> Outcome {
    privileged()?;
    let report = Report::new("goes-on");
    let mut code = Code::default();
    code.call(libc::SYS_getpid, &[]).store(DATA + 64).write(3, DATA + 64, 8);
    code.write(3, LAZY + PAGE_SIZE, 4).exit(42);
    let mut image = Image::new(vec![main_thread(code)]);
    report.attach(&mut image, 3);
    let (mut running, uffd) = run(&image);
    let status = serve(&mut running, &uffd, |_| ());
    assert_eq!(status, ExitStatus::Code(42));
    let mut expected = u64::from(PID).to_le_bytes().to_vec();
    expected.extend_from_slice(&[2; 4]);
    assert_eq!(report.read(), expected);
    Ok(())
}

fn fields_are_its_own() -> Outcome {
    privileged()?;
    let report = Report::new("fields");
    let mut code = Code::default();
    code.call(libc::SYS_brk, &[0]).store(DATA + 64);
    code.call(libc::SYS_brk, &[BREAK + 100 * PAGE_SIZE]).store(DATA + 72);
    code.call(libc::SYS_umask, &[0]).store(DATA + 80);
    // Grown memory and a grown stack are there.
    code.call(libc::SYS_getcwd, &[HEAP + 90 * PAGE_SIZE, 64]).write(3, HEAP + 90 * PAGE_SIZE, 5);
    code.write(3, DATA + 64, 24).write(3, LAZY, 1).exit(0);
    let mut image = Image::new(vec![main_thread(code)]);
    image.poke(DATA, b"hello\0");
    report.attach(&mut image, 3);
    let (mut running, uffd) = run(&image);
    let status = serve(&mut running, &uffd, |pid| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).expect("of the process");
        assert_eq!(read("cmdline"), b"hello\0");
        assert_eq!(read("comm"), b"handmade\n");
        assert_eq!(read("auxv")[..8], 6_u64.to_le_bytes());
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).expect("an executable");
        assert_eq!(link, std::fs::canonicalize("/bin/true").expect("there"));
        let maps = String::from_utf8(read("maps")).expect("text");
        assert!(maps.contains("[heap]") && maps.contains("[stack]") && maps.contains("[vdso]"), "{maps}");
    });
    assert_eq!(status, ExitStatus::Code(0));
    let mut expected = b"/usr\0".to_vec();
    for word in [BREAK, BREAK + 100 * PAGE_SIZE, 0o27] {
        expected.extend_from_slice(&word.to_le_bytes());
    }
    expected.push(1);
    assert_eq!(report.read(), expected);
    Ok(())
}

fn nothing_stays() -> Outcome {
    privileged()?;
    let report = Report::new("nothing");
    let mut code = Code::default();
    code.write(7, LAZY, 1).exit(0);
    let mut image = Image::new(vec![main_thread(code)]);
    report.attach(&mut image, 7);
    let (mut running, uffd) = run(&image);
    let status = serve(&mut running, &uffd, |pid| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        assert!(!maps.contains("posthaste"), "{maps}");
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
        let fds: Vec<_> = fds.map(|fd| fd.expect("an entry").file_name()).collect();
        assert_eq!(fds, ["7"]);
    });
    assert_eq!(status, ExitStatus::Code(0));
    Ok(())
}

/// Each thread stores its id and its name; the main thread waits for all and reports.
fn threads_keep(count: u32) -> Outcome {
    const FUTEX_WAIT: u64 = 0;
    const PR_GET_NAME: u64 = 16;
    const RESULTS: u64 = DATA + 50 * PAGE_SIZE;
    const RESULT_BYTES: u64 = 32;
    privileged()?;
    let report = Report::new("threads");
    let mut threads = Vec::new();
    for index in 0..u64::from(count) {
        let mut code = Code::default();
        let at = RESULTS + index * RESULT_BYTES;
        let tid = PID + u32::try_from(index).expect("few") * 3;
        code.call(libc::SYS_gettid, &[]).store(at);
        code.call(libc::SYS_prctl, &[PR_GET_NAME, at + 8]);
        if index == 0 {
            for other in 1..u64::from(count) {
                let id = u64::from(PID) + other * 3;
                code.call(libc::SYS_futex, &[Image::tid_word(other), FUTEX_WAIT, id, 0]);
            }
            code.write(3, RESULTS, RESULT_BYTES * u64::from(count));
            code.write(3, Image::rseq_cpu(u64::from(count) - 1), 4).exit(0);
        } else {
            code.call(libc::SYS_exit, &[0]);
        }
        threads.push(ThreadCode { tid, code, name: if index % 2 == 0 { b"even" } else { b"odd" } });
    }
    let mut image = Image::new(threads);
    report.attach(&mut image, 3);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    let written = report.read();
    let (results, cpu) = written.split_at(usize::try_from(RESULT_BYTES).expect("small") * count as usize);
    for (index, result) in (0..).zip(results.chunks(32)) {
        assert_eq!(result[..8], u64::from(PID + index * 3).to_le_bytes());
        assert!(result[8..].starts_with(if index % 2 == 0 { b"even\0" } else { b"odd\0" }));
    }
    assert_ne!(cpu, u32::MAX.to_le_bytes(), "the kernel keeps the rseq area");
    Ok(())
}

/// One thread has ended at the source since everything was reserved, one has been started.
fn threads_of_the_last_moment() -> Outcome {
    const KEPT: u32 = PID + 3;
    const STARTED: u32 = PID + 6;
    const ENDED: u32 = PID + 9;
    privileged()?;
    let mut main = Code::default();
    main.write(3, LAZY, 1).exit(0);
    let waiting = |tid| {
        let mut code = Code::default();
        code.call(libc::SYS_pause, &[]);
        ThreadCode { tid, code, name: b"waiting" }
    };
    let mut image = Image::new(vec![main_thread(main), waiting(KEPT), waiting(STARTED)]);
    let report = Report::new("last-moment");
    report.attach(&mut image, 3);
    let mut first = image.manifest.clone();
    first.threads[2].tid = ENDED;
    let (mut running, uffd) = resume(build_upon(&first, &image));
    let mut there = Vec::new();
    let status = serve(&mut running, &uffd, |pid| {
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).expect("threads") {
            let status = std::fs::read_to_string(task.expect("an entry").path().join("status"));
            let status = status.expect("its status");
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).expect("its ids");
            there.extend(ids.split_whitespace().last().and_then(|id| id.parse::<u32>().ok()));
        }
    });
    there.sort_unstable();
    assert_eq!((status, there), (ExitStatus::Code(0), vec![PID, KEPT, STARTED]));
    Ok(())
}

/// Threads that were made before the program gave something up would have it still.
fn what_is_given_up_late_is_refused() -> Outcome {
    privileged()?;
    let mut codes = [Code::default(), Code::default()];
    codes.iter_mut().for_each(|code| _ = code.exit(0));
    let [main, other] = codes;
    let image = Image::new(vec![main_thread(main), ThreadCode { tid: PID + 3, code: other, name: b"other" }]);
    let reserve =
        |manifest: &Manifest| Restorer::reserve(manifest, &Policy::default()).expect("all can be had").0;
    let mut last = image.manifest.clone();
    last.process.credentials.bounding = 0;
    let refused = reserve(&image.manifest).map(&last).err();
    assert!(matches!(refused, Some(RestoreError::CapabilitiesMeanwhile)), "{refused:?}");
    assert!(reserve(&last).map(&last).is_ok(), "given up before anything was made");
    Ok(())
}

/// As a look at its arguments and environment would, if they lay there.
fn touched_is_refused() -> Outcome {
    privileged()?;
    let mut code = Code::default();
    code.exit(0);
    let image = Image::new(vec![main_thread(code)]);
    let (restorer, _) = Restorer::reserve(&image.manifest, &Policy::default())
        .unwrap_or_else(|error| panic!("{}", error.line()));
    let arguments = std::fs::read(format!("/proc/{}/cmdline", restorer.pid())).expect("the child's");
    assert_eq!(arguments, b"", "it has none yet");
    let memory = std::fs::File::open(format!("/proc/{}/mem", restorer.pid())).expect("the child's");
    memory.read_exact_at(&mut [0], LAZY + PAGE_SIZE).expect("a page of zeros");
    let touched = pages(LAZY + PAGE_SIZE, 1);
    assert!(matches!(restorer.map(&image.manifest), Err(RestoreError::NotMissing(page)) if page == touched));
    Ok(())
}

fn missing_is_named() -> Outcome {
    privileged()?;
    let image = || {
        let mut code = Code::default();
        code.exit(0);
        Image::new(vec![main_thread(code)])
    };
    let refusal = |image: &Image| {
        Restorer::reserve(&image.manifest, &Policy::default()).err().map(|error| error.line())
    };
    let mut changed = image();
    changed.manifest.process.working_directory = b"/no/such/place".to_vec();
    assert!(refusal(&changed).is_some_and(|line| line.contains("/no/such/place")));
    let mut changed = image();
    changed.manifest.threads[0].tid = 1;
    changed.manifest.process.pid = 1;
    assert!(matches!(Restorer::reserve(&changed.manifest, &Policy::default()), Err(RestoreError::Id(1))));
    let mut changed = image();
    changed.manifest.host.vdso.image.fill(0);
    assert!(matches!(Restorer::reserve(&changed.manifest, &Policy::default()), Err(RestoreError::Vdso)));
    let mut changed = image();
    changed.manifest.process.credentials.capabilities = u64::MAX;
    assert!(matches!(
        Restorer::reserve(&changed.manifest, &Policy::default()),
        Err(RestoreError::Credentials { .. })
    ));
    assert!(!image().manifest.vmas.iter().any(|vma| vma.range == pages(0, 0)));
    Ok(())
}
