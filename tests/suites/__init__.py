"""The suites by name, in the order in which `--suite all` runs them."""

from tests.suites import (
    accidents, attributes, check, confinement, criu, failures, footprint, foreign, hostile, identity, instance_failures, instance_networks, instances, manual,
    memory, modes, namespaces, network, recovery, security, shadows, shipping, shortage, signals, switch, terminals, users, vdso,
    wire, workloads)

SUITES = {
    module.__name__.rpartition(".")[2]: module.CHECKS
    for module in (footprint, manual, workloads, modes, wire, memory, vdso, attributes, signals, terminals, check, shipping, identity, confinement,
                   shortage, failures, switch, accidents, recovery, security, hostile, users, network, foreign, namespaces,
                   criu, instances, shadows, instance_failures,
                   instance_networks)
}
