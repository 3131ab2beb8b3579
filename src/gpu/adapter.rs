//! Finding an adapter and opening it with no more than the kernels need.

use super::progress::Progress;
use crate::{
    error::Error,
    recording::{Caps, Page},
};
use std::{fmt, sync::Arc};

/// A graphics API.
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

/// What an adapter is, before it is opened.
#[derive(Clone, Debug)]
pub struct AdapterSummary {
    /// As the driver names it.
    pub name: String,
    /// Which API it was found through.
    pub backend: Backend,
    /// "discrete", "integrated", "virtual", "software" or "other".
    pub kind: &'static str,
    /// Driver name and version.
    pub driver: String,
    /// Whether it computes on the CPU.
    pub software: bool,
    /// Bytes in one storage binding.
    pub max_binding_bytes: u64,
    /// Bytes of workgroup memory.
    pub max_workgroup_bytes: u32,
    /// Invocations in a workgroup.
    pub max_invocations: u32,
    /// Smallest and largest subgroup, where there are subgroups.
    pub subgroup: Option<(u32, u32)>,
    /// Textures that a kernel may write.
    pub storage_textures: u32,
    /// Whether shaders may use f16.
    pub f16: bool,
    /// Whether they may at least read and write it, two to a `u32`.
    pub half: bool,
    /// Rows and columns of the matrices of f16 that a subgroup multiplies into sums of f32, the
    /// largest that WGSL can name, and its usual size.
    pub matrix: Option<(u32, u32)>,
    /// Whether passes can be timed on the device.
    pub timestamps: bool,
}

impl AdapterSummary {
    fn new(adapter: &wgpu::Adapter) -> Option<Self> {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        };
        let subgroup = (info.subgroup_min_size, info.subgroup_max_size);
        Some(Self {
            backend: Backend::of(info.backend)?,
            kind,
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
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
    /// What an engine on it would allow.
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
        }
    }

    /// The same, opened by [`open_experimental`].
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

/// Adapters of some backends, with the instance they belong to.
///
/// Every call makes an instance of its own: the OpenGL backend has one context per instance, and
/// finding adapters while another thread computes in that context is a panic in wgpu.
fn scan(backends: wgpu::Backends) -> (wgpu::Instance, Vec<(wgpu::Adapter, AdapterSummary)>) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = backends;
    // No dispatch here is indirect, so nothing needs wgpu's validation of indirect calls.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor);
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(backends))
        .into_iter()
        .filter_map(|adapter| AdapterSummary::new(&adapter).map(|summary| (adapter, summary)))
        .collect();
    // Real cards first; otherwise in the system's order.
    let kinds = ["discrete", "integrated", "virtual", "other", "software"];
    found.sort_by_key(|(_, summary)| kinds.iter().position(|kind| *kind == summary.kind));
    (instance, found)
}

/// OpenGL comes last and is looked for only when asked for: its libraries write to stderr when
/// there is no display.
const GROUPS: [wgpu::Backends; 2] = [wgpu::Backends::PRIMARY, wgpu::Backends::GL];

/// Vulkan, Metal and DX12 adapters of this machine, real cards first.
pub fn native_adapters() -> Vec<AdapterSummary> {
    scan(GROUPS[0]).1.into_iter().map(|(_, summary)| summary).collect()
}

/// Every adapter of this machine: [`native_adapters`], then those of OpenGL.  A position in this
/// list is an index for [`open`].
pub fn adapters() -> Vec<AdapterSummary> {
    let groups = GROUPS.into_iter().flat_map(|group| scan(group).1);
    groups.map(|(_, summary)| summary).collect()
}

/// `pack2x16float` and `unpack2x16float`: everywhere but on old OpenGL.
const HALF: wgpu::DownlevelFlags = wgpu::DownlevelFlags::SHADER_F16_IN_F32;

/// Features that are used where they are there.
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY
    .union(wgpu::Features::SUBGROUP)
    .union(wgpu::Features::PIPELINE_CACHE);

/// Features for cooperative matrices.
const MATRIX: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);

/// The largest square matrix of f16 with sums of f32, and the subgroup that holds it.
fn matrix(adapter: &wgpu::Adapter) -> Option<(u32, u32)> {
    let usable = |p: &wgpu::CooperativeMatrixProperties| {
        let square = p.m_size == p.n_size && p.n_size == p.k_size;
        let types = (p.ab_type, p.cr_type);
        square && types == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32)
    };
    let all = adapter.cooperative_matrix_properties();
    let sizes = all.iter().filter(|p| usable(p)).map(|p| p.m_size);
    let info = adapter.get_info();
    // AMD's open driver takes the larger of its two sizes; Metal names a range, and has 32.
    let lanes = match info.backend {
        wgpu::Backend::Metal => 32,
        _ => info.subgroup_max_size,
    };
    let sizes = sizes.filter(|_| adapter.features().contains(MATRIX));
    sizes.max().map(|size| (size, lanes))
}

/// Textures that a kernel of the texture tier writes, at most.
const STORAGE_TEXTURES: u32 = 1;

/// An open device.
#[derive(Clone)]
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// What it is.
    pub summary: AdapterSummary,
    pub(super) caps: Caps,
    pub(super) progress: Progress,
    /// An application keeps its own.
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
    /// An application's own device, for what is computed beside what it draws.
    ///
    /// Nothing about it is changed: limits and features are as it was opened, its callbacks for
    /// errors and loss stay the application's, and submissions go into its queue, each of a tenth
    /// of a second at most ([`Options::slice`](crate::Options::slice) for less).  Waiting for a
    /// result polls the device, which may run the application's callbacks on a thread of this
    /// crate: they must not call the embedder, nor wait for a lock that is held around its calls.
    /// A device that is lost is not opened anew.
    ///
    /// `wgpu` is [`gpu::wgpu`](crate::gpu::wgpu), of the version that this crate is built with.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if it was opened with less than WebGPU's default limits for compute
    /// shaders, or its API is not one of [`Backend`].
    pub fn shared(
        adapter: &wgpu::Adapter,
        device: &wgpu::Device,
        queue: &wgpu::Queue,
    ) -> Result<Self, Error> {
        let no_gpu = |needs: String| Error::NoGpu { needs };
        let summary = AdapterSummary::new(adapter)
            .ok_or_else(|| no_gpu("an adapter of Vulkan, Metal, DX12 or OpenGL".to_owned()))?;
        let (have, features) = (device.limits(), device.features());
        limits(&have).map_err(|e| no_gpu(format!("the application's {summary}: {e}")))?;
        let has = |feature| features.contains(feature);
        let summary = AdapterSummary {
            max_binding_bytes: have.max_storage_buffer_binding_size.min(have.max_buffer_size),
            storage_textures: have.max_storage_textures_per_shader_stage,
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
            _instance: None,
        })
    }

    /// What it allows as it was opened.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }
}

/// Opens adapter number `index` of [`adapters`].
///
/// # Errors
/// [`Error::NoGpu`] if there is no such adapter or it lacks something; the message says what.
pub fn open(index: usize) -> Result<Gpu, Error> {
    open_with(index, wgpu::Features::empty(), wgpu::ExperimentalFeatures::disabled())
}

/// As [`open`], with what wgpu calls experimental: cooperative matrices, where there are any.
///
/// # Errors
/// As [`open`].
#[allow(unsafe_code, reason = "wgpu asks for it before it lets its unfinished parts be used")]
pub fn open_experimental(index: usize) -> Result<Gpu, Error> {
    // SAFETY: what could go wrong is a bug in wgpu or in the driver, which the caller has chosen to
    // risk; shaders are our own, and index nothing out of bounds.
    open_with(index, MATRIX, unsafe { wgpu::ExperimentalFeatures::enabled() })
}

fn open_with(
    index: usize,
    more: wgpu::Features,
    experimental_features: wgpu::ExperimentalFeatures,
) -> Result<Gpu, Error> {
    let no_gpu = |needs: String| Error::NoGpu { needs };
    let mut count = 0;
    let found = GROUPS.into_iter().find_map(|group| {
        let (instance, mut found) = scan(group);
        let position = index.wrapping_sub(count);
        count += found.len();
        (index < count).then(|| (instance, found.swap_remove(position)))
    });
    let Some((instance, (adapter, summary))) = found else {
        return Err(no_gpu(format!("there is no adapter {index}; this machine has {count}")));
    };
    let limits = limits(&adapter.limits()).map_err(|e| no_gpu(format!("{summary}: {e}")))?;
    let caps = match more.is_empty() {
        true => summary.caps(),
        false => summary.experimental_caps(),
    };
    let more = if caps.matrix.is_some() { more } else { wgpu::Features::empty() };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("jinabert"),
        required_features: (adapter.features() & WANTED) | more,
        experimental_features,
        required_limits: limits,
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor))
        .map_err(|e| no_gpu(format!("{summary} cannot be opened: {e}")))?;

    let progress = Progress::new(&device);
    device.on_uncaptured_error(Arc::new(|error| tracing::error!("wgpu: {error}")));
    Ok(Gpu { device, queue, summary, caps, progress, _instance: Some(instance) })
}

/// WebGPU's default limits where a compute kernel could notice, but as large bindings as the
/// adapter has.
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
        max_compute_workgroup_storage_size: need.max_compute_workgroup_storage_size,
        max_compute_invocations_per_workgroup: need.max_compute_invocations_per_workgroup,
        max_compute_workgroup_size_x: need.max_compute_workgroup_size_x,
        max_compute_workgroup_size_y: 1,
        max_compute_workgroup_size_z: 1,
        max_compute_workgroups_per_dimension: need.max_compute_workgroups_per_dimension,
        max_storage_buffer_binding_size: have.max_storage_buffer_binding_size,
        max_buffer_size: have.max_buffer_size,
        max_texture_dimension_2d: have.max_texture_dimension_2d.min(Page::HEIGHT),
        max_storage_textures_per_shader_stage: have
            .max_storage_textures_per_shader_stage
            .min(STORAGE_TEXTURES),
        ..wgpu::Limits::downlevel_webgl2_defaults()
    };
    Ok(compute)
}
