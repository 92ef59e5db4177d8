"""Whole trees of processes that nobody here wrote, moved by one command on each side."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.criu import BRIDGE, Tree, need_criu
from tests.harness.results import Check
from tests.harness.trees import Taker, end, processes, send
from tests.harness.waiting import expect, until


def _counting(lab, name: str = "tree") -> Tree:
    tree = Tree(lab, name, [sys.executable, str(machine.PROGRAMS / "tree.py")])
    tree.wait_number(20)
    return tree


def _reader(lab, mebibytes: int, static: bool = False) -> Tree:
    program = compile_c("random_reader", lab.directory, options=("-static",) if static else ())
    tree = Tree(lab, "reader", [program, str(mebibytes)])
    until(lambda: "ready" in tree.text(), "the reader to have filled its memory")
    return tree


def _expect_read(tree: Tree) -> None:
    (tree.directory / "go").touch()
    line = until(lambda: tree.text().partition("ready\n")[2].endswith("ms\n") and tree.text(), "the reader", 60)
    expect("\n0 of " in line, f"it read wrong: {line}")


def moves_a_tree(lab) -> None:
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab)
    for turn in range(1, 4):
        pid = tree.pid if turn == 1 else taker.event("resumed", turn - 1)["pid"]
        source_pid = int(machine.inner_ids(pid)[-1])
        send(lab, pid, taker.port)
        resumed = taker.event("resumed", turn)
        expect(resumed["source_pid"] == source_pid, f"it was {source_pid}: {resumed}")
        expect(int(machine.inner_ids(resumed["pid"])[-1]) == tree.pid, "it has another id")
        taker.event("complete", turn)
        tree.expect_counting()
    expect(not tree.runs(), "it runs at the source too")
    until(taker.is_tidy, "the images to be gone")
    end(tree)
    taker.event("exited", 3)
    taker.end()


def moves_with_its_namespaces(lab) -> None:
    """The first process of PID, IPC and UTS namespaces: they are part of what moves, and it stays the first one."""
    need_criu()
    machine.need_command("unshare")
    program = str(machine.PROGRAMS / "tree.py")
    own = ["unshare", "--pid", "--ipc", "--uts", "--fork", "setsid"]
    tree = Tree(lab, "namespaces", [*own, sys.executable, program])
    tree.wait_number(20)
    [first] = machine.children(tree.pid)
    taker = Taker(lab)
    for turn in range(1, 3):
        send(lab, first, taker.port)
        there = taker.event("resumed", turn)["pid"]
        taker.event("complete", turn)
        expect(int(machine.inner_ids(there)[-1]) == 1, f"it is {machine.inner_ids(there)}")
        tree.expect_counting()
        first = there
    end(tree)
    taker.end()


def moves_at_a_stop(lab) -> None:
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab, "--once")
    send(lab, tree.pid, taker.port, "--mode", "stop")
    report = taker.event("complete")["report"]
    expect(report["pages"]["fault"] + report["pages"]["push"] == 0, f"pages came later: {report['pages']}")
    tree.expect_counting()
    end(tree)
    taker.wait(20)


def moves_without_copying_ahead(lab) -> None:
    need_criu()
    tree = _counting(lab)
    taker = Taker(lab, "--once")
    said = send(lab, tree.pid, taker.port, "--mode", "precopy")
    expect(": its memory follows when it runs there, as with --mode postcopy" in said, f"it does not say so: {said}")
    taker.event("complete")
    tree.expect_counting()
    end(tree)
    taker.wait()


def _is_locked(directory: Path, name: str) -> bool:
    """Whether somebody else has the lock of this kind on the file of this name."""
    with open(directory / name, "w", encoding="utf-8") as file:
        try:
            if name == "flocked":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            else:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 7)
        except BlockingIOError:
            return True
    return False


def moves_locks(lab) -> None:
    """The original has them until its end, on the same machine."""
    need_criu()
    tree = Tree(lab, "locks", [sys.executable, str(machine.PROGRAMS / "locks_tree.py")])
    tree.wait_number(5)
    taker = Taker(lab)
    pid = tree.pid
    for turn in range(1, 3):
        send(lab, pid, taker.port, "--file-locks", *(("--mode", "stop") if turn == 2 else ()))
        taker.event("complete", turn)
        tree.expect_counting()
        pid = taker.event("resumed", turn)["pid"]
        for name in ("process", "described", "flocked"):
            expect(_is_locked(tree.directory, name), f"nobody has the lock of '{name}' after move {turn}")
        states = sorted(machine.state(member) for member in processes(tree))
        expect(states.count("T") == 1, f"one was stopped before the move, and after it: {states}")
    expect("without its lock" not in taker.said(), taker.said())
    end(tree)
    until(lambda: not any(_is_locked(tree.directory, name) for name in ("process", "described", "flocked")),
          "the locks to end with the tree")
    taker.end()


def moves_a_static_program(lab) -> None:
    need_criu()
    tree = _reader(lab, 64, static=True)
    taker = Taker(lab, "--once")
    send(lab, tree.pid, taker.port)
    _expect_read(tree)
    taker.event("complete")
    expect(taker.event("exited")["exit_code"] == 0, "it did not end well")
    taker.wait(20)


def moves_with_its_root(lab) -> None:
    """A tree sees nothing of the machine's files but a directory, which lies there too."""
    need_criu()
    machine.need_command("mount", "umount")
    root = lab.directory / "root"
    root.mkdir()
    shutil.copy2(compile_c("random_reader", lab.directory, options=("-static",)), root / "reader")
    tree = Tree(lab, "apart", [sys.executable, str(machine.PROGRAMS / "own_root.py"), str(root), "/reader", "64"])
    tree.out = root / "out"
    until(lambda: tree.out.exists() and "ready" in tree.text(), "the reader to have filled its memory")
    # CRIU wants it to be a mount.
    subprocess.run(["mount", "--bind", "--make-private", root, root], check=True, timeout=20)
    try:
        taker = Taker(lab, "--once")
        [first] = machine.children(tree.pid)
        send(lab, first, taker.port, "--root", root)
        there = taker.event("resumed")["pid"]
        expect(sorted(os.listdir(f"/proc/{there}/root")) == ["old", "out", "proc", "reader"], "it sees other files")
        (root / "go").touch()
        until(lambda: tree.text().partition("ready\n")[2].endswith("ms\n"), "the reader", 60)
        expect("\n0 of " in tree.text(), f"it read wrong: {tree.text()}")
        expect(taker.event("exited")["exit_code"] == 0, "it did not end well")
        taker.wait(20)
    finally:
        subprocess.run(["umount", "-l", root], check=True, timeout=20)


def moves_sealed(lab) -> None:
    need_criu()
    tree = _counting(lab)
    key = lab.key()
    taker = Taker(lab, "--once", "--key-file", key)
    send(lab, tree.pid, taker.port, fails="the receiver at ")
    tree.expect_counting()
    send(lab, tree.pid, taker.port, "--key-file", key)
    taker.event("complete")
    tree.expect_counting()
    end(tree)
    taker.wait(20)


def moves_a_pipeline(lab) -> None:
    """awk into sort's likes: programs of the shell, each with the next one's pipe."""
    need_criu()
    script = ("i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); [ $((i % 100)) = 0 ] && sleep 0.05; done"
              " | awk '{ s += $1; print s; fflush() }' | tee copy | sed 's/^/sum /'; echo done")
    tree = Tree(lab, "pipeline", ["sh", "-c", script])
    taker = Taker(lab, "--once")
    until(lambda: tree.text().count("\n") > 300, "the pipeline to have begun")
    send(lab, tree.pid, taker.port)
    until(lambda: tree.text().endswith("done\n"), "the pipeline to end", 60)
    sums, total = [], 0
    for number in range(3000):
        total += number
        sums.append(f"sum {total}")
    expect(tree.text().splitlines() == [*sums, "done"], "it says something else")
    expect(taker.event("exited")["exit_code"] == 0, "it did not end well")
    taker.wait(20)


def moves_make(lab) -> None:
    need_criu()
    machine.need_command("make", "gcc")
    here = _project(lab, "here")
    subprocess.run(["make", "-s", "-C", here], check=True, capture_output=True)
    wanted = subprocess.run([here / "all"], capture_output=True, check=True).stdout
    project = _project(lab, "there")
    tree = Tree(lab, "make", ["make", "-j2", "-C", str(project)])
    taker = Taker(lab, "--once")
    until(lambda: list(project.glob("*.o")), "the first object")
    expect(not (project / "all").exists(), "make was too fast")
    send(lab, tree.pid, taker.port)
    expect(taker.event("exited", seconds=120)["exit_code"] == 0, f"make failed: {tree.text()[-300:]}")
    got = subprocess.run([project / "all"], capture_output=True, check=True).stdout
    expect(got == wanted, "it has built something else")
    taker.wait(20)


def _project(lab, name: str):
    """A C project whose parts take a while to compile."""
    project = lab.directory / name
    project.mkdir()
    parts = [f"part{index}" for index in range(10)]
    for index, part in enumerate(parts):
        body = "\n".join(f"long {part}_{n}(long x) {{ return x * {n + 1} + {index}; }}" for n in range(400))
        (project / f"{part}.c").write_text(f"{body}\nlong {part}(long x) {{ return {part}_7(x) + {part}_300(x); }}\n")
    calls = "".join(f'    printf("%ld\\n", {part}({index}));\n' for index, part in enumerate(parts))
    declared = "".join(f"long {part}(long);\n" for part in parts)
    (project / "all.c").write_text(f"#include <stdio.h>\n{declared}int main(void)\n{{\n{calls}    return 0;\n}}\n")
    objects = " ".join(f"{part}.o" for part in [*parts, "all"])
    (project / "Makefile").write_text(f"all: {objects}\n\tcc -o $@ $^\n%.o: %.c\n\tcc -O2 -c -o $@ $<\n")
    return project


def moves_an_editor(lab) -> None:
    """tmux with vim in one of its terminals: what is on the screen stays there, and keys arrive."""
    need_criu()
    machine.need_command("tmux", "vim")
    place = lab.directory / "editor"
    place.mkdir()
    (place / "text").write_text("".join(f"line {number}\n" for number in range(1, 101)))

    def tmux(*words: str) -> str:
        command = ["tmux", "-S", place / "socket", "-f", "/dev/null", *words]
        return subprocess.run(command, cwd=place, env=lab.environment(TERM="xterm"), check=True, capture_output=True,
                              text=True, timeout=20).stdout
    tmux("new-session", "-d", "-x", "80", "-y", "24", "vim", "-n", "-u", "NONE", "text")
    tmux("send-keys", "50G", "ihello ")
    until(lambda: "hello line 50" in tmux("capture-pane", "-p"), "vim to take what is typed")
    screen, taker = tmux("capture-pane", "-p"), Taker(lab, "--once")
    send(lab, int(tmux("display-message", "-p", "#{pid}")), taker.port)
    expect(tmux("capture-pane", "-p") == screen, "the screen is another one")
    tmux("send-keys", "world ", "Escape", ":wq", "Enter")
    taker.event("exited")
    expect((place / "text").read_text().splitlines()[49] == "hello world line 50", "vim has written something else")
    taker.wait(20)


def moves_to_another_terminal(lab) -> None:
    """A shell with vim in it, but not the terminal that it runs in: it gets another one, of another size, and draws itself."""
    need_criu()
    machine.need_command("tmux", "vim")
    place, images = lab.directory / "desk", lab.directory / "desk-images"
    place.mkdir()
    images.mkdir()
    (place / "text").write_text("".join(f"line {number}\n" for number in range(1, 101)))

    def tmux(name: str, *words: str) -> str:
        command = ["tmux", "-S", place / name, "-f", "/dev/null", *map(str, words)]
        return subprocess.run(command, cwd=place, env=lab.environment(TERM="xterm", PS1="$ "), check=True,
                              capture_output=True, text=True, timeout=20).stdout
    tmux("here", "new-session", "-d", "-x", "80", "-y", "24", "bash", "--norc")
    tmux("here", "send-keys", "vim -n -u NONE text", "Enter")
    until(lambda: "line 20" in tmux("here", "capture-pane", "-p"), "vim to come")
    tmux("here", "send-keys", "3G", "ihello ")
    until(lambda: "hello line 3" in tmux("here", "capture-pane", "-p"), "vim to take what is typed")
    shell = int(tmux("here", "display-message", "-p", "#{pane_pid}"))
    terminal = os.stat(f"/proc/{shell}/fd/0")
    outside = f"tty[{terminal.st_rdev:x}:{terminal.st_dev:x}]"
    journal = place / "events"
    tmux("there", "new-session", "-d", "-x", "60", "-y", "15", "sh", "-c", f'exec "$@" 2>{place}/said-there', "sh", BRIDGE,
         "receive", "0", "--once", "--events", journal, "-D", images, "--inherit-fd", f"fd[0]:{outside}")

    def event(name: str) -> dict:
        lines = journal.read_text().splitlines() if journal.exists() else []
        return next((event for event in map(json.loads, lines) if event["event"] == name), {})
    port = until(lambda: event("listening"), "the receiver")["port"]
    send(lab, shell, port, "--external", outside)
    until(lambda: "hello line 3" in tmux("there", "capture-pane", "-p"), "vim to draw itself there")
    expect("line 20" not in tmux("there", "capture-pane", "-p"), "it has not seen that the terminal is smaller")
    tmux("there", "send-keys", "world ", "Escape", ":wq", "Enter")
    until(lambda: "hello world line 3" in (place / "text").read_text(), "vim to write")
    tmux("there", "send-keys", "echo the same $$ > said", "Enter")
    until(lambda: (place / "said").exists() and (place / "said").read_text() == f"the same {shell}\n", "the shell to go on")
    tmux("there", "send-keys", "exit", "Enter")
    until(lambda: event("exited"), "the end of the shell")


def leaves_a_copy(lab) -> None:
    need_criu()
    tree = _reader(lab, 16)
    taker = Taker(lab, "--once")
    done = send(lab, tree.pid, taker.port, "--leave-running", says="copied; the tree's root is process")
    expect("goes on here" in done, done)
    taker.event("complete")
    # Both have the same file for what they say.
    (tree.directory / "go").touch()
    until(lambda: tree.text().count("\n0 of ") == 2 and tree.text().endswith("ms\n"), "both to have read", 60)
    taker.wait(20)


def _consents(lab, what: str, option: str) -> tuple:
    """Refused without the option; moved with it, and counting on."""
    tree = Tree(lab, what, [sys.executable, str(machine.PROGRAMS / "consents.py"), what])
    tree.wait_number(20)
    taker = Taker(lab, name=f"receive-{what}")
    send(lab, tree.pid, taker.port, fails="criu cannot dump this process: ")
    tree.expect_counting()
    send(lab, tree.pid, taker.port, option)
    taker.event("complete")
    tree.expect_counting()
    return tree, taker


def wrong_descriptor(lab) -> None:
    need_criu()
    done = subprocess.run([BRIDGE, "receive", "0", "--inherit-fd", "fd[77]:tty[8803:1b]"], capture_output=True, text=True,
                          timeout=60)
    expect(done.returncode == 2, f"it exits with {done.returncode}: {done.stderr}")
    expect(done.stderr == "criu-bridge: --inherit-fd fd[77]:tty[8803:1b]: this descriptor is not open\n", done.stderr)


def moves_a_name(lab) -> None:
    need_criu()
    tree, taker = _consents(lab, "link", "--link-remap")
    expect((tree.directory / "another-name").exists(), "its other name is gone")
    end(tree)
    taker.end()


def cuts_a_socket(lab) -> None:
    need_criu()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as outside:
        outside.bind(str(lab.directory / "outside"))
        outside.settimeout(20)
        tree, taker = _consents(lab, "socket", "--ext-unix-sk")
        moved = len(tree.numbers())
        while int(outside.recv(99)) < moved:
            pass
        end(tree)
        taker.end()


def moves_from_a_session(lab) -> None:
    need_criu()
    command = [sys.executable, str(machine.PROGRAMS / "consents.py"), "session"]
    tree = Tree(lab, "session", ["sh", "-c", '"$@" & echo $! > pid; wait', "sh", *command])
    tree.wait_number(20)
    tree.pid = int((tree.directory / "pid").read_text())
    taker = Taker(lab)
    send(lab, tree.pid, taker.port, fails="criu cannot dump this process: ")
    tree.expect_counting()
    send(lab, tree.pid, taker.port, "--shell-job")
    taker.event("complete")
    tree.expect_counting()
    end(tree)
    taker.end()


def _checks() -> list:
    return [
        Check("a tree with threads, pipe and socket moves three times and counts on", moves_a_tree),
        Check("a tree moves with PID, IPC and UTS namespaces of its own, twice", moves_with_its_namespaces),
        Check("with --mode stop all of a tree's memory comes before it goes on", moves_at_a_stop),
        Check("with --mode precopy it is said that memory follows instead, and a tree moves", moves_without_copying_ahead),
        Check("locks on files are a tree's at every place within one machine", moves_locks),
        Check("with --root a tree moves with the root directory that it has of its own", moves_with_its_root),
        Check("a static program moves", moves_a_static_program),
        Check("a pipeline of the shell's says the same after a move", moves_a_pipeline),
        Check("make -j2 builds the same after a move", moves_make),
        Check("vim in a terminal of tmux moves, with what is on its screen", moves_an_editor),
        Check("a shell with vim moves to another terminal by --external and --inherit-fd", moves_to_another_terminal),
        Check("--inherit-fd with a number that is not open is refused before anything listens", wrong_descriptor),
        Check("with --link-remap a deleted file with another name moves", moves_a_name),
        Check("with --ext-unix-sk a tree moves although its socket's other end does not", cuts_a_socket),
        Check("with --shell-job a program moves out of somebody else's session", moves_from_a_session),
        Check("with --leave-running a tree goes on at both places", leaves_a_copy),
        Check("with a key a tree moves sealed, and one without it goes on where it is", moves_sealed),
    ]


CHECKS = _checks
