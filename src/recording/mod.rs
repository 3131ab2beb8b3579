//! Computations as plain data: tensors, kernels, and the list of dispatches.
//!
//! A [`Recording`] names no device.  The same one runs on wgpu ([`crate::gpu::Engine`]) and on the
//! CPU ([`crate::cpu::Engine`]), and can be printed, counted and compared in a test without either.

mod engine;
#[cfg(feature = "faults")]
mod fault;
mod kernel_id;
#[cfg(not(feature = "faults"))]
mod no_faults;

pub use engine::{Caps, Engine, InFlight, Span};
#[cfg(feature = "faults")]
pub use fault::{Fault, Faults};
pub use kernel_id::KernelId;
#[cfg(not(feature = "faults"))]
pub use no_faults::Faults;
use std::{fmt, ops::Range, sync::Arc};

/// Shape of a tensor, slowest dimension first; rank 1 or 2.
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

    /// True if there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size of the slowest dimension.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Number of elements per step of the slowest dimension.
    pub fn row_len(&self) -> usize {
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

/// Storage format of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Buffer of `f32`, or of `u32` for ids and offsets; the kernel determines which.
    F32,
    /// Buffer of `f16`.
    F16,
    /// Buffer of `bf16`: word embeddings of a file that stores them so.
    BF16,
    /// Two-dimensional texture with four `f32` per texel; see [`TexturePages`].
    Texture,
    /// Two-dimensional texture with four `f16` per texel.
    Texture16,
}

impl Format {
    /// Bytes per element.
    pub fn bytes(self) -> u32 {
        if self.half() || self == Self::BF16 { 2 } else { 4 }
    }

    /// True if elements are `f16`.
    pub fn half(self) -> bool {
        matches!(self, Self::F16 | Self::Texture16)
    }

    /// True for a texture, false for a buffer.
    pub fn texture(self) -> bool {
        matches!(self, Self::Texture | Self::Texture16)
    }
}

/// Texel positions of a matrix: texel (row, n) is at x = row / HEIGHT · width + n, y = row %
/// HEIGHT, so that a matrix may have more rows than a texture.
pub struct TexturePages;

impl TexturePages {
    /// Rows in a page: the texture height that WebGPU guarantees.
    pub const HEIGHT: u32 = 8192;

    /// Width and height of the texture for `shape`; at least one texel.
    pub fn extent(shape: Shape) -> [u32; 2] {
        let pages = shape.rows.div_ceil(Self::HEIGHT).max(1);
        let width = pages * (shape.row_len() as u32).div_ceil(4).max(1);
        [width, shape.rows.clamp(1, Self::HEIGHT)]
    }
}

/// Handle to elements held by an engine: buffer or texture, offset and shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    /// Index of the engine's buffer or texture.
    pub slot: u32,
    /// Offset of the first element, in the whole rows from which [`Tensor::columns`] selects.
    pub offset: u32,
    /// Shape.
    pub shape: Shape,
    /// Storage format of the elements.
    pub format: Format,
    /// First column in the stored rows.
    pub column: u32,
    /// Stride of the stored rows in elements: larger than the shape's for a range of columns.
    pub step: u32,
}

impl Tensor {
    /// View of a whole slot.
    pub fn new(slot: u32, shape: Shape, format: Format) -> Self {
        Self { slot, offset: 0, shape, format, column: 0, step: shape.row_len() as u32 }
    }

    /// View of the same slot from its beginning, in another shape.
    pub fn shaped(&self, shape: impl Into<Shape>) -> Self {
        self.viewed(shape, self.format)
    }

    /// View of the same slot from its beginning, in another shape and, for a buffer, format.
    pub fn viewed(&self, shape: impl Into<Shape>, format: Format) -> Self {
        let buffers = !self.format.texture() && !format.texture();
        assert!(format == self.format || buffers, "a texture seen as another");
        Self::new(self.slot, shape.into(), format)
    }

    /// Rows and columns of a matrix.
    pub fn shape2(&self) -> [u32; 2] {
        let cols =
            self.shape.cols.unwrap_or_else(|| panic!("expected a matrix, got {}", self.shape));
        [self.shape.rows, cols]
    }

    /// Size of a vector.
    pub fn shape1(&self) -> u32 {
        assert!(self.shape.cols.is_none(), "expected a vector, got {}", self.shape);
        self.shape.rows
    }

    /// Asserts the shape, and that rows are contiguous; a violation is a bug in this crate, never
    /// the user's error.
    pub fn expect(&self, shape: impl Into<Shape>) {
        self.expect_columns(shape);
        assert!(self.step as usize == self.shape.row_len(), "columns of a tensor, not all of it");
    }

    /// Asserts the shape of a tensor that may be a range of columns.
    pub fn expect_columns(&self, shape: impl Into<Shape>) {
        let shape = shape.into();
        assert!(self.shape == shape, "expected a tensor of shape {shape}, got {}", self.shape);
    }

    /// View of the first `rows` rows.
    pub fn first(&self, rows: u32) -> Self {
        self.rows(0..rows)
    }

    /// View of a range of rows.  It must start at a multiple of [`ROW_STEP`], which keeps every
    /// binding offset aligned on every device; in a texture, at row 0.
    pub fn rows(&self, rows: Range<u32>) -> Self {
        assert!(rows.start.is_multiple_of(ROW_STEP), "row {} is not aligned", rows.start);
        assert!(
            rows.start <= rows.end && rows.end <= self.shape.rows,
            "rows {rows:?} of {}",
            self.shape
        );
        assert!(rows.start == 0 || !self.format.texture(), "rows of a texture");
        Self {
            offset: self.offset + rows.start * self.step,
            shape: Shape { rows: rows.end - rows.start, ..self.shape },
            ..*self
        }
    }

    /// View of a range of columns, in whole vec4s.
    pub fn columns(&self, columns: Range<u32>) -> Self {
        let [_, cols] = self.shape2();
        assert!(columns.start <= columns.end && columns.end <= cols, "{columns:?} of {cols}");
        assert!(columns.start.is_multiple_of(4), "column {} is not aligned", columns.start);
        Self {
            column: self.column + columns.start,
            shape: [self.shape.rows, columns.end - columns.start].into(),
            ..*self
        }
    }
}

/// Alignment of row ranges: 64 rows are a multiple of 256 bytes at any width of whole vec4s, also
/// in f16; 256 is the largest binding alignment that WebGPU allows a device to require.
pub const ROW_STEP: u32 = 64;

/// Constant written into shader text.
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

/// Access of a kernel to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read only.
    Read,
    /// Writes all or part.
    Write,
}

/// Access and storage format of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding {
    /// Access of the kernel.
    pub access: Access,
    /// Storage format; a texture is a `texture_2d<f32>`, or a storage texture.
    pub format: Format,
}

/// A kernel with its constants: everything that determines the shader text and its interface.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Program {
    /// The kernel.
    pub kernel: KernelId,
    /// Path of the text below `shaders/`.
    pub file: &'static str,
    /// The built-in text.
    pub text: &'static str,
    /// Files for the generic imports: (`"activation"`, `"gelu"`).
    pub imports: Vec<(&'static str, &'static str)>,
    /// Values of the constants in the Spec section.
    pub constants: Vec<(&'static str, Const)>,
    /// Bindings after `params`, in order.
    pub bindings: Vec<Binding>,
    /// Size of `params` in bytes.
    pub params_bytes: u32,
}

impl Program {
    /// Name of the kernel: entry point and label.
    pub fn name(&self) -> &'static str {
        self.kernel.name()
    }

    /// Constant of the Spec section.
    pub fn constant(&self, name: &str) -> Const {
        let found = self.constants.iter().find(|(known, _)| *known == name);
        found.unwrap_or_else(|| panic!("`{}` has no constant `{name}`", self.kernel)).1
    }

    /// File for a generic import.
    pub fn import(&self, name: &str) -> Option<&'static str> {
        self.imports.iter().find(|(generic, _)| *generic == name).map(|(_, file)| *file)
    }
}

/// A specialised kernel, typed by its `Spec`.
#[derive(Clone, Debug)]
pub struct Kernel<S> {
    /// Constants of the kernel.
    pub spec: S,
    /// Program for the engine.
    pub program: Arc<Program>,
}

/// One dispatch.
#[derive(Clone, Debug)]
pub struct Command {
    /// Program to run.
    pub program: Arc<Program>,
    /// `Params` of the kernel, as bytes.
    pub params: Vec<u8>,
    /// Bindings after `params`, in order.
    pub bindings: Vec<Tensor>,
    /// Workgroups in x, y, z.
    pub grid: [u32; 3],
    /// Upper bound of floating-point operations, a multiply-add counted as two; for memory-bound
    /// kernels, the operations that would take as long.
    pub flops: f64,
}

impl Command {
    /// Parameters in the kernel's own type.
    pub fn params<P: bytemuck::Pod>(&self) -> P {
        bytemuck::pod_read_unaligned(&self.params)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<12} grid {:?}", self.program.kernel, self.grid)?;
        self.bindings.iter().try_for_each(|t| write!(f, "  #{}{}", t.slot, t.shape))
    }
}

/// A list of dispatches, run in order.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Dispatches.
    pub commands: Vec<Command>,
    /// Maximum amount of work per dispatch; kernels with more work record several dispatches.
    pub limits: DispatchLimits,
}

/// Maximum number of operations per dispatch, by kernel type, so that no watchdog takes it for
/// hung.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DispatchLimits {
    /// Limit for a product.
    pub product: f64,
    /// Limit for attention.
    pub attention: f64,
}

impl DispatchLimits {
    /// The same limit for all kernels.
    pub const fn all(flops: f64) -> Self {
        Self { product: flops, attention: flops }
    }

    /// No limits.
    pub const NONE: Self = Self::all(f64::INFINITY);
}

impl Default for Recording {
    fn default() -> Self {
        Self { commands: Vec::new(), limits: DispatchLimits::NONE }
    }
}

impl Recording {
    /// Creates an empty recording without limits on dispatches.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty recording whose dispatches should stay within limits.
    pub fn within(limits: DispatchLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Records one dispatch.
    pub fn dispatch<S, P: bytemuck::Pod>(
        &mut self,
        kernel: &Kernel<S>,
        params: P,
        bindings: &[Tensor],
        grid: [u32; 3],
        flops: f64,
    ) {
        let program = Arc::clone(&kernel.program);
        assert_eq!(bindings.len(), program.bindings.len(), "bindings of `{}`", program.name());
        for (tensor, binding) in bindings.iter().zip(&program.bindings) {
            assert_eq!(tensor.format, binding.format, "{} of `{}`", tensor.shape, program.file);
        }
        let params = bytemuck::bytes_of(&params).to_vec();
        assert_eq!(params.len(), program.params_bytes as usize, "params of `{}`", program.name());
        self.commands.push(Command { program, params, bindings: bindings.to_vec(), grid, flops });
    }
}

impl fmt::Display for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
    }
}

/// Groups pieces of the given costs, in order, into ranges with a cost of at most `most`; a piece
/// with a higher cost is alone.
pub fn slices(costs: impl IntoIterator<Item = f64>, most: f64) -> Vec<(Range<u32>, f64)> {
    let mut slices: Vec<(Range<u32>, f64)> = Vec::new();
    for (n, cost) in (0..).zip(costs) {
        match slices.last_mut() {
            Some((range, sum)) if *sum + cost <= most => {
                range.end = n + 1;
                *sum += cost;
            }
            _ => slices.push((n..n + 1, cost)),
        }
    }
    slices
}

/// Grid of `n` workgroups in x and y, for kernels that read the index as `wg.y * grid.x + wg.x`.
///
/// One dimension is guaranteed only 65,535 workgroups; folding raises that to 4·10⁹.
pub fn grid(n: u32) -> [u32; 3] {
    const MAX: u32 = 65_535;
    let y = n.div_ceil(MAX).max(1);
    [n.div_ceil(y), y, 1]
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
    fn slices_cover_all_in_order() {
        let slices = |costs: &[f64]| slices(costs.iter().copied(), 10.0);
        let meant = [(0..2, 9.0), (2..3, 11.0), (3..5, 10.0), (5..6, 1.0)];
        assert_eq!(slices(&[4.0, 5.0, 11.0, 5.0, 5.0, 1.0]), meant);
        assert!(slices(&[]).is_empty());
    }

    #[test]
    fn rows_are_views() {
        let t = Tensor::new(1, [200, 6].into(), Format::F32);
        let v = t.rows(128..130);
        assert_eq!((v.slot, v.offset, v.shape2()), (1, 768, [2, 6]));
        assert_eq!(t.first(0).shape.len(), 0);
    }

    #[test]
    fn columns_are_views() {
        let t = Tensor::new(1, [200, 24].into(), Format::F32);
        let v = t.columns(8..16).columns(4..8).rows(64..70);
        assert_eq!((v.offset, v.column, v.step, v.shape2()), (64 * 24, 12, 24, [6, 4]));
    }

    #[test]
    fn pages_hold_every_row() {
        assert_eq!(TexturePages::extent([3, 8].into()), [2, 3]);
        assert_eq!(TexturePages::extent([8192, 8].into()), [2, 8192]);
        assert_eq!(TexturePages::extent([8193, 8].into()), [4, 8192]);
        assert_eq!(TexturePages::extent([0, 0].into()), [1, 1]);
    }

    #[test]
    #[should_panic(expected = "not aligned")]
    fn unaligned_rows_are_refused() {
        let _ = Tensor::new(0, [200, 6].into(), Format::F32).rows(1..2);
    }
}
