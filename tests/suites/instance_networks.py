"""Servers that are trees of processes move from one network namespace to another, address and connections with them."""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.harness import link as frames
from tests.harness import machine
from tests.harness.compiling import compile_c
from tests.harness.criu import Tree, need_criu
from tests.harness.network import ADDRESS, Network
from tests.harness.results import Check
from tests.harness.trees import Taker, begin_to_send, end, send
from tests.harness.waiting import Failure, expect, until
from tests.suites.namespaces import postgres_programs
from tests.suites.servers import Client, check_redis, fill_redis

PORT = 7000
CONNECTIONS = 3
LINES = 300


class Machines:
    """A machine on the left, where a tree runs, and one on the right, which takes it; the world reaches one of them."""

    def __init__(self, lab):
        machine.need_command("iptables-restore")
        self.lab, self.network = lab, Network(lab)
        self.taker = Taker(lab, wrapper=self.network.inside("right"))
        self.network.reach("left")

    def tree(self, name: str, command: list) -> Tree:
        return Tree(self.lab, name, [*self.network.inside("left"), *map(str, command)])

    def move(self, tree: Tree, *arguments) -> dict:
        """Moves a tree, its address and its connections; returns the report."""
        link = self.lab.link(self.taker, listener=self.network.listener("left"),
                             entered=lambda: self.network.entered("right"))
        # The world reaches neither side meanwhile, as when a machine's address is moved.
        self.network.reach(None)
        send(self.lab, tree.pid, link.port, "--tcp-established", *arguments, wrapper=self.network.inside("left"))
        self.network.reach("right")
        return self.taker.event("complete")["report"]

    def client(self, *command, **options) -> subprocess.Popen:
        process = subprocess.Popen([*self.network.inside("world"), *map(str, command)], stdin=subprocess.PIPE,
                                   env=self.lab.environment(), text=True, **options)
        self.lab.helpers.append(process)
        return process


def connections_move(lab) -> None:
    need_criu(sockets=True)
    machines = Machines(lab)
    tree = machines.tree("server", [sys.executable, machine.PROGRAMS / "numbered_server.py", ADDRESS, PORT])
    until(lambda: "\n" in tree.text(), "the server to listen")
    out = lab.directory / "client.out"
    with open(out, "wb") as said:
        client = machines.client(sys.executable, machine.PROGRAMS / "numbered_client.py", ADDRESS, PORT, stdout=said,
                                 stderr=subprocess.STDOUT)

    def answered() -> list:
        text = out.read_text()
        if client.poll():
            raise Failure(f"the client: {text[-400:]}")
        lines = re.findall(r"^answered (\d+) (\d+) (\d+)$", text, re.MULTILINE)
        return [int(number) for number in lines[-1]] if lines else [0] * CONNECTIONS

    def wait_for_load() -> None:
        before = answered()
        until(lambda: all(now > then + LINES for now, then in zip(answered(), before)), f"answers beyond {before}", 60)
    wait_for_load()
    machines.move(tree)
    wait_for_load()
    client.stdin.close()
    expect(client.wait(60) == 0 and "every line came back" in out.read_text(), f"the client: {out.read_text()[-400:]}")
    until(lambda: tree.text().count("closed after") == CONNECTIONS, "the server to see every connection end")
    expect("wrong" not in tree.text() and "lost" not in tree.text(), f"the server: {tree.text()[:500]}")
    end(tree)
    machines.taker.end()


def redis_moves(lab) -> None:
    need_criu(sockets=True)
    machine.need_command("redis-server")
    machines = Machines(lab)
    tree = machines.tree("redis", ["redis-server", "--port", str(PORT), "--bind", ADDRESS, "--save", "", "--appendonly",
                                   "no", "--protected-mode", "no"])
    with machines.network.entered("world"):
        client = Client(PORT, [], ADDRESS)
    with client:
        fill_redis(client)
        expect(client.ask("INCR moves") == ":1", "redis does not count")
        machines.move(tree)
        expect(client.ask("INCR moves") == ":2", "redis has lost count")
        check_redis(client)
        client.send("SHUTDOWN NOSAVE\r\n")
    expect(machines.taker.event("exited")["exit_code"] == 0, "redis did not end well")
    machines.taker.end()


def postgres_moves(lab) -> None:
    """A cluster of PostgreSQL's, with an IPC namespace of its own: its System V segment comes along."""
    need_criu(sockets=True)
    programs = postgres_programs()
    machine.need_command(f"{programs}/pgbench", "setpriv")
    machines = Machines(lab)
    data = lab.directory / "cluster"
    data.mkdir()
    user = pwd.getpwnam("postgres")
    os.chown(data, user.pw_uid, user.pw_gid)
    lab.directory.chmod(0o755)
    become = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--init-groups"]
    subprocess.run([*become, f"{programs}/initdb", "-D", data, "-A", "trust", "-N"], cwd="/", check=True,
                   capture_output=True)
    (data / "pg_hba.conf").write_text("host all all 0.0.0.0/0 trust\n")
    pretends = ["env", f"LD_PRELOAD={compile_c('another_user', lab.directory, options=('-shared', '-fPIC'))}",
                f"ANOTHER_USER={user.pw_uid}"]
    tree = machines.tree("postgres", ["unshare", "--ipc", *pretends, f"{programs}/postgres", "-D", data, "-k", "",
                                      "-h", ADDRESS, "-p", PORT, "-c", "fsync=off"])
    there = ["-h", ADDRESS, "-p", str(PORT), "-U", "postgres"]
    bench = [*machines.network.inside("world"), f"{programs}/pgbench", *there]
    made = [*bench, "-q", "-i", "-s", "2", "postgres"]
    until(lambda: subprocess.run(made, cwd="/", capture_output=True).returncode == 0, "the cluster to answer", 60)
    client = subprocess.Popen([*bench, "-c", "4", "-T", "8", "-P", "1", "postgres"], cwd="/", text=True,
                              env=lab.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lab.helpers.append(client)
    line = client.stdout.readline()
    while "progress: 2" not in line:
        expect(line, "pgbench has ended early")
        line = client.stdout.readline()
    machines.move(tree)
    said = client.stdout.read()
    expect(client.wait(60) == 0 and "number of failed transactions: 0 " in said, f"pgbench: {said[-600:]}")
    query = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)"
    done = subprocess.run([*machines.network.inside("world"), f"{programs}/psql", *there, "-Atc", query, "postgres"],
                          cwd="/", capture_output=True, text=True)
    expect(done.stdout.strip() == "t", f"the accounts do not add up: {done.stdout} {done.stderr}")
    os.kill(machines.taker.event("resumed")["pid"], signal.SIGINT)
    expect(machines.taker.event("exited")["exit_code"] == 0, "the cluster did not end well")
    machines.taker.end()


# Stands for a command that sets rules, and waits: iptables-restore before it sets those of a chain, iptables behind it.
_SLOW_RULES = """#!/bin/sh
rules=$(cat)
case $rules in *"-I INPUT"*) touch {place}/begun; while [ ! -e {place}/go ]; do sleep 0.05; done;; esac
echo "$rules" | {real} "$@" || exit
case $rules in *"-I INPUT"*) touch {place}/set;; esac
"""
_SLOW_RULE = """#!/bin/sh
{real} "$@" || exit
case "$0 $*" in *restore*|*DROP*) touch {place}/set; while [ ! -e {place}/go ]; do sleep 0.05; done;; esac
"""
_TALKS_TO_ITSELF = """
import itertools, socket, time
listener = socket.create_server(("127.0.0.1", 0))
ends = []
for _ in range(20):
    ends += [socket.create_connection(listener.getsockname()), listener.accept()[0]]
for number in itertools.count():
    ends[0].send(b"x" * 9)
    print(number if ends[1].recv(9) else "lost", flush=True)
    time.sleep(0.01)
"""


def _slowly(place: Path, command: str, script: str) -> list:
    """What to put before a program for which `command` is this script, which notes in `place` how far it is."""
    place.mkdir()
    slow = place / command
    slow.write_text(script.format(real=shutil.which(command), place=place))
    slow.chmod(0o755)
    return ["env", f"PATH={place}:{os.environ['PATH']}"]


def leaves_no_rules(lab) -> None:
    """A session that is killed while it rebuilds connections: the rules that keep packets from them do not stay."""
    need_criu(sockets=True)
    machine.need_command("iptables-restore")
    network = Network(lab)
    inside = network.inside("right")
    place = lab.directory / "rules"
    taker = Taker(lab, wrapper=(*inside, *_slowly(place, "iptables-restore", _SLOW_RULES)))

    def rules() -> list:
        done = subprocess.run([*inside, "iptables", "-S"], capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "POSTHASTE" in line]
    tree = Tree(lab, "talker", [*network.inside("left"), sys.executable, "-c", _TALKS_TO_ITSELF])
    tree.wait_number(5)
    link = lab.link(taker, listener=network.listener("left"), entered=lambda: network.entered("right"), comes_back=True)
    sending = begin_to_send(lab, tree.pid, link.port, "--tcp-established", wrapper=network.inside("left"))
    until((place / "begun").exists, "the rules to be set", 60, alive=[taker])
    [session] = machine.children(taker.process.pid)
    os.kill(session, signal.SIGKILL)
    (place / "go").touch()
    until((place / "set").exists, "the rules to be set after all", alive=[taker])
    until(lambda: not rules(), "the rules to be gone")
    _, said = sending.communicate(timeout=60)
    expect("the tree goes on here" in said, said)
    tree.wait_number(len(tree.numbers()) + 5)
    send(lab, tree.pid, link.port, "--tcp-established", wrapper=network.inside("left"))
    tree.wait_number(len(tree.numbers()) + 5)
    expect(not rules() and "lost" not in tree.text(), f"{rules()}, {tree.text()[-100:]}")
    end(tree)
    taker.end()


def _kill_criu(sending) -> None:
    """Kills the criu that a `send` has started."""
    [worker] = [pid for pid in machine.children(sending.pid) if b"swrk" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(worker, signal.SIGKILL)


def unlocks(lab) -> None:
    """criu is killed behind the word to run, which nobody hears: what it has cut off of the tree's connections is put right."""
    need_criu(sockets=True)
    network = Network(lab)
    inside = network.inside("left")
    taker = Taker(lab, wrapper=network.inside("right"))
    tree = Tree(lab, "talker", [*inside, sys.executable, "-c", _TALKS_TO_ITSELF])
    tree.wait_number(5)
    link = lab.link(taker, cut_in=(frames.RUN, 0), when_cut=taker.kill, listener=network.listener("left"),
                    entered=lambda: network.entered("right"))
    said = lab.directory / "said"
    with open(said, "w") as err:
        sending = begin_to_send(lab, tree.pid, link.port, "--tcp-established", wrapper=inside, stderr=err)
    until(lambda: "kill -USR1" in said.read_text() or sending.poll() is not None, "the user to be asked", 60)
    _kill_criu(sending)

    def rules() -> list:
        lines = network.run("left", "iptables", "-S").splitlines()
        return [line for line in lines if "0xc114" in line]
    expect(rules(), "criu has set no rules")
    sending.send_signal(signal.SIGUSR1)
    expect(sending.wait(60) == 1 and "by your word; the tree goes on here" in said.read_text(), said.read_text())
    expect(not rules(), f"rules are left: {rules()}")
    tree.wait_number(len(tree.numbers()) + 5)
    end(tree)


def _own_world(lab) -> tuple:
    """A tree that is the first of a network of its own, from where it is sent, and what tells of its rules."""
    shell = 'ip link set lo up && exec "$@"'
    # Its parent is not in that network.
    own = ["unshare", "--pid", "--ipc", "--uts", "--fork", "setsid", "unshare", "--net", "sh", "-c", shell, "sh"]
    tree = Tree(lab, "talker", [*own, sys.executable, "-c", _TALKS_TO_ITSELF])
    tree.wait_number(5)
    [tree.pid] = machine.children(tree.pid)
    return tree, (), ["nsenter", "--target", str(tree.pid), "--net", "iptables", "-S"]


def _shared_world(lab) -> tuple:
    inside = Network(lab).inside("left")
    tree = Tree(lab, "talker", [*inside, sys.executable, "-c", _TALKS_TO_ITSELF])
    tree.wait_number(5)
    return tree, inside, [*inside, "iptables", "-S"]


def unlocks_in_mid_dump(world, command: str, lab) -> None:
    """criu is killed as it cuts off the tree's connections, before it has dumped anything: they go on."""
    need_criu(sockets=True)
    machine.need_command(command)
    tree, inside, rules = world(lab)
    taker = Taker(lab, wrapper=inside)
    place = lab.directory / "rules"
    slowly = _slowly(place, command, _SLOW_RULE)
    sending = begin_to_send(lab, tree.pid, taker.port, "--tcp-established", wrapper=(*inside, *slowly))
    until((place / "set").exists, "the first rule", 60, alive=[taker])
    _kill_criu(sending)
    (place / "go").touch()
    _, said = sending.communicate(timeout=60)
    expect(sending.returncode == 1 and "the tree goes on here" in said, said)
    left = [line for line in subprocess.run(rules, capture_output=True, text=True, check=True).stdout.splitlines()
            if "0xc114" in line or "CRIU" in line]
    expect(not left, f"rules are left: {left}")
    tree.wait_number(len(tree.numbers()) + 5)
    expect("lost" not in tree.text(), tree.text()[-100:])
    end(tree)
    taker.end()


def _checks() -> list:
    return [
        Check("PostgreSQL moves under pgbench, and no transaction fails", postgres_moves),
        Check("a server under load moves with its address and its connections", connections_move),
        Check("a session killed while it rebuilds a tree's own connections leaves no rules for packets", leaves_no_rules),
        Check("criu killed as it cuts off a tree's connections: they are not left cut off",
              partial(unlocks_in_mid_dump, _shared_world, "iptables")),
        Check("criu killed as it cuts off a tree's network: it is not left cut off",
              partial(unlocks_in_mid_dump, _own_world, "iptables-restore")),
        Check("criu killed behind the word to run, and the user's word: the tree's connections are not left cut off", unlocks),
        Check("redis moves under the eyes of a client that stays connected", redis_moves),
    ]


CHECKS = _checks
