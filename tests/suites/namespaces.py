"""Programs that nobody here wrote move between network and PID namespaces, over sealed links, in mid-work.

They begin in a PID namespace of their own, and the receiver gives each another one.
"""

import glob
import hashlib
import os
import shutil
import subprocess
import sys
from functools import partial

from tests.harness import machine, scale
from tests.harness.compiling import compile_c
from tests.harness.network import ADDRESS, OTHER_ADDRESS, Network
from tests.harness.results import Check
from tests.harness.waiting import expect, until
from tests.suites import foreign, workloads
from tests.suites.failures import Inner
from tests.suites.servers import memcached_moves, redis_moves

_TRIGGER = 50
_STATEMENTS = 40
_FILES = 20
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {place}/nginx.pid; error_log {place}/error.log;
events {{ worker_connections 64; }}
http {{ access_log off; client_body_temp_path {place}/a; proxy_temp_path {place}/b; fastcgi_temp_path {place}/c;
        uwsgi_temp_path {place}/d; scgi_temp_path {place}/e;
        server {{ listen 8088; root {place}/files; }} }}
"""


# Its first process cannot leave a namespace; a shell would give one in the background nothing to read.
_SECOND = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc",
           "sh", "-c", 'exec 3<&0; "$@" <&3 3<&- & wait $!', "sh"]


class Machines:
    """Two network namespaces with a receiver in each that has a key."""

    def __init__(self, lab, *arguments: str):
        self.lab, self.network, key = lab, Network(lab, apart=True), lab.key()
        self.receivers = {name: lab.receiver(name, wrapper=self.network.inside(name),
                                             arguments=("--bind", "0.0.0.0", "--key-file", key, *arguments))
                          for name in ("left", "right")}
        self.receivers["left"].host, self.receivers["right"].host = ADDRESS, OTHER_ADDRESS
        self.settings = {"POSTHASTE_KEY_FILE": key}

    @property
    def receiver(self):
        return self.receivers["right"]

    def start(self, name: str, command: list, settings: dict = None, **options) -> Inner:
        """A program in the left one, in a PID namespace of its own."""
        command = [*self.network.inside("left"), *_SECOND, *command]
        wrapper = self.lab.program(name, command, {**self.settings, **(settings or {})}, **options)
        shell = until(lambda: machine.children(wrapper.pid), f"the namespace of {name}", alive=[wrapper])[0]
        return Inner(wrapper, until(lambda: machine.children(shell), f"{name} to begin", alive=[wrapper])[0])

    def move(self, program, there: str = "right"):
        return self.lab.move(program, self.receivers[there])

    def entered(self, moved: bool):
        """This thread's new sockets are where a program is that has moved, or has not yet."""
        return self.network.entered("right" if moved else "left")


def program_moves(program: foreign.Foreign, lab) -> None:
    machines = Machines(lab)
    foreign.moves_in_mid_work(program, lab, machines.receiver, machines.start)


def server_moves(moves, lab) -> None:
    moves(lab, Machines(lab))


def _get(machines, name: str) -> list:
    """What the server in a namespace says to be in its files."""
    code = ("import urllib.request as r, hashlib\n"
            f"for n in range({_FILES}):\n"
            "  print(hashlib.md5(r.urlopen(f'http://127.0.0.1:8088/{n}', timeout=10).read()).hexdigest())")
    return machines.network.run(name, sys.executable, "-c", code).split()


def nginx_moves(lab) -> None:
    machine.need_command("nginx")
    machines, place = Machines(lab), lab.directory / "web"
    (place / "files").mkdir(parents=True)
    for each in (lab.directory, place, place / "files"):
        each.chmod(0o755)
    wanted = []
    for number in range(_FILES):
        content = os.urandom(1 << number)
        (place / "files" / str(number)).write_bytes(content)
        wanted.append(hashlib.md5(content).hexdigest())
    (place / "conf").write_text(_NGINX.format(place=place))
    server = machines.start("nginx", ["nginx", "-c", str(place / "conf")], {"POSTHASTE_SIGNAL": str(_TRIGGER)},
                            trigger=_TRIGGER)
    until(lambda: (place / "nginx.pid").exists(), "nginx", alive=[server])
    expect(_get(machines, "left") == wanted, "nginx serves something else")
    for there in ("right", "left", "right"):
        server = machines.move(server, there)
        server.wait_complete()
        expect(_get(machines, there) == wanted, f"nginx serves something else at the {there}")


def partition_is_noticed(lab) -> None:
    """The machines lose each other without a word, and find each other again: both notice, and nothing is lost."""
    machines = Machines(lab, "--mode", "postcopy", "--bandwidth", "4M")
    program = machines.start("counter", [str(machine.BIN / "target"), "counter", "--interval-ms", "1",
                                         "--resident-mib", "64"], {})
    program.wait_lines(3)
    moved, there = machines.move(program, "right"), machines.receivers["right"]
    machines.network.part()
    until(lambda: there.find("paused"), "the receiver to notice", 45, alive=[there])
    until(lambda: "is lost; connecting again" in program.errors(), "the source to notice", 45, alive=[program])
    expect(not there.find("complete"), "everything had come already")
    machines.network.rejoin()
    until(lambda: there.find("recovered"), "the source to be there again", alive=[there, program])
    workloads.wait_progress(moved, "counter", -1)
    moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    workloads.finish(moved, "counter")


def cold_pages_move(lab) -> None:
    """Memory that a program has written once, its libraries' too, is as it was after every move, whether anybody looks at
    it or not.
    """
    machines = Machines(lab)
    libraries = [line.split()[2] for line in subprocess.run(["ldd", sys.executable], capture_output=True, text=True,
                                                            check=True).stdout.splitlines() if " => /" in line]
    program = machines.start("cold_pages", [compile_c("cold_pages", lab.directory), *libraries], {},
                             through_pipe=False)
    program.wait_lines(6)
    moved = program
    for there in ("right", "left") * scale.times(2, 100):
        moved = machines.move(moved, there)
        moved.wait_complete()
        rounds = len(program.text().splitlines())
        until(lambda rounds=rounds: len(program.text().splitlines()) > rounds + 1, "it to look again", alive=[moved])
        wrong = [line for line in program.text().splitlines() if "FAIL" in line]
        expect(not wrong, f"{len(wrong)} pages are not as they were: {wrong[:3]}")


def postgres_programs() -> str:
    """Where those of PostgreSQL are."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")  # where Debian has it, out of everybody's path
    return os.path.dirname(os.path.realpath(shutil.which("postgres") or (found or [""])[-1]))


def postgres_moves(lab) -> None:
    """Two runs of the same statements over two new clusters. It has System V shared memory, by which it knows whether
    another one is at work on its files.
    """
    programs = postgres_programs()
    machine.need_command(f"{programs}/postgres", "setpriv")
    machines = Machines(lab)
    lab.directory.chmod(0o755)
    os.chmod(machines.settings["POSTHASTE_KEY_FILE"], 0o600)
    shutil.chown(machines.settings["POSTHASTE_KEY_FILE"], "nobody")
    statements = lab.directory / "statements"
    statements.write_text("".join(
        f"select {number}, count(*), sum(hashtext((a * {number})::text)::bigint) from generate_series(1, 200000) a;\n"
        for number in range(1, _STATEMENTS + 1)))
    become = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    runs = {}
    for name in ("moved", "unmoved"):
        data = lab.directory / f"data-{name}"
        data.mkdir()
        shutil.chown(data, "nobody", "nogroup")
        subprocess.run([*become, f"{programs}/initdb", "-D", str(data), "-N", "--locale=C"], check=True, timeout=120,
                       cwd=data, capture_output=True)
        command = [*become, f"{programs}/postgres", "--single", "-D", str(data), "-F", "postgres"]
        preload = {} if name == "moved" else {"LD_PRELOAD": ""}
        with open(statements, "rb") as stdin:
            runs[name] = machines.start(name, command, {"POSTHASTE_SIGNAL": str(_TRIGGER), **preload}, stdin=stdin,
                                        through_pipe=False, trigger=_TRIGGER)
    program, unmoved = runs["moved"], runs["unmoved"]
    until(lambda: program.text().count("sum = ") >= 3, "postgres to be at work", 60, alive=[program])
    moved = program
    program.wrapper.directory = lab.directory / "data-moved"  # its working directory
    for there in ("right", "left", "right"):
        done = program.text().count("sum = ")
        moved = machines.move(moved, there)
        moved.wait_complete()
        until(lambda done=done: program.text().count("sum = ") > done, "postgres to go on", 60, alive=[moved])
    ended = moved.wait_exited(120)
    expect(ended.get("exit_code") == 0 and unmoved.wait(120) == 0, f"postgres ended with {ended}")
    expect(program.text() == unmoved.text() and program.text().count("sum = ") == _STATEMENTS, "it has another result")


def _checks() -> list:
    checks = [Check(f"{program.name} moves between namespaces with a key", partial(program_moves, program))
              for program in foreign.PROGRAMS]
    checks += [Check(f"{name} moves between namespaces with a key", partial(server_moves, moves))
               for name, moves in (("redis-server", redis_moves), ("memcached", memcached_moves))]
    checks.append(Check("two machines that lose each other without a word notice it, and go on when they are there again",
                        partition_is_noticed))
    checks.append(Check("what a program and its libraries wrote long ago is as it was after each of many moves",
                        cold_pages_move))
    return checks + [Check("nginx moves between namespaces with a key", nginx_moves),
                     Check("PostgreSQL in single-user mode moves between namespaces with a key", postgres_moves)]


CHECKS = _checks
