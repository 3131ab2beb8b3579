//! The devices that tests run on.

use jinabert::{
    cpu, gpu,
    kernels::Tier,
    recording::{Caps, Engine},
};

/// A device under test: the CPU engine, or an adapter by its position.
#[derive(Clone, Debug, PartialEq)]
pub enum Device {
    Cpu,
    Adapter(usize, Caps), // with what must be asked for
}

impl Device {
    pub fn open(&self, tier: Tier) -> Box<dyn Engine> {
        match *self {
            Self::Cpu => Box::new(cpu::Engine::new(tier)),
            Self::Adapter(index, _) => {
                let gpu = match tier {
                    Tier::Matrix { .. } => gpu::open_experimental(index),
                    _ => gpu::open(index),
                };
                let gpu = gpu.unwrap_or_else(|e| panic!("adapter {index}: {e}"));
                Box::new(gpu::Engine::new(gpu))
            }
        }
    }

    pub fn caps(&self) -> Caps {
        Caps { matrix: None, ..self.experimental_caps() }
    }

    /// Those with what must be asked for.
    pub fn experimental_caps(&self) -> Caps {
        match self {
            Self::Cpu => cpu::Engine::new(Tier::Twin).caps().clone(),
            Self::Adapter(_, caps) => caps.clone(),
        }
    }

    /// The tier that runs by default.
    pub fn tier(&self) -> Tier {
        Tier::choose(&self.caps())
    }
}

/// Environment variable: adapters that must be there, parts of their names, comma-separated.
pub const REQUIRE: &str = "JINABERT_REQUIRE";

/// Every device of this machine with a short name, and the required ones that are missing.
pub fn devices() -> (Vec<(String, Device)>, Vec<String>) {
    let mut found = vec![("cpu".to_owned(), Device::Cpu)];
    for (index, adapter) in gpu::adapters().into_iter().enumerate() {
        let name = adapter.name.split([' ', '(']).next().unwrap_or_default().to_lowercase();
        let device = Device::Adapter(index, adapter.experimental_caps());
        found.push((format!("{}-{name}", adapter.backend), device));
    }
    let required = std::env::var(REQUIRE).unwrap_or_default().to_lowercase();
    let missing = required
        .split(',')
        .filter(|part| !part.is_empty() && !found.iter().any(|(name, _)| name.contains(part)))
        .map(str::to_owned)
        .collect();
    (found, missing)
}
