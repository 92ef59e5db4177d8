"""Who is not root: a receiver in a user namespace of its own."""

import os
import re
import shutil
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.counting import end_well, onward
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites.failures import Witness, try_and_stay
from tests.suites.workloads import finish, settle

NOBODY = 65534
_DEVICE = Path("/dev/userfaultfd")
# Passes connections on, so that their source is not who holds the other end: what a process says of itself that lies.
_FORWARDER = r"""
import selectors, socket, sys
listener, ends = socket.create_server(("127.0.0.1", 0)), selectors.DefaultSelector()
print(listener.getsockname()[1], flush=True)
ends.register(listener, selectors.EVENT_READ)
loose = [socket.socket(fileno=int(number)) for number in sys.argv[2:]]
while True:
    for key, _ in ends.select():
        if key.fileobj is listener:
            pair = listener.accept()[0], loose.pop() if loose else socket.socket()
            pair[1].connect(("127.0.0.1", int(sys.argv[1])))
            for one, other in (pair, pair[::-1]):
                ends.register(one, selectors.EVENT_READ, other)
            continue
        data = key.fileobj.recv(1 << 16)
        key.data.sendall(data)
        if not data:
            ends.unregister(key.fileobj)
            key.data.shutdown(socket.SHUT_WR)
"""
# Bound to names of files, one relative and one not, with a datagram that waits; at SIGUSR1 it goes to its own names.
_SERVER = r"""
import os, signal, socket
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
os.umask(0o077)
names, listeners = ("relative", os.path.abspath("absolute")), []
for name in names:
    listeners.append(socket.socket(socket.AF_UNIX))
    listeners[-1].bind(name)
    listeners[-1].listen()
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
box.bind("box")
box.sendto(b"waits", "box")
print("bound", flush=True)
signal.sigwait({signal.SIGUSR1})
for name, listener in zip(names, listeners):
    client = socket.socket(socket.AF_UNIX)
    client.connect(name)
    client.sendall(b"hello")
    found = os.stat(name)
    print(listener.accept()[0].recv(100), found.st_uid, oct(found.st_mode & 0o777))
box.setblocking(False)
print(box.recv(100), flush=True)
"""
# What the kernel tells of who made it, behind a move: sockets, connections, pipes, and what /proc tells by whose rights.
_MADE = r"""
import ctypes, os, signal, socket, struct
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
listener, client, loose = (socket.socket(family) for family in (socket.AF_UNIX, socket.AF_UNIX, socket.AF_INET))
listener.bind("here")
listener.listen()
client.connect("here")
pair, (reader, writer) = socket.socketpair(), os.pipe()
os.write(writer, b"waits")
symbols, pages = open("/proc/kallsyms", "rb", 0), open("/proc/self/pagemap", "rb", 0)
page = ctypes.create_string_buffer(b"x" * 8192)
print("made", flush=True)
signal.sigwait({signal.SIGUSR1})
user = lambda end: struct.unpack("3i", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
accepted = listener.accept()[0]
print("accepted", user(accepted), "client", user(client), "pair", user(pair[0]))
print("owned by", *(os.fstat(end).st_uid for end in (loose.fileno(), reader, writer)))
print("again", os.read(os.open(f"/dev/fd/{reader}", os.O_RDONLY), 5))
print("symbols", int(symbols.readline().split()[0], 16))
print("frame", int.from_bytes(os.pread(pages.fileno(), 8, (ctypes.addressof(page) >> 12) * 8), "little") & (1 << 55) - 1)
print("input", os.read(0, 100), flush=True)
"""
# Gives up root's rights, and asks for capabilities to be kept when its user changes: that is to give it none.
_KEEPS = r"""
import ctypes, itertools, os, sys, time
os.setgroups([])
os.setresgid(*[int(sys.argv[1])] * 3)
os.setresuid(*[int(sys.argv[1])] * 3)
assert ctypes.CDLL(None).prctl(8, 1, 0, 0, 0) == 0
for number in itertools.count():
    print(number)
    time.sleep(0.01)
"""
_AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@contextmanager
def _device_mode(mode: int):
    """Lets whom the mode says open the device, as a rule of udev would."""
    if not _DEVICE.exists():
        raise machine.Missing("/dev/userfaultfd (Linux 6.1)")
    before = _DEVICE.stat().st_mode & 0o7777
    _DEVICE.chmod(mode)
    try:
        yield
    finally:
        _DEVICE.chmod(before)


@contextmanager
def _open_files():
    """What is created meanwhile may be written by everybody: both sides run as somebody else than this test."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


def _home(lab) -> Path:
    """The programs, where nobody may run them."""
    lab.directory.chmod(0o755)
    binaries = lab.directory / "bin"
    shutil.copytree(machine.BIN, binaries)
    return binaries


def _start(lab, binaries: Path, workload: str, name: str = "", **options):
    command = [*_AS_NOBODY, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", str(binaries / "target"), workload]
    program = lab.program(name or workload, command, {"LD_PRELOAD": ""}, **options)
    program.wait_lines(3)
    return program


def moves(workload: str, lab) -> None:
    """From one receiver to another, with no more rights than its user has anywhere."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _device_mode(0o666), _open_files():
        first, second = (lab.receiver(wrapper=_AS_NOBODY, binaries=binaries) for _ in range(2))
        program = _start(lab, binaries, workload)
        number, process = -1, program
        for receiver in (first, second):
            process = lab.move(process, receiver)
            _expect_rights_of_nobody(process.pid)
            number = settle(process, workload, number)
        finish(process, workload)
    expect("forks" in program.errors(), f"nothing was said about forks: {program.errors()}")


def terminals(wrapper: tuple, lab) -> None:
    """Pseudo-terminals of an ordinary user, all of them, from one receiver of that user's or of root's to another."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _device_mode(0o666), _open_files():
        receivers = [lab.receiver(wrapper=wrapper, binaries=binaries) for _ in range(2)]
        command = [*_AS_NOBODY, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", compile_c("terminals", lab.directory)]
        process = lab.program("terminals", command, {"LD_PRELOAD": ""})
        process.wait_lines(20)
        for step, receiver in enumerate(receivers):
            process = onward(lab, process, receiver, step + 1)
        end_well(process)


def _expect_rights_of_nobody(pid: int) -> None:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
    for ids in ("Uid", "Gid"):
        expect(status[ids].split() == [str(NOBODY)] * 4, f"its {ids} are {status[ids]}")
    for capabilities in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        expect(int(status[capabilities], 16) == 0, f"its {capabilities} is {status[capabilities]}")


def not_permitted(lab) -> None:
    """Without the device: one line with the three ways to permit it, and the program goes on."""
    machine.need_command("setpriv")
    if Path("/proc/sys/vm/unprivileged_userfaultfd").read_text().strip() != "0":
        raise machine.Missing("vm.unprivileged_userfaultfd = 0")
    binaries = _home(lab)
    with _device_mode(0o600), _open_files():
        receiver = lab.receiver(wrapper=_AS_NOBODY, binaries=binaries)
        program = _start(lab, binaries, "counter")
        program.aim(receiver.port)
        try_and_stay(Witness(program), "root.*CAP_SYS_PTRACE.*/dev/userfaultfd")


def to_root(lab) -> None:
    """A receiver of root's takes an ordinary user's process as what it is, and opens files only as that user: whoever
    sends it, and not the process that it claims to be, must have them open."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    secret = lab.directory / "secret"
    with _open_files():
        receiver = lab.receiver()
        program = _start(lab, binaries, "counter")
        moved = lab.move(program, receiver)
        _expect_rights_of_nobody(moved.pid)
        finish(moved, "counter")
    secret.write_text("of root")
    secret.chmod(0o600)
    fifo = lab.directory / "fifo"
    os.mkfifo(fifo, 0o600)
    with _open_files(), open(secret, "rb") as theirs:
        port = int(_forwarder(lab, receiver).wait_lines(1)[0])
        program = _start(lab, binaries, "counter", "holder", stdin=theirs)
        program.aim(port)
        try_and_stay(Witness(program), "secret.*permission denied")
        with open(fifo, "r+b", 0) as pipe:
            program = _start(lab, binaries, "counter", "listener", pass_fds=[pipe.fileno()])
        program.aim(port)
        try_and_stay(Witness(program), "fifo.*permission denied")


def keeps_an_end_of_a_fifo(access: int, mode: int, lab) -> None:
    """An ordinary user's process has one end of a FIFO of root's, of which that user may open this end only."""
    machine.need_command("setpriv")
    binaries, fifo = _home(lab), lab.directory / "fifo"
    os.mkfifo(fifo)
    fifo.chmod(mode)
    whole = os.open(fifo, os.O_RDWR)
    with _open_files():
        receiver = lab.receiver()
        end = os.open(fifo, access | os.O_NONBLOCK)
        program = _start(lab, binaries, "counter", pass_fds=[end])
        os.close(end)
        os.close(whole)
        moved = lab.move(program, receiver)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    info = Path(f"/proc/{moved.pid}/fdinfo/{end}").read_text()
    expect(int(info.split()[3], 8) & os.O_ACCMODE == access, f"the end is another one: {info}")
    if access == os.O_RDONLY:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))  # an error if nobody reads there
    else:
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            expect(os.read(reader, 1), "nobody has its writing end")
        os.close(reader)
    finish(moved, "counter")


def serves_at_its_names(lab) -> None:
    """Sockets that an ordinary user's process has bound to names of files are that user's there, and can be reached."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _open_files():
        receiver = lab.receiver()
        # The python that runs this may be root's alone.
        python = shutil.which("python3", path=os.defpath) or sys.executable
        command = [*_AS_NOBODY, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", python, "-c", _SERVER]
        program = lab.program("server", command, {"LD_PRELOAD": ""})
        program.wait_lines(1)
        moved = lab.move(lab.move(program, receiver), receiver)
        moved.signal(signal.SIGUSR1)
        moved.wait_exited()
    told = moved.text().splitlines()
    expect(told == [f"b'hello' {NOBODY} 0o700"] * 2 + ["b'waits'"], f"it says {told}: {moved.errors()}")


def is_made_by_its_user(lab) -> None:
    """What is made for an ordinary user's process has nothing of root's in it: not for those that it is connected to, nor
    for the kernel; and what the receiver reads is not for it."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    secrets, writer = os.pipe()
    os.write(writer, b"typed by root")
    with _open_files(), open(secrets, "rb") as typed, open(writer, "wb"):
        receiver = lab.receiver(stdin=typed)
        command = [*_AS_NOBODY, "env", f"LD_PRELOAD={binaries / 'libsender.so'}", _python_for_all(), "-c", _MADE]
        program = lab.program("made", command, {"LD_PRELOAD": ""})
        program.wait_lines(1)
        moved = lab.move(program, receiver)
        moved.wait_complete()
        moved.signal(signal.SIGUSR1)
        moved.wait_exited()
    expect(moved.text().splitlines() == [
        f"accepted {NOBODY} client {NOBODY} pair {NOBODY}", f"owned by {NOBODY} {NOBODY} {NOBODY}", "again b'waits'",
        "symbols 0", "frame 0", "input b''"], f"it says {moved.text()}: {moved.errors()}")


def not_by_a_socket_of_roots(lab) -> None:
    """An ordinary process that has been given sockets of root's is not root for the receiver."""
    machine.need_command("setpriv")
    receiver = lab.receiver()
    sockets = [socket.socket() for _ in range(3)]
    numbers = [end.fileno() for end in sockets]
    command = [*_AS_NOBODY, sys.executable, "-c", _FORWARDER, str(receiver.port), *map(str, numbers)]
    forwarder = lab.program("forwarder", command, {"LD_PRELOAD": ""}, pass_fds=numbers)
    for end in sockets:
        end.close()
    program = lab.target("counter", "--interval-ms", "2")
    program.wait_lines(3)
    program.aim(int(forwarder.wait_lines(1)[0]))
    try_and_stay(Witness(program), "it cannot be told who sends this process")


def over_the_other_loopback(lab) -> None:
    """Over ::1 the receiver knows who sends as it does over 127.0.0.1."""
    machine.need_command("setpriv")
    if not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists():
        raise machine.Missing("IPv6")
    binaries = _home(lab)
    with _open_files():
        receiver = lab.receiver(arguments=["--bind", "::1"])
        receiver.host = "::1"
        moved = lab.move(_start(lab, binaries, "counter"), receiver)
        _expect_rights_of_nobody(moved.pid)
        finish(moved, "counter")
        of_root = lab.target("counter", "--interval-ms", "2")
        of_root.wait_lines(3)
        finish(lab.move(of_root, receiver), "counter")


def keeps_what_it_has(lab) -> None:
    """What root has opened for an ordinary user's process it keeps at root's receivers, and it gets nothing else."""
    secret = lab.directory / "secret"
    secret.write_text("of root\n" * 3)
    secret.chmod(0o600)
    closed = lab.directory / "closed"
    closed.mkdir(0o700)
    directory = os.open(closed, os.O_RDONLY | os.O_DIRECTORY)
    with _open_files(), open(secret, "rb") as theirs:
        receivers = [lab.receiver() for _ in range(2)]
        command = [_python_for_all(), "-u", "-c", _KEEPS, str(NOBODY)]
        process = program = lab.program("keeps", command, stdin=theirs, pass_fds=[directory])
        os.close(directory)
        program.wait_lines(2)
        for receiver in receivers:
            process = lab.move(process, receiver)
            process.wait_complete()
            _expect_rights_of_nobody(process.pid)
            opened = os.stat(f"/proc/{process.pid}/fd/0")
            expect((opened.st_dev, opened.st_ino) == (secret.stat().st_dev, secret.stat().st_ino), "it is another file")
            expect(_access(process.pid, 0) == os.O_RDONLY, "it may write now")
            expect(os.stat(f"/proc/{process.pid}/fd/{directory}").st_ino == closed.stat().st_ino, "another directory")


def _python_for_all() -> str:
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        raise machine.Missing("a python3 that everybody may run")
    return python


def _access(pid: int, descriptor: int) -> int:
    flags = re.search(r"flags:\s*(\d+)", Path(f"/proc/{pid}/fdinfo/{descriptor}").read_text())[1]
    return int(flags, 8) & os.O_ACCMODE


def _standing(pid: int) -> tuple:
    """Policy and priority, nice value, oom_score_adj, and the hard limit on descriptors."""
    policy, priority = os.sched_getscheduler(pid), os.sched_getparam(pid).sched_priority
    score = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    limits = Path(f"/proc/{pid}/limits").read_text()
    limit = re.search(r"Max open files +\S+ +(\S+)", limits)[1]
    return policy, priority, os.getpriority(os.PRIO_PROCESS, pid), score, limit


def _raise(pid: int, policy: int = os.SCHED_OTHER) -> None:
    """Gives a process what its user could not."""
    os.setpriority(os.PRIO_PROCESS, pid, -10)
    if policy != os.SCHED_OTHER:
        os.sched_setscheduler(pid, policy, os.sched_param(40))
    with suppress(PermissionError):  # a machine may keep that from root
        Path(f"/proc/{pid}/oom_score_adj").write_text("-500")


def _forwarder(lab, receiver):
    """An ordinary process that passes everything on to the receiver, from the port that it prints."""
    command = ["prlimit", "--nofile=1500:1500", *_AS_NOBODY, sys.executable, "-c", _FORWARDER, str(receiver.port)]
    return lab.program("forwarder", command, {"LD_PRELOAD": ""})


def keeps_its_standing(lab) -> None:
    """What root has given an ordinary user's process it has at root's receiver too."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _open_files():
        receiver = lab.receiver()
        program = _start(lab, binaries, "counter")
        _raise(program.pid, os.SCHED_FIFO)
        before = _standing(program.pid)
        moved = lab.move(program, receiver)
        expect(_standing(moved.pid) == before, f"{before} has become {_standing(moved.pid)}")
        finish(moved, "counter")


def nothing_by_lying(lab) -> None:
    """A sender whose word says more than the kernel says of it: limits and priorities are its own, or it stays."""
    machine.need_command("setpriv", "prlimit")
    binaries = _home(lab)
    with _open_files():
        receiver = lab.receiver()
        forwarder = _forwarder(lab, receiver)
        port = int(forwarder.wait_lines(1)[0])
        program = _start(lab, binaries, "counter")
        _raise(program.pid, os.SCHED_FIFO)
        program.aim(port)
        try_and_stay(Witness(program), "scheduling thread.*not permitted")
        program = _start(lab, binaries, "counter", "claimant")
        _raise(program.pid)
        moved = lab.move(program, receiver, port=port)
        expect(_standing(moved.pid) == _standing(forwarder.pid), f"it has {_standing(moved.pid)}")
        expect(_standing(moved.pid)[4] == "1500", f"it has {_standing(moved.pid)}")
        finish(moved, "counter")


def _has_capability(number: int) -> bool:
    effective = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1]
    return int(effective, 16) >> number & 1 == 1


def no_rights_of_root(what: str, words: str, lab) -> None:
    """What only root may have is not made with the rights of root's receiver."""
    if what == "port" and int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) < 1024:
        raise machine.Missing("net.ipv4.ip_unprivileged_port_start = 1024")
    if what == "pipe" and not _has_capability(24):
        raise machine.Missing("CAP_SYS_RESOURCE")
    lab.directory.chmod(0o755)
    with _open_files():
        receiver = lab.receiver()
        python = shutil.which("python3", path="/usr/bin:/bin")  # nobody has to reach it
        machine.need_command(python or "/usr/bin/python3")
        program = lab.program(what, [python, str(machine.PROGRAMS / "privileged.py"), what])
        program.wait_lines(3)
        program.aim(receiver.port)
        try_and_stay(Witness(program), words)


def ids_not_kept(lab) -> None:
    """Which ids are taken outside of its own namespace is not for an ordinary user to say."""
    machine.need_command("setpriv")
    binaries = _home(lab)
    with _open_files():
        receiver = lab.receiver(arguments=["--pid", "keep"])
        program = _start(lab, binaries, "counter")
        program.aim(receiver.port)
        try_and_stay(Witness(program), "--pid keep")


def _checks() -> list:
    checks = [Check("root's receiver takes an ordinary user's process with that user's rights", to_root),
              Check("an ordinary user's server is reached at its names under root's receiver", serves_at_its_names),
              Check("what root's receiver makes for an ordinary user's process is that user's to everybody who looks",
                    is_made_by_its_user),
              Check("a socket of root's does not make root of an ordinary user's process", not_by_a_socket_of_roots),
              Check("over the loopback of IPv6 the receiver knows who sends", over_the_other_loopback),
              Check("an ordinary user's process keeps what root has opened for it, and gets nothing else, twice",
                    keeps_what_it_has),
              Check("root's receiver leaves an ordinary user's process the priorities and limits that it has",
                    keeps_its_standing),
              Check("what a sender only says it has, it does not get from root's receiver", nothing_by_lying),
              *(Check(f"root's receiver gives an ordinary user's process no {name} of root's",
                      partial(no_rights_of_root, what, words))
                for what, name, words in (("port", "port", "address.*permission denied|permission denied.*address"),
                                          ("mark", "mark of a socket", "option 36 of level 1"),
                                          ("priority", "priority of a socket", "option 12 of level 1"),
                                          ("transparent", "addresses", "option 19 of level 0"),
                                          ("pipe", "pipe", "pipe.*not permitted"),
                                          ("watch", "watch on a file", "inotify.*Permission denied"),
                                          ("locked", "memory that is locked beyond a limit", "mapping .*cannot allocate memory"),
                                          ("zero", "memory at address 0", "not permitted"))),
              Check("an ordinary user's terminals move to receivers of root's", partial(terminals, ())),
              Check("an ordinary user's terminals move in user namespaces", partial(terminals, _AS_NOBODY)),
              Check("--pid keep refuses an ordinary user's process", ids_not_kept),
              Check("a FIFO that an ordinary user may only read goes on at root's receiver",
                    partial(keeps_an_end_of_a_fifo, os.O_RDONLY, 0o644)),
              Check("a FIFO that an ordinary user may only write goes on at root's receiver",
                    partial(keeps_an_end_of_a_fifo, os.O_WRONLY, 0o622)),
              Check("an ordinary user without /dev/userfaultfd is told the three ways to permit it", not_permitted)]
    for workload in ("counter", "threads", "mappings", "forker"):
        checks.append(Check(f"{workload} moves in a user namespace of an ordinary user, and on from there",
                            partial(moves, workload)))
    return checks


CHECKS = _checks
