//! Adapter discovery, and opening with only the limits that the kernels need.

use super::{compiled::Compiled, dx12, progress::Progress};
use crate::{
    error::Error,
    recording::{Caps, TexturePages},
};
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// Graphics API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Vulkan
    Vulkan,
    /// Metal
    Metal,
    /// Direct3D 12
    Dx12,
    /// OpenGL or OpenGL ES
    Gl,
}

impl Backend {
    fn of(backend: wgpu::Backend) -> Option<Self> {
        match backend {
            wgpu::Backend::Vulkan => Some(Self::Vulkan),
            wgpu::Backend::Metal => Some(Self::Metal),
            wgpu::Backend::Dx12 => Some(Self::Dx12),
            wgpu::Backend::Gl => Some(Self::Gl),
            _ => None,
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vulkan => "vulkan",
            Self::Metal => "metal",
            Self::Dx12 => "dx12",
            Self::Gl => "gl",
        })
    }
}

/// Properties of an adapter before it is opened.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// Name from the driver.
    pub name: String,
    /// API through which it was found.
    pub backend: Backend,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub kind: &'static str,
    /// Driver name and version; on Metal, which has none, the system version.
    pub driver: String,
    /// PCI id of the vendor; 0 if the API does not tell.
    pub vendor: u32,
    /// Human-readable name of the kernel compiler on DX12.
    pub compiler: Option<String>,
    /// True if the adapter computes on the CPU.
    pub software: bool,
    /// Maximum size of a storage binding in bytes.
    pub max_binding_bytes: u64,
    /// Maximum workgroup memory in bytes.
    pub max_workgroup_bytes: u32,
    /// Maximum invocations in a workgroup.
    pub max_invocations: u32,
    /// Minimum and maximum subgroup size, if there are subgroups.
    pub subgroup: Option<(u32, u32)>,
    /// Number of textures that a kernel may write.
    pub storage_textures: u32,
    /// True if shaders may use f16.
    pub f16: bool,
    /// True if shaders can at least read and write f16, packed in pairs in a `u32`.
    pub half: bool,
    /// Rows and columns of the f16 subgroup matrices with f32 sums, the largest that WGSL can
    /// express, and the usual subgroup size.
    pub matrix: Option<(u32, u32)>,
    /// True if passes can be timed on the device.
    pub timestamps: bool,
}

impl AdapterSummary {
    fn new(adapter: &wgpu::Adapter, dx12: &wgpu::Dx12BackendOptions) -> Option<Self> {
        let info = adapter.get_info();
        let limits = adapter.limits();
        let features = adapter.features();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let subgroup = (info.subgroup_min_size, info.subgroup_max_size);
        let backend = Backend::of(info.backend)?;
        let driver = match format!("{} {}", info.driver, info.driver_info).trim() {
            "" => system().unwrap_or_default(),
            driver => driver.to_owned(),
        };
        Some(Self {
            backend,
            kind,
            driver,
            vendor: info.vendor,
            compiler: (backend == Backend::Dx12).then(|| dx12::name(dx12)),
            software: kind == "software",
            max_binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            storage_textures: limits.max_storage_textures_per_shader_stage,
            subgroup: features.contains(wgpu::Features::SUBGROUP).then_some(subgroup),
            f16: features.contains(wgpu::Features::SHADER_F16),
            matrix: matrix(adapter),
            half: adapter.get_downlevel_capabilities().flags.contains(HALF),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            name: info.name,
        })
    }
}

impl AdapterSummary {
    /// Capabilities of an engine on this adapter.
    pub fn caps(&self) -> Caps {
        Caps {
            max_binding_bytes: self.max_binding_bytes,
            cpu: false,
            software: self.software,
            gl: self.backend == Backend::Gl,
            half: self.half,
            textures: self.storage_textures >= STORAGE_TEXTURES,
            subgroup: self.subgroup,
            matrix: None,
            vendor: self.vendor,
            workgroup_bytes: self.max_workgroup_bytes,
        }
    }

    /// Capabilities when opened by [`open_experimental`].
    pub fn experimental_caps(&self) -> Caps {
        Caps { matrix: self.matrix, ..self.caps() }
    }
}

impl fmt::Display for AdapterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}", self.name, self.backend, self.kind)?;
        if !self.driver.is_empty() {
            write!(f, ", {}", self.driver)?;
        }
        f.write_str(")")
    }
}

/// Version of the operating system, for APIs that do not report the driver: macOS includes both.
fn system() -> Option<String> {
    let version =
        std::fs::read_to_string("/System/Library/CoreServices/SystemVersion.plist").ok()?;
    let (_, after) = version.split_once("<key>ProductBuildVersion</key>")?;
    let (_, after) = after.split_once("<string>")?;
    let (build, _) = after.split_once("</string>")?;
    Some(format!("macOS {}", build.trim()))
}

/// Percentage of the system's memory budget above which a buffer is refused.  Windows and Linux
/// otherwise move GPU memory into main memory instead of reporting that it is full, and everything
/// becomes far slower.
const MEMORY_BUDGET: u8 = 90;

/// Adapters of some backends, with their instance.
#[derive(Clone)]
struct Scan {
    instance: wgpu::Instance,
    adapters: Vec<(wgpu::Adapter, AdapterSummary)>,
}

impl Scan {
    fn new(backends: wgpu::Backends) -> Self {
        let found = Self::with(backends, dx12::options());
        let dx12 = found.adapters.iter().any(|(_, summary)| summary.backend == Backend::Dx12);
        match dx12::plain().filter(|_| !dx12 && backends.contains(wgpu::Backends::DX12)) {
            // A DXC that cannot be loaded makes the whole API unavailable.
            Some(plain) => Self::with(backends, plain),
            None => found,
        }
    }

    fn with(backends: wgpu::Backends, dx12: wgpu::Dx12BackendOptions) -> Self {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        descriptor.backend_options.dx12 = dx12.clone();
        descriptor.memory_budget_thresholds.for_resource_creation = Some(MEMORY_BUDGET);
        // No dispatch here is indirect, so wgpu's validation of indirect calls is not needed.
        descriptor.flags = wgpu::InstanceFlags::empty();
        let instance = wgpu::Instance::new(descriptor);
        let summary = |adapter: wgpu::Adapter| {
            AdapterSummary::new(&adapter, &dx12).map(|summary| (adapter, summary))
        };
        let adapters = pollster::block_on(instance.enumerate_adapters(backends));
        let mut adapters: Vec<_> = adapters.into_iter().filter_map(summary).collect();
        // Hardware first; otherwise in the system's order.
        let kinds = ["discrete", "integrated", "virtual", "other", "software"];
        adapters.sort_by_key(|(_, summary)| kinds.iter().position(|kind| *kind == summary.kind));
        Self { instance, adapters }
    }

    fn summaries(self) -> impl Iterator<Item = AdapterSummary> {
        self.adapters.into_iter().map(|(_, summary)| summary)
    }
}

/// Adapters of the native APIs, found once: creating an instance loads drivers, and on Windows
/// opens every GPU.
static NATIVE: Mutex<Option<Scan>> = Mutex::new(None);

/// Scans some backends.  Vulkan, Metal and DX12 use the one instance of the process.  OpenGL gets a
/// new one each time: it has one context per instance, and wgpu panics if adapters are enumerated
/// while another thread computes in that context.
fn scan(backends: wgpu::Backends) -> Scan {
    if backends == wgpu::Backends::GL {
        return Scan::new(backends);
    }
    let mut native = NATIVE.lock().unwrap_or_else(PoisonError::into_inner);
    native.get_or_insert_with(|| Scan::new(backends)).clone()
}

/// Discards the known adapters, so that the next call scans again: a lost one may be gone.
pub fn forget_adapters() {
    NATIVE.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// Backends in scan order.  OpenGL comes last and is scanned only on request: its libraries write
/// to stderr if there is no display.
const GROUPS: [wgpu::Backends; 2] = [wgpu::Backends::PRIMARY, wgpu::Backends::GL];

/// Vulkan, Metal and DX12 adapters of this machine, hardware first.
pub fn native_adapters() -> Vec<AdapterSummary> {
    scan(GROUPS[0]).summaries().collect()
}

/// All adapters of this machine: [`native_adapters`], then those of OpenGL.  The index in this list
/// is the argument of [`open`].
pub fn adapters() -> Vec<AdapterSummary> {
    GROUPS.into_iter().flat_map(|group| scan(group).summaries()).collect()
}

/// `pack2x16float` and `unpack2x16float`: available everywhere except on old OpenGL.
const HALF: wgpu::DownlevelFlags = wgpu::DownlevelFlags::SHADER_F16_IN_F32;

/// Features that are used if available.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::PIPELINE_CACHE);

/// Features for cooperative matrices.
const MATRIX: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);

/// The largest square matrix of f16 with sums of f32, and its subgroup size.
fn matrix(adapter: &wgpu::Adapter) -> Option<(u32, u32)> {
    if !adapter.features().contains(MATRIX) {
        return None;
    }
    let all = adapter.cooperative_matrix_properties();
    let size = all.iter().filter(|p| is_usable_matrix(p)).map(|p| p.m_size).max()?;
    let info = adapter.get_info();
    // AMD's open driver uses the larger of its two sizes; Metal reports a range, and uses 32.
    let lanes = match info.backend {
        wgpu::Backend::Metal => 32,
        _ => info.subgroup_max_size,
    };
    Some((size, lanes))
}

fn is_usable_matrix(p: &wgpu::CooperativeMatrixProperties) -> bool {
    let square = p.m_size == p.n_size && p.n_size == p.k_size;
    let types = (p.ab_type, p.cr_type);
    square && types == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32)
}

/// Maximum number of textures that a kernel of the texture tier writes.
const STORAGE_TEXTURES: u32 = 1;

/// An open device.
#[derive(Clone)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Properties of its adapter.
    pub summary: AdapterSummary,
    pub(super) caps: Caps,
    pub(super) progress: Progress,
    pub(super) compiled: Arc<Compiled>,
    /// None for an application's own device.
    _instance: Option<wgpu::Instance>,
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.progress.close(&self.queue);
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gpu({})", self.summary)
    }
}

impl Gpu {
    /// Wraps an application's own device, shared with its rendering.
    ///
    /// Nothing about it is changed: limits and features stay as they are, its callbacks for errors
    /// and loss stay the application's, and submissions go into its queue, each of a tenth of a
    /// second at most ([`Options::max_submission_time`](crate::Options::max_submission_time) for
    /// less).  Waiting for a result polls the device, which may run the application's callbacks on
    /// a thread of this crate: they must not call the embedder, nor wait for a lock that is held
    /// around its calls.  A lost device is not opened again.
    ///
    /// `wgpu` is [`gpu::wgpu`](crate::gpu::wgpu), in the version that this crate is built with.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if it has less than WebGPU's default limits for compute shaders, or an API
    /// that is not in [`Backend`].
    pub fn shared(
        adapter: &wgpu::Adapter,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Self, Error> {
        let summary = AdapterSummary::new(adapter, &Default::default())
            .ok_or_else(|| no_gpu("an adapter of Vulkan, Metal, DX12 or OpenGL".to_owned()))?;
        let have = device.limits();
        let features = device.features();
        limits(&have).map_err(|e| no_gpu(format!("the application's {summary}: {e}")))?;
        let has = |feature| features.contains(feature);
        let summary = AdapterSummary {
            max_binding_bytes: have.max_storage_buffer_binding_size.min(have.max_buffer_size),
            max_workgroup_bytes: have.max_compute_workgroup_storage_size,
            storage_textures: have.max_storage_textures_per_shader_stage,
            compiler: None,
            subgroup: summary.subgroup.filter(|_| has(wgpu::Features::SUBGROUP)),
            f16: has(wgpu::Features::SHADER_F16),
            timestamps: has(wgpu::Features::TIMESTAMP_QUERY),
            matrix: None,
            ..summary
        };
        Ok(Self {
            caps: summary.caps(),
            summary,
            progress: Progress::shared(device),
            device: device.clone(),
            queue: queue.clone(),
            compiled: Arc::default(),
            _instance: None,
        })
    }

    /// Capabilities of the opened device.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }
}

/// Opens adapter number `index` of [`adapters`].
///
/// # Errors
/// [`Error::NoGpu`], naming the reason, if there is no such adapter or a feature is missing.
pub fn open(index: usize) -> Result<Gpu, Error> {
    open_with(index, wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled())
}

/// As [`open`], with features that wgpu calls experimental: cooperative matrices, if available.
///
/// # Errors
/// As [`open`].
#[allow(unsafe_code, reason = "wgpu asks for it before it lets its unfinished parts be used")]
pub fn open_experimental(index: usize) -> Result<Gpu, Error> {
    // SAFETY: the risk is a bug in wgpu or in the driver, which the caller has accepted; the
    // shaders are our own, and index nothing out of bounds.
    open_with(index, MATRIX, unsafe { wgpu::ExperimentalFeatures::enabled() })
}

fn no_gpu(needs: String) -> Error {
    Error::NoGpu { needs }
}

fn open_with(
    index: usize,
    more: wgpu::Features,
    experimental_features: wgpu::ExperimentalFeatures,
) -> Result<Gpu, Error> {
    let mut count = 0;
    let found = GROUPS.into_iter().find_map(|group| {
        let Scan { instance, mut adapters } = scan(group);
        let position = index.wrapping_sub(count);
        count += adapters.len();
        (index < count).then(|| (instance, adapters.swap_remove(position)))
    });
    let Some((instance, (adapter, summary))) = found else {
        return Err(no_gpu(format!("there is no adapter {index}; this machine has {count}")));
    };
    let limits = limits(&adapter.limits()).map_err(|e| no_gpu(format!("{summary}: {e}")))?;
    let caps = if more.is_empty() { summary.caps() } else { summary.experimental_caps() };
    let more = if caps.matrix.is_some() { more } else { wgpu::Features::empty() };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("jinabert"),
        required_features: (adapter.features() & WANTED) | more,
        experimental_features,
        required_limits: limits,
        memory_hints: wgpu::MemoryHints::Manual {
            suballocated_device_memory_block_size: MEMORY_BLOCK,
        },
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|e| no_gpu(format!("{summary} cannot be opened: {e}")))?;

    let progress = Progress::new(&device);
    device.on_uncaptured_error(Arc::new(|error| tracing::error!("wgpu: {error}")));
    let compiled = Arc::default();
    Ok(Gpu { device, queue, summary, caps, progress, compiled, _instance: Some(instance) })
}

/// Size of the memory blocks requested from the driver, growing with each block: a small model does
/// not need wgpu's first block of 128 MiB.
const MEMORY_BLOCK: Range<u64> = 8 << 20..256 << 20;

/// WebGPU's default limits where they matter to compute kernels, but the adapter's maximum for
/// bindings and workgroup memory.
fn limits(have: &wgpu::Limits) -> Result<wgpu::Limits, String> {
    let need = wgpu::Limits::default();
    let at_least = [
        (
            "storage buffers per stage",
            have.max_storage_buffers_per_shader_stage,
            need.max_storage_buffers_per_shader_stage,
        ),
        (
            "bytes of workgroup memory",
            have.max_compute_workgroup_storage_size,
            need.max_compute_workgroup_storage_size,
        ),
        (
            "invocations per workgroup",
            have.max_compute_invocations_per_workgroup,
            need.max_compute_invocations_per_workgroup,
        ),
        ("workgroup size", have.max_compute_workgroup_size_x, need.max_compute_workgroup_size_x),
        (
            "workgroups per dimension",
            have.max_compute_workgroups_per_dimension,
            need.max_compute_workgroups_per_dimension,
        ),
    ];
    for (what, have, need) in at_least {
        if have < need {
            return Err(format!("{what}: {need} needed, {have} offered"));
        }
    }
    let compute = wgpu::Limits {
        max_storage_buffers_per_shader_stage: need.max_storage_buffers_per_shader_stage,
        max_compute_workgroup_storage_size: have.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: need.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: need.max_compute_workgroup_size_x,
        max_compute_workgroup_size_y: 1,
        max_compute_workgroup_size_z: 1,
        max_compute_workgroups_per_dimension: need.max_compute_workgroups_per_dimension,
        max_storage_buffer_binding_size: have.max_storage_buffer_binding_size,
        max_buffer_size: have.max_buffer_size,
        max_texture_dimension_2d: have.max_texture_dimension_2d.min(TexturePages::HEIGHT),
        max_storage_textures_per_shader_stage: have
            .max_storage_textures_per_shader_stage
            .min(STORAGE_TEXTURES),
        ..wgpu::Limits::downlevel_webgl2_defaults()
    };
    Ok(compute)
}
