//! Model files by name: in a directory, or in an application's memory.

use crate::{error::Error, gguf::GgufFile, memory::Mapped};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// UTF-8 byte order mark, which is not part of a text.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Files of a model: a directory, or data in an application's memory.
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
pub struct Files(FileSource);

#[derive(Clone, Debug)]
enum FileSource {
    /// The given path, for messages, and the absolute one, which survives a change of directory.
    Directory {
        given: PathBuf,
        path: PathBuf,
    },
    Memory(BTreeMap<String, SharedBytes>),
    /// A GGUF file, opened at first use.
    Gguf {
        given: PathBuf,
        path: PathBuf,
        opened: Arc<OnceLock<Arc<GgufFile>>>,
    },
}

/// Bytes owned by the application.
#[derive(Clone)]
struct SharedBytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl fmt::Debug for SharedBytes {
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
    /// Files of a directory, or a GGUF file, whose name ends in `.gguf`; memory-mapped while they
    /// are read: they must not change meanwhile.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        let given = path.into();
        let path = std::path::absolute(&given).unwrap_or_else(|_| given.clone());
        if GgufFile::is(&given) && !path.is_dir() {
            return Self(FileSource::Gguf { given, path, opened: Arc::default() });
        }
        Self(FileSource::Directory { given, path })
    }

    /// Creates an empty set of files; [`Files::with`] adds files.
    pub fn memory() -> Self {
        Self(FileSource::Memory(BTreeMap::new()))
    }

    /// Adds a file in memory, or replaces it.  `config.json` and `model.safetensors` (or
    /// `model.safetensors.index.json` and its shards) are required, `tokenizer.json` for texts.
    /// Optional: ColBERT's `artifact.metadata`; adapters of tasks, such as
    /// `retrieval_query/adapter_config.json` and `retrieval_query/adapter_model.safetensors`; and,
    /// of sentence-transformers, `modules.json` and the configurations that it declares,
    /// `config_sentence_transformers.json`, `sentence_bert_config.json` and
    /// `tokenizer_config.json`.
    ///
    /// The bytes are kept as long as the model opened from them, as a lost device needs the weights
    /// again; a `Vec<u8>`, a `&'static [u8]`, a map of a file or of a resource will do.
    ///
    /// # Panics
    /// If this is a directory.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<String>,
        bytes: impl AsRef<[u8]> + Send + Sync + 'static,
    ) -> Self {
        let FileSource::Memory(files) = &mut self.0 else { panic!("the files of a directory") };
        files.insert(name.into(), SharedBytes(Arc::new(bytes)));
        self
    }

    /// Path for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        match &self.0 {
            FileSource::Directory { given, .. } => given.join(name),
            FileSource::Memory(_) => name.into(),
            FileSource::Gguf { given, .. } => given.clone(),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match &self.0 {
            FileSource::Directory { given, path } => !is_empty(given) && path.join(name).exists(),
            FileSource::Memory(files) => files.contains_key(name),
            // An error comes back from the first file that is read.
            FileSource::Gguf { .. } => {
                self.gguf().ok().flatten().is_some_and(|file| file.text(name).is_some())
            }
        }
    }

    /// The GGUF file, if these are its files.
    ///
    /// # Errors
    /// [`Error::Read`], and [`Error::Model`] for a damaged or unsupported file.
    pub(crate) fn gguf(&self) -> Result<Option<Arc<GgufFile>>, Error> {
        let FileSource::Gguf { given, path, opened } = &self.0 else { return Ok(None) };
        if let Some(file) = opened.get() {
            return Ok(Some(file.clone()));
        }
        let file = Arc::new(GgufFile::open(given, path)?);
        Ok(Some(opened.get_or_init(|| file).clone()))
    }

    /// Opens a large file without a copy.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub(crate) fn open(&self, name: &str) -> Result<Bytes, Error> {
        self.find(name, |path| Ok(Bytes(Inner::Mapped(Mapped::open(path)?))))
    }

    /// Reads a small file.
    ///
    /// # Errors
    /// [`Error::Read`]
    pub(crate) fn read(&self, name: &str) -> Result<Bytes, Error> {
        self.find(name, |path| Ok(Bytes(Inner::Read(fs::read(path)?))))
    }

    /// Reads a small text file, without the byte order mark that some editors add.
    ///
    /// # Errors
    /// [`Error::Read`], also if it is not UTF-8.
    pub(crate) fn text(&self, name: &str) -> Result<String, Error> {
        let bytes = self.read(name)?;
        let text = String::from_utf8(bytes.strip_prefix(MARK).unwrap_or(&bytes).to_vec());
        text.map_err(|e| self.failed(name, io::Error::new(io::ErrorKind::InvalidData, e)))
    }

    fn find(
        &self,
        name: &str,
        open: impl FnOnce(&Path) -> io::Result<Bytes>,
    ) -> Result<Bytes, Error> {
        let found = match &self.0 {
            FileSource::Gguf { .. } => {
                let file = self.gguf()?.expect("just matched");
                let absent = || {
                    let what = format!("the GGUF file has nothing that makes up {name}");
                    io::Error::new(io::ErrorKind::NotFound, what)
                };
                let text = file.text(name).map(|text| text.as_bytes().to_vec());
                text.map(|text| Bytes(Inner::Read(text))).ok_or_else(absent)
            }
            // Joined to an empty path, a file name would refer to the working directory.
            FileSource::Directory { given, .. } if is_empty(given) => {
                let what = "expected the directory of a model, got an empty path";
                Err(io::Error::new(io::ErrorKind::InvalidInput, what))
            }
            FileSource::Directory { path, .. } => open(&path.join(name)),
            FileSource::Memory(files) => match files.get(name) {
                Some(held) => Ok(Bytes(Inner::SharedBytes(held.clone()))),
                None => Err(io::Error::new(io::ErrorKind::NotFound, "not among the files given")),
            },
        };
        found.map_err(|source| self.failed(name, source))
    }

    fn failed(&self, name: &str, source: io::Error) -> Error {
        Error::Read { path: self.path(name), source }
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Bytes of a file.
pub(crate) struct Bytes(Inner);

enum Inner {
    Mapped(Mapped),
    Read(Vec<u8>),
    SharedBytes(SharedBytes),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Inner::Mapped(mapped) => mapped,
            Inner::Read(bytes) => bytes,
            Inner::SharedBytes(held) => (*held.0).as_ref(),
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
        // `Cargo.toml` exists in the tests' working directory.
        let nowhere = Files::from("");
        assert!(!nowhere.has("Cargo.toml"));
        let error = nowhere.text("Cargo.toml").expect_err("no directory").to_string();
        assert!(error.contains("got an empty path"), "{error}");
        let odd = Files::memory().with("odd", [0xff_u8]);
        assert!(odd.text("odd").expect_err("not UTF-8").to_string().contains("utf-8"));
        let marked = Files::memory().with("marked", "\u{feff}{}\u{feff}");
        assert_eq!(marked.text("marked").expect("UTF-8"), "{}\u{feff}");
    }
}
