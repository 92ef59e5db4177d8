#!/usr/bin/env python3
"""Moves a running process and looks whether it goes on: the whole system as its users know it.

Without --suite it starts a receiver and bin/target with LD_PRELOAD=bin/libsender.so, waits for numbers, sends SIGUSR2
and expects the numbers to go on at exactly the last one plus one. The receiver is left running unless --clean is given.

Exit status: 0 passed, 1 failed, 77 this machine lacks something, which is named.
"""

import argparse
import os
import sys

from tests.harness import machine, scale, session
from tests.harness.results import Results

SKIPPED = 77


def at_least_one(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("once at least")
    return int(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--workload", default="counter", metavar="NAME", help="what to move (default: counter)")
    parser.add_argument("--repeat", type=at_least_one, default=1, metavar="N", help="do it N times")
    parser.add_argument("--clean", action="store_true", help="end the receiver and what has moved afterwards")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    parser.add_argument("--list", action="store_true", help="print the workloads and the suites' checks")
    parser.add_argument("--suite", metavar="NAME", help="run a suite, or all of them")
    parser.add_argument("--full", action="store_true", help="what depends on chance: a thousand times, not ten")
    parser.add_argument("--mode", choices=["postcopy", "hybrid", "precopy", "stop"], default="",
                        help="of a suite, how memory travels where the check says nothing of that (default: postcopy)")
    parser.add_argument("--only", default="", metavar="TEXT", help="of a suite, the checks whose name holds TEXT")
    return parser.parse_args()


def run_suites(options: argparse.Namespace) -> int:
    from tests.suites import SUITES
    wanted = list(SUITES) if options.suite == "all" else [options.suite]
    if wanted[0] not in SUITES:
        print(f"test.py: no suite {options.suite!r}; there are all, {', '.join(SUITES)}", file=sys.stderr)
        return 2
    checks = [check for name in wanted for check in SUITES[name]() if options.only in check.name]
    if not checks:
        print(f"test.py: no check has {options.only!r} in its name; --list prints them", file=sys.stderr)
        return 2
    results = Results(options.json)
    for check in checks:
        for _ in range(options.repeat):
            results.run(check)
    return results.close()


def print_list() -> int:
    from tests.suites import SUITES, workloads
    print("workloads:", " ".join(workloads.names()))
    for name, checks in SUITES.items():
        print(f"suite {name}:")
        for check in checks():
            print(f"  {check.name}")
    return 0


def main() -> int:
    options = parse()
    scale.FULL, scale.MODE = options.full, options.mode
    try:
        machine.need_everything()
        if options.list:
            return print_list()
        if options.suite:
            return session.visible(lambda: run_suites(options))
        from tests.walk_through import walk_through
        return walk_through(options.workload, options.repeat, options.clean, options.json)
    except machine.Missing as missing:
        print(f"skipped: this needs {missing}", file=sys.stderr)
        return SKIPPED
    except BrokenPipeError:  # whoever reads this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
