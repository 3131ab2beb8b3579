//! Safetensors files: memory-mapped, indexed by name, checked before anything is read.

use crate::{
    elements::TensorData,
    error::Error,
    files::{Bytes, Files},
};
pub use safetensors::Dtype;
use safetensors::{
    SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
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
    map: Bytes,
    metadata: Metadata,
    /// Offset of the data: 8 bytes of length and the header.
    start: usize,
}

struct Entry {
    shard: usize,
    /// Name in the file.
    stored: String,
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

    fn add(&mut self, files: &Files, name: &str) -> Result<(), Error> {
        let shard = Shard::open(files, name)?;
        for stored in shard.metadata.offset_keys() {
            let name = plain_name(&stored).to_owned();
            let entry = Entry { shard: self.shards.len(), stored: stored.clone() };
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
                let other = other.stored;
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
        self.info(name)?.shape.first()?.to_owned().try_into().ok()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        let entry = self.index.get(name)?;
        self.shards[entry.shard].metadata.info(&entry.stored)
    }

    /// Element type of a tensor.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.info(name).map(|info| info.dtype)
    }

    /// True if every matrix of real numbers is in f16.
    pub fn is_half(&self) -> bool {
        let infos = self.index.keys().filter_map(|name| self.info(name));
        let mut matrices = infos.filter(|info| info.shape.len() == 2);
        !matrices.any(|info| matches!(info.dtype, Dtype::F32 | Dtype::BF16))
    }

    /// Elements of a tensor of the given shape, in their stored type.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing, has another shape or a type that is not real, or has
    /// elements that are not finite.
    pub fn read(&self, name: &str, shape: &[u32]) -> Result<TensorData<'_>, Error> {
        let Some(entry) = self.index.get(name) else {
            return Err(Error::Model(format!("tensor `{name}` is missing")));
        };
        let shard = &self.shards[entry.shard];
        let info = shard.metadata.info(&entry.stored).expect("indexed from this metadata");
        if !info.shape.iter().copied().eq(shape.iter().map(|&n| n as usize)) {
            let found = &info.shape;
            return Err(shard.bad(format!(
                "tensor `{name}` has shape {found:?}; config.json implies {shape:?}"
            )));
        }
        let bytes = &shard.map[shard.start..][info.data_offsets.0..info.data_offsets.1];
        let values = match info.dtype {
            Dtype::F32 => TensorData::f32(bytes),
            Dtype::F16 => TensorData::f16(bytes),
            Dtype::BF16 => TensorData::bf16(bytes),
            other => {
                let message = format!("tensor `{name}` is {other:?}; supported: F32, F16, BF16");
                return Err(shard.bad(message));
            }
        };
        match values.first_odd() {
            None => Ok(values),
            Some(n) => {
                Err(shard.bad(format!("tensor `{name}` is {} at element {n}", values.at(n))))
            }
        }
    }

    /// Path and size in bytes of each file.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.shards.iter().map(|shard| (shard.path.clone(), shard.map.len() as u64));
        files.collect()
    }

    /// Name, type, number of elements and rank of every tensor, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, u64, usize)> {
        self.index.iter().map(|(name, entry)| {
            let info = self.shards[entry.shard].metadata.info(&entry.stored);
            let info = info.expect("indexed from this metadata");
            let elements = info.shape.iter().map(|&n| n as u64).product();
            (name.as_str(), format!("{:?}", info.dtype), elements, info.shape.len())
        })
    }
}

impl Shard {
    fn open(files: &Files, name: &str) -> Result<Self, Error> {
        let path = files.path(name);
        let map = files.open(name)?;
        match SafeTensors::read_metadata(&map) {
            // The parser has checked the header: offsets are inside the file, do not overlap, and
            // match shapes and types.
            Ok((header, metadata)) => Ok(Self { start: 8 + header, path, map, metadata }),
            Err(e) => {
                let path = path.display();
                Err(Error::Model(format!("`{path}` is not a whole safetensors file: {e}")))
            }
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
