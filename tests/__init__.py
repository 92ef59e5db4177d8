"""End-to-end tests on real processes: `python3 test.py` is the way in. Standard library only."""
