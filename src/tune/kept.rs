//! Files about an adapter, kept on disk: each is for one driver and one version of this crate, and
//! is ignored if either has changed.

use crate::{
    cache,
    gpu::{self, AdapterSummary},
    kernels,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeSet, sync::LazyLock};

/// Key of a file: everything that its contents depend on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key<T> {
    /// Version of this crate.
    version: String,
    /// Checksum of all shader text.
    shaders: u64,
    /// Adapter with its driver and the driver's version.
    adapter: String,
    /// Further dependencies of this kind of file.
    beside: T,
}

#[derive(Serialize, Deserialize)]
struct Entry<K, V> {
    key: K,
    value: V,
}

impl<T: PartialEq + Serialize + DeserializeOwned> Key<T> {
    pub fn new(adapter: &AdapterSummary, beside: T) -> Self {
        Self::of(&adapter.to_string(), beside)
    }

    /// Creates the key of an adapter given by its name, driver and driver's version.
    pub fn of(adapter: &str, beside: T) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let adapter = adapter.to_owned();
        Self { version, shaders: kernel_texts(), adapter, beside }
    }

    /// The adapter with its driver, human-readable.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    pub fn beside(&self) -> &T {
        &self.beside
    }

    /// File name within a folder of the cache.
    pub fn file(&self, folder: &str) -> String {
        let text = serde_json::to_string(self).expect("plain data");
        format!("{folder}/{:016x}.json", cache::checksum(text.as_bytes()))
    }

    /// Reads the value, if the file is complete and has this key.
    pub fn read<V: DeserializeOwned>(&self, folder: &str) -> Option<V> {
        self.parse(&cache::read(&self.file(folder))?)
    }

    pub fn write<V: Serialize>(&self, folder: &str, value: &V) {
        cache::write(&self.file(folder), &self.bytes(value));
    }

    /// Parses the bytes of a file.
    pub fn parse<V: DeserializeOwned>(&self, bytes: &[u8]) -> Option<V> {
        let Entry { key, value } = serde_json::from_slice::<Entry<Self, V>>(bytes).ok()?;
        (key == *self).then_some(value)
    }

    /// Bytes of a file.
    pub fn bytes<V: Serialize>(&self, value: &V) -> Vec<u8> {
        serde_json::to_vec_pretty(&Entry { key: self, value }).expect("plain data")
    }
}

/// Checksum of the text of all kernels.
fn kernel_texts() -> u64 {
    static SUM: LazyLock<u64> = LazyLock::new(|| {
        let programs = kernels::ALL.iter().flat_map(|kernel| (kernel.programs)());
        let texts: BTreeSet<_> =
            programs.map(|program| program.text).chain(gpu::library()).collect();
        let sums = texts.iter().map(|text| cache::checksum(text.as_bytes()));
        sums.fold(0, |sum: u64, text| sum.rotate_left(1) ^ text)
    });
    *SUM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_files_of_the_same_key_count() {
        let key = Key::of("card", "f32".to_owned());
        let text = key.bytes(&[1, 2]);
        assert_eq!(key.parse(&text), Some([1, 2]));
        assert_eq!(key.parse::<[u32; 2]>(&text[..text.len() - 1]), None);
        assert_eq!(key.parse::<[u32; 3]>(&text), None);
        for other in [
            Key { version: "2".to_owned(), ..key.clone() },
            Key { shaders: 8, ..key.clone() },
            Key { adapter: "card, driver 2".to_owned(), ..key.clone() },
            Key { beside: "f16".to_owned(), ..key.clone() },
        ] {
            assert_eq!(other.parse::<[u32; 2]>(&text), None);
            assert_ne!(other.file("tune"), key.file("tune"));
        }
    }
}
