//! Files that save work from one process to the next: a directory of the user's, where everything
//! may be missing, stale or damaged at any time, and nothing that fails is an error.
//!
//! `JINABERT_CACHE` names another directory, which must belong to the user; empty, there is none.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// Environment variable: where the files are.
const DIRECTORY: &str = "JINABERT_CACHE";

/// A file over this many bytes is not one of ours.
const MOST: u64 = 256 << 20;

/// Where the files are, if anywhere.
pub(crate) fn dir() -> Option<PathBuf> {
    match env::var_os(DIRECTORY) {
        Some(dir) => Some(PathBuf::from(dir)).filter(|dir| !dir.as_os_str().is_empty()),
        None => platform().map(|dir| dir.join("jinabert")),
    }
}

/// The bytes last written under a name, a relative path with `/`.
pub(crate) fn read(name: &str) -> Option<Vec<u8>> {
    read_from(&dir()?, name)
}

/// Keeps bytes under a name, all or nothing, for [`read`] to find.
pub(crate) fn write(name: &str, bytes: &[u8]) {
    let Some(dir) = dir() else { return };
    if let Err(error) = write_to(&dir, name, bytes) {
        tracing::debug!("cache: `{name}` is not kept in `{}`: {error}", dir.display());
    }
}

/// Where the system keeps such files of all programs.
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
        let _ = fs::remove_file(&temporary); // there may be none
    }
    written
}

/// The first line of a file: how many bytes follow, and their checksum.
fn header(bytes: &[u8]) -> String {
    format!("jinabert {} {:016x}\n", bytes.len(), checksum(bytes))
}

/// What follows the header, if it is whole.
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
    use std::thread;

    const NAME: &str = "kind/name_0.1.0";

    #[test]
    fn what_is_written_is_read() {
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
    fn damage_is_noticed() {
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
