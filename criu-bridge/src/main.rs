//! The program `criu-bridge`: everything it does is in the library of the same name.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    sys::process::abort_on_panic();
    criu_bridge::main()
}
