//! Selection of a device by its user-visible name.

use crate::{
    cpu,
    error::Error,
    gpu::{self, AdapterSummary, Backend},
    kernels::{Dtype, KernelVariant, Tier},
    recording::{Caps, Engine},
};
use std::{fmt, str::FromStr};

/// Device as named by the user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The faster of a hardware GPU and the CPU, as an embedder measures them; without an embedder
    /// the GPU, if there is one.  A software Vulkan is not a GPU.
    #[default]
    Auto,
    /// The CPU path.
    Cpu,
    /// First adapter of a graphics API, software ones included.
    Backend(Backend),
    /// Adapter by its index in [`gpu::adapters`].
    Index(usize),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Ok(match name {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "vulkan" => Self::Backend(Backend::Vulkan),
            "metal" => Self::Backend(Backend::Metal),
            "dx12" => Self::Backend(Backend::Dx12),
            "gl" => Self::Backend(Backend::Gl),
            index => Self::Index(index.parse().map_err(|_| {
                let known = "`auto`, `cpu`, `vulkan`, `metal`, `dx12`, `gl`";
                Error::Option(format!("a device is {known}, or an index from `jinabert devices`"))
            })?),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Backend(backend) => backend.fmt(f),
            Self::Index(index) => index.fmt(f),
        }
    }
}

/// An opened device.
pub struct Opened {
    /// Engine that runs the recordings.
    pub engine: Box<dyn Engine>,
    /// Kernel variant to record.
    pub variant: KernelVariant,
    /// Adapter, with its index in [`gpu::adapters`] unless it is an application's; none for the
    /// CPU.
    pub adapter: Option<(Option<usize>, AdapterSummary)>,
    /// Human-readable name, and the reason for the choice.
    pub name: String,
}

impl Device {
    /// Index of the adapter in [`gpu::adapters`]; none for the CPU.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the API has no adapter.
    pub fn adapter(self) -> Result<Option<usize>, Error> {
        match self {
            Self::Cpu => Ok(None),
            // Hardware comes first in the list.
            Self::Auto => {
                Ok(gpu::native_adapters().first().filter(|first| !first.software).map(|_| 0))
            }
            Self::Index(index) => Ok(Some(index)),
            Self::Backend(backend) => {
                let adapters = match backend {
                    Backend::Gl => gpu::adapters(),
                    _ => gpu::native_adapters(),
                };
                match adapters.iter().position(|adapter| adapter.backend == backend) {
                    None => Err(Error::NoGpu { needs: missing(backend, &adapters) }),
                    index => Ok(index),
                }
            }
        }
    }

    /// Tier of the device by name, experimental ones included.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device does not exist, [`Error::Option`] naming its tiers.
    pub fn tier(self, name: &str) -> Result<Tier, Error> {
        let caps = match self.adapter()? {
            None => cpu::Engine::CAPS,
            Some(index) => {
                let native = gpu::native_adapters();
                let all = if index < native.len() { native } else { gpu::adapters() };
                let needs =
                    || format!("there is no adapter {index}; this machine has {}", all.len());
                let found = all.get(index).ok_or_else(|| Error::NoGpu { needs: needs() })?;
                found.experimental_caps()
            }
        };
        let tiers = Tier::of(&caps);
        let name = Tier::current_name(name);
        let found = tiers.iter().find(|tier| tier.to_string() == name);
        found.copied().ok_or_else(|| {
            let known: Vec<_> = tiers.iter().map(ToString::to_string).collect();
            let known = known.join(", ");
            Error::Option(format!("tier: expected one of this device, {known}, got `{name}`"))
        })
    }

    /// Opens the device, with the given tier or its default.  If `auto` finds no GPU, the CPU uses
    /// f32 even if f16 was requested.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if it does not exist or lacks a feature, [`Error::Option`] if it has no
    /// kernels for the tier and dtype; `auto` cannot fail without a tier.
    pub fn open(self, tier: Option<Tier>, dtype: Dtype) -> Result<Opened, Error> {
        let cpu = |why: &str| open_cpu(tier, Dtype::F32, why);
        match (self, self.adapter()?) {
            (Self::Auto, None) => cpu("; no hardware GPU found"),
            (_, None) => open_cpu(tier, dtype, ""),
            (Self::Auto, Some(index)) => {
                open_adapter(index, tier, dtype).or_else(|error| cpu(&format!("; {error}")))
            }
            (_, Some(index)) => open_adapter(index, tier, dtype),
        }
    }
}

fn missing(backend: Backend, adapters: &[AdapterSummary]) -> String {
    let found: Vec<_> = adapters.iter().map(ToString::to_string).collect();
    let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
    format!("no {backend} adapter on this machine; adapters found: {found}")
}

fn open_adapter(index: usize, tier: Option<Tier>, dtype: Dtype) -> Result<Opened, Error> {
    let gpu = match tier {
        Some(Tier::Matrix { .. }) => gpu::open_experimental(index)?,
        _ => gpu::open(index)?,
    };
    with_engine(gpu, Some(index), tier, dtype)
}

/// Opens an application's device.
///
/// # Errors
/// [`Error::Option`] if it has no kernels for the tier and dtype.
pub fn open_shared(gpu: gpu::Gpu, tier: Option<Tier>, dtype: Dtype) -> Result<Opened, Error> {
    with_engine(gpu, None, tier, dtype)
}

fn with_engine(
    gpu: gpu::Gpu,
    index: Option<usize>,
    tier: Option<Tier>,
    dtype: Dtype,
) -> Result<Opened, Error> {
    let name = gpu.summary.to_string();
    let variant = variant(tier, dtype, gpu.caps(), &name)?;
    let adapter = Some((index, gpu.summary.clone()));
    Ok(Opened { engine: Box::new(gpu::Engine::cached(gpu)), variant, adapter, name })
}

/// Capabilities of this machine's processor.
pub fn cpu_caps() -> Caps {
    cpu::Engine::new(Tier::Blocked).caps().clone()
}

fn open_cpu(tier: Option<Tier>, dtype: Dtype, why: &str) -> Result<Opened, Error> {
    let name = format!("cpu ({} threads{why})", rayon::current_num_threads());
    let variant = variant(tier, dtype, &cpu::Engine::CAPS, &name)?;
    let engine = Box::new(cpu::Engine::new(variant.tier));
    Ok(Opened { engine, variant, adapter: None, name })
}

fn variant(
    tier: Option<Tier>,
    dtype: Dtype,
    caps: &Caps,
    name: &str,
) -> Result<KernelVariant, Error> {
    let variant = KernelVariant::new(tier.unwrap_or_else(|| Tier::choose(caps)), dtype);
    if variant.suits(caps) {
        Ok(variant)
    } else {
        let known: Vec<_> = KernelVariant::of(caps).iter().map(ToString::to_string).collect();
        let known = known.join(", ");
        Err(Error::Option(format!("kernels of {name}: expected one of {known}, got {variant}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in ["auto", "cpu", "vulkan", "metal", "dx12", "gl", "0", "17"] {
            assert_eq!(name.parse::<Device>().expect(name).to_string(), name);
        }
        for name in ["", "cuda", "-1", "1.5", "CPU"] {
            let error = name.parse::<Device>().expect_err(name);
            assert!(error.to_string().contains("jinabert devices"), "{error}");
        }
    }
}
