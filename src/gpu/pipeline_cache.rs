//! Disk cache of compiled kernels, for drivers that export them: those of Vulkan.  Metal and
//! Direct3D keep files of their own.

#![allow(unsafe_code, reason = "wgpu cannot know where the bytes come from")]

use super::{adapter::Gpu, scope::scoped};
use crate::cache;
use std::sync::{Mutex, PoisonError};

/// The driver's cache of pipelines compiled in this process or an earlier one.
pub(super) struct PipelineCache {
    pub(super) cache: wgpu::PipelineCache,
    name: String,
    /// Checksum of the file on disk.
    stored: Mutex<Option<u64>>,
}

impl PipelineCache {
    /// Opens the cache of earlier processes; none if the driver or the user disables it.
    pub(super) fn open(gpu: &Gpu) -> Option<Self> {
        if !gpu.device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        cache::dir()?;
        let name = name(&gpu.device.adapter_info())?;
        let data = cache::read(&name);
        let descriptor = wgpu::PipelineCacheDescriptor {
            label: Some("jinabert"),
            data: data.as_deref(),
            fallback: true,
        };
        let make = || {
            // SAFETY: the bytes are the output of `get_data`: this crate wrote them, in this
            // version and for this adapter, into the user's own directory, and their checksum is
            // valid.  wgpu and the driver compare device and driver version before they use them.
            unsafe { gpu.device.create_pipeline_cache(&descriptor) }
        };
        match scoped(&gpu.device, make) {
            (cache, None) => {
                let stored = Mutex::new(data.as_deref().map(cache::checksum));
                Some(Self { cache, name, stored })
            }
            (_, Some(error)) => {
                tracing::debug!("no pipeline cache: {error}");
                None
            }
        }
    }

    /// Writes the cache to disk if it has changed.
    pub(super) fn save(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let sum = Some(cache::checksum(&data));
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if *stored != sum {
            cache::write(&self.name, &data);
            *stored = sum;
        }
    }
}

/// File name for a version of this crate, an adapter and a driver.
fn name(info: &wgpu::AdapterInfo) -> Option<String> {
    let key = wgpu::util::pipeline_cache_key(info)?;
    let driver = info.driver.to_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    Some(format!("pipelines/{}_{key}_{driver}", env!("CARGO_PKG_VERSION")))
}
