use super::{DispatchLimits, Faults, Format, KernelId, Program, Recording, Shape, Tensor};
use crate::{elements::TensorData, error::Error};
use std::{fmt, sync::Arc, time::Duration};

/// Capabilities and preferences of a device; they decide tiers, workgroup sizes and batch limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Largest storage binding, in bytes.
    pub max_binding_bytes: u64,
    /// True for the CPU engine, false for a GPU driver.
    pub cpu: bool,
    /// True if the device computes on the CPU (the CPU engine, or a software GPU driver).
    pub software: bool,
    /// True if shaders reach the driver as GLSL.
    pub gl: bool,
    /// True if kernels may read and write f16, packed.
    pub half: bool,
    /// True if kernels may read and write `rgba32float` textures.
    pub textures: bool,
    /// Minimum and maximum subgroup size, if there are subgroups.
    pub subgroup: Option<(u32, u32)>,
    /// Rows and columns of the f16 subgroup matrices with f32 sums, and the subgroup size; none
    /// unless the device supports them and was opened with them.
    pub matrix: Option<(u32, u32)>,
    /// PCI id of the vendor; 0 for the CPU engine and if unknown.
    pub vendor: u32,
    /// Bytes of workgroup memory available to a kernel.
    pub workgroup_bytes: u32,
}

/// Work in flight, to wait for from any thread and in any order.  If it is dropped, the work is
/// still done, but its outcome is lost.
#[must_use = "work in flight that is dropped is done for nothing"]
pub struct InFlight<'a, T>(Box<dyn FnOnce() -> Result<T, Error> + Send + 'a>);

impl<'a, T: 'a> InFlight<'a, T> {
    /// Creates it from a function that waits for the result.
    pub fn new(wait: impl FnOnce() -> Result<T, Error> + Send + 'a) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the result.
    ///
    /// # Errors
    /// [`Error::Gpu`] or a related error if the device failed.
    pub fn wait(self) -> Result<T, Error> {
        (self.0)()
    }

    /// Applies a function to the result.
    pub fn and_then<U: 'a>(
        self,
        map: impl FnOnce(T) -> Result<U, Error> + Send + 'a,
    ) -> InFlight<'a, U> {
        InFlight::new(|| map(self.wait()?))
    }
}

impl<T> fmt::Debug for InFlight<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InFlight")
    }
}

/// Run time of one dispatch.
#[derive(Clone, Debug)]
pub struct Span {
    /// The kernel.
    pub kernel: KernelId,
    /// On a GPU, the time between the timestamps at the beginning and the end of its pass.
    pub time: Duration,
    /// Share of the query-key pairs that attention did not skip; none for other kernels and on
    /// GPUs, whose kernels do not count.
    pub kept: Option<f64>,
}

/// Runs recordings; owns the buffers behind [`Tensor`] handles.
pub trait Engine: Send {
    /// Capabilities of this device.
    fn caps(&self) -> &Caps;

    /// Lowers [`Caps::max_binding_bytes`], to simulate a smaller device.
    fn limit_bindings(&mut self, bytes: u64);

    /// Creates a tensor with the contents of `data`, rounded to the format.
    fn upload(
        &mut self,
        shape: Shape,
        format: Format,
        data: TensorData<'_>,
    ) -> Result<Tensor, Error>;

    /// Creates a tensor of undefined contents.
    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error>;

    /// Reserves memory in a slot for the largest of some views of it, used one at a time; if the
    /// slot has to grow, its contents become undefined.
    fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error>;

    /// Releases the memory of some tensors' slots; their contents become undefined.
    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error>;

    /// Changes the shape of a tensor and reserves its memory; its contents become undefined.
    fn resize(&mut self, tensor: &mut Tensor, shape: Shape) -> Result<(), Error> {
        *tensor = tensor.shaped(shape);
        self.reserve(&[*tensor])
    }

    /// Overwrites a tensor of `u32` elements before the next [`Engine::submit`].
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Gpu`] if the device fails.
    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), Error>;

    /// Maximum amount of work per dispatch.
    fn dispatch_limits(&self) -> DispatchLimits;

    /// Sets all [`Engine::dispatch_limits`] to `flops` operations, to simulate a device of that
    /// speed.
    fn limit_dispatches(&mut self, flops: f64);

    /// Sets the maximum predicted time of a submission.
    fn limit_slice(&mut self, slice: Duration) {
        let _ = slice; // ignored by engines that share no device with others
    }

    /// Sets the time limit for one result; after it the device counts as hung.
    fn limit_wait(&mut self, patience: Duration) {
        let _ = patience; // ignored by engines that return with the result
    }

    /// Enables fault injection.
    fn inject(&mut self, faults: &Faults) {
        let _ = faults; // ignored by engines without fault injection
    }

    /// Announces the programs that will be needed, so that they can be compiled in advance.  Their
    /// errors are reported on first use.
    fn prepare(&mut self, programs: Vec<Arc<Program>>) {
        let _ = programs; // ignored by engines that compile nothing
    }

    /// Submits the dispatches, to run in order after all earlier submissions; waiting yields the
    /// elements that `output` has then.
    fn submit(
        &mut self,
        recording: &Recording,
        output: &Tensor,
    ) -> Result<InFlight<'static, Vec<f32>>, Error>;

    /// Runs the dispatches in order and returns the elements of `output`.
    fn run(&mut self, recording: &Recording, output: &Tensor) -> Result<Vec<f32>, Error> {
        self.submit(recording, output)?.wait()
    }

    /// Runs the dispatches one by one and returns the time of each.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device cannot time them; [`Error::Gpu`] if it fails.
    fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, Error>;

    /// Bytes of all buffers and textures of this engine.
    fn allocated_bytes(&self) -> u64;
}
