//! Tensors of safetensors and GGUF files: memory-mapped, indexed by name, checked before anything
//! is read.

use crate::{
    elements::TensorData,
    error::Error,
    files::{Bytes, Files},
    gguf::{GgmlType, GgufFile, TensorEntry},
};
pub use safetensors::Dtype;
use safetensors::SafeTensors;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// File with all tensors.
const SINGLE: &str = "model.safetensors";

/// Index of the shards: tensor names and their files.
const LISTED: &str = "model.safetensors.index.json";

/// The tensors of a model, by name without a leading `bert.`.
pub struct Checkpoint {
    shards: Vec<Shard>,
    index: BTreeMap<String, Entry>,
}

struct Shard {
    path: PathBuf,
    data: ShardData,
}

enum ShardData {
    Safetensors(Bytes),
    Gguf(Arc<GgufFile>),
}

/// A tensor, or several below each other that are stored apart.
struct Entry {
    shard: usize,
    parts: Vec<Part>,
}

/// A stored tensor.
struct Part {
    /// Name in the file.
    stored: String,
    shape: Vec<usize>,
    elements: Elements,
    /// Bytes of the file.
    bytes: Range<usize>,
}

/// Type of a tensor's elements.
#[derive(Clone, Copy)]
enum Elements {
    Plain(Dtype),
    /// Blocks of small integers.
    Blocks(GgmlType),
}

/// `model.safetensors.index.json`
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`Error::Read`] for a missing file, [`Error::Model`] for a damaged one.
    pub fn open(files: &Files) -> Result<Self, Error> {
        if let Some(file) = files.gguf()? {
            return Ok(Self::of_gguf(file));
        }
        if files.has(SINGLE) || !files.has(LISTED) {
            return Self::open_file(files, SINGLE);
        }
        let mut checkpoint = Self { shards: Vec::new(), index: BTreeMap::new() };
        let text = files.text(LISTED)?;
        let listed = files.path(LISTED);
        let bad = |e: String| Error::Model(format!("`{}`: {e}", listed.display()));
        let list: ShardIndex = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
        let mut shards: Vec<&String> = list.weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        for file in shards {
            let mut parts = Path::new(file).components();
            if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
                return Err(bad(format!("`{file}` is not the name of a file beside it")));
            }
            checkpoint.add(files, file)?;
        }
        for (name, file) in &list.weight_map {
            let found = checkpoint.index.get(plain_name(name));
            if found.is_none_or(|entry| !checkpoint.shards[entry.shard].path.ends_with(file)) {
                return Err(bad(format!(
                    "expected `{name}` in `{file}`, where the index has it; it is not there"
                )));
            }
        }
        Ok(checkpoint)
    }

    /// Maps a single file.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_file(files: &Files, name: &str) -> Result<Self, Error> {
        let mut checkpoint = Self { shards: Vec::new(), index: BTreeMap::new() };
        checkpoint.add(files, name)?;
        Ok(checkpoint)
    }

    /// The tensors of a GGUF file.
    fn of_gguf(file: Arc<GgufFile>) -> Self {
        let part = |(stored, tensor): (&str, &TensorEntry)| Part {
            stored: stored.to_owned(),
            shape: tensor.shape.clone(),
            elements: match tensor.kind {
                GgmlType::F32 => Elements::Plain(Dtype::F32),
                GgmlType::F16 => Elements::Plain(Dtype::F16),
                GgmlType::Bf16 => Elements::Plain(Dtype::BF16),
                blocks => Elements::Blocks(blocks),
            },
            bytes: tensor.bytes.clone(),
        };
        let entry = |(name, parts): (&str, Vec<_>)| {
            let parts = parts.into_iter().map(part).collect();
            (name.to_owned(), Entry { shard: 0, parts })
        };
        let index = file.tensors().map(entry).collect();
        let path = file.path().to_owned();
        Self { shards: vec![Shard { path, data: ShardData::Gguf(file) }], index }
    }

    fn add(&mut self, files: &Files, name: &str) -> Result<(), Error> {
        let path = files.path(name);
        let map = files.open(name)?;
        // The parser checks the header: offsets are inside the file, do not overlap, and match
        // shapes and types.
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| {
            let path = path.display();
            Error::Model(format!("`{path}` is not a whole safetensors file: {e}"))
        })?;
        let shard = Shard { path, data: ShardData::Safetensors(map) };
        // 8 bytes of length and the header.
        let start = 8 + header;
        for stored in metadata.offset_keys() {
            let info = metadata.info(&stored).expect("a key of this metadata");
            let (first, last) = info.data_offsets;
            let name = plain_name(&stored).to_owned();
            let part = Part {
                stored: stored.clone(),
                shape: info.shape.clone(),
                elements: Elements::Plain(info.dtype),
                bytes: start + first..start + last,
            };
            let entry = Entry { shard: self.shards.len(), parts: vec![part] };
            if self.index.insert(name, entry).is_some() {
                return Err(shard.bad(format!("tensor `{stored}` is there twice")));
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    /// Strips a prefix from names; names without it stay as they are.
    ///
    /// # Errors
    /// [`Error::Model`] if two tensors would then have the same name.
    pub fn below(self, prefix: &str) -> Result<Self, Error> {
        self.renamed(|name| name.strip_prefix(prefix).unwrap_or(name).to_owned())
    }

    /// Renames the tensors.
    ///
    /// # Errors
    /// [`Error::Model`] if two tensors would then have the same name.
    pub fn renamed(mut self, rename: impl Fn(&str) -> String) -> Result<Self, Error> {
        for (name, entry) in std::mem::take(&mut self.index) {
            let new = rename(&name);
            if let Some(other) = self.index.insert(new, entry) {
                let other = &other.parts[0].stored;
                return Err(Error::Model(format!("tensor `{name}` is there twice, as `{other}`")));
            }
        }
        Ok(self)
    }

    /// All tensor names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.index.keys().map(String::as_str)
    }

    /// True if the tensor exists.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// First dimension of a tensor.
    pub fn rows(&self, name: &str) -> Option<u32> {
        self.index.get(name)?.shape().first()?.to_owned().try_into().ok()
    }

    /// Element type of a tensor, as it is read.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.index.get(name).map(Entry::dtype)
    }

    /// True if every matrix of real numbers is in f16.
    pub fn is_half(&self) -> bool {
        let mut matrices = self.index.values().filter(|entry| entry.parts[0].shape.len() == 2);
        !matrices.any(|entry| matches!(entry.dtype(), Dtype::F32 | Dtype::BF16))
    }

    /// Elements of a tensor of the given shape, in their stored type, or in f32 if that is blocks
    /// of small integers.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing, has another shape or a type that is not real, or has
    /// elements that are not finite.
    pub fn read(&self, name: &str, shape: &[u32]) -> Result<TensorData<'_>, Error> {
        let Some(entry) = self.index.get(name) else {
            return Err(Error::Model(format!("tensor `{name}` is missing")));
        };
        let shard = &self.shards[entry.shard];
        let found = entry.shape();
        if !found.iter().copied().eq(shape.iter().map(|&n| n as usize)) {
            return Err(shard.bad(format!(
                "tensor `{name}` has shape {found:?}; config.json implies {shape:?}"
            )));
        }
        let read = |part: &Part| {
            let bytes = &shard.bytes()[part.bytes.clone()];
            match part.elements {
                Elements::Plain(Dtype::F32) => Ok(TensorData::f32(bytes)),
                Elements::Plain(Dtype::F16) => Ok(TensorData::f16(bytes)),
                Elements::Plain(Dtype::BF16) => Ok(TensorData::bf16(bytes)),
                Elements::Plain(other) => {
                    let message =
                        format!("tensor `{name}` is {other:?}; supported: F32, F16, BF16");
                    Err(shard.bad(message))
                }
                Elements::Blocks(kind) => Ok(kind.widened(bytes).unwrap_or_default().into()),
            }
        };
        let mut parts = entry.parts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let values = if parts.len() == 1 { parts.remove(0) } else { TensorData::concat(&parts) };
        match values.first_odd() {
            None => Ok(values),
            Some(n) => {
                Err(shard.bad(format!("tensor `{name}` is {} at element {n}", values.at(n))))
            }
        }
    }

    /// Path and size in bytes of each file.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.shards.iter();
        files.map(|shard| (shard.path.clone(), shard.bytes().len() as u64)).collect()
    }

    /// Name, type, number of elements and rank of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, u64, usize)> {
        self.index.iter().map(|(name, entry)| {
            let shape = entry.shape();
            let elements = shape.iter().map(|&n| n as u64).product();
            (name.as_str(), entry.parts[0].elements.to_string(), elements, shape.len())
        })
    }
}

impl Entry {
    /// Sizes, with those of the parts below each other.
    fn shape(&self) -> Vec<usize> {
        let mut shape = self.parts[0].shape.clone();
        for part in &self.parts[1..] {
            match (&mut shape[..], &part.shape[..]) {
                ([rows, rest @ ..], [more, other @ ..]) if rest == other => *rows += more,
                // No tensor has this shape.
                _ => return Vec::new(),
            }
        }
        shape
    }

    fn dtype(&self) -> Dtype {
        match self.parts[0].elements {
            Elements::Plain(dtype) => dtype,
            Elements::Blocks(_) => Dtype::F32,
        }
    }
}

impl fmt::Display for Elements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => write!(f, "{dtype:?}"),
            Self::Blocks(kind) => write!(f, "{kind}"),
        }
    }
}

impl Shard {
    fn bytes(&self) -> &[u8] {
        match &self.data {
            ShardData::Safetensors(map) => map,
            ShardData::Gguf(file) => file.bytes(),
        }
    }

    fn bad(&self, what: String) -> Error {
        Error::Model(format!("`{}`: {what}", self.path.display()))
    }
}

/// Strips a leading `bert.`.  `gamma` and `beta` of old LayerNorms stay as they are and are then
/// unknown.
fn plain_name(stored: &str) -> &str {
    stored.strip_prefix("bert.").unwrap_or(stored)
}
