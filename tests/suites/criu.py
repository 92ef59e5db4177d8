"""The bridge to CRIU, with the real CRIU and programs that nobody here wrote."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.criu import (
    BRIDGE, Daemon, Tree, bridge, kill_marked, large_pipes, need_criu, restore_lazily)
from tests.harness.results import Check
from tests.harness.waiting import expect, until


def _tree(lab) -> Tree:
    tree = Tree(lab, "tree", [sys.executable, str(machine.PROGRAMS / "tree.py")])
    tree.wait_number(20)
    return tree


def checks_machine(lab) -> None:
    need_criu()
    done = subprocess.run([BRIDGE, "check", "--json"], capture_output=True, text=True)
    report = json.loads(done.stdout)
    expect(done.returncode == 0 and report["usable"], f"not usable: {report}")
    for finding in report["findings"]:
        expect(finding["grade"] == "ok" or finding["cure"], f"no cure for {finding}")


def dumps_and_restores(lab) -> None:
    criu = need_criu()
    tree = _tree(lab)
    images = lab.directory / "images"
    bridge(lab, "dump", tree.pid, "-D", images)
    expect(not tree.runs(), "it runs on although it was dumped")
    bridge(lab, "restore", images, "-d")
    tree.expect_counting()
    # The other way round, with CRIU's own command.
    again = lab.directory / "again"
    again.mkdir()
    bridge(lab, "dump", tree.pid, "-D", again)
    expect(_criu_restores(criu, again), "criu does not restore what criu-bridge has dumped")
    tree.expect_counting()
    tree.kill()


def _criu_restores(criu: str, images) -> bool:
    # An id is free only a while after its process has gone.
    command = [criu, "restore", "-D", images, "-d"]
    return until(lambda: subprocess.run(command, capture_output=True).returncode == 0, "criu to restore it", 20)


def leaves_running(lab) -> None:
    need_criu()
    tree = _tree(lab)
    bridge(lab, "dump", tree.pid, "-D", lab.directory / "images", "--leave-running")
    tree.expect_counting()
    tree.kill()


def says_why(lab) -> None:
    need_criu()
    tree = _tree(lab)
    bridge(lab, "dump", 0x3fffff, "-D", lab.directory / "images", fails="criu cannot dump this process: ")
    bridge(lab, "restore", lab.directory / "nowhere", fails="nowhere")
    empty = lab.directory / "empty"
    empty.mkdir()
    bridge(lab, "restore", empty, fails="criu cannot restore these images: ")
    tree.expect_counting()
    tree.kill()


def _lazy_dump(lab, criu: str, tree, images):
    """Real CRIU dumps, and serves the pages on a port that it has taken."""
    images.mkdir()
    port = _free_port()
    dump = Daemon(lab, "dump", criu, "dump", "-t", tree.pid, "-D", images, "--lazy-pages", "--address", "127.0.0.1",
                  "--port", port, "--display-stats")
    until(lambda: _is_listening(port), "criu's page server", 30, alive=[dump])
    return dump, port


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _is_listening(port: int) -> bool:
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines[1:])


def _serve(lab, images, *arguments) -> Daemon:
    server = Daemon(lab, "lazy-pages", BRIDGE, "lazy-pages", "-D", images, *arguments)
    until((images / "lazy-pages.socket").exists, "lazy-pages.socket", alive=[server])
    return server


def _reader(lab, mebibytes: int) -> Tree:
    program = compile_c("random_reader", lab.directory)
    tree = Tree(lab, "reader", [program, str(mebibytes)])
    until(lambda: "ready" in tree.text(), "the reader to have filled its memory")
    return tree


def _expect_read(tree: Tree) -> None:
    (tree.directory / "go").touch()
    line = until(lambda: tree.text().partition("ready\n")[2].endswith("ms\n") and tree.text(), "the reader", 60)
    expect("\n0 of " in line, f"it read wrong: {line}")


def serves_a_dump(lab) -> None:
    criu = need_criu()
    for make, look in ((_tree, Tree.expect_counting), (lambda lab: _reader(lab, 64), _expect_read)):
        tree = make(lab)
        images = lab.directory / f"images-{tree.name}"
        with large_pipes():
            dump, port = _lazy_dump(lab, criu, tree, images)
            server = _serve(lab, images, "--page-server", "--port", port)
            restored = restore_lazily(lab, criu, images)
            look(tree)
            server.wait()
            dump.wait()
        look(tree)
        _end(restored, lab)


def serves_in_the_background(lab) -> None:
    """With CRIU's own options: the command ends when the socket is there, and its work goes on."""
    criu = need_criu()
    tree = _reader(lab, 16)
    images = lab.directory / "images"
    bridge(lab, "lazy-pages", "-D", lab.directory, "--daemon", fails="pstree.img")
    bridge(lab, "dump", tree.pid, "-D", images)
    reader, writer = os.pipe()
    with open(reader, "rb") as status:
        done = subprocess.run([BRIDGE, "lazy-pages", "-D", images, "--daemon", "--pidfile", "server.pid", "--status-fd",
                               str(writer)], env=lab.environment(), capture_output=True, text=True, timeout=60,
                              pass_fds=[writer])
        os.close(writer)
        expect(done.returncode == 0 and not done.stdout + done.stderr, f"it says {done.stdout}{done.stderr}")
        expect(status.read() == b"\0", "it does not say that it is ready")
    expect((images / "lazy-pages.socket").exists(), "there is no socket")
    server = int((images / "server.pid").read_text())
    expect(os.getsid(server) == server, "it is not in a session of its own")
    restored = restore_lazily(lab, criu, images)
    _expect_read(tree)
    until(lambda: not Path(f"/proc/{server}").exists(), "the server to end")
    _end(restored, lab)


def serves_images(lab) -> None:
    criu = need_criu()
    tree = _reader(lab, 64)
    images = lab.directory / "images"
    bridge(lab, "dump", tree.pid, "-D", images)
    server = _serve(lab, images)
    restored = restore_lazily(lab, criu, images)
    _expect_read(tree)
    server.wait()
    _end(restored, lab)


def lends_pages(lab) -> None:
    """Real criu lazy-pages gets every page from our page server."""
    criu = need_criu()
    tree = _reader(lab, 16)
    images = lab.directory / "images"
    bridge(lab, "dump", tree.pid, "-D", images)
    port = _free_port()
    lender = Daemon(lab, "page-server", BRIDGE, "page-server", "--lazy-pages", "-D", images, "--port", port)
    until(lambda: _is_listening(port), "the page server", alive=[lender])
    server = Daemon(lab, "criu-lazy-pages", criu, "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port",
                    port, "-D", images)
    until((images / "lazy-pages.socket").exists, "lazy-pages.socket", alive=[server])
    restored = restore_lazily(lab, criu, images)
    _expect_read(tree)
    server.wait()
    lender.wait()
    _end(restored, lab)


def takes_pages(lab) -> None:
    """Real criu dump sends its pages to our page server, and real criu restore finds them."""
    criu = need_criu()
    tree = _tree(lab)
    images = lab.directory / "images"
    images.mkdir()
    port = _free_port()
    taker = Daemon(lab, "page-server", BRIDGE, "page-server", "-D", images, "--port", port)
    until(lambda: _is_listening(port), "the page server", alive=[taker])
    dump = Daemon(lab, "dump", criu, "dump", "-t", tree.pid, "-D", images, "--page-server", "--address", "127.0.0.1",
                  "--port", port)
    dump.wait()
    taker.wait()
    bridge(lab, "restore", images, "-d")
    tree.expect_counting()
    tree.kill()


def _end(restored: Daemon, lab) -> None:
    """Ends what was restored, with all that it has started."""
    restored.kill()
    kill_marked(lab.directory)


def _checks() -> list:
    return [
        Check("criu-bridge check says of each thing that is missing how it is cured", checks_machine),
        Check("a tree with threads, pipe and socket is dumped and restored, also by criu itself", dumps_and_restores),
        Check("a tree that is dumped with --leave-running counts on", leaves_running),
        Check("criu-bridge lazy-pages serves criu's dump to criu's restore", serves_a_dump),
        Check("criu-bridge lazy-pages serves images to criu's restore", serves_images),
        Check("criu-bridge lazy-pages --daemon --pidfile goes on in the background", serves_in_the_background),
        Check("criu lazy-pages gets its pages from criu-bridge page-server", lends_pages),
        Check("criu-bridge page-server takes the pages of criu's dump", takes_pages),
        Check("what criu cannot do is said in one line, and the tree counts on", says_why),
    ]


CHECKS = _checks
