"""Waiting for something to be so, never longer than a deadline and never for time to pass."""

import time

PATIENCE = 30.0
_LOOK_AGAIN = 0.002


class Failure(Exception):
    """Something is not as it must be; the text says what."""


def until(condition, what: str, seconds: float = PATIENCE, alive=(), progress=lambda: None):
    """Looks until `condition()` is true and returns what it returned.

    Raises Failure if that takes longer than `seconds` since `progress()` was last another one, or as soon as one of `alive`
    has ended.
    """
    deadline, reached = time.monotonic() + seconds, progress()
    while True:
        if progress() != reached:
            deadline, reached = time.monotonic() + seconds, progress()
        found = condition()
        if found:
            return found
        for process in alive:
            if process.ended() and not condition():
                raise Failure(f"{process.name} ended while this test waited for {what}: {process.last_words()}")
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(_LOOK_AGAIN)


def expect(condition, what: str) -> None:
    """Raises Failure with `what` unless the condition is true."""
    if not condition:
        raise Failure(what)


def differences(before, after) -> str:
    """What two collections do not have in common, as text."""
    if not isinstance(before, (list, set, dict)):
        return f"{before!r:.300} and {after!r:.300}"
    lost, come = (set(map(str, each.items() if isinstance(each, dict) else each)) for each in (before, after))
    return f"gone {sorted(lost - come)}, new {sorted(come - lost)}"
