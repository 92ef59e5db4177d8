//! Mappings, signals and credentials of restored programs.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use memory::{Backing, PAGE_SIZE, Protection, Sharing, Vma, VmaFlags};
use nix::libc;
use protocol::{FileVerdict, ResourceLimit, SignalInfo};
use receiver::guardian::ExitStatus;
use receiver::policy::Policy;
use receiver::restorer::{RestoreError, Restorer};
use sys::identity;

use super::image::{Code, DATA, Image, LAZY, PID, ThreadCode, anonymous, pages};
use super::whole::{Report, main_thread, run, serve};
use super::{Case, Outcome, privileged};

pub(super) const CASES: &[Case] = &[
    ("every_attribute_of_a_mapping_is_there_again", attributes_are_there),
    ("an_unreadable_page_keeps_its_content", unreadable_keeps_content),
    ("the_same_file_is_mapped_with_the_pages_that_changed", same_file_is_mapped),
    ("a_different_file_travels_or_is_refused", different_file),
    ("mappings_that_changed_after_the_reservation_are_made_anew", changed_mappings),
    ("pending_signals_are_delivered_at_the_first_instruction", pending_signals),
    ("queued_signals_keep_their_order_and_what_they_carry", queued_signals),
    ("every_thread_takes_on_the_programs_credentials", credentials_are_taken_on),
    ("limits_are_the_programs_own_as_far_as_they_can_be_had", limits_are_own),
];

const RESULT: u64 = DATA + 40 * PAGE_SIZE;
/// Free for mappings of these cases.
const AREA: u64 = 0x25_0000_0000;

fn image(mut code: Code) -> Image {
    code.write(3, LAZY, 1).exit(0);
    Image::new(vec![main_thread(code)])
}

fn smaps_flags(pid: u32, start: u64) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("smaps");
    let (_, rest) = text.split_once(&format!("\n{start:x}-")).expect("the mapping");
    let line = rest.lines().find_map(|line| line.strip_prefix("VmFlags:")).expect("flags");
    line.split_whitespace().map(str::to_owned).collect()
}

fn attributes_are_there() -> Outcome {
    privileged()?;
    let report = Report::new("attributes");
    let none = VmaFlags::default();
    let attributes = [
        ("nr", VmaFlags { no_reserve: true, ..none }),
        ("hg", VmaFlags { huge_page: true, ..none }),
        ("nh", VmaFlags { no_huge_page: true, ..none }),
        ("dc", VmaFlags { dont_fork: true, ..none }),
        ("wf", VmaFlags { wipe_on_fork: true, ..none }),
        ("dd", VmaFlags { dont_dump: true, ..none }),
        ("lo", VmaFlags { locked: true, ..none }),
        ("sr", VmaFlags { sequential: true, ..none }),
        ("rr", VmaFlags { random: true, ..none }),
        ("gd", VmaFlags { grows_down: true, ..none }),
    ];
    let mut image = image(Code::default());
    report.attach(&mut image, 3);
    let place = |index: u64| AREA + index * (4 << 20);
    for (index, (_, flags)) in (0..).zip(attributes) {
        image.add(anonymous(place(index), 3, "rw", flags));
    }
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |pid| {
        for (index, (name, _)) in (0..).zip(attributes) {
            let found = smaps_flags(pid, place(index));
            assert!(found.iter().any(|flag| flag == name), "{name}: {found:?}");
        }
    });
    Ok(())
}

fn unreadable_keeps_content() -> Outcome {
    const PROT_READ: u64 = 1;
    privileged()?;
    let report = Report::new("unreadable");
    let mut code = Code::default();
    code.call(libc::SYS_mprotect, &[AREA, PAGE_SIZE, PROT_READ]).write(3, AREA + 5, 3);
    let mut image = image(code);
    report.attach(&mut image, 3);
    image.add(anonymous(AREA, 1, "", VmaFlags::default()));
    let mut page = vec![0; 4096];
    page[5..8].copy_from_slice(b"yes");
    image.extra.push((pages(AREA, 1), page));
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |_| ());
    assert_eq!(report.read(), b"yes\x01");
    Ok(())
}

/// A private mapping of `report`'s file.
fn file_mapping(image: &mut Image, path: &std::path::Path, sharing: Sharing, count: u64) {
    let record = identity::file_record(path.as_os_str().as_bytes(), true).expect("a file");
    image.manifest.files.push(record);
    let file = u32::try_from(image.manifest.files.len() - 1).expect("few");
    image.add(Vma {
        range: pages(AREA, count),
        protection: Protection { read: true, write: false, execute: false },
        sharing,
        backing: Backing::File { file, offset: PAGE_SIZE },
        ..anonymous(AREA, count, "r", VmaFlags::default())
    });
}

fn same_file_is_mapped() -> Outcome {
    privileged()?;
    let (report, mapped) = (Report::new("same"), Report::new("mapped"));
    fs::write(mapped.path(), [[b'a'; 4096], [b'b'; 4096], [b'c'; 4096]].concat()).expect("a file");
    let mut code = Code::default();
    code.write(3, AREA, 2).write(3, AREA + PAGE_SIZE, 2);
    let mut image = image(code);
    report.attach(&mut image, 3);
    file_mapping(&mut image, mapped.path(), Sharing::Private, 2);
    image.extra.push((pages(AREA + PAGE_SIZE, 1), vec![b'X'; 4096]));
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |_| ());
    assert_eq!(report.read(), b"bbXX\x01");
    assert_eq!(fs::read(mapped.path()).expect("the file")[8192], b'c');
    Ok(())
}

fn different_file() -> Outcome {
    privileged()?;
    let (report, mapped) = (Report::new("different"), Report::new("rewritten"));
    fs::write(mapped.path(), vec![b'a'; 8192]).expect("a file");
    let mut image = image(Code::default());
    report.attach(&mut image, 3);
    file_mapping(&mut image, mapped.path(), Sharing::Private, 1);
    // Another file at its path: on one kernel the same inode is the same file, whatever was written since.
    let other = Report::new("another");
    fs::write(other.path(), vec![b'z'; 8192]).expect("a file");
    fs::rename(other.path(), mapped.path()).expect("a name");
    let reserved = Restorer::reserve(&image.manifest, &Policy::default())
        .map(|(restorer, answer)| (restorer.pid(), answer));
    let (_, answer) = reserved.unwrap_or_else(|error| panic!("{}", error.line()));
    assert_eq!(answer.files.last(), Some(&FileVerdict::Travels));
    // Its pages do not come after all: then it must not be taken for the file that is here.
    let (restorer, _) = Restorer::reserve(&image.manifest, &Policy::default())
        .unwrap_or_else(|error| panic!("{}", error.line()));
    assert!(matches!(restorer.map(&image.manifest), Err(RestoreError::Different { .. })));
    for vma in image.manifest.vmas.iter_mut().filter(|vma| vma.range == pages(AREA, 1)) {
        vma.sharing = Sharing::Shared;
    }
    assert!(matches!(
        Restorer::reserve(&image.manifest, &Policy::default()),
        Err(RestoreError::Different { .. })
    ));
    Ok(())
}

fn changed_mappings() -> Outcome {
    privileged()?;
    let report = Report::new("changed");
    let mut code = Code::default();
    code.write(3, AREA + PAGE_SIZE, 1);
    let mut last = image(code);
    report.attach(&mut last, 3);
    last.add(anonymous(AREA, 2, "rw", VmaFlags::default()));
    let mut first = last.manifest.clone();
    first.vmas.retain(|vma| vma.range != pages(AREA, 2));
    first.vmas.push(anonymous(AREA, 1, "r", VmaFlags::default()));
    first.vmas.push(anonymous(AREA + 16 * PAGE_SIZE, 4, "rw", VmaFlags::default()));
    let (restorer, _) =
        Restorer::reserve(&first, &Policy::default()).unwrap_or_else(|error| panic!("{}", error.line()));
    let restorer = restorer.map(&last.manifest).unwrap_or_else(|error| panic!("{}", error.line()));
    let (restorer, uffd) = restorer.register().unwrap_or_else(|error| panic!("{}", error.line()));
    for (range, bytes) in last.eager() {
        restorer.write(range, &bytes).unwrap_or_else(|error| panic!("{}", error.line()));
    }
    let mut running =
        restorer.assemble().and_then(Restorer::resume).unwrap_or_else(|error| panic!("{}", error.line()));
    serve(&mut running, &uffd, |pid| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
        assert!(maps.contains(&format!("{AREA:x}-{:x} rw-p", AREA + 2 * PAGE_SIZE)), "{maps}");
        assert!(!maps.contains(&format!("{:x}", AREA + 16 * PAGE_SIZE)), "{maps}");
    });
    assert_eq!(report.read(), b"\0\x01");
    Ok(())
}

/// A `siginfo_t` of sigqueue(3).
fn queued(signal: i32, value: u64) -> SignalInfo {
    const SI_QUEUE: u64 = 0xffff_ffff;
    let mut words = [0; 16];
    words[0] = u64::from(signal.unsigned_abs());
    words[1] = SI_QUEUE;
    words[3] = value;
    SignalInfo(words)
}

fn pending_signals() -> Outcome {
    privileged()?;
    let mut code = Code::default();
    code.exit(1);
    let mut image = Image::new(vec![main_thread(code)]);
    image.manifest.process.pending = vec![queued(libc::SIGTERM, 0)];
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Signal(libc::SIGTERM));
    image.manifest.process.pending.clear();
    image.manifest.threads[0].pending = vec![queued(40, 0)];
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Signal(40));
    Ok(())
}

/// Blocked signals, taken one after another by the program.
fn queued_signals() -> Outcome {
    privileged()?;
    let report = Report::new("queued");
    let mut code = Code::default();
    for _ in 0..5 {
        code.call(libc::SYS_rt_sigtimedwait, &[DATA, RESULT, DATA + 8, 8]);
        code.write(3, RESULT, 1).write(3, RESULT + 24, 1);
    }
    let mut image = Image::new(vec![main_thread({
        code.exit(0);
        code
    })]);
    report.attach(&mut image, 3);
    image.poke(DATA, &u64::MAX.to_le_bytes());
    image.block_signals(0);
    image.manifest.threads[0].pending = vec![queued(40, 7), queued(40, 8), queued(40, 9)];
    image.manifest.process.pending = vec![queued(41, 1), queued(41, 2)];
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    assert_eq!(report.read(), [40, 7, 40, 8, 40, 9, 41, 1, 41, 2]);
    Ok(())
}

fn credentials_are_taken_on() -> Outcome {
    const NOBODY: u32 = 65534;
    const CHOWN: u64 = 1;
    privileged()?;
    let report = Report::new("credentials");
    let mut other = Code::default();
    other.call(libc::SYS_getuid, &[]).store(RESULT).call(libc::SYS_exit, &[0]);
    let mut code = Code::default();
    code.call(libc::SYS_futex, &[Image::tid_word(1), 0, u64::from(PID) + 5, 0]);
    code.call(libc::SYS_getgid, &[]).store(RESULT + 8).call(libc::SYS_getgroups, &[4, RESULT + 16]);
    code.write(3, RESULT, 24).write(3, LAZY, 1).exit(0);
    let second = ThreadCode { tid: PID + 5, code: other, name: b"other" };
    let mut image = Image::new(vec![main_thread(code), second]);
    report.attach(&mut image, 3);
    let credentials = &mut image.manifest.process.credentials;
    (credentials.user, credentials.group) = (NOBODY, NOBODY);
    (credentials.other_users, credentials.other_groups) = ([NOBODY; 3], [NOBODY; 3]);
    (credentials.groups, credentials.capabilities) = (vec![7, 8], CHOWN);
    (credentials.permitted, credentials.inheritable, credentials.bounding) = (CHOWN | 2, 0, CHOWN);
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
        for line in ["CapPrm:\t0000000000000003", "CapEff:\t0000000000000001", "CapBnd:\t0000000000000001"] {
            assert!(status.contains(line), "{status}");
        }
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
    });
    let mut expected = u64::from(NOBODY).to_le_bytes().repeat(2);
    expected.extend([7, 0, 0, 0, 8, 0, 0, 0, 1]);
    assert_eq!(report.read(), expected);
    Ok(())
}

fn limits_are_own() -> Outcome {
    const DESCRIPTORS: usize = 7;
    const CORE: usize = 4;
    privileged()?;
    let report = Report::new("limits");
    let mut image = image(Code::default());
    report.attach(&mut image, 3);
    image.manifest.process.limits[DESCRIPTORS] = ResourceLimit { soft: 123, hard: 456 };
    image.manifest.process.limits[CORE].soft = 4096.min(image.manifest.process.limits[CORE].hard);
    let core = image.manifest.process.limits[CORE].soft;
    let (mut running, uffd) = run(&image);
    serve(&mut running, &uffd, |pid| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
        let line =
            |name: &str| limits.lines().find_map(|line| line.strip_prefix(name)).expect("a line").to_owned();
        let words = |name| line(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words("Max open files")[..2], ["123", "456"]);
        assert_eq!(words("Max core file size")[0], core.to_string());
    });
    Ok(())
}
