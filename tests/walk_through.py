"""What `python3 test.py` shows: one program moves, and the receiver stays."""

import json
import sys

from tests.harness.lab import Lab
from tests.harness.waiting import Failure, expect
from tests.suites import workloads


def walk_through(workload: str, repeat: int, clean: bool, as_json: bool) -> int:
    """Moves `workload` so many times to one receiver; returns the exit status."""
    if workload not in workloads.names():
        print(f"test.py: no workload {workload!r}; there are {', '.join(workloads.names())}", file=sys.stderr)
        return 2
    tell = (lambda text: None) if as_json else (lambda text: print(text, flush=True))
    lab, moves, failure = Lab(), [], ""
    try:
        receiver = lab.receiver()
        tell(f"receiver listens on 127.0.0.1 port {receiver.port}, pid {receiver.pid}")
        for number in range(repeat):
            moved = _move_once(lab, receiver, workload, tell, moves)
            if clean or number + 1 < repeat:
                workloads.finish(moved, workload)
    except Failure as error:
        failure = str(error)
        tell(f"FAIL: {failure}\n{lab.story()}")
    if clean or failure:
        failure = _end(lab, failure)
    else:
        tell(f"the receiver is left running, and the program under it; its output: {receiver.out}\n"
             f"to end both:  kill {moved.pid} {receiver.pid}; rm -r {lab.directory}")
    _sum_up(moves, failure, as_json, {} if clean or failure else {"left_running": [moved.pid, receiver.pid]})
    return 1 if failure else 0


def _move_once(lab, receiver, workload: str, tell, moves: list):
    program = workloads.start(lab, workload)
    tell(f"target {workload} runs, pid {program.pid}, and has printed {program.text().splitlines()[-1]!r}")
    tell(f"kill -USR2 {program.pid}")
    moved = lab.move(program, receiver)
    complete = moved.wait_complete()
    expect(program.wait() == 0, f"the source ended with {program.last_words()}")
    last = workloads.last_number(program, workload)
    numbers = workloads.wait_progress(moved, workload, last)
    if workload == "counter":
        workloads.continuous(program.final_text(), moved.text())
    tell(f"it goes on under the receiver, pid {moved.pid}: {last} was the last number before, {numbers[0]} is the "
         f"first one after")
    tell(f"downtime {moved.resumed['downtime_us'] / 1000:.2f} ms; every page has arrived, the source has ended")
    moves.append({"pid": moved.pid, "last_before": last, "first_after": numbers[0],
                  "downtime_us": moved.resumed["downtime_us"], "report": complete.get("report")})
    return moved


def _end(lab, failure: str) -> str:
    try:
        lab.__exit__(Failure if failure else None, None, None)
    except Failure as error:
        return failure or str(error)
    return failure


def _sum_up(moves: list, failure: str, as_json: bool, left_running: dict) -> None:
    if as_json:
        print(json.dumps({"passed": len(moves),
                          "failed": int(bool(failure)), "why": failure, "moves": moves, **left_running}))
    else:
        print(f"{len(moves)} passed, {int(bool(failure))} failed")
    sys.stdout.flush()
