//! Memory by the page, for what is large: files as they lie, and room for tensors.

// `Mmap::map` is unsafe because another process may change the file; see `Mapped::open`.
#![allow(unsafe_code)]

use memmap2::{Mmap, MmapMut};
use std::{
    fs::{self, File},
    io,
    ops::Deref,
    path::Path,
};

/// A whole file, to be read.
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// The system's, and for what is no regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Asked before it is opened: opening a named pipe waits for its other end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        // SAFETY: the map is only read, and dropped when the model is loaded.  What remains is that
        // another process may truncate the file meanwhile, which is a fault (SIGBUS) in any program
        // that maps files; `Embedder::open` documents that model files must not change while they
        // load.
        Ok(Self(unsafe { Mmap::map(&file) }?))
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// Bytes that are zero until they are written, from the beginning of a page.
///
/// Nothing touches them before that: a page is given on the first write to it, on whatever thread
/// that is.  Where the system has pages of megabytes, it is asked for them: for a model they are
/// hundreds of faults, not hundreds of thousands.
pub struct Zeroed(Option<MmapMut>);

impl Zeroed {
    /// No bytes.
    pub const NONE: Self = Self(None);

    /// So many bytes.
    ///
    /// # Errors
    /// If there is no such room.
    pub fn new(bytes: usize) -> io::Result<Self> {
        if bytes == 0 {
            return Ok(Self::NONE);
        }
        let map = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        if bytes >= LARGE {
            // Only advice: kernels without large pages refuse it.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        Ok(Self(Some(map)))
    }

    /// The bytes.
    pub fn get(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// The bytes, to be written.
    pub fn get_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}

/// The size of a large page on most machines.
#[cfg(target_os = "linux")]
const LARGE: usize = 2 << 20;
