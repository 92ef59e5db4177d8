//! Packs the body, and says how the parasite is linked: no libc, no lazy binding, never unloaded, nothing left undefined.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    pack_body()?;
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
    Ok(())
}

/// Packs the shared object that `POSTHASTE_BODY` names into what the library includes. Without that (a look at the code
/// alone) there is no body in it, and it moves nothing.
fn pack_body() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=POSTHASTE_BODY");
    let place = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?).join("body.packed");
    let packed = match std::env::var_os("POSTHASTE_BODY") {
        Some(body) => {
            println!("cargo::rerun-if-changed={}", body.display());
            let elf = std::fs::read(&body).map_err(|error| format!("{}: {error}", body.display()))?;
            packed::pack(&elf).map_err(|error| format!("{} cannot be packed: {error}", body.display()))?
        }
        None => {
            println!(
                "cargo::warning=POSTHASTE_BODY names no body: this libsender.so moves nothing (use make)"
            );
            Vec::new()
        }
    };
    std::fs::write(place, packed)?;
    Ok(())
}
