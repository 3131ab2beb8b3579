//! Temporary files beside the outputs; a process ended by a signal removes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};
use tempfile::NamedTempFile;

/// Paths of this process's temporary files.  The lock is held while one is created or renamed, and
/// for ever once a signal ends the process.
static FILES: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn files() -> MutexGuard<'static, Vec<PathBuf>> {
    FILES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Temporary file, removed unless it is persisted, also if a signal ends the process.
pub struct Temporary {
    file: NamedTempFile,
    listed: Listed,
}

/// Entry of a path in [`FILES`].
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        files().retain(|path| *path != self.0);
    }
}

impl Temporary {
    /// Creates a file in the directory of `path`, with the permissions of any new file.
    pub fn beside(path: &Path) -> io::Result<Self> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            if let Err(error) = watch() {
                tracing::debug!("signals are not watched: {error}");
            }
        });
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        // Absolute, in case the current directory changes before the file is removed.
        let dir = std::path::absolute(dir)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".jinabert-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(fs::Permissions::from_mode(0o666)); // minus the process's umask
        }
        let mut files = files();
        let file = builder.tempfile_in(dir)?;
        files.push(file.path().to_owned());
        let listed = Listed(file.path().to_owned());
        Ok(Self { file, listed })
    }

    /// The open file.
    pub fn as_file_mut(&mut self) -> &mut fs::File {
        self.file.as_file_mut()
    }

    /// Renames the file to `path` and replaces an existing file.
    pub fn persist(self, path: &Path) -> io::Result<()> {
        let Self { file, listed } = self;
        file.as_file().sync_all()?;
        let files = files();
        let persisted = file.persist(path);
        drop(files);
        drop(listed);
        persisted.map(|_| ()).map_err(|e| e.error)
    }
}

impl io::Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Removes all temporary files; the lock that it returns prevents new ones.
fn remove_all() -> MutexGuard<'static, Vec<PathBuf>> {
    let files = files();
    for path in &*files {
        let _ = fs::remove_file(path); // the file may already be removed
    }
    files
}

/// Ends the process at the first signal, after removing its temporary files; the second signal ends
/// it at once.
#[cfg(unix)]
fn watch() -> io::Result<()> {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        flag,
        iterator::Signals,
        low_level,
    };
    use std::{
        process,
        sync::{Arc, atomic::AtomicBool},
        thread,
    };

    let signals = [SIGHUP, SIGINT, SIGTERM].into_iter().filter(|signal| !is_ignored(*signal));
    let signals: Vec<i32> = signals.collect();
    let seen = Arc::new(AtomicBool::new(false));
    for &signal in &signals {
        flag::register_conditional_default(signal, Arc::clone(&seen))?;
        flag::register(signal, Arc::clone(&seen))?;
    }
    let mut signals = Signals::new(signals)?;
    let end = move || {
        if let Some(signal) = signals.forever().next() {
            let _files = remove_all();
            let _ = low_level::emulate_default_handler(signal);
            process::exit(128 + signal);
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(end).map(|_| ())
}

/// True if the process was started to ignore a signal, as by `nohup` or in a script's background.
#[cfg(unix)]
#[allow(unsafe_code)] // neither the standard library nor signal-hook can query it
fn is_ignored(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, only `action` is written, which has room for one.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: all zeros are a `sigaction`, and so is what the call wrote.
    asked == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Ends the process at Ctrl-C, after removing its temporary files.
#[cfg(windows)]
fn watch() -> io::Result<()> {
    /// STATUS_CONTROL_C_EXIT, the exit code of a process ended by Ctrl-C.
    const ENDED: u32 = 0xc000_013a;
    let end = || {
        let _files = remove_all();
        std::process::exit(ENDED as i32);
    };
    ctrlc::set_handler(end).map_err(io::Error::other)
}

#[cfg(not(any(unix, windows)))]
fn watch() -> io::Result<()> {
    Ok(())
}
