//! Hand-made process images: a list of system calls as machine code, frames, a leaving gate, a manifest.

use memory::{Addr, Backing, PAGE_SIZE, PageRange, Protection, Sharing, Vma, VmaFlags, VmaName};
use nix::libc;
use protocol::{
    Credentials, Description, DescriptionKind, Descriptor, FileProof, FileRecord, HostFacts, Manifest,
    MmFields, ProcessRecord, RseqRecord, SignalAction, ThreadRecord,
};
use sys::identity;
use sys::proc::maps;

/// Where code, eager data, heap, lazy data and stack are. Nothing else is there in any process.
pub(super) const CODE: u64 = 0x20_0000_0000;
pub(super) const DATA: u64 = 0x21_0000_0000;
pub(super) const HEAP: u64 = 0x22_0000_0000;
pub(super) const LAZY: u64 = 0x23_0000_0000;
pub(super) const STACK: u64 = 0x24_0000_0000;
pub(super) const PID: u32 = 31337;
/// The program's break: byte-exact.
pub(super) const BREAK: u64 = HEAP + 2 * PAGE_SIZE - 24;

const CODE_PAGES: u64 = 64;
const DATA_PAGES: u64 = 64;
pub(super) const LAZY_PAGES: u64 = 4;
const STACK_PAGES: u64 = 8;
const GATE_BYTES: usize = 64;
/// In the data: one frame of 512 bytes for each thread, one `struct rseq` of 32, one result of 64.
const FRAMES: u64 = DATA + PAGE_SIZE;
const FRAME_BYTES: u64 = 512;
const RSEQS: u64 = FRAMES + 257 * FRAME_BYTES;
const RSEQ_BYTES: u64 = 32;

/// Machine code that makes system calls with constant arguments.
#[derive(Default)]
pub(super) struct Code(Vec<u8>);

impl Code {
    /// Calls `number`; rax holds the result.
    pub(super) fn call(&mut self, number: libc::c_long, arguments: &[u64]) -> &mut Self {
        // movabs rdi, rsi, rdx, r10, r8, r9
        let registers = [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
        for (register, argument) in registers.iter().zip(arguments) {
            self.0.extend_from_slice(register);
            self.0.extend_from_slice(&argument.to_le_bytes());
        }
        self.0.extend_from_slice(&[0x48, 0xb8]);
        self.0.extend_from_slice(&number.to_le_bytes());
        self.0.extend_from_slice(&[0x0f, 0x05]);
        self
    }

    /// Stores rax at `at`.
    pub(super) fn store(&mut self, at: u64) -> &mut Self {
        self.0.extend_from_slice(&[0x48, 0xa3]);
        self.0.extend_from_slice(&at.to_le_bytes());
        self
    }

    /// Writes `len` bytes from `from` to descriptor `fd`.
    pub(super) fn write(&mut self, fd: u64, from: u64, len: u64) -> &mut Self {
        self.call(libc::SYS_write, &[fd, from, len])
    }

    /// Ends the process.
    pub(super) fn exit(&mut self, code: u64) -> &mut Self {
        self.call(libc::SYS_exit_group, &[code])
    }
}

/// The leaving gate, as PLAN and `sender-lib` have it.
const GATE: [u8; 22] = [
    0xf0, 0xff, 0x0b, // lock dec dword ptr [rbx]
    0x75, 0x07, // jnz over the next two
    0xb8, 0x0b, 0, 0, 0, // mov eax, munmap
    0x0f, 0x05, // syscall
    0x4c, 0x89, 0xe4, // mov rsp, r12
    0xb8, 0x0f, 0, 0, 0, // mov eax, rt_sigreturn
    0x0f, 0x05, // syscall
];

/// A manifest and the eager pages that belong to it.
pub(super) struct Image {
    pub(super) manifest: Manifest,
    /// More pages to write before the process runs.
    pub(super) extra: Vec<(PageRange, Vec<u8>)>,
    code: Vec<u8>,
    data: Vec<u8>,
}

/// What one thread of an image does.
pub(super) struct ThreadCode {
    pub(super) tid: u32,
    pub(super) code: Code,
    pub(super) name: &'static [u8],
}

impl Image {
    /// An image with these threads; the first is the main one.
    pub(super) fn new(threads: Vec<ThreadCode>) -> Self {
        let mut code = GATE.to_vec();
        code.resize(GATE_BYTES, 0xcc);
        let mut image = Self {
            manifest: manifest(),
            extra: vec![],
            code,
            data: vec![0; usize_of(DATA_PAGES * PAGE_SIZE)],
        };
        for (index, thread) in (0_u64..).zip(threads) {
            let entry = CODE + image.code.len() as u64;
            image.code.extend_from_slice(&thread.code.0);
            let at = FRAMES + index * FRAME_BYTES;
            image.poke(at, &frame(entry, STACK));
            let rseq = RSEQS + index * RSEQ_BYTES;
            // cpu_id_start 0, cpu_id -1: not registered.
            image.poke(rseq + 4, &u32::MAX.to_le_bytes());
            let mut name = [0; 16];
            name[..thread.name.len()].copy_from_slice(thread.name);
            let clear_child_tid = Self::tid_word(index);
            image.poke(clear_child_tid, &u64::from(thread.tid).to_le_bytes());
            image.manifest.threads.push(ThreadRecord {
                tid: thread.tid,
                frame: Addr(at),
                frame_len: FRAME_BYTES,
                fs_base: LAZY + index * 8,
                gs_base: 0,
                clear_child_tid: Addr(clear_child_tid),
                robust_list: (Addr(0), 24),
                rseq: Some(RseqRecord { addr: Addr(rseq), len: 32, signature: 0x5305_3053 }),
                name,
                timer_slack_ns: 50_000,
                scheduling: Vec::new(),
                death_signal: 0,
                no_new_privileges: false,
                memory_policy: (0, 0),
                credentials: None,
                pending: vec![],
            });
        }
        assert!(image.code.len() as u64 <= CODE_PAGES * PAGE_SIZE);
        image
    }

    /// The word that the kernel clears when thread `index` ends.
    pub(super) fn tid_word(index: u64) -> u64 {
        RSEQS + 257 * RSEQ_BYTES + index * 8
    }

    /// Where the kernel says on which processor thread `index` runs.
    pub(super) fn rseq_cpu(index: u64) -> u64 {
        RSEQS + index * RSEQ_BYTES + 4
    }

    /// Puts `bytes` into the data.
    pub(super) fn poke(&mut self, at: u64, bytes: &[u8]) {
        let from = usize_of(at - DATA);
        self.data[from..from + bytes.len()].copy_from_slice(bytes);
    }

    /// Adds a descriptor of its own description.
    pub(super) fn descriptor(&mut self, fd: u32, flags: i32, kind: DescriptionKind) -> u32 {
        self.told_descriptor(fd, flags, kind, "pos:\t0\nflags:\t0\n")
    }

    /// Adds a descriptor of which the kernel tells `info`; its inode number is its own number and 1000.
    pub(super) fn told_descriptor(&mut self, fd: u32, flags: i32, kind: DescriptionKind, info: &str) -> u32 {
        let description = u32::try_from(self.manifest.descriptions.len()).expect("few");
        self.manifest.descriptions.push(Description {
            flags: flags.unsigned_abs(),
            inode: 1000 + u64::from(fd),
            mode: 0o100_600,
            info: info.as_bytes().to_vec(),
            kind,
        });
        self.manifest.descriptors.push(Descriptor { fd, close_on_exec: false, description });
        description
    }

    /// Adds a file to the table.
    pub(super) fn file(&mut self, path: &std::path::Path) -> u32 {
        use std::os::unix::ffi::OsStrExt;
        let record = identity::file_record(path.as_os_str().as_bytes(), false).expect("a file");
        self.manifest.files.push(record);
        u32::try_from(self.manifest.files.len() - 1).expect("few")
    }

    /// Lets thread `index` block every signal.
    pub(super) fn block_signals(&mut self, index: u64) {
        const MASK: u64 = 296;
        self.poke(FRAMES + index * FRAME_BYTES + MASK, &u64::MAX.to_le_bytes());
    }

    /// Maps `count` pages of an object, shared, from its start.
    pub(super) fn map_object(&mut self, start: u64, count: u64, object: u32) {
        let mut vma = anonymous(start, count, "rw", VmaFlags::default());
        vma.sharing = Sharing::Shared;
        vma.backing = Backing::Object { object, offset: 0 };
        self.add(vma);
    }

    /// Adds a mapping in its place.
    pub(super) fn add(&mut self, vma: Vma) {
        self.manifest.vmas.push(vma);
        self.manifest.vmas.sort_by_key(|vma| vma.range);
    }

    /// The pages that are written before the process runs.
    pub(super) fn eager(&self) -> Vec<(PageRange, Vec<u8>)> {
        let mut code = self.code.clone();
        code.resize(usize_of(CODE_PAGES * PAGE_SIZE), 0xcc);
        let mut eager = vec![(pages(CODE, CODE_PAGES), code), (pages(DATA, DATA_PAGES), self.data.clone())];
        eager.extend(self.extra.iter().cloned());
        eager
    }
}

pub(super) fn pages(start: u64, count: u64) -> PageRange {
    PageRange::from_pages(Addr(start), count).expect("within user space")
}

fn usize_of(value: u64) -> usize {
    usize::try_from(value).expect("64 bits")
}

/// A `struct ucontext` (asm/ucontext.h, asm/sigcontext.h) without extended state: the kernel resets it then.
fn frame(rip: u64, rsp: u64) -> Vec<u8> {
    const SAVED_SS: u64 = 2 | 4;
    const RSP: usize = 40 + 15 * 8;
    const SELECTORS: u64 = 0x33 | 0x2b << 48;
    let mut frame = vec![0; 304];
    let mut put = |at: usize, word: u64| frame[at..at + 8].copy_from_slice(&word.to_le_bytes());
    put(0, SAVED_SS);
    // An alternate stack that is disabled.
    put(24, 2);
    put(RSP, rsp);
    put(RSP + 8, rip);
    put(RSP + 16, 0x202);
    put(RSP + 24, SELECTORS);
    frame
}

pub(super) fn anonymous(start: u64, count: u64, bits: &str, flags: VmaFlags) -> Vma {
    Vma {
        range: pages(start, count),
        protection: Protection {
            read: bits.contains('r'),
            write: bits.contains('w'),
            execute: bits.contains('x'),
        },
        sharing: Sharing::Private,
        flags,
        name: VmaName::Plain,
        backing: Backing::Anonymous,
    }
}

fn manifest() -> Manifest {
    let own = maps::own_mappings().expect("own mappings");
    let executable = identity::file_record(b"/bin/true", false).expect("a program");
    assert_eq!(executable.proof, FileProof::None);
    let grows = VmaFlags { grows_down: true, ..VmaFlags::default() };
    let plain = VmaFlags::default();
    Manifest {
        host: HostFacts {
            boot_id: identity::boot_id().expect("a boot id"),
            clocks: Default::default(),
            processors: Vec::new(),
            xsave: identity::xsave_layout(),
            vdso: identity::vdso_record(&own).expect("a vDSO"),
        },
        process: process(),
        threads: vec![],
        files: vec![executable] as Vec<FileRecord>,
        objects: vec![],
        vmas: vec![
            anonymous(CODE, CODE_PAGES, "rx", plain),
            anonymous(DATA, DATA_PAGES, "rw", plain),
            anonymous(HEAP, 2, "rw", plain),
            anonymous(LAZY, LAZY_PAGES, "rw", plain),
            anonymous(STACK - STACK_PAGES * PAGE_SIZE, STACK_PAGES, "rw", grows),
        ],
        pipes: vec![],
        terminals: vec![],
        ghosts: vec![],
        locks: vec![],
        system_v: vec![],
        descriptions: vec![],
        descriptors: vec![],
        eager: vec![pages(CODE, CODE_PAGES), pages(DATA, DATA_PAGES)],
        lazy: vec![pages(LAZY, LAZY_PAGES)],
        kept: Vec::new(),
        parasite_state: pages(0, 0),
        guards: Vec::new(),
        leaving_gate: Addr(CODE),
        instance: Vec::new(),
    }
}

fn process() -> ProcessRecord {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let mask = |name| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("capabilities");
        u64::from_str_radix(line.trim(), 16).expect("a mask")
    };
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("groups");
    ProcessRecord {
        pid: PID,
        session_and_group: [PID; 2],
        executable: 0,
        mm: MmFields {
            start_code: CODE,
            end_code: CODE + PAGE_SIZE,
            start_data: DATA,
            end_data: DATA + PAGE_SIZE,
            start_brk: HEAP,
            brk: BREAK,
            start_stack: STACK - 16,
            arg_start: DATA,
            arg_end: DATA + 6,
            env_start: DATA + 6,
            env_end: DATA + 6,
        },
        auxv: [6_u64, 4096, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect(),
        resident_kib: 0,
        working_directory: b"/usr".to_vec(),
        working_ghost: None,
        credentials: Credentials {
            user: 0,
            group: 0,
            other_users: [0; 3],
            other_groups: [0; 3],
            groups: groups.split_whitespace().map(|group| group.parse().expect("a number")).collect(),
            capabilities: mask("CapEff:"),
            permitted: mask("CapPrm:"),
            inheritable: mask("CapInh:"),
            bounding: mask("CapBnd:"),
            ambient: mask("CapAmb:"),
        },
        umask: 0o27,
        personality: 0,
        limits: sys::process::limits().expect("limits"),
        actions: vec![SignalAction::default(); 64],
        pending: vec![],
        dumpable: 1,
        keep_capabilities: false,
        child_subreaper: false,
        interval_timers: Default::default(),
        timers: Vec::new(),
        thp_disable: false,
        barriers: 0,
        settings: Vec::new(),
        proc_values: Vec::new(),
    }
}
