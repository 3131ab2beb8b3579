//! From a [`Program`] to a compute pipeline.

use super::{assemble::assemble, scope::scoped, slot::texture_format};
use crate::{
    error::Error,
    recording::{Access, Binding, Program},
};

/// A compiled kernel.
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Bytes that `params` takes in the uniform buffer's bindings.
pub(super) fn params_size(program: &Program) -> u64 {
    u64::from(program.params_bytes).next_multiple_of(16)
}

impl Pipeline {
    /// Compiles a program.
    ///
    /// # Errors
    /// [`Error::Gpu`] with the line of the shader that is at fault.
    pub(super) fn new(
        device: &wgpu::Device,
        program: &Program,
        cache: Option<&wgpu::PipelineCache>,
    ) -> Result<Self, Error> {
        let label = format!("jinabert/{}", program.word);
        let source = assemble(program).map_err(Error::Gpu)?;
        let ((module, made), error) = scoped(device, || {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(source.text.as_str().into()),
            });
            let made = Self::of(device, program, (&label, &module), cache);
            (module, made)
        });
        let Some(error) = error else { return Ok(made) };
        let messages = pollster::block_on(module.get_compilation_info()).messages;
        let place = messages.iter().find_map(|message| {
            let line = message.location?.line_number as usize;
            source.origin(line).map(|(file, line)| format!("shaders/{file}:{line}: "))
        });
        let place = place.unwrap_or_else(|| format!("shaders/{}: ", program.file));
        Err(Error::Gpu(format!("{place}{error}")))
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
            entry_point: Some(program.word),
            compilation_options: Default::default(),
            cache,
        });
        Self { pipeline, layout }
    }
}

/// `params` first, then each binding of the program.
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
