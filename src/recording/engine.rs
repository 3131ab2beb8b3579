use super::{Format, Program, Recording, Shape, Tensor};
use crate::{elements::Elements, error::Error};
use std::{sync::Arc, time::Duration};

/// What a device allows and prefers; decides tiers, workgroup sizes and batch limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Largest storage binding, in bytes.
    pub max_binding_bytes: u64,
    /// Whether this is the CPU engine, not a GPU driver.
    pub cpu: bool,
    /// Whether the device computes on the CPU (the CPU engine, or a software GPU driver).
    pub software: bool,
    /// Whether shaders reach the driver as GLSL.
    pub gl: bool,
    /// Whether kernels may read and write f16, packed.
    pub half: bool,
    /// Whether kernels may read and write textures of `rgba32float`.
    pub textures: bool,
    /// Invocations in the smallest and the largest subgroup, where there are subgroups.
    pub subgroup: Option<(u32, u32)>,
    /// Rows and columns of the matrices of f16 that a subgroup multiplies into sums of f32, and the
    /// subgroup's invocations, where it does and was opened for it.
    pub matrix: Option<(u32, u32)>,
}

/// A result to wait for, from any thread and in any order.  Dropped, the work is done all the same,
/// and nobody learns how it ended.
pub struct Ticket(Box<dyn FnOnce() -> Result<Vec<f32>, Error> + Send>);

impl Ticket {
    /// A result that `wait` waits for.
    pub fn new(wait: impl FnOnce() -> Result<Vec<f32>, Error> + Send + 'static) -> Self {
        Self(Box::new(wait))
    }

    /// Waits for the elements.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the device failed.
    pub fn wait(self) -> Result<Vec<f32>, Error> {
        (self.0)()
    }
}

/// How long one dispatch took.
#[derive(Clone, Debug)]
pub struct Span {
    /// The kernel's word.
    pub word: &'static str,
    /// On a GPU between the timestamps at the beginning and the end of its pass.
    pub time: Duration,
    /// Of attention, the share of all pairs of a query and a key that it looked at; on a GPU, whose
    /// kernels do not count, and of other kernels, none.
    pub kept: Option<f64>,
}

/// Runs recordings: owns the buffers behind [`Tensor`] handles.
pub trait Engine: Send {
    /// What this device allows.
    fn caps(&self) -> &Caps;

    /// Lowers [`Caps::max_binding_bytes`], as if on a smaller device.
    fn limit_bindings(&mut self, bytes: u64);

    /// Makes a tensor that holds `data`, rounded to the format.
    fn upload(&mut self, shape: Shape, format: Format, data: Elements<'_>)
    -> Result<Tensor, Error>;

    /// Makes a tensor of undefined contents.
    fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error>;

    /// Makes room in a slot for each of some views of it, one at a time; if it has to grow, its
    /// contents become undefined.
    fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error>;

    /// Gives back the room of some tensors' slots; their contents become undefined.
    fn release(&mut self, tensors: &[Tensor]) -> Result<(), Error>;

    /// Gives a tensor a new shape, and room for it; its contents become undefined.
    fn resize(&mut self, tensor: &mut Tensor, shape: Shape) -> Result<(), Error> {
        *tensor = tensor.shaped(shape);
        self.reserve(&[*tensor])
    }

    /// Overwrites a tensor of `u32` elements before the next [`Engine::submit`].
    ///
    /// # Errors
    /// [`Error::Memory`] or [`Error::Gpu`] if the device fails.
    fn write(&mut self, tensor: &Tensor, data: &[u32]) -> Result<(), Error>;

    /// Operations that one dispatch should hold at most: no watchdog may take it for hung.
    fn dispatch_flops(&self) -> f64;

    /// Sets [`Engine::dispatch_flops`], as if on a device of that speed.
    fn limit_dispatches(&mut self, flops: f64);

    /// Sets how long a submission may take, by prediction.
    fn limit_slice(&mut self, slice: Duration) {
        let _ = slice; // an engine whose work nobody waits beside
    }

    /// Sets how long a result may take before the device counts as hung.
    fn limit_wait(&mut self, patience: Duration) {
        let _ = patience; // an engine that has its result when it returns
    }

    /// Takes orders to fail.
    #[cfg(feature = "faults")]
    fn inject(&mut self, faults: &super::Faults) {
        let _ = faults; // an engine that does not
    }

    /// Says which programs will be needed, so that they can be made ready meanwhile.  What is wrong
    /// with one is reported when it is used.
    fn prepare(&mut self, programs: Vec<Arc<Program>>) {
        let _ = programs; // an engine that compiles nothing
    }

    /// Hands the dispatches over, to be run in order after all that were handed over before; the
    /// ticket is good for the elements that `output` will have then.
    fn submit(&mut self, recording: &Recording, output: &Tensor) -> Result<Ticket, Error>;

    /// Runs the dispatches in order and returns the elements of `output`.
    fn run(&mut self, recording: &Recording, output: &Tensor) -> Result<Vec<f32>, Error> {
        self.submit(recording, output)?.wait()
    }

    /// Runs the dispatches one by one and says how long each took.
    ///
    /// # Errors
    /// [`Error::NoGpu`] if the device cannot time them; [`Error::Gpu`] if it fails.
    fn profile(&mut self, recording: &Recording) -> Result<Vec<Span>, Error>;

    /// Bytes in all buffers and textures this engine holds.
    fn allocated_bytes(&self) -> u64;
}
