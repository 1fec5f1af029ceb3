//! The `sabir` binary.

use std::process::ExitCode;

/// Small in idle memory, and giving pages back in the background after a burst.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    sabir::cli::main(std::env::args_os())
}
