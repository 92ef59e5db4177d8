"""Checks, and what became of each: a line a check, and a last line with the sums."""

import json
import sys
import time
import traceback
from dataclasses import dataclass
from typing import Callable

from tests.harness.lab import Lab
from tests.harness.machine import Missing
from tests.harness.waiting import Failure


@dataclass
class Check:
    """A behaviour, as a sentence, and the function that tries it in a lab of its own."""

    name: str
    run: Callable[[Lab], None]


class Results:
    """Prints as it goes, or one JSON object at the end."""

    def __init__(self, as_json: bool):
        self.as_json = as_json
        self.checks = []

    def run(self, check: Check) -> bool:
        """Runs one check; whether it passed or was skipped."""
        start = time.monotonic()
        outcome, why, story = "ok", "", ""
        lab = Lab()
        try:
            with lab:
                try:
                    check.run(lab)
                except Failure:
                    story = lab.story()
                    raise
        except Missing as missing:
            outcome, why = "skipped", str(missing)
        except Failure as failure:
            outcome, why = "FAIL", str(failure)
        except Exception as error:  # a defect of the test itself must not hide the other checks
            outcome, why = "FAIL", f"{type(error).__name__}: {error}"
            story = traceback.format_exc()
        self._note(check.name, outcome, why, story, time.monotonic() - start)
        return outcome != "FAIL"

    def count(self, outcome: str) -> int:
        return sum(check["outcome"] == outcome for check in self.checks)

    def close(self) -> int:
        """Prints the sums and returns the exit status; a run in which nothing passed is a failed one."""
        passed, failed, skipped = self.count("ok"), self.count("FAIL"), self.count("skipped")
        if self.as_json:
            print(json.dumps({"passed": passed, "failed": failed, "skipped": skipped, "checks": self.checks}))
        else:
            print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
        return 0 if passed and not failed else 1

    def _note(self, name, outcome, why, story, seconds) -> None:
        self.checks.append({"name": name, "outcome": outcome, "why": why, "seconds": round(seconds, 3)})
        if self.as_json:
            return
        print(f"ok {name} ({seconds:.1f} s)" if outcome == "ok" else f"{outcome} {name}: {why}", flush=True)
        if story and outcome == "FAIL":
            print(story, file=sys.stderr, flush=True)
