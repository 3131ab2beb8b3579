//! Search results on disk.

use super::{Sizes, Stored, kept, search::Progress};
use crate::{cache, gpu::AdapterSummary, recording::Caps};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Key of a configuration: everything that it depends on.
#[derive(Clone, Debug)]
pub struct Key {
    kept: kept::Key<Subject>,
    caps: Caps,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Subject {
    stored: Stored,
    sizes: Sizes,
}

/// Folder of the cache.
const FOLDER: &str = "tune";

impl Key {
    /// Creates the key for a model's sizes on an adapter.
    pub fn new(adapter: &AdapterSummary, stored: Stored, sizes: Sizes) -> Self {
        let kept = kept::Key::new(adapter, Subject { stored, sizes });
        Self { kept, caps: adapter.caps() }
    }

    /// The adapter with its driver, human-readable.
    pub fn adapter(&self) -> &str {
        self.kept.adapter()
    }

    /// Storage of the model.
    pub fn stored(&self) -> Stored {
        self.kept.beside().stored
    }

    /// Sizes of the model.
    pub fn sizes(&self) -> Sizes {
        self.kept.beside().sizes
    }

    /// True if the kernels run on a processor, as with a software driver.
    pub(super) fn is_software(&self) -> bool {
        self.caps.software
    }

    fn suits(&self, progress: &Progress) -> bool {
        progress.config.suits(&self.caps, self.sizes().head_width())
    }
}

/// Path of the configuration's file, if there is a cache.
pub fn path(key: &Key) -> Option<PathBuf> {
    Some(cache::dir()?.join(key.kept.file(FOLDER)))
}

/// Loads the progress of a search, if a search could have found it.
pub(super) fn load(key: &Key) -> Option<Progress> {
    key.kept.read(FOLDER).filter(|progress| key.suits(progress))
}

pub(super) fn save(key: &Key, progress: &Progress) {
    key.kept.write(FOLDER, progress);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        activation::Activation,
        kernels::{Dtype, KernelConfig, Tier},
    };

    #[test]
    fn impossible_configs_are_not_read() {
        let caps = Caps { cpu: false, ..crate::cpu::Engine::CAPS };
        let sizes =
            Sizes { hidden: 512, intermediate: 2048, heads: 8, activation: Activation::Gelu };
        let subject = Subject { stored: Stored { dtype: Dtype::F32, half_weights: false }, sizes };
        let key = Key { kept: kept::Key::of("card", subject), caps };
        let some = |config| Progress { config, steps: 3, searches: 1, complete: false };
        let parse = |bytes: &[u8]| key.kept.parse(bytes).filter(|found| key.suits(found));
        let config = some(KernelConfig::usual(Tier::Tiled, 64));
        let bytes = key.kept.bytes(&config);
        assert_eq!(parse(&bytes), Some(config));
        let text = String::from_utf8(bytes).expect("JSON");
        for (from, to) in [("\"bm\": 64", "\"bm\": 0"), ("Tiled", "Naive"), ("{", ""), ("64", "-1")]
        {
            assert!(text.contains(from), "{from}");
            assert_eq!(parse(text.replace(from, to).as_bytes()), None, "{to} for {from}");
        }
        let texture = key.kept.bytes(&some(KernelConfig::usual(Tier::Texture, 64)));
        assert_eq!(parse(&texture), None, "this device has no textures");
    }
}
