//! Where the executable of a service is.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::bail;

/// The executable of a name beside this one, where one build puts them all, or else on `PATH`.
pub fn executable(name: &str) -> anyhow::Result<PathBuf> {
    let own = env::current_exe()?;
    let beside = own.parent().unwrap_or(Path::new("."));
    let path = env::var_os("PATH").unwrap_or_default();
    match first(name, beside, &path) {
        Some(found) => Ok(std::path::absolute(found)?),
        None => bail!(
            "there is no `{name}` beside {} nor on PATH: `cargo build -p {name}` makes it",
            own.display()
        ),
    }
}

fn first(name: &str, beside: &Path, path: &OsStr) -> Option<PathBuf> {
    let folders = std::iter::once(beside.to_owned()).chain(env::split_paths(path));
    // An empty part of PATH stands for the current folder, where nobody expects to find a program.
    let folders = folders.filter(|folder| !folder.as_os_str().is_empty());
    folders.map(|folder| folder.join(name)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_comes_first_and_what_cannot_be_run_is_passed_over() {
        let (bin, none) = (Path::new("/bin"), Path::new("/nowhere"));
        let path = OsStr::new("/nowhere::/usr/bin:/bin");
        assert_eq!(first("sh", bin, OsStr::new("/usr/bin")), Some(PathBuf::from("/bin/sh")));
        assert!(first("sh", none, path).is_some());
        assert_eq!(first("passwd", Path::new("/etc"), OsStr::new("/etc")), None);
        assert_eq!(first("no-such-program", bin, path), None);
    }

    #[test]
    fn what_is_missing_is_named_with_what_makes_it() {
        let error = executable("no-such-service").unwrap_err().to_string();
        assert!(error.contains("cargo build -p no-such-service"), "{error}");
    }
}
