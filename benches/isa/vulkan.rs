//! One Vulkan device that compiles and does not run: RADV's null device.
//!
//! Through ash, not wgpu, which refuses a device without memory.  Features are those that wgpu asks
//! for on a real card of the same driver, as far as they change the code that comes out.

#![allow(unsafe_code, reason = "every call into Vulkan is unsafe")]

use ash::{khr, vk};
use std::ffi::{CStr, CString};

/// A device, open until the process ends.
pub struct Compiler {
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// Name of the device, name and version of the driver.
    pub driver: String,
    /// Rows and columns of the matrices of f16 that it multiplies into f32.
    pub matrices: Vec<u32>,
    // Owns the library that all of the above call.
    _entry: ash::Entry,
}

/// What the driver tells of a pipeline.
pub struct Compiled {
    /// Names as the driver has them.
    pub statistics: Vec<(String, u64)>,
    /// Disassembly.
    pub assembly: String,
}

impl Compiled {
    /// A statistic whose name begins so.
    pub fn statistic(&self, name: &str) -> Result<u32, String> {
        let found = self.statistics.iter().find(|(known, _)| known.starts_with(name));
        let (_, value) = found.ok_or_else(|| format!("the driver counts no `{name}`"))?;
        u32::try_from(*value).map_err(|_| format!("`{name}` is {value}"))
    }
}

/// A shader and its interface.
pub struct Shader<'a> {
    pub spirv: &'a [u32],
    pub entry: &'a str,
    /// All in set 0.
    pub bindings: &'a [(u32, vk::DescriptorType)],
    /// Whether it uses subgroups; wgpu then lets the driver choose their size.
    pub subgroups: bool,
}

impl Compiler {
    /// Opens the first device of the drivers that the environment names.
    pub fn open() -> Result<Self, String> {
        // SAFETY: nothing else in this process loads or unloads a Vulkan library.
        let entry = unsafe { ash::Entry::load() }.map_err(|e| format!("no Vulkan loader: {e}"))?;
        let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_3);
        let info = vk::InstanceCreateInfo::default().application_info(&application);
        // SAFETY: `info` and what it points at live through the call.
        let instance = unsafe { entry.create_instance(&info, None) }.map_err(named("instance"))?;
        // SAFETY: the instance is alive.
        let devices =
            unsafe { instance.enumerate_physical_devices() }.map_err(named("enumeration"))?;
        let &physical = devices.first().ok_or("the driver offers no device")?;
        let driver = describe(&instance, physical);
        let matrices = matrices(&entry, &instance, physical)?;
        let device = open_device(&instance, physical, !matrices.is_empty())?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { device, executables, driver, matrices, _entry: entry })
    }

    /// Compiles a compute shader.
    pub fn compile(&self, shader: &Shader) -> Result<Compiled, String> {
        let pipeline = self.pipeline(shader)?;
        let compiled = Ok(Compiled {
            statistics: self.statistics(pipeline)?,
            assembly: self.assembly(pipeline)?,
        });
        // SAFETY: the pipeline is this device's, never ran, and is not used again.
        unsafe { self.device.destroy_pipeline(pipeline, None) };
        compiled
    }

    fn pipeline(&self, shader: &Shader) -> Result<vk::Pipeline, String> {
        let bindings: Vec<_> = shader.bindings.iter().map(layout_binding).collect();
        let set = vk::DescriptorSetLayoutCreateInfo::default().bindings(&bindings);
        // SAFETY: `set` and `bindings` live through the call.
        let set = unsafe { self.device.create_descriptor_set_layout(&set, None) }
            .map_err(named("descriptor set layout"))?;
        let sets = [set];
        let layout = vk::PipelineLayoutCreateInfo::default().set_layouts(&sets);
        // SAFETY: `layout` and `sets` live through the call; the set layout is this device's.
        let layout = unsafe { self.device.create_pipeline_layout(&layout, None) }
            .map_err(named("pipeline layout"))?;
        let module = vk::ShaderModuleCreateInfo::default().code(shader.spirv);
        // SAFETY: naga's writer makes valid SPIR-V, of capabilities that the device has.
        let module = unsafe { self.device.create_shader_module(&module, None) }
            .map_err(named("shader module"))?;
        let entry = CString::new(shader.entry).map_err(|e| e.to_string())?;
        let mut stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(&entry);
        if shader.subgroups {
            stage = stage.flags(vk::PipelineShaderStageCreateFlags::ALLOW_VARYING_SUBGROUP_SIZE);
        }
        let capture = vk::PipelineCreateFlags::CAPTURE_STATISTICS_KHR
            | vk::PipelineCreateFlags::CAPTURE_INTERNAL_REPRESENTATIONS_KHR;
        let info =
            vk::ComputePipelineCreateInfo::default().flags(capture).stage(stage).layout(layout);
        // SAFETY: module and layout are this device's; `info` and the name live through the call.
        let pipelines = unsafe {
            self.device.create_compute_pipelines(vk::PipelineCache::null(), &[info], None)
        };
        pipelines.map(|made| made[0]).map_err(|(_, e)| format!("pipeline: {e}"))
    }

    fn statistics(&self, pipeline: vk::Pipeline) -> Result<Vec<(String, u64)>, String> {
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline was made with CAPTURE_STATISTICS and has an executable 0.
        let found = unsafe { self.executables.get_pipeline_executable_statistics(&info) }
            .map_err(named("statistics"))?;
        let numbers = found.iter().filter_map(|statistic| {
            let name = text(&statistic.name);
            let format = statistic.format;
            // SAFETY: `format` says which member of the union was written.
            let value = unsafe {
                match format {
                    vk::PipelineExecutableStatisticFormatKHR::UINT64 => statistic.value.u64,
                    vk::PipelineExecutableStatisticFormatKHR::INT64 => {
                        u64::try_from(statistic.value.i64).ok()?
                    }
                    _ => return None,
                }
            };
            Some((name, value))
        });
        Ok(numbers.collect())
    }

    fn assembly(&self, pipeline: vk::Pipeline) -> Result<String, String> {
        let info = vk::PipelineExecutableInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline was made with CAPTURE_INTERNAL_REPRESENTATIONS.
        let mut found =
            unsafe { self.executables.get_pipeline_executable_internal_representations(&info) }
                .map_err(named("representations"))?;
        let mut texts: Vec<_> = found.iter().map(|known| vec![0_u8; known.data_size]).collect();
        for (representation, text) in found.iter_mut().zip(&mut texts) {
            representation.p_data = text.as_mut_ptr().cast();
        }
        let mut count = found.len() as u32;
        // SAFETY: `found` has `count` entries, each with room for `data_size` bytes in `texts`.
        unsafe {
            (self.executables.fp().get_pipeline_executable_internal_representations_khr)(
                self.executables.device(),
                &info,
                &mut count,
                found.as_mut_ptr(),
            )
        }
        .result()
        .map_err(named("representations"))?;
        let at = found.iter().position(|known| text(&known.name) == "Assembly");
        let at = at.ok_or("the driver shows no assembly")?;
        let text = CStr::from_bytes_until_nul(&texts[at]).map_err(|e| e.to_string())?;
        Ok(text.to_string_lossy().into_owned())
    }
}

fn layout_binding(
    &(binding, kind): &(u32, vk::DescriptorType),
) -> vk::DescriptorSetLayoutBinding<'static> {
    vk::DescriptorSetLayoutBinding::default()
        .binding(binding)
        .descriptor_type(kind)
        .descriptor_count(1)
        .stage_flags(vk::ShaderStageFlags::COMPUTE)
}

fn open_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    matrices: bool,
) -> Result<ash::Device, String> {
    let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(0);
    let queues = [queue.queue_priorities(&[1.0])];
    let mut extensions = vec![
        khr::pipeline_executable_properties::NAME.as_ptr(),
        ash::ext::robustness2::NAME.as_ptr(),
    ];
    if matrices {
        extensions.push(khr::cooperative_matrix::NAME.as_ptr());
    }
    let core = vk::PhysicalDeviceFeatures::default()
        .robust_buffer_access(true)
        .shader_int16(true)
        .shader_storage_image_extended_formats(true);
    let mut core_11 =
        vk::PhysicalDeviceVulkan11Features::default().storage_buffer16_bit_access(true);
    let mut core_12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(true)
        .vulkan_memory_model(matrices)
        .vulkan_memory_model_device_scope(matrices);
    let mut matrix =
        vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
    let mut core_13 = vk::PhysicalDeviceVulkan13Features::default()
        .robust_image_access(true)
        .shader_zero_initialize_workgroup_memory(true)
        .subgroup_size_control(true);
    let mut robustness = vk::PhysicalDeviceRobustness2FeaturesEXT::default()
        .robust_buffer_access2(true)
        .robust_image_access2(true);
    let mut executables = vk::PhysicalDevicePipelineExecutablePropertiesFeaturesKHR::default()
        .pipeline_executable_info(true);
    let mut info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_extension_names(&extensions)
        .enabled_features(&core)
        .push_next(&mut core_11)
        .push_next(&mut core_12)
        .push_next(&mut core_13)
        .push_next(&mut robustness)
        .push_next(&mut executables);
    if matrices {
        info = info.push_next(&mut matrix);
    }
    // SAFETY: `info` and all that it points at live through the call.
    unsafe { instance.create_device(physical, &info, None) }.map_err(named("device"))
}

/// Sizes of the square matrices of f16, with sums of f32, that subgroups multiply.
fn matrices(
    entry: &ash::Entry,
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Result<Vec<u32>, String> {
    // SAFETY: the device is of this instance.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }
        .map_err(named("extensions"))?;
    let name = khr::cooperative_matrix::NAME.to_string_lossy();
    if !extensions.iter().any(|extension| text(&extension.extension_name) == name) {
        return Ok(Vec::new());
    }
    let matrix = khr::cooperative_matrix::Instance::new(entry, instance);
    // SAFETY: likewise, and it has the extension.
    let all = unsafe { matrix.get_physical_device_cooperative_matrix_properties(physical) }
        .map_err(named("matrices"))?;
    let (f16, f32) = (vk::ComponentTypeKHR::FLOAT16, vk::ComponentTypeKHR::FLOAT32);
    let usable = all.iter().filter(|p| {
        let square = p.m_size == p.n_size && p.n_size == p.k_size;
        let types = [p.a_type, p.b_type, p.c_type, p.result_type] == [f16, f16, f32, f32];
        square && types && p.scope == vk::ScopeKHR::SUBGROUP
    });
    Ok(usable.map(|p| p.m_size).collect())
}

fn describe(instance: &ash::Instance, physical: vk::PhysicalDevice) -> String {
    let mut driver = vk::PhysicalDeviceDriverProperties::default();
    let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut driver);
    // SAFETY: the device is of this instance; `driver` lives through the call.
    unsafe { instance.get_physical_device_properties2(physical, &mut properties) };
    let name = text(&properties.properties.device_name);
    format!("{name}, {}", text(&driver.driver_info))
}

fn text(chars: &[std::ffi::c_char]) -> String {
    chars.iter().take_while(|c| **c != 0).map(|&c| char::from(c as u8)).collect()
}

fn named(what: &'static str) -> impl Fn(vk::Result) -> String {
    move |e| format!("{what}: {e}")
}
