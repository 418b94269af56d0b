//! No core dumps of a service: its memory holds keys and passwords, and a dump is a file that outlives it.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Switches them off for this process. The limit covers dumps into files; where the system pipes them to a program, which
/// no limit stops, the process is not dumpable at all. Nobody but root can attach to it or read its memory then.
pub fn disable() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let limited = limited.and(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    ));
    if let Err(error) = limited {
        tracing::warn!(%error, "cannot switch core dumps off; a crash may write keys to disk");
    }
}
