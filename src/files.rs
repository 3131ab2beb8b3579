//! The files of a model by name: in a directory, or in an application's memory.

use crate::{error::Error, memory::Mapped};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The files of a model: a directory, or what an application holds in memory.
///
/// ```no_run
/// use jinabert::{Embedder, Files};
///
/// let files = Files::memory()
///     .with("config.json", std::fs::read("model/config.json")?)
///     .with("tokenizer.json", std::fs::read("model/tokenizer.json")?)
///     .with("model.safetensors", std::fs::read("model/model.safetensors")?);
/// let embedder = Embedder::open(files)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Files(Place);

#[derive(Clone, Debug)]
enum Place {
    /// As it was given, for messages, and from the root, for whoever changes where he is.
    Directory {
        given: PathBuf,
        path: PathBuf,
    },
    Memory(BTreeMap<String, Held>),
}

/// Bytes that the application keeps.
#[derive(Clone)]
struct Held(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", (*self.0).as_ref().len())
    }
}

impl<P: AsRef<Path>> From<P> for Files {
    fn from(path: P) -> Self {
        Self::directory(path.as_ref())
    }
}

impl Files {
    /// Those of a directory, mapped while they are read: they must not change meanwhile.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        let given = path.into();
        let path = std::path::absolute(&given).unwrap_or_else(|_| given.clone());
        Self(Place::Directory { given, path })
    }

    /// None yet: [`Files::with`] adds them.
    pub fn memory() -> Self {
        Self(Place::Memory(BTreeMap::new()))
    }

    /// Adds a file that is in memory, or replaces it: `config.json` and `model.safetensors` (or
    /// `model.safetensors.index.json` and its shards) are needed, `tokenizer.json` for texts,
    /// `artifact.metadata` is what ColBERT checkpoints may have.
    ///
    /// The bytes are kept as long as what was opened from them, for a device that is lost is given
    /// its weights again; a `Vec<u8>`, a `&'static [u8]`, a map of a file or of a resource will do.
    ///
    /// # Panics
    /// If these are the files of a directory.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Self {
        let Place::Memory(files) = &mut self.0 else { panic!("the files of a directory") };
        files.insert(name.into(), Held(Arc::new(bytes)));
        self
    }

    /// What a message calls one.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match &self.0 {
            Place::Directory { given, .. } => given.join(name),
            Place::Memory(_) => name.into(),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.0 {
            Place::Directory { path, .. } => path.join(name).exists(),
            Place::Memory(files) => files.contains_key(name),
        }
    }

    /// A large one, without a copy.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub(crate) fn open(&self, name: &str) -> Result<Bytes, Error> {
        self.find(name, |path| Ok(Bytes(Inner::Mapped(Mapped::open(path)?))))
    }

    /// A small one.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub(crate) fn read(&self, name: &str) -> Result<Bytes, Error> {
        self.find(name, |path| Ok(Bytes(Inner::Read(fs::read(path)?))))
    }

    /// A small one that is text.
    ///
    /// # Errors
    /// [`Error::Read`], also if it is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<String, Error> {
        let text = String::from_utf8(self.read(name)?.to_vec());
        text.map_err(|e| self.failed(name, io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    fn find(
        &self,
        name: &str,
        open: impl FnOnce(&Path) -> io::Result<Bytes>,
    ) -> Result<Bytes, Error> {
        let found = match &self.0 {
            Place::Directory { path, .. } => open(&path.join(name)),
            Place::Memory(files) => match files.get(name) {
                Some(held) => Ok(Bytes(Inner::Held(held.clone()))),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "not among the files given")),
            },
        };
        found.map_err(|source| self.failed(name, source))
    }

    fn failed(&self, name: &str, source: io::Error) -> Error {
        Error::Read { path: self.path(name), source }
    }
}

/// A file's bytes.
pub(crate) struct Bytes(Inner);

enum Inner {
    Mapped(Mapped),
    Read(Vec<u8>),
    Held(Held),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Mapped(mapped) => mapped,
            Inner::Read(bytes) => bytes,
            Inner::Held(held) => (*held.0).as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_a_directory_is() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny-natural");
        let disk = Files::from(dir);
        let text = disk.text("config.json").expect("a fixture");
        let memory = Files::memory().with("config.json", text.clone());
        assert_eq!(memory.text("config.json").expect("just added"), text);
        assert_eq!(&*memory.open("config.json").expect("just added"), text.as_bytes());
        assert_eq!(&*disk.open("config.json").expect("a fixture"), text.as_bytes());
        assert!(disk.has("config.json") && memory.has("config.json"));
        for files in [disk, memory] {
            assert!(!files.has("absent"));
            let error = files.text("absent").expect_err("absent");
            assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("absent")));
        }
        let odd = Files::memory().with("odd", [0xff_u8]);
        assert!(odd.text("odd").expect_err("not UTF-8").to_string().contains("utf-8"));
    }
}
