//! Output files that get their name only when they are complete.

use crate::{error::CliError, temporary::Temporary};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Output that is a file, a device, a named pipe or standard output.  A regular file is written
/// under a temporary name beside it and renamed when complete.
pub struct AtomicFile(Destination);

/// Place that the output is written to.
enum Destination {
    Stdout(BufWriter<io::StdoutLock<'static>>),
    /// Device file or named pipe.
    Special(BufWriter<File>),
    File {
        file: BufWriter<Temporary>,
        path: PathBuf,
    },
}

impl AtomicFile {
    /// Opens the output, `-` for standard output.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let create = |source| CliError::Create { path: path.to_owned(), source };
        if path == Path::new("-") {
            return Ok(Self(Destination::Stdout(BufWriter::new(io::stdout().lock()))));
        }
        if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
            let file = OpenOptions::new().write(true).open(path).map_err(create)?;
            return Ok(Self(Destination::Special(BufWriter::new(file))));
        }
        // Writes to the target of a link, without replacing the link.
        let path = if path.is_symlink() {
            fs::canonicalize(path).map_err(create)?
        } else {
            path.to_owned()
        };
        Ok(Self(Destination::File { file: temporary(&path).map_err(create)?, path }))
    }

    /// True for a regular file, whose start can be replaced.
    pub fn is_regular(&self) -> bool {
        matches!(self.0, Destination::File { .. })
    }

    /// Writer of the content.
    pub fn bytes(&mut self) -> &mut dyn Write {
        match &mut self.0 {
            Destination::Stdout(out) => out,
            Destination::Special(out) => out,
            Destination::File { file, .. } => file,
        }
    }

    /// Writes the whole text and completes the output.
    pub fn write(mut self, text: &str) -> Result<(), CliError> {
        self.bytes().write_all(text.as_bytes())?;
        self.finish()
    }

    /// Completes the output: renames a regular file.
    pub fn finish(mut self) -> Result<(), CliError> {
        self.bytes().flush()?;
        match self.0 {
            Destination::File { file, path } => {
                persist(file.into_inner().map_err(io::IntoInnerError::into_error)?, path)
            }
            Destination::Stdout(_) | Destination::Special(_) => Ok(()),
        }
    }

    /// Replaces the start of a regular file, then completes it.
    pub fn finish_with_start(mut self, start: &[u8]) -> Result<(), CliError> {
        if let Destination::File { file, .. } = &mut self.0 {
            file.flush()?;
            replace_start(file.get_mut().as_file_mut(), start)?;
        }
        self.finish()
    }
}

/// Replaces the first bytes of a file.
pub fn replace_start(file: &mut File, start: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(start)
}

/// Writes a file atomically.
pub fn write_file(path: &Path, parts: &[&[u8]]) -> Result<(), CliError> {
    let create = |source| CliError::Create { path: path.to_owned(), source };
    let mut file = temporary(path).map_err(create)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    persist(file.into_inner().map_err(io::IntoInnerError::into_error)?, path.to_owned())
}

/// Renames a temporary file to its final name.
fn persist(file: Temporary, path: PathBuf) -> Result<(), CliError> {
    file.persist(&path).map_err(|source| CliError::Create { path, source })
}

/// A temporary file beside `path`.
fn temporary(path: &Path) -> io::Result<BufWriter<Temporary>> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Temporary::beside(path).map(BufWriter::new)
}
