//! A manifest with every kind of record in it.

use memory::{Addr, Backing, PAGE_SIZE, PageRange, Protection, Sharing, Vma, VmaFlags, VmaName};
use protocol::{
    Credentials, Description, DescriptionKind, Descriptor, FileProof, FileRecord, GhostRecord, HostFacts,
    LockRecord, Manifest, MessageRecord, MmFields, ObjectRecord, PipeEnd, PipeRecord, ProcValue,
    ProcessRecord, ResourceLimit, RseqRecord, SignalAction, SignalInfo, SocketRecord, StreamKind,
    SystemVRecord, SystemVState, TerminalEnd, TerminalRecord, ThreadRecord, TimerRecord, TimerTimes,
    VdsoRecord, XsaveLayout,
};

/// `pages` pages from page number `start`.
pub(crate) fn range(start: u64, pages: u64) -> PageRange {
    PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        host: HostFacts {
            boot_id: [7; 16],
            xsave: XsaveLayout { components: 0xe7, size: 2696, features: [1, 2, 3, 4, u32::MAX] },
            clocks: protocol::ClockRecord { monotonic_ns: 3, boottime_ns: 4, offsets: vec![b'x'] },
            processors: b"0-3".to_vec(),
            vdso: VdsoRecord {
                range: range(0x7_0000_0000, 6),
                code: Addr(0x7000_0000_4000),
                image: vec![9; 4],
            },
        },
        process: process(),
        threads: vec![thread()],
        files: files(),
        objects: vec![ObjectRecord {
            name: b"heap".to_vec(),
            size: 8192,
            mode: 0o100_777,
            owner: (1000, 100),
            seals: 1,
            content: vec![(4096, b"bytes".to_vec())],
            streamed: true,
            ghost: Some(0),
            segment: b"0 5 600 8192".to_vec(),
        }],
        vmas: vmas(),
        pipes: vec![PipeRecord {
            path: b"/run/fifo".to_vec(),
            capacity: 65_536,
            content: b"in flight".to_vec(),
        }],
        terminals: vec![TerminalRecord {
            index: 3,
            settings: [1, 5, 0xbf, 0x8a3b, 0, 0x100, 0, 0, 0, 38_400, 38_400],
            window: 24 | 80 << 16,
            flags: TerminalRecord::PACKET | TerminalRecord::CONTROLS,
            name: Some((0o20_620, 1000, 5)),
            input: b"a line\npart".to_vec(),
            output: vec![0xff, 0],
        }],
        ghosts: vec![GhostRecord {
            path: b"/tmp/gone".to_vec(),
            identity: (5, 6),
            mode: 0o100_644,
            user: 1000,
            group: 100,
            accessed_ns: -1,
            modified_ns: 1 << 60,
            target: Vec::new(),
        }],
        system_v: system_v(),
        locks: vec![LockRecord { fd: 3, line: b"1: FLOCK  ADVISORY  READ 7 00:2a:1 0 EOF".to_vec() }],
        descriptions: descriptions(),
        descriptors: vec![Descriptor { fd: 3, close_on_exec: true, description: 0 }],
        eager: vec![range(0x400, 1)],
        lazy: vec![range(0x500, 100)],
        kept: vec![range(0x510, 3)],
        guards: vec![range(0x5f0, 2)],
        parasite_state: range(0x600, 1),
        leaving_gate: Addr(0x601_040),
        instance: Vec::new(),
    }
}

fn process() -> ProcessRecord {
    ProcessRecord {
        pid: 4242,
        session_and_group: [4200, 4242],
        executable: 0,
        mm: MmFields {
            start_code: 1,
            end_code: 2,
            start_brk: 0x55_5555_5550,
            brk: 0x55_5555_5559,
            ..MmFields::default()
        },
        auxv: vec![0; 16],
        resident_kib: 77,
        working_directory: b"/srv/\xff".to_vec(),
        working_ghost: Some(0),
        credentials: Credentials {
            user: 1000,
            group: 100,
            other_users: [1000, 0, 1000],
            other_groups: [100, 100, 7],
            groups: vec![4, 24],
            capabilities: 1 << 40,
            permitted: 3 << 40,
            inheritable: 1,
            bounding: 7,
            ambient: 0,
        },
        umask: 0o22,
        personality: 0,
        limits: vec![ResourceLimit { soft: 1024, hard: u64::MAX }],
        actions: vec![SignalAction {
            handler: 0x40_1000,
            flags: 0x0400_0004,
            restorer: 0x40_2000,
            mask: 1 << 63,
        }],
        pending: vec![SignalInfo([10, 0, 4242, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])],
        interval_timers: [TimerTimes { interval_ns: 0, remaining_ns: 1_000_000_000 }; 3],
        timers: vec![TimerRecord {
            id: 5,
            clock: 1,
            signal: 14,
            value: 0x5555,
            notify: 4,
            thread: 4242,
            times: TimerTimes { interval_ns: 10_000_000, remaining_ns: 1 },
        }],
        dumpable: 1,
        keep_capabilities: false,
        child_subreaper: false,
        thp_disable: true,
        barriers: 0x10,
        settings: vec![0, 1, 2],
        proc_values: vec![ProcValue { name: b"oom_score_adj".to_vec(), value: b"7\n".to_vec() }],
    }
}

fn thread() -> ThreadRecord {
    ThreadRecord {
        tid: 4242,
        frame: Addr(0x7fff_0000_1000),
        frame_len: 3000,
        fs_base: 0x7f00_0000_0740,
        gs_base: 0,
        clear_child_tid: Addr(0x7f00_0000_0a10),
        robust_list: (Addr(0x7f00_0000_0a20), 24),
        rseq: Some(RseqRecord { addr: Addr(0x7f00_0000_1060), len: 32, signature: 0x5305_3053 }),
        name: *b"worker\0\0\0\0\0\0\0\0\0\0",
        timer_slack_ns: 50_000,
        scheduling: vec![48, 0],
        death_signal: 15,
        no_new_privileges: true,
        memory_policy: (3, 1),
        credentials: Some(Credentials::default()),
        pending: vec![],
    }
}

fn files() -> Vec<FileRecord> {
    let file = |path: &[u8], proof| FileRecord {
        path: path.to_vec(),
        size: 70_000,
        identity: (2049, 131_074),
        proof,
    };
    vec![
        file(b"/usr/bin/true", FileProof::BuildId(vec![1, 2, 3])),
        file(b"/data", FileProof::Content([5; 16])),
        file(b"/log", FileProof::None),
    ]
}

fn vmas() -> Vec<Vma> {
    let vma = |start, sharing, name, backing| Vma {
        range: range(start, 16),
        protection: Protection { read: true, write: start % 2 == 0, execute: false },
        sharing,
        flags: VmaFlags { grows_down: name == VmaName::Stack, locked: true, ..VmaFlags::default() },
        name,
        backing,
    };
    vec![
        vma(0x400, Sharing::Private, VmaName::Plain, Backing::File { file: 1, offset: 4096 }),
        vma(0x500, Sharing::Private, VmaName::Heap, Backing::Anonymous),
        vma(0x701, Sharing::Shared, VmaName::Plain, Backing::Object { object: 0, offset: 0 }),
        vma(0x7_fff0_0000, Sharing::Private, VmaName::Stack, Backing::Anonymous),
    ]
}

fn descriptions() -> Vec<Description> {
    let listener = SocketRecord {
        domain: 2,
        kind: 1,
        protocol: 6,
        backlog: Some(128),
        address: vec![2, 0, 0x1f, 0x90],
        options: vec![0, 4, 1, 0, 0, 0],
        filter: vec![6, 0, 0, 0, 0, 0, 4, 0],
        ..SocketRecord::default()
    };
    let message = MessageRecord { content: b"hello".to_vec(), sender: vec![1, 0], descriptions: vec![0] };
    let end = SocketRecord {
        domain: 1,
        kind: 2,
        peer: 78,
        peer_address: vec![1, 0, 0, b'x'],
        diagnosis: vec![48, 0, 0, 0, 20, 0],
        name: Some((0o140_755, 1000, 100)),
        messages: vec![message],
        ..SocketRecord::default()
    };
    let connection = SocketRecord {
        domain: 2,
        kind: 1,
        protocol: 6,
        address: vec![2, 0, 0x1f, 0x90],
        peer_address: vec![2, 0, 0x1f, 0x91],
        connection: vec![1, 0, 0, 0],
        ..SocketRecord::default()
    };
    let kinds = vec![
        DescriptionKind::File { file: 2 },
        DescriptionKind::Device { path: b"/dev/null".to_vec() },
        DescriptionKind::Stream(StreamKind::Output),
        DescriptionKind::Pipe { pipe: 0, end: PipeEnd::Write },
        DescriptionKind::Anonymous { name: b"[eventfd]".to_vec() },
        DescriptionKind::Socket(listener),
        DescriptionKind::Socket(end),
        DescriptionKind::Socket(connection),
        DescriptionKind::LostConnection { domain: 10 },
        DescriptionKind::Ghost { ghost: 0 },
        DescriptionKind::Object { object: 0 },
        DescriptionKind::Terminal { terminal: 0, end: TerminalEnd::Slave },
    ];
    let description =
        |kind| Description { flags: 2, inode: 77, mode: 0o100_644, info: b"pos:\t12\n".to_vec(), kind };
    kinds.into_iter().map(description).collect()
}

fn system_v() -> Vec<SystemVRecord> {
    let queue = SystemVState::Queue { capacity: 16384, messages: vec![vec![1; 9]] };
    vec![
        SystemVRecord { line: b"5 7 600 1".to_vec(), state: SystemVState::Semaphores(vec![3, 0]) },
        SystemVRecord { line: b"6 8 600 9".to_vec(), state: queue },
    ]
}
