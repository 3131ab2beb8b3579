//! Safetensors files: mapped, indexed by name, checked before anything is read.

use crate::{
    elements::Elements,
    error::Error,
    files::{Bytes, Files},
};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorInfo},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

/// All tensors in one file.
const SINGLE: &str = "model.safetensors";

/// Which file each tensor is in.
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
    /// Where the data begin: 8 bytes of length and the header.
    start: usize,
}

struct Entry {
    shard: usize,
    /// As the file spells it.
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
        let mut checkpoint = Self { shards: Vec::new(), index: BTreeMap::new() };
        if files.has(SINGLE) || !files.has(LISTED) {
            checkpoint.add(files, SINGLE)?;
            return Ok(checkpoint);
        }
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
                return Err(bad(format!("`{name}` is said to be in `{file}`, which lacks it")));
            }
        }
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

    /// With the names below a prefix as if they stood alone; others stay as they are.
    ///
    /// # Errors
    /// [`Error::Model`] if two tensors then have one name.
    pub fn below(mut self, prefix: &str) -> Result<Self, Error> {
        for (name, entry) in std::mem::take(&mut self.index) {
            let shorter = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
            if self.index.insert(shorter, entry).is_some() {
                return Err(Error::Model(format!(
                    "tensor `{name}` is there twice, with `{prefix}` and without"
                )));
            }
        }
        Ok(self)
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.index.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    /// The first size of a tensor.
    pub fn rows(&self, name: &str) -> Option<u32> {
        self.info(name)?.shape.first()?.to_owned().try_into().ok()
    }

    fn info(&self, name: &str) -> Option<&TensorInfo> {
        let entry = self.index.get(name)?;
        self.shards[entry.shard].metadata.info(&entry.stored)
    }

    /// Whether there is a tensor of this name in f16.
    pub fn is_f16(&self, name: &str) -> bool {
        self.info(name).is_some_and(|info| info.dtype == Dtype::F16)
    }

    /// The elements of a tensor of the given shape, as they are stored.
    ///
    /// # Errors
    /// [`Error::Model`] if it is missing, of another shape, of a type that holds no real numbers,
    /// or not finite throughout.
    pub fn read(&self, name: &str, shape: &[u32]) -> Result<Elements<'_>, Error> {
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
            Dtype::F32 => Elements::f32(bytes),
            Dtype::F16 => Elements::f16(bytes),
            Dtype::BF16 => Elements::bf16(bytes),
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

    /// Each file and its bytes.
    pub fn files(&self) -> Vec<(PathBuf, u64)> {
        let files = self.shards.iter().map(|shard| (shard.path.clone(), shard.map.len() as u64));
        files.collect()
    }

    /// Name, type and number of elements of every tensor, by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, u64)> {
        self.index.iter().map(|(name, entry)| {
            let info = self.shards[entry.shard].metadata.info(&entry.stored);
            let info = info.expect("indexed from this metadata");
            let elements = info.shape.iter().map(|&n| n as u64).product();
            (name.as_str(), format!("{:?}", info.dtype), elements)
        })
    }
}

impl Shard {
    fn open(files: &Files, name: &str) -> Result<Self, Error> {
        let (path, map) = (files.path(name), files.open(name)?);
        match SafeTensors::read_metadata(&map) {
            // The header is valid: no offset passes the end, none overlap, sizes fit shapes and
            // types.
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

/// Without a leading `bert.`; old LayerNorms' `gamma` and `beta` stay as they are and are then
/// unknown.
fn plain_name(stored: &str) -> &str {
    stored.strip_prefix("bert.").unwrap_or(stored)
}
