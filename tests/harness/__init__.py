"""What the suites stand on: programs, receivers, links, the machine, and the list of results."""
