"""What test.py is told for all checks alike: how often what depends on chance is tried, and how memory travels."""

# With --full as often as it takes to be believed, else a sample.
FULL = False
# The receivers' --mode where a check does not name one; empty for their own default.
MODE = ""


def times(sample: int, full: int) -> int:
    return full if FULL else sample
