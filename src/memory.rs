//! Page-aligned memory for large data: mapped files, and memory for tensors.

// `Mmap::map` is unsafe because another process may change the file; see `Mapped::open`.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut};
use std::{
    fs::{self, File},
    io,
    ops::Deref,
    path::Path,
};

/// A whole file, mapped for reading.
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// Errors of the system, and an error for anything but a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Comparison before opening: opening a named pipe waits for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is only read, and dropped when the model is loaded.  The remaining risk
        // is another process that truncates the file meanwhile, which is a fault (SIGBUS) in any
        // program that maps files; `Embedder::open` documents that model files must not change
        // while they load.
        Ok(Self(unsafe { Mmap::map(&file) }?))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Zero-initialised bytes, aligned to a page.
///
/// A page is allocated on the first write to it, by the thread that writes.  If the system has
/// pages of megabytes, they are requested: a model then takes hundreds of page faults, not hundreds
/// of thousands.
pub struct Zeroed(Option<MmapMut>);

impl Zeroed {
    /// No bytes.
    pub const NONE: Self = Self(None);

    /// Allocates `bytes` bytes.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if bytes == 0 {
            return Ok(Self::NONE);
        }
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            // Only a hint: kernels without large pages refuse it.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self(Some(map)))
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The bytes, mutable.
    pub fn get_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

/// Size of a large page on most machines.
#[cfg(target_os = "linux")]
const LARGE: usize = 2 << 20;
