"""A session whose leader can be seen, in a container whose shell has come from outside."""

import os
import signal


def visible(work) -> int:
    """What `work()` returns. Where this process's session has its leader outside of this PID namespace, a child that leads
    one of its own does it: programs inherit the session, and one without an id cannot be compared."""
    if os.getsid(0) != 0:
        return work()
    child = os.fork()
    if child == 0:
        os.setsid()
        return work()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: os.kill(child, number))
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)
