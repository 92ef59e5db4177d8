//! Link arguments of the parasite: no libc, no lazy binding, never unloaded, nothing left undefined.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind.ld");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-T,{}/no-unwind.ld", env!("CARGO_MANIFEST_DIR"));
    let arguments = [
        "-nostdlib",
        "-nostartfiles",
        // A call into a libc that slipped in is a link error, not a surprise in somebody's program.
        "-Wl,-z,defs",
        "-Wl,-z,nodelete",
        "-Wl,-z,now",
        "-Wl,-z,relro",
        "-Wl,-z,noexecstack",
        "-Wl,-Bsymbolic",
        "-Wl,--gc-sections",
        "-Wl,-soname,libsender.so",
        // Equal code is kept once.
        "-Wl,--icf=all",
    ];
    for argument in arguments {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}
