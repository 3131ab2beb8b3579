//! Vulkan device that compiles and does not run: RADV's null device, or a driver over a shim.
//!
//! It uses ash, since wgpu refuses a device without memory.  Features are those that wgpu requests
//! on a real card of the same driver, as far as they change the compiled code.

#![allow(unsafe_code, reason = "every call into Vulkan is unsafe")]

use ash::{khr, vk};
use std::ffi::{CStr, CString};

/// Device, open until the process ends.
pub struct Compiler {
    device: ash::Device,
    executables: khr::pipeline_executable_properties::Device,
    /// Name of the device, with name and version of the driver.
    pub driver: String,
    /// Supported sizes of square matrices with f16 factors and f32 sums.
    pub matrices: Vec<u32>,
    /// The driver checks the bounds of buffers and textures.
    pub robust: bool,
    /// The driver may choose the size of subgroups.
    varying: bool,
    // Owns the library that all of the above call.
    _entry: ash::Entry,
}

/// Driver's information about a pipeline.
pub struct Compiled {
    /// Statistics, with the driver's names.
    pub statistics: Vec<(String, u64)>,
    /// Number of invocations in a subgroup.
    pub subgroup: u32,
    /// Disassembly.
    pub assembly: Option<String>,
}

impl Compiled {
    /// Statistic whose name starts with `name`.
    pub fn statistic(&self, name: &str) -> Result<u32, String> {
        let found = self.statistics.iter().find(|(known, _)| known.starts_with(name));
        let (_, value) = found
            .ok_or_else(|| format!("the driver counts no `{name}`, only {:?}", self.statistics))?;
        u32::try_from(*value).map_err(|_| format!("`{name}` is {value}"))
    }
}

/// Shader and its interface.
pub struct Shader<'a> {
    pub spirv: &'a [u32],
    pub entry: &'a str,
    /// Bindings, all in set 0.
    pub bindings: &'a [(u32, vk::DescriptorType)],
}

impl Compiler {
    /// Opens the first device of the driver that the environment selects.
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
        let Opened { device, robust, varying } = open_device(&instance, physical, &matrices)?;
        let executables = khr::pipeline_executable_properties::Device::new(&instance, &device);
        Ok(Self { device, executables, driver, matrices, robust, varying, _entry: entry })
    }

    /// Compiles a compute shader.
    pub fn compile(&self, shader: &Shader) -> Result<Compiled, String> {
        let pipeline = self.pipeline(shader)?;
        let compiled = Ok(Compiled {
            statistics: self.statistics(pipeline)?,
            subgroup: self.subgroup(pipeline)?,
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
        // wgpu sets it for every pipeline of a device with subgroups.
        if self.varying {
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

    fn subgroup(&self, pipeline: vk::Pipeline) -> Result<u32, String> {
        let info = vk::PipelineInfoKHR::default().pipeline(pipeline);
        // SAFETY: the pipeline is this device's.
        let found = unsafe { self.executables.get_pipeline_executable_properties(&info) }
            .map_err(named("executables"))?;
        match found.as_slice() {
            [one] => Ok(one.subgroup_size),
            all => Err(format!("expected one executable, got {}", all.len())),
        }
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

    fn assembly(&self, pipeline: vk::Pipeline) -> Result<Option<String>, String> {
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
        let assembly = |name: &str| ASSEMBLIES.iter().any(|known| name.contains(known));
        let Some(at) = found.iter().position(|known| assembly(&text(&known.name))) else {
            return Ok(None);
        };
        let text = CStr::from_bytes_until_nul(&texts[at]).map_err(|e| e.to_string())?;
        Ok(Some(text.to_string_lossy().into_owned()))
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

/// Substrings by which drivers name their disassembly.
const ASSEMBLIES: [&str; 3] = ["Assembly", "assembly", "IR3"];

struct Opened {
    device: ash::Device,
    robust: bool,
    varying: bool,
}

fn open_device(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    matrices: &[u32],
) -> Result<Opened, String> {
    let queue = vk::DeviceQueueCreateInfo::default().queue_family_index(0);
    let queues = [queue.queue_priorities(&[1.0])];
    let has = |name: &CStr| has_extension(instance, physical, name);
    let mut extensions = vec![khr::pipeline_executable_properties::NAME.as_ptr()];
    let robust = has(ash::ext::robustness2::NAME)?;
    if robust {
        extensions.push(ash::ext::robustness2::NAME.as_ptr());
    }
    if !matrices.is_empty() {
        extensions.push(khr::cooperative_matrix::NAME.as_ptr());
    }
    let mut known_11 = vk::PhysicalDeviceVulkan11Features::default();
    let mut known_12 = vk::PhysicalDeviceVulkan12Features::default();
    let mut known_13 = vk::PhysicalDeviceVulkan13Features::default();
    let mut known = vk::PhysicalDeviceFeatures2::default()
        .push_next(&mut known_11)
        .push_next(&mut known_12)
        .push_next(&mut known_13);
    // SAFETY: the device is of this instance; the structures live through the call.
    unsafe { instance.get_physical_device_features2(physical, &mut known) };
    let known = known.features;
    let on = |flag: vk::Bool32| flag == vk::TRUE;
    let varying = on(known_13.subgroup_size_control);
    let core = vk::PhysicalDeviceFeatures::default()
        .robust_buffer_access(true)
        .shader_int16(on(known.shader_int16))
        .shader_storage_image_extended_formats(on(known.shader_storage_image_extended_formats));
    let mut core_11 = vk::PhysicalDeviceVulkan11Features::default()
        .storage_buffer16_bit_access(on(known_11.storage_buffer16_bit_access));
    let mut core_12 = vk::PhysicalDeviceVulkan12Features::default()
        .shader_float16(on(known_12.shader_float16))
        .vulkan_memory_model(!matrices.is_empty())
        .vulkan_memory_model_device_scope(!matrices.is_empty());
    let mut matrix =
        vk::PhysicalDeviceCooperativeMatrixFeaturesKHR::default().cooperative_matrix(true);
    let mut core_13 = vk::PhysicalDeviceVulkan13Features::default()
        .robust_image_access(on(known_13.robust_image_access))
        .shader_zero_initialize_workgroup_memory(on(
            known_13.shader_zero_initialize_workgroup_memory
        ))
        .subgroup_size_control(varying);
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
        .push_next(&mut executables);
    if robust {
        info = info.push_next(&mut robustness);
    }
    if !matrices.is_empty() {
        info = info.push_next(&mut matrix);
    }
    // SAFETY: `info` and all that it points at live through the call.
    let device =
        unsafe { instance.create_device(physical, &info, None) }.map_err(named("device"))?;
    Ok(Opened { device, robust, varying })
}

fn has_extension(
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
    name: &CStr,
) -> Result<bool, String> {
    // SAFETY: the device is of this instance.
    let extensions = unsafe { instance.enumerate_device_extension_properties(physical) }
        .map_err(named("extensions"))?;
    let name = name.to_string_lossy();
    Ok(extensions.iter().any(|extension| text(&extension.extension_name) == name))
}

/// Sizes of the square f16 matrices, with f32 sums, that subgroups can multiply.
fn matrices(
    entry: &ash::Entry,
    instance: &ash::Instance,
    physical: vk::PhysicalDevice,
) -> Result<Vec<u32>, String> {
    if !has_extension(instance, physical, khr::cooperative_matrix::NAME)? {
        return Ok(Vec::new());
    }
    let matrix = khr::cooperative_matrix::Instance::new(entry, instance);
    // SAFETY: the device is of this instance, and has the extension.
    let all = unsafe { matrix.get_physical_device_cooperative_matrix_properties(physical) }
        .map_err(named("matrices"))?;
    let f16 = vk::ComponentTypeKHR::FLOAT16;
    let f32 = vk::ComponentTypeKHR::FLOAT32;
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
