//! What was found, on disk.

use super::Sizes;
use crate::{
    cache,
    gpu::{self, AdapterSummary},
    kernels::{self, Dtype, Plan},
    recording::Caps,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::PathBuf};

/// All that a plan depends on; another of anything is another plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Key {
    /// Of this crate.
    version: String,
    /// Sum of all shader text.
    shaders: u64,
    adapter: String,
    dtype: String,
    sizes: Sizes,
    #[serde(skip)]
    caps: Option<Caps>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    plan: Plan,
}

impl Key {
    /// Of a model's sizes on an adapter.
    pub fn new(adapter: &AdapterSummary, dtype: Dtype, sizes: Sizes) -> Self {
        let programs = kernels::ALL.iter().flat_map(|kernel| (kernel.programs)());
        let texts: BTreeSet<_> =
            programs.map(|program| program.text).chain(gpu::library()).collect();
        let sum = texts
            .iter()
            .fold(0u64, |sum, text| sum.rotate_left(1) ^ cache::checksum(text.as_bytes()));
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            shaders: sum,
            adapter: adapter.to_string(),
            dtype: dtype.to_string(),
            sizes,
            caps: Some(adapter.caps()),
        }
    }

    /// The adapter with its driver, for people.
    pub fn adapter(&self) -> &str {
        &self.adapter
    }

    /// How weights are stored.
    pub fn dtype(&self) -> Dtype {
        if self.dtype == Dtype::F16.to_string() { Dtype::F16 } else { Dtype::F32 }
    }

    /// The model's sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn name(&self) -> String {
        let text = serde_json::to_string(self).expect("plain data");
        format!("tune/{:016x}.json", cache::checksum(text.as_bytes()))
    }
}

/// Where the plan of a key is kept, if anything is kept.
pub fn path(key: &Key) -> Option<PathBuf> {
    Some(cache::dir()?.join(key.name()))
}

/// What was found, if it is whole, for this very key, and such as a search could have found.
pub(super) fn load(key: &Key) -> Option<Plan> {
    let bytes = cache::read(&key.name())?;
    parse(key, &bytes)
}

fn parse(key: &Key, bytes: &[u8]) -> Option<Plan> {
    let Entry { key: kept, plan } = serde_json::from_slice(bytes).ok()?;
    let same = Key { caps: key.caps.clone(), ..kept } == *key;
    let suits = plan.suits(key.caps.as_ref()?, key.sizes.head_width());
    (same && suits).then_some(plan)
}

pub(super) fn save(key: &Key, plan: &Plan) {
    let entry = Entry { key: key.clone(), plan: plan.clone() };
    let text = serde_json::to_vec_pretty(&entry).expect("plain data");
    cache::write(&key.name(), &text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::Tier;

    fn key() -> Key {
        let caps = crate::cpu::Engine::CAPS;
        Key {
            version: "1".to_owned(),
            shaders: 7,
            adapter: "card".to_owned(),
            dtype: "f32".to_owned(),
            sizes: Sizes { hidden: 512, intermediate: 2048, heads: 8, relu: false },
            caps: Some(Caps { cpu: false, ..caps }),
        }
    }

    fn stored(key: &Key, plan: &Plan) -> String {
        let entry = Entry { key: key.clone(), plan: plan.clone() };
        serde_json::to_string(&entry).expect("plain data")
    }

    #[test]
    fn only_the_same_key_is_served() {
        let (key, plan) = (key(), Plan::usual(Tier::Tiled, 64));
        let text = stored(&key, &plan);
        assert_eq!(parse(&key, text.as_bytes()), Some(plan));
        for other in [
            Key { version: "2".to_owned(), ..key.clone() },
            Key { shaders: 8, ..key.clone() },
            Key { adapter: "card, driver 2".to_owned(), ..key.clone() },
            Key { dtype: "f16".to_owned(), ..key.clone() },
            Key { sizes: Sizes { heads: 4, ..key.sizes }, ..key.clone() },
        ] {
            assert_eq!(parse(&other, text.as_bytes()), None);
            assert_ne!(other.name(), key.name());
        }
    }

    #[test]
    fn what_no_search_finds_is_not_served() {
        let (key, plan) = (key(), Plan::usual(Tier::Tiled, 64));
        let text = stored(&key, &plan);
        for (from, to) in [("\"bm\":64", "\"bm\":0"), ("Tiled", "Naive"), ("{", ""), ("64", "-1")] {
            assert_eq!(parse(&key, text.replace(from, to).as_bytes()), None, "{to} for {from}");
        }
        let texture = stored(&key, &Plan::usual(Tier::Texture, 64));
        assert_eq!(parse(&key, texture.as_bytes()), None, "this device has no textures");
    }
}
