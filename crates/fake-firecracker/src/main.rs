//! The process; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hearth_fake_firecracker::run()
}
