"""Compiles the small C programs of tests/programs."""

import subprocess
from pathlib import Path

from tests.harness import machine
from tests.harness.waiting import expect


def compile_c(name: str, directory: Path, compiler: str = "gcc", options: tuple = ()) -> str:
    """Compiles tests/programs/NAME.c into `directory` and returns the program's path."""
    machine.need_command(compiler)
    program = directory / name
    command = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *options, "-o", str(program),
               str(machine.PROGRAMS / f"{name}.c")]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    expect(outcome.returncode == 0, f"{compiler} {name}.c: {outcome.stderr}")
    return str(program)
