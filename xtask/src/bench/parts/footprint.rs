//! What moving takes of memory, beyond the process itself.

use super::super::moving::{Look, Plan};
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results};

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = Ok(());
    for mib in &bench.sizes.idle {
        let plan = Plan { look: Look::Footprint, ..Plan::of(Workload::new("ticks", *mib)) };
        done = bench.each_round(&format!("footprint, {mib} MiB"), || {
            let took = plan.carry_out(&bench.bin)?.footprint;
            let [receiver, parasite] = [took.receiver_kib, took.parasite_kib].map(|kib| kib as f64 / 1024.0);
            let figures = &mut results.figures;
            figures.add(format!("footprint/{mib}/receiver_mib"), receiver);
            figures.add(format!("footprint/{mib}/parasite_mib"), parasite);
            figures.add(format!("footprint/{mib}/both_mib"), receiver + parasite);
            Ok(())
        });
        if done.is_err() {
            break;
        }
    }
    let mut table = Table::new("Memory that moving takes, MiB", &["MiB", "receiver", "parasite", "both"]);
    for mib in &bench.sizes.idle {
        let cells = ["receiver_mib", "parasite_mib", "both_mib"]
            .map(|of| results.figures.cell(&format!("footprint/{mib}/{of}")));
        table.row(std::iter::once(mib.to_string()).chain(cells));
    }
    table.note("At most, looked at every 10 ms: all processes of the receiver together, what they share counted once; and by how much the program grew");
    results.tables.push(table);
    done
}
