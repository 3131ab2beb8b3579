//! Failures of a driver, kept on disk: kernel variants that its compiler refuses, as finding out
//! takes up to a minute, and loss of the device, which then gets shorter submissions.  Another
//! driver, or another version of this crate, starts without them.

use super::kept::Key;
use crate::{gpu::AdapterSummary, kernels::KernelVariant, recording::Caps};
use serde::{Deserialize, Serialize};

/// Refusals and losses of a driver.
#[derive(Default, Serialize, Deserialize)]
pub struct History {
    refused: Vec<Refusal>,
    /// True if a device was lost.
    pub lost: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Refusal {
    variant: KernelVariant,
    /// Human-readable reason.
    why: String,
}

/// Folder of the cache.
const FOLDER: &str = "refused";

/// Key of the file.  On DX12 it includes the compiler, as the system's and the user's may differ.
fn key(adapter: &AdapterSummary) -> Key<Option<String>> {
    Key::new(adapter, adapter.compiler.clone())
}

impl History {
    /// History of an adapter with its driver.
    pub fn of(adapter: &AdapterSummary) -> Self {
        key(adapter).read(FOLDER).unwrap_or_default()
    }

    /// Stores that the driver refuses a variant.
    pub fn add_refusal(adapter: &AdapterSummary, variant: KernelVariant, why: &str) {
        Self::of(adapter).with(variant, why).save(adapter);
    }

    /// Stores that a device was lost.
    pub fn add_loss(adapter: &AdapterSummary) {
        Self { lost: true, ..Self::of(adapter) }.save(adapter);
    }

    /// The variant itself, or the next simpler one that the driver did not refuse.
    pub fn accepted(&self, caps: &Caps, variant: KernelVariant) -> KernelVariant {
        let mut candidate = variant;
        while self.refuses(candidate) {
            match candidate.lower(caps) {
                Some(lower) => candidate = lower,
                None => return variant, // the caller gets the compiler's own message
            }
        }
        candidate
    }

    fn refuses(&self, variant: KernelVariant) -> bool {
        self.refused.iter().any(|refusal| refusal.variant == variant)
    }

    fn with(mut self, variant: KernelVariant, why: &str) -> Self {
        if !self.refuses(variant) {
            self.refused.push(Refusal { variant, why: why.to_owned() });
        }
        self
    }

    fn save(&self, adapter: &AdapterSummary) {
        key(adapter).write(FOLDER, self);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Dtype, Tier};

    #[test]
    fn refused_variants_are_passed_over_to_the_last() {
        let caps = Caps { cpu: false, half: true, ..crate::cpu::Engine::CAPS };
        let [plain, naive] = [Tier::Tiled, Tier::Naive].map(KernelVariant::from);
        for first in [KernelVariant::new(Tier::Tiled, Dtype::F16), plain.for_weights(true, &caps)] {
            let mut history = History::default();
            assert_eq!(history.accepted(&caps, first), first);
            for (refused, accepted) in [(first, plain), (plain, naive), (plain, naive)] {
                history = history.with(refused, "E1");
                assert_eq!(history.accepted(&caps, first), accepted, "{refused} refused");
            }
            assert_eq!(history.refused.len(), 2, "the same twice");
            // All variants are refused: the caller gets the compiler's error.
            assert_eq!(history.with(naive, "E2").accepted(&caps, first), first);
        }
    }
}
