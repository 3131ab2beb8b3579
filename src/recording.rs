//! What is to be computed, as plain data: tensors, kernels, and the list of dispatches.
//!
//! A [`Recording`] names no device.  The same one runs on wgpu ([`crate::gpu::Engine`]) and on the
//! CPU ([`crate::cpu::Engine`]), and can be printed, counted and compared in a test without either.

use crate::error::Error;
use std::{fmt, ops::Range, sync::Arc};

/// Sizes of a tensor, slowest dimension first; rank 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    rows: u32,
    cols: Option<u32>,
}

impl Shape {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.rows as usize * self.row_len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements from one step of the slowest dimension to the next.
    fn row_len(&self) -> usize {
        self.cols.map_or(1, |cols| cols as usize)
    }
}

impl From<[u32; 1]> for Shape {
    fn from([rows]: [u32; 1]) -> Self {
        Self { rows, cols: None }
    }
}

impl From<[u32; 2]> for Shape {
    fn from([rows, cols]: [u32; 2]) -> Self {
        Self { rows, cols: Some(cols) }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cols {
            None => write!(f, "[{}]", self.rows),
            Some(cols) => write!(f, "[{}, {cols}]", self.rows),
        }
    }
}

/// A handle on 32-bit elements that an engine holds: which buffer, from where, and in what shape.
///
/// Elements are `f32`, or `u32` for ids and offsets; the kernel knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// The engine's buffer.
    pub slot: u32,
    /// First element within it.
    pub offset: u32,
    /// Sizes.
    pub shape: Shape,
}

impl Tensor {
    /// The two sizes of a matrix.
    pub fn shape2(&self) -> [u32; 2] {
        let cols =
            self.shape.cols.unwrap_or_else(|| panic!("a matrix is meant, not {}", self.shape));
        [self.shape.rows, cols]
    }

    /// The size of a vector.
    pub fn shape1(&self) -> u32 {
        assert!(self.shape.cols.is_none(), "a vector is meant, not {}", self.shape);
        self.shape.rows
    }

    /// Asserts the shape: a wrong one is a mistake in this crate, never the user's.
    pub fn expect(&self, shape: impl Into<Shape>) {
        let shape = shape.into();
        assert!(self.shape == shape, "tensor of shape {} where {shape} is meant", self.shape);
    }

    /// The first `rows` rows: a shorter tensor in the same buffer.
    pub fn first(&self, rows: u32) -> Self {
        self.rows(0..rows)
    }

    /// A range of rows, in place.  It must start at a multiple of [`ROW_STEP`], which keeps every
    /// binding offset aligned for every device.
    pub fn rows(&self, rows: Range<u32>) -> Self {
        assert!(rows.start.is_multiple_of(ROW_STEP), "row {} is not aligned", rows.start);
        assert!(
            rows.start <= rows.end && rows.end <= self.shape.rows,
            "rows {rows:?} of {}",
            self.shape
        );
        Self {
            slot: self.slot,
            offset: self.offset + rows.start * self.shape.row_len() as u32,
            shape: Shape { rows: rows.end - rows.start, cols: self.shape.cols },
        }
    }
}

/// Row ranges start at multiples of this: 64 rows of 4-byte elements are 256 bytes at any width,
/// the largest binding alignment that WebGPU allows a device to ask for.
pub const ROW_STEP: u32 = 64;

/// A constant written into shader text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Const {
    /// `u32`
    U32(u32),
    /// `bool`
    Bool(bool),
}

impl From<u32> for Const {
    fn from(value: u32) -> Self {
        Self::U32(value)
    }
}

impl From<bool> for Const {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U32(value) => write!(f, "{value}u"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

/// What a kernel does with a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Only reads it.
    Read,
    /// Writes all or part of it.
    Write,
}

/// One kernel with its constants: all that decides the shader text and its interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The kernel's word: entry point, label, and name of its CPU twin.
    pub word: &'static str,
    /// Path of its text below `shaders/`.
    pub file: &'static str,
    /// Its text as built in.
    pub text: &'static str,
    /// What each generic import stands for: (`"activation"`, `"gelu"`).
    pub imports: Vec<(&'static str, &'static str)>,
    /// Values of the constants in its Spec section.
    pub constants: Vec<(&'static str, Const)>,
    /// Access of each binding after `params`, in order.
    pub access: &'static [Access],
    /// Size of `params` in bytes.
    pub params_bytes: u32,
}

impl Program {
    /// A numeric constant of the Spec section.
    pub fn constant(&self, name: &str) -> Const {
        let found = self.constants.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("`{}` has no constant `{name}`", self.word)).1
    }

    /// What a generic import stands for.
    pub fn import(&self, name: &str) -> Option<&'static str> {
        self.imports.iter().find(|(generic, _)| *generic == name).map(|(_, file)| *file)
    }
}

/// A specialised kernel, typed by its `Spec`.
#[derive(Clone, Debug)]
pub struct Kernel<S> {
    /// The constants it was built with.
    pub spec: S,
    /// What an engine needs to know of it.
    pub program: Arc<Program>,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Command {
    /// Which kernel.
    pub program: Arc<Program>,
    /// Its `Params`, as bytes.
    pub params: Vec<u8>,
    /// Its bindings after `params`, in order.
    pub bindings: Vec<Tensor>,
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
}

impl Command {
    /// The parameters, as the kernel's own type.
    pub fn params<P: bytemuck::Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.params)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} grid {:?}", self.program.word, self.grid)?;
        self.bindings.iter().try_for_each(|t| write!(f, "  #{}{}", t.slot, t.shape))
    }
}

/// A list of dispatches, run in order.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// The dispatches.
    pub commands: Vec<Command>,
}

impl Recording {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends one dispatch.
    pub fn dispatch<S, P: bytemuck::Pod>(
        &mut self,
        kernel: &Kernel<S>,
        params: P,
        bindings: &[Tensor],
        grid: [u32; 3],
    ) {
        let program = Arc::clone(&kernel.program);
        assert_eq!(bindings.len(), program.access.len(), "bindings of `{}`", program.word);
        let params = bytemuck::bytes_of(&params).to_vec();
        assert_eq!(params.len(), program.params_bytes as usize, "params of `{}`", program.word);
        self.commands.push(Command { program, params, bindings: bindings.to_vec(), grid });
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
    }
}

/// A grid of `n` workgroups in x and y, for kernels that read the index as `wg.y * grid.x + wg.x`.
///
/// One dimension holds at most 65,535 workgroups everywhere; folding lifts that to 4·10⁹.
pub fn grid(n: u32) -> [u32; 3] {
    const MAX: u32 = 65_535;
    let y = n.div_ceil(MAX).max(1);
    [n.div_ceil(y), y, 1]
}

/// What a device allows and prefers; decides tiers, workgroup sizes and batch limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Largest storage binding, in bytes.
    pub max_binding_bytes: u64,
    /// Whether the device computes on the CPU (the CPU engine, or a software GPU driver).
    pub software: bool,
    /// Whether shaders reach the driver as GLSL.
    pub gl: bool,
}

/// Runs recordings: owns the buffers behind [`Tensor`] handles.
pub trait Engine: Send {
    /// What this device allows.
    fn caps(&self) -> &Caps;

    /// Lowers [`Caps::max_binding_bytes`], as if on a smaller device.
    fn limit_bindings(&mut self, bytes: u64);

    /// Makes a tensor that holds `data`.
    fn upload(&mut self, shape: Shape, data: &[f32]) -> Result<Tensor, Error>;

    /// Makes a tensor of undefined contents.
    fn alloc(&mut self, shape: Shape) -> Result<Tensor, Error>;

    /// Gives a tensor a new shape, and a larger buffer if it needs one; its contents become
    /// undefined.
    fn resize(&mut self, tensor: &mut Tensor, shape: Shape) -> Result<(), Error>;

    /// Overwrites a tensor of `u32` elements before the next [`Engine::run`].
    fn write(&mut self, tensor: &Tensor, data: &[u32]);

    /// Runs the dispatches in order and returns the elements of `output`.
    fn run(&mut self, recording: &Recording, output: &Tensor) -> Result<Vec<f32>, Error>;

    /// Bytes in all buffers this engine holds.
    fn allocated_bytes(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_covers_every_row_within_the_limit() {
        for n in [0, 1, 65_535, 65_536, 70_001, 10_000_000] {
            let [x, y, z] = grid(n);
            assert!(x <= 65_535 && y <= 65_535 && z == 1, "{n}: {x} {y}");
            assert!(u64::from(x) * u64::from(y) >= u64::from(n));
            assert!(
                u64::from(x) * u64::from(y) < u64::from(n) + 65_535,
                "{n} wastes a row of groups"
            );
        }
    }

    #[test]
    fn rows_are_views() {
        let t = Tensor { slot: 1, offset: 0, shape: [200, 6].into() };
        let v = t.rows(128..130);
        assert_eq!((v.slot, v.offset, v.shape2()), (1, 768, [2, 6]));
        assert_eq!(t.first(0).shape.len(), 0);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn unaligned_rows_are_refused() {
        let _ = Tensor { slot: 0, offset: 0, shape: [200, 6].into() }.rows(1..2);
    }
}
