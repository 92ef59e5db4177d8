//! Compiles the workloads that are written in C and makes C's `main` the program's entry.
//!
//! `--wrap=main` lets `c/main.c` see the arguments first and hand on to Rust's own `main` what is not its own,
//! so that no line of Rust here is unsafe.

fn main() {
    let sources = [
        "main.c",
        "progress.c",
        "pattern.c",
        "vectors.c",
        "vectors_hold.S",
        "signals.c",
        "timers.c",
        "robust_mutex.c",
        "process_state.c",
        "mappings.c",
        "mappings_kinds.c",
        "mappings_changes.c",
        "forker.c",
        "held.c",
        "sleeper.c",
    ];
    let mut build = cc::Build::new();
    for source in sources {
        let path = format!("c/{source}");
        println!("cargo::rerun-if-changed={path}");
        build.file(path);
    }
    println!("cargo::rerun-if-changed=c/target.h");
    println!("cargo::rerun-if-changed=c/mappings.h");
    build.std("gnu11").extra_warnings(true).warnings_into_errors(true).opt_level(2).pic(true);
    build.compile("target_c");
    println!("cargo::rustc-link-arg-bins=-Wl,--wrap=main");
    println!("cargo::rustc-link-arg-bins=-pthread");
}
