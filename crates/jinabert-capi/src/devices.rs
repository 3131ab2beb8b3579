//! Devices of this machine.

use super::{
    CallError, CallerError, Status, guard,
    raw::{self, Versioned, chars},
};
use jinabert::gpu::{self, AdapterSummary};
use std::{
    ffi::c_char,
    mem::size_of,
    sync::{Mutex, PoisonError},
};

/// A device.  The caller sets `size`, `jinabert_device_at` the rest.  Strings end with NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DeviceEntry {
    /// sizeof(jinabert_device)
    pub size: usize,
    /// Maximum size of a buffer binding in bytes; 0 for the CPU, which has no such limit.
    pub max_binding_bytes: u64,
    /// Not 0: the device is the CPU or a software driver.
    pub software: u32,
    /// Not 0: shaders support 16-bit floats.
    pub f16: u32,
    /// Value for `jinabert_options.device`: "cpu", or a number.  Numbers are indices in the list of
    /// the last `jinabert_device_count`; they change only with hardware and drivers.
    pub option: [c_char; 32],
    /// Name reported by the driver.
    pub name: [c_char; 256],
    /// "vulkan", "metal", "dx12", "gl", "cpu".
    pub backend: [c_char; 16],
    /// "discrete", "integrated", "virtual", "software", "other".
    pub kind: [c_char; 16],
    /// Driver and its version, if known.
    pub driver: [c_char; 256],
}

// SAFETY: repr(C), begins with `size`; integers only.
unsafe impl Versioned for DeviceEntry {
    const NAME: &'static str = "device";
    const FIRST: usize = size_of::<Self>(); // a field that is added later does not count
}

/// Devices of the last enumeration.
static FOUND: Mutex<Option<Vec<AdapterSummary>>> = Mutex::new(None);

/// Lists the devices, which takes up to a second; hardware GPUs come first, the CPU last.
///
/// `count`: receives the number of devices, at least 1.
/// Threads: any, concurrently too.  The list is shared by the whole process.
/// Errors: BAD_ARGUMENT.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_device_count(
    count: *mut usize,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let adapters = gpu::adapters();
        // SAFETY: what the header asks of a caller.
        unsafe { raw::give("count", count, adapters.len() + 1) }?;
        *FOUND.lock().unwrap_or_else(PoisonError::into_inner) = Some(adapters);
        Ok(())
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

/// Returns the properties of a device.
///
/// `index`: from 0, below the last count of `jinabert_device_count`.
/// `device`: its `size` must be set.
/// Threads: any, concurrently too.
/// Errors: BAD_ARGUMENT, with the number of devices in `given` if `index` is too large.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn jinabert_device_at(
    index: usize,
    device: *mut DeviceEntry,
    error: *mut CallerError,
) -> Status {
    let call = || {
        let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        let adapters = found.get_or_insert_with(gpu::adapters);
        let entry = match adapters.get(index) {
            Some(adapter) => of_adapter(index, adapter),
            None if index == adapters.len() => of_cpu(),
            None => {
                let devices = adapters.len() + 1;
                let what = format!("`index` is {index}: there are {devices} devices");
                return Err(CallError::argument(what).sizes(0, devices));
            }
        };
        // SAFETY: what the header asks of a caller.
        unsafe { raw::give_versioned(device, entry) }
    };
    // SAFETY: as above.
    unsafe { guard(error, call) }
}

fn of_adapter(index: usize, adapter: &AdapterSummary) -> DeviceEntry {
    DeviceEntry {
        size: size_of::<DeviceEntry>(),
        max_binding_bytes: adapter.max_binding_bytes,
        software: adapter.software.into(),
        f16: adapter.f16.into(),
        option: chars(&index.to_string()),
        name: chars(&adapter.name),
        backend: chars(&adapter.backend.to_string()),
        kind: chars(adapter.kind),
        driver: chars(&adapter.driver),
    }
}

fn of_cpu() -> DeviceEntry {
    DeviceEntry {
        size: size_of::<DeviceEntry>(),
        max_binding_bytes: 0,
        software: 1,
        f16: 0,
        option: chars("cpu"),
        name: chars(&format!("{} threads", rayon::current_num_threads())),
        backend: chars("cpu"),
        kind: chars("software"),
        driver: chars(""),
    }
}
