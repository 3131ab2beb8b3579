//! Disk cache that saves work for later processes: a user directory in which any file may be
//! missing, stale or damaged at any time, and failures are not errors.
//!
//! `JINABERT_CACHE` sets another directory, which must belong to the user; empty disables it.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Environment variable: directory of the cache.
const DIRECTORY: &str = "JINABERT_CACHE";

/// Maximum file size in bytes; a larger file is not from this crate.
const MOST: u64 = 256 << 20;

/// Age after which a temporary file is considered abandoned.
const STALE: Duration = Duration::from_secs(3600);

/// Directory of the cache, if any.
pub(crate) fn dir() -> Option<PathBuf> {
    match env::var_os(DIRECTORY) {
        Some(dir) => Some(PathBuf::from(dir)).filter(|dir| !dir.as_os_str().is_empty()),
        None => platform().map(|dir| dir.join("jinabert")),
    }
}

/// Reads the bytes last written under a name, a relative path with `/`.
pub(crate) fn read(name: &str) -> Option<Vec<u8>> {
    read_from(&dir()?, name)
}

/// Writes bytes under a name, atomically, for [`read`].
pub(crate) fn write(name: &str, bytes: &[u8]) {
    let Some(dir) = dir() else { return };
    if let Err(error) = write_to(&dir, name, bytes) {
        tracing::debug!("cache: `{name}` is not kept in `{}`: {error}", dir.display());
    }
}

/// The system's cache directory.
fn platform() -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        absolute("HOME").map(|home| home.join("Library/Caches"))
    } else {
        absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))
    }
}

fn read_from(dir: &Path, name: &str) -> Option<Vec<u8>> {
    let path = dir.join(name);
    if fs::metadata(&path).ok()?.len() > MOST {
        return None;
    }
    let file = fs::read(&path).ok()?;
    let bytes = checked(&file);
    if bytes.is_none() {
        tracing::debug!("cache: `{}` is damaged", path.display());
    }
    bytes.map(<[u8]>::to_vec)
}

fn write_to(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap_or(dir))?;
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_extension(format!("{}-{count}.tmp", process::id()));
    let file = [header(bytes).as_bytes(), bytes].concat();
    let written = fs::write(&temporary, file).and_then(|()| fs::rename(&temporary, &path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary); // it may not exist
    }
    remove_stale(path.parent().unwrap_or(dir));
    written
}

/// Removes temporary files of processes that ended during a write.
fn remove_stale(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let age = entry.metadata().and_then(|file| file.modified()).map(|at| at.elapsed());
        let stale = age.is_ok_and(|age| age.is_ok_and(|age| age > STALE));
        if stale && path.extension().is_some_and(|extension| extension == "tmp") {
            let _ = fs::remove_file(path); // another process may have removed it
        }
    }
}

/// First line of a file: number of bytes that follow, and their checksum.
fn header(bytes: &[u8]) -> String {
    format!("jinabert {} {:016x}\n", bytes.len(), checksum(bytes))
}

/// Contents after the header, if complete.
fn checked(file: &[u8]) -> Option<&[u8]> {
    let line = file.iter().position(|&byte| byte == b'\n')? + 1;
    let (line, bytes) = file.split_at(line);
    (line == header(bytes).as_bytes()).then_some(bytes)
}

/// FNV-1a, 64 bits.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread, time::SystemTime};

    const NAME: &str = "kind/name_0.1.0";

    #[test]
    fn written_files_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read_from(dir.path(), NAME), None);
        for bytes in [&b""[..], b"\n\0\n", b"longer than before", b"short"] {
            write_to(dir.path(), NAME, bytes).expect("a writable directory");
            assert_eq!(read_from(dir.path(), NAME).as_deref(), Some(bytes));
        }
        let left = fs::read_dir(dir.path().join("kind")).expect("made").count();
        assert_eq!(left, 1, "temporary files are left");
    }

    #[test]
    fn temporary_files_of_ended_processes_are_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        write_to(dir.path(), NAME, b"bytes").expect("a writable directory");
        let [old, new, other] =
            ["name_0.1.77-0.tmp", "name_0.1.78-0.tmp", "name_0.1.1"].map(|name| {
                let path = dir.path().join("kind").join(name);
                fs::write(&path, "half").expect("writable");
                path
            });
        let long_ago = SystemTime::now() - 2 * STALE;
        for path in [&old, &other] {
            let file = fs::File::options().append(true).open(path).expect("a file");
            file.set_modified(long_ago).expect("a time");
        }
        write_to(dir.path(), NAME, b"bytes").expect("a writable directory");
        assert_eq!([old, new, other].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn damaged_files_are_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        write_to(dir.path(), NAME, b"some bytes\nmore").expect("a writable directory");
        let path = dir.path().join(NAME);
        let good = fs::read(&path).expect("written");
        for n in 0..good.len() {
            let mut bad = good.clone();
            bad[n] ^= 1;
            fs::write(&path, &bad).expect("writable");
            assert_eq!(read_from(dir.path(), NAME), None, "byte {n} changed");
            fs::write(&path, &good[..n]).expect("writable");
            assert_eq!(read_from(dir.path(), NAME), None, "cut to {n} bytes");
        }
        fs::write(&path, [&good[..], b"x"].concat()).expect("writable");
        assert_eq!(read_from(dir.path(), NAME), None, "a byte too many");
    }

    #[test]
    fn no_directory_is_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("file");
        fs::write(&file, "not a directory").expect("writable");
        assert!(write_to(&file, NAME, b"bytes").is_err());
        assert_eq!(read_from(&file, NAME), None);
    }

    #[test]
    fn writers_at_once_leave_one_whole_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let texts: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 100_000]).collect();
        thread::scope(|scope| {
            for text in &texts {
                scope.spawn(|| {
                    for _ in 0..20 {
                        write_to(dir.path(), NAME, text).expect("a writable directory");
                        let found = read_from(dir.path(), NAME).expect("whole at any time");
                        assert!(texts.contains(&found));
                    }
                });
            }
        });
    }
}
