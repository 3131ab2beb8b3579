//! Compilation of a [`Program`] into a compute pipeline.

use super::{
    ZERO_INITIALIZE_WORKGROUP_MEMORY, assemble::assemble, scope::scoped, slot::texture_format,
};
use crate::{
    error::Error,
    recording::{Access, Binding, Program},
};

/// A compiled kernel.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Reason why a program was not compiled.
#[derive(Clone)]
pub(super) enum Failed {
    /// The compiler refuses it.
    Refused {
        /// Name of the kernel.
        kernel: &'static str,
        /// The compiler's message, with its location.
        message: String,
    },
    /// Out of memory; a retry may succeed.
    NoMemory(String),
}

impl Failed {
    /// True if a retry would fail in the same way.
    pub(super) fn lasting(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Converts to the error for callers.
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Refused { kernel, message } => Error::Compile { kernel, message },
            Self::NoMemory(what) => Error::Memory(what),
        }
    }
}

/// Size of `params` in the uniform buffer's bindings, in bytes.
pub(super) fn params_size(program: &Program) -> u64 {
    u64::from(program.params_bytes).next_multiple_of(16)
}

impl Pipeline {
    /// Compiles a program.
    ///
    /// # Errors
    /// [`Failed::Refused`] with the offending line of the shader.
    pub(super) fn new(
        device: &wgpu::Device,
        program: &Program,
        cache: Option<&wgpu::PipelineCache>,
    ) -> Result<Self, Failed> {
        let refused = |message| Failed::Refused { kernel: program.name(), message };
        let label = format!("jinabert/{}", program.name());
        let source = assemble(program).map_err(refused)?;
        let ((module, made), error) = scoped(device, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
            });
            let made = Self::of(device, program, (&label, &module), cache);
            (module, made)
        });
        let error = match error {
            None => return Ok(made),
            Some(wgpu::Error::OutOfMemory { .. }) => {
                return Err(Failed::NoMemory(format!("to compile shaders/{}", program.file)));
            }
            Some(error) => error,
        };
        let messages = pollster::block_on(module.get_compilation_info()).messages;
        let origin = messages.iter().find_map(|message| {
            let line = message.location?.line_number as usize;
            source.origin(line).map(|(file, line)| format!("shaders/{file}:{line}: "))
        });
        let place = origin.unwrap_or_else(|| format!("shaders/{}: ", program.file));
        Err(refused(format!("{place}{error}")))
    }

    fn of(
        device: &wgpu::Device,
        program: &Program,
        (label, module): (&str, &wgpu::ShaderModule),
        cache: Option<&wgpu::PipelineCache>,
    ) -> Self {
        let label = Some(label);
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label,
            entries: &entries(program),
        });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some(program.name()),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: ZERO_INITIALIZE_WORKGROUP_MEMORY,
                ..Default::default()
            },
            cache,
        });
        Self { pipeline, layout }
    }
}

/// Layout entries: `params` first, then each binding of the program.
fn entries(program: &Program) -> Vec<wgpu::BindGroupLayoutEntry> {
    let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty,
        count: None,
    };
    let params = wgpu::BindingType::Buffer {
        ty: wgpu::BufferBindingType::Uniform,
        has_dynamic_offset: true,
        min_binding_size: None,
    };
    let rest =
        program.bindings.iter().zip(1..).map(|(&binding, n)| entry(n, binding_type(binding)));
    std::iter::once(entry(0, params)).chain(rest).collect()
}

fn binding_type(Binding { access, format }: Binding) -> wgpu::BindingType {
    match (format.texture(), access) {
        (false, access) => wgpu::BindingType::Buffer {
            ty: wgpu::BufferBindingType::Storage { read_only: access == Access::Read },
            has_dynamic_offset: false,
            min_binding_size: None,
        },
        (true, Access::Read) => wgpu::BindingType::Texture {
            sample_type: wgpu::TextureSampleType::Float { filterable: false },
            view_dimension: wgpu::TextureViewDimension::D2,
            multisampled: false,
        },
        (true, Access::Write) => wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::WriteOnly,
            format: texture_format(format),
            view_dimension: wgpu::TextureViewDimension::D2,
        },
    }
}
