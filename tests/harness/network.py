"""Two machines and a world that reaches them, as network namespaces that end with the test.

```text
  world 10.77.0.1 ──┬── left   10.77.0.9      one address for both: a route of the world says which of them is reached,
                    └── right  10.77.0.9      or neither; or `apart`: right has 10.77.0.8, and they reach each other
```
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading

from tests.harness import machine
from tests.harness.waiting import Failure, until

WORLD, ADDRESS, OTHER_ADDRESS = "10.77.0.1", "10.77.0.9", "10.77.0.8"
_NEW_NETWORK = 0x40000000


class Network:
    """Namespaces `world`, `left` and `right`, each held by a process of the lab."""

    def __init__(self, lab, apart: bool = False):
        machine.need_command("ip", "nsenter", "unshare")
        self.holders = {name: self._hold(lab, name) for name in ("world", "left", "right")}
        for name, holder in self.holders.items():
            until(lambda: _namespace(holder.pid) != _namespace(os.getpid()), f"the namespace {name}")
            self.run(name, "ip", "link", "set", "lo", "up")
        self.run("world", "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
        self.run("world", "ip", "address", "add", f"{WORLD}/32", "dev", "lo")
        for name in ("left", "right"):
            self.run("world", "ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns",
                     str(self.holders[name].pid))
            self.run("world", "ip", "link", "set", f"to-{name}", "up")
            self.run(name, "ip", "link", "set", "eth0", "up")
            address = OTHER_ADDRESS if apart and name == "right" else ADDRESS
            self.run(name, "ip", "address", "add", f"{address}/32", "dev", "eth0")
            self.run(name, "ip", "route", "add", "default", "dev", "eth0", "src", address)
        self.reach(None)
        if apart:
            self.run("world", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.conf.all.proxy_arp=1",
                     "net.ipv4.conf.to-left.proxy_arp=1", "net.ipv4.conf.to-right.proxy_arp=1",
                     # else the first word between them waits for up to 0.8 s, in which a short program can end
                     "net.ipv4.neigh.to-left.proxy_delay=0", "net.ipv4.neigh.to-right.proxy_delay=0")
            self.run("world", "ip", "route", "replace", f"{OTHER_ADDRESS}/32", "dev", "to-right", "src", WORLD)
            self.reach("left")

    @staticmethod
    def _hold(lab, name: str) -> subprocess.Popen:
        probe = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
        if probe.returncode:
            raise machine.Missing(f"network namespaces: {probe.stderr.strip()}")
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], env=lab.environment())
        lab.helpers.append(holder)
        return holder

    def inside(self, name: str) -> list:
        """The words to put before a command that shall run in a namespace."""
        return ["nsenter", f"--net=/proc/{self.holders[name].pid}/ns/net", "--"]

    def run(self, name: str, *command: str) -> str:
        outcome = subprocess.run([*self.inside(name), *command], capture_output=True, text=True, check=False)
        if outcome.returncode:
            raise Failure(f"{' '.join(command)}: {outcome.stderr.strip()}")
        return outcome.stdout

    def reach(self, name) -> None:
        """Leads the address to `left` or `right`, or nowhere: then what is sent to it is dropped without a word."""
        where = ["blackhole", f"{ADDRESS}/32"] if name is None else [f"{ADDRESS}/32", "dev", f"to-{name}", "src", WORLD]
        self.run("world", "ip", "route", "replace", *where)

    def part(self) -> None:
        """Drops what left and right send each other, without a word; only of those that are `apart`."""
        self.reach(None)
        self.run("world", "ip", "route", "replace", "blackhole", f"{OTHER_ADDRESS}/32")

    def rejoin(self) -> None:
        """Undoes `part`."""
        self.reach("left")
        self.run("world", "ip", "route", "replace", f"{OTHER_ADDRESS}/32", "dev", "to-right", "src", WORLD)

    @contextlib.contextmanager
    def entered(self, name: str):
        """This thread's new sockets belong to the namespace."""
        library = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self.holders[name].pid}/ns/net", "rb") as there, \
                open(f"/proc/{threading.get_native_id()}/ns/net", "rb") as here:
            if library.setns(there.fileno(), _NEW_NETWORK):
                raise machine.Missing(f"setns: {os.strerror(ctypes.get_errno())}")
            try:
                yield
            finally:
                library.setns(here.fileno(), _NEW_NETWORK)

    def capture(self, name: str, device: str) -> socket.socket:
        """A socket that sees all that passes a device of a namespace."""
        everything = 3
        with self.entered(name):
            seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
        seen.bind((device, everything))
        return seen

    def listener(self, name: str) -> socket.socket:
        """A socket that listens on the namespace's own loopback."""
        with self.entered(name):
            return socket.create_server(("127.0.0.1", 0))


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")
