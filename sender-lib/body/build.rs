//! Link arguments of the body: no libc, nothing left undefined, one place to enter.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../no-unwind.ld");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{}/../no-unwind.ld", env!("CARGO_MANIFEST_DIR"));
    let arguments = [
        "-nostdlib",
        "-nostartfiles",
        // A call into a libc that slipped in is a link error, not a surprise in somebody's program.
        "-Wl,-z,defs",
        "-Wl,-z,noexecstack",
        // Nothing is written but variables: what has to be relocated is made read-only again.
        "-Wl,-z,relro",
        "-Wl,-z,now",
        "-Wl,-Bsymbolic",
        "-Wl,--gc-sections",
        "-Wl,--entry=posthaste_body",
        // Equal code is kept once.
        "-Wl,--icf=all",
    ];
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
