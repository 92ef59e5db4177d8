"""Programs that count their moves, look at everything after each (tests/programs/moves.h), and end with 7 if all was well."""

import signal

from tests.harness.waiting import expect, until


def onward(lab, process, receiver, moves: int):
    """Moves `process` to `receiver` with all its memory; returns it when it has looked, after its `moves`th move."""
    moved = lab.move(process, receiver)
    moved.wait_complete()
    until(lambda: moved.text().endswith(f"\n{moves}\n"), "it to look", alive=[moved])
    return moved


def end_well(moved) -> None:
    """Has a program that has moved end, and expects that nothing was wrong."""
    moved.signal(signal.SIGTERM)
    ended = moved.wait_exited()
    expect(ended.get("exit_code") == 7, f"it ended with {ended}: {moved.text().splitlines()[-1:]}")
