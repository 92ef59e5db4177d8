"""The suites by name, in the order in which `--suite all` runs them."""

from tests.suites import (
    accidents, check, failures, footprint, foreign, hostile, manual, network, recovery, security, signals, users, workloads)

SUITES = {
    module.__name__.rpartition(".")[2]: module.CHECKS
    for module in (footprint, manual, workloads, signals, check, failures, accidents, recovery, security, hostile, users, network,
                   foreign)
}
