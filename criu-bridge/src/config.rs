//! Every bound of the bridge, with its unit and value.

use std::time::Duration;

/// What any question to the command `criu` may take; it answers within a second even on a busy machine.
pub(crate) const CRIU_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of its answer that are kept.
pub(crate) const OUTPUT_BYTES: u64 = 64 << 10;
/// What a question to a worker that changes nothing may take.
pub(crate) const QUESTION_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a worker's answer that are taken: an error text and a few numbers.
pub(crate) const ANSWER_BYTES: usize = 64 << 10;
/// How long a worker that is hung up on may take to leave everything as it was.
pub(crate) const CRIU_FAREWELL: Duration = Duration::from_secs(10);

/// How long the dump of a tree that moves may take, from its stop to the last image.
pub(crate) const DUMP_DEADLINE: Duration = Duration::from_secs(600);
/// How long the destination may take to restore: images lie on slow disks.
pub(crate) const RESTORE_DEADLINE: Duration = Duration::from_secs(3600);
/// How often it is looked whether CRIU can still do what comes last in a restore.
pub(crate) const FINISH_TICK: Duration = Duration::from_millis(500);
/// After how many looks it is given up.
pub(crate) const FINISH_TICKS: u32 = 20;
/// The same, once it lets the tree go: it may wait for pages of it, over a slow link.
pub(crate) const GOING_TICKS: u32 = 240;
/// How long the answer that a tree runs may take before its user is asked.
pub(crate) const DOUBT_DEADLINE: Duration = Duration::from_secs(30);
/// How long CRIU may take to let a tree go.
pub(crate) const RELEASE_DEADLINE: Duration = Duration::from_secs(60);
/// How long a rule for packets may wait for whoever sets others, in seconds.
pub(crate) const RULES_WAIT_S: u8 = 5;
/// How often a thread that is held in CRIU's place is let go of, until it has come to its stop.
pub(crate) const LET_GO_ATTEMPTS: u32 = 100;
/// How long it waits in between, in milliseconds.
pub(crate) const LET_GO_PAUSE_MS: u16 = 10;
/// How often it is looked whether a process that makes a call for this one has come to its next stop.
pub(crate) const TRACEE_ATTEMPTS: u32 = 30_000;
/// How many of these looks follow upon each other: nearly always it has by then.
pub(crate) const TRACEE_SPINS: u32 = 2000;
/// How long it waits between the others, in milliseconds.
pub(crate) const TRACEE_PAUSE_MS: u8 = 1;
/// How long the original of a tree may take to end, and with it to let go of its locks on files: the kernel frees its memory
/// first, and its source may have to connect again before that.
pub(crate) const LOCKS_DEADLINE: Duration = Duration::from_secs(60);
/// How long somebody else who waited for one may keep it before the tree goes on without it.
pub(crate) const RIVAL_DEADLINE: Duration = Duration::from_secs(10);
/// How often one of them is tried, in milliseconds.
pub(crate) const LOCKS_PAUSE_MS: u8 = 20;
/// How long a process that was killed may take to end, in milliseconds.
pub(crate) const END_MS: u16 = 10_000;
/// Processes that one tree may have.
pub(crate) const MOST_PROCESSES: usize = 1 << 16;
/// Images that one tree may have.
pub(crate) const MOST_FILES: usize = 1 << 20;
/// Bytes of the name of one.
pub(crate) const LONGEST_NAME: usize = 255;

/// Opening the channels to a receiver, and having them accepted.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
pub(crate) const MOST_ADDRESSES: usize = 16;

/// How long a holder may take when it is not needed any more.
pub(crate) const HOLDER_DEADLINE: Duration = Duration::from_secs(2);
/// How often a directory in which somebody still writes is deleted.
pub(crate) const DELETE_ATTEMPTS: u32 = 50;
/// How long it waits in between, in milliseconds.
pub(crate) const DELETE_PAUSE_MS: u16 = 100;

/// How long `dump` or `restore` may take: the images of a large tree are written to a slow disk.
pub(crate) const OFFLINE_DEADLINE: Duration = Duration::from_secs(3600);
/// An id is free only when somebody has heard of the end of its process, which some machines' first process does every few
/// seconds: for how long `restore` is tried.
pub(crate) const RESTORE_PATIENCE: Duration = Duration::from_secs(10);
/// From one attempt to the next, in milliseconds.
pub(crate) const RESTORE_PAUSE_MS: u8 = 50;

/// Directories of images, each the parent of the one before it, that are followed.
pub(crate) const MOST_PARENTS: usize = 1024;
/// Pages that one answer of our page server carries.
pub(crate) const MOST_PAGES: u64 = 1024;
/// How long a dump may say nothing to our page server.
pub(crate) const DUMP_SILENCE: Duration = Duration::from_secs(3600);
/// How long CRIU's page server may say nothing in the middle of an answer.
pub(crate) const PAGE_SILENCE: Duration = Duration::from_secs(60);
/// Bytes that it is asked for at a time; aligned to as many, so that no two pieces overlap.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// Pieces that are kept.
pub(crate) const MOST_PIECES: usize = 512;
/// Bytes that a socket between the two loops of `lazy-pages` holds: some frames of pages.
pub(crate) const LOOPBACK_BYTES: usize = 4 << 20;

/// Letters of a shadow's name.
pub(crate) const LONGEST_SHADOW_NAME: usize = 64;
/// Pieces in which the pages of one epoch may lie: 16 bytes of its index each. Beyond that all of them travel.
pub(crate) const MOST_RUNS: usize = 1 << 22;
/// Pieces of which the word on one epoch consists: 24 bytes each, and messages are 8 MiB at most.
pub(crate) const MOST_SENT_RUNS: usize = 1 << 17;
/// Bytes of the image that lists files.
pub(crate) const MOST_FILES_BYTES: u64 = 256 << 20;
/// How often a tree may be stopped for its shadow.
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);
/// Sessions wait for an hour.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(45 * 60);
/// Epochs that are kept.
pub(crate) const KEPT_EPOCHS: usize = 2;
/// How soon behind an epoch its source is back.
pub(crate) const SHADOW_RETURN: Duration = Duration::from_secs(5);
/// How often somebody who waits for a shadow looks, in milliseconds.
pub(crate) const SHADOW_LOOK_MS: u16 = 20;
/// How long somebody may look at a shadow, for who is to promote it.
pub(crate) const CLAIM_PATIENCE: Duration = Duration::from_millis(200);
/// How long after a receiver that did not answer another attempt is made.
pub(crate) const SHADOW_RETRY: Duration = Duration::from_secs(1);
/// Bytes that are read from a stopped tree at a time.
pub(crate) const CHUNK_PAGES: u64 = 64;
/// How long the receiver that `promote` starts may take to listen.
pub(crate) const LISTEN_DEADLINE: Duration = Duration::from_secs(30);
