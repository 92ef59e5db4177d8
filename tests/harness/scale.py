"""How often what depends on chance is tried: a sample, or with `--full` as often as it takes to be believed."""

FULL = False


def times(sample: int, full: int) -> int:
    return full if FULL else sample
