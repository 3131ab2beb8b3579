//! Device memory of a tensor: a buffer, or a texture in pages.

use crate::{
    elements::TensorData,
    recording::{Format, Shape, Tensor, TexturePages},
};
use std::borrow::Cow;

pub(super) const UNIFORM: wgpu::BufferUsages =
    wgpu::BufferUsages::UNIFORM.union(wgpu::BufferUsages::COPY_DST);
pub(super) const READBACK: wgpu::BufferUsages =
    wgpu::BufferUsages::MAP_READ.union(wgpu::BufferUsages::COPY_DST);
const STORAGE: wgpu::BufferUsages = wgpu::BufferUsages::STORAGE
    .union(wgpu::BufferUsages::COPY_DST)
    .union(wgpu::BufferUsages::COPY_SRC);
const TEXTURE: wgpu::TextureUsages = wgpu::TextureUsages::TEXTURE_BINDING
    .union(wgpu::TextureUsages::STORAGE_BINDING)
    .union(wgpu::TextureUsages::COPY_DST)
    .union(wgpu::TextureUsages::COPY_SRC);

pub(super) enum Slot {
    /// Buffer; its views may have different element types.
    Buffer(wgpu::Buffer),
    /// Texture with four elements per texel.
    Texture { texture: wgpu::Texture, view: wgpu::TextureView, format: Format },
}

impl Slot {
    /// Allocates memory that fits each of `views`, at least one, used one at a time.
    ///
    /// # Errors
    /// The limit that is exceeded.
    pub(super) fn new(
        device: &wgpu::Device,
        views: &[Tensor],
        max_binding_bytes: u64,
    ) -> Result<Self, String> {
        let format = views[0].format;
        if format.texture() {
            let extents = || views.iter().map(|view| TexturePages::extent(view.shape));
            let width = extents().map(|[width, _]| width).max().unwrap_or(1);
            let height = extents().map(|[_, height]| height).max().unwrap_or(1);
            let most = device.limits().max_texture_dimension_2d;
            if width.max(height) > most {
                return Err(format!(
                    "a texture of {width} x {height} is over the limit of {most} texels a side"
                ));
            }
            let texture = device.create_texture(&wgpu::TextureDescriptor {
                label: Some("tensor"),
                size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
                mip_level_count: 1,
                sample_count: 1,
                dimension: wgpu::TextureDimension::D2,
                format: texture_format(format),
                usage: TEXTURE,
                view_formats: &[],
            });
            let view = texture.create_view(&Default::default());
            Ok(Self::Texture { texture, view, format })
        } else {
            // At least one vec4, so that every binding is valid.
            let bytes = views.iter().map(bytes).max().unwrap_or(0).max(16);
            if bytes > max_binding_bytes {
                return Err(format!(
                    "a tensor of {bytes} bytes is over the limit of {max_binding_bytes} bytes"
                ));
            }
            Ok(Self::Buffer(buffer(device, "tensor", bytes, STORAGE)))
        }
    }

    /// True if a tensor fits.
    pub(super) fn holds(&self, tensor: &Tensor) -> bool {
        match self {
            Self::Buffer(buffer) => buffer.size() >= bytes(tensor),
            Self::Texture { texture, .. } => {
                let [width, height] = TexturePages::extent(tensor.shape);
                texture.width() >= width && texture.height() >= height
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::Buffer(buffer) => buffer.size(),
            Self::Texture { texture, format, .. } => {
                u64::from(texel(*format)) * u64::from(texture.width()) * u64::from(texture.height())
            }
        }
    }

    pub(super) fn destroy(&self) {
        match self {
            Self::Buffer(buffer) => buffer.destroy(),
            Self::Texture { texture, .. } => texture.destroy(),
        }
    }

    /// Binding of a buffer from `offset` on, at most `most` bytes; of a texture, all of it.
    pub(super) fn resource(&self, offset: u64, most: u64) -> wgpu::BindingResource<'_> {
        match self {
            Self::Buffer(buffer) => {
                let size = wgpu::BufferSize::new((buffer.size() - offset).min(most));
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
            }
            Self::Texture { view, .. } => wgpu::BindingResource::TextureView(view),
        }
    }

    /// Uploads a whole tensor.
    pub(super) fn write(&self, queue: &wgpu::Queue, tensor: &Tensor, data: &TensorData) {
        let shape = tensor.shape;
        let format = tensor.format;
        match self {
            Self::Buffer(buffer) => queue.write_buffer(buffer, 0, &encoded(format, data)),
            Self::Texture { texture, .. } => {
                for page in 0..pages(shape) {
                    let first = page as usize * page_elements(shape);
                    let data = data.slice(first..data.len().min(first + page_elements(shape)));
                    let size = page_extent(shape, page);
                    let layout = wgpu::TexelCopyBufferLayout {
                        offset: 0,
                        bytes_per_row: Some(texel(format) * size.width),
                        rows_per_image: None,
                    };
                    let data = encoded(format, &data);
                    let to = at_page(texture, shape, page);
                    queue.write_texture(to, &data, layout, size);
                }
            }
        }
    }

    /// Bytes written by [`Slot::copy_out`].
    pub(super) fn readback_bytes(&self, tensor: &Tensor) -> u64 {
        match self {
            Self::Buffer(_) => bytes(tensor),
            Self::Texture { .. } => {
                let shape = tensor.shape;
                let rows = u64::from(pages(shape)) * u64::from(TexturePages::extent(shape)[1]);
                rows * u64::from(padded(tensor))
            }
        }
    }

    /// Records the copy of a tensor to the beginning of `to`.
    pub(super) fn copy_out(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        tensor: &Tensor,
        to: &wgpu::Buffer,
    ) {
        let shape = tensor.shape;
        if shape.is_empty() {
            return;
        }
        match self {
            Self::Buffer(buffer) => {
                encoder.copy_buffer_to_buffer(buffer, offset(tensor), to, 0, bytes(tensor));
            }
            Self::Texture { texture, .. } => {
                for page in 0..pages(shape) {
                    let rows = u64::from(page) * u64::from(TexturePages::HEIGHT);
                    let layout = wgpu::TexelCopyBufferLayout {
                        offset: rows * u64::from(padded(tensor)),
                        bytes_per_row: Some(padded(tensor)),
                        rows_per_image: None,
                    };
                    let to = wgpu::TexelCopyBufferInfo { buffer: to, layout };
                    let size = page_extent(shape, page);
                    encoder.copy_texture_to_buffer(at_page(texture, shape, page), to, size);
                }
            }
        }
    }
}

/// Decodes the elements of a tensor from the output of [`Slot::copy_out`].
pub(super) fn decode(tensor: &Tensor, raw: &[u8]) -> Vec<f32> {
    if tensor.format.texture() {
        let shape = tensor.shape;
        let row = tensor.format.bytes() as usize * shape.row_len();
        let rows = raw.chunks_exact(padded(tensor) as usize);
        let bytes: Vec<u8> = rows.flat_map(|padded| &padded[..row]).copied().collect();
        let mut elements = decoded(tensor.format, &bytes);
        elements.truncate(shape.len());
        elements
    } else {
        decoded(tensor.format, raw)
    }
}

/// Bytes of a tensor in a buffer.
fn bytes(tensor: &Tensor) -> u64 {
    u64::from(tensor.format.bytes()) * tensor.shape.len() as u64
}

/// Byte offset of a tensor in a buffer.
pub(super) fn offset(tensor: &Tensor) -> u64 {
    u64::from(tensor.format.bytes()) * u64::from(tensor.offset)
}

/// Bytes per texel.
fn texel(format: Format) -> u32 {
    4 * format.bytes()
}

pub(super) fn texture_format(format: Format) -> wgpu::TextureFormat {
    if format.half() { wgpu::TextureFormat::Rgba16Float } else { wgpu::TextureFormat::Rgba32Float }
}

fn encoded<'a>(format: Format, data: &'a TensorData) -> Cow<'a, [u8]> {
    match format {
        Format::F16 | Format::Texture16 => return data.to_f16(),
        Format::BF16 => return data.to_bf16(),
        Format::F32 | Format::Texture => {}
    }
    match data.widened() {
        Cow::Borrowed(values) => bytemuck::cast_slice(values).into(),
        Cow::Owned(values) => bytemuck::pod_collect_to_vec(&values).into(),
    }
}

fn decoded(format: Format, raw: &[u8]) -> Vec<f32> {
    let elements = match format {
        Format::F16 | Format::Texture16 => TensorData::f16(raw),
        Format::BF16 => TensorData::bf16(raw),
        Format::F32 | Format::Texture => TensorData::f32(raw),
    };
    elements.widened().into_owned()
}

fn pages(shape: Shape) -> u32 {
    shape.rows().div_ceil(TexturePages::HEIGHT).max(1)
}

fn page_elements(shape: Shape) -> usize {
    TexturePages::HEIGHT as usize * shape.row_len()
}

fn page_extent(shape: Shape, page: u32) -> wgpu::Extent3d {
    assert!(shape.row_len().is_multiple_of(4), "{shape} in texels of four");
    let height = (shape.rows() - page * TexturePages::HEIGHT).min(TexturePages::HEIGHT);
    wgpu::Extent3d { width: shape.row_len() as u32 / 4, height, depth_or_array_layers: 1 }
}

fn at_page(texture: &wgpu::Texture, shape: Shape, page: u32) -> wgpu::TexelCopyTextureInfo<'_> {
    let x = page * shape.row_len() as u32 / 4;
    wgpu::TexelCopyTextureInfo {
        texture,
        mip_level: 0,
        origin: wgpu::Origin3d { x, y: 0, z: 0 },
        aspect: wgpu::TextureAspect::All,
    }
}

/// Bytes of a row in a copy to a buffer: WebGPU requires a multiple of 256.
fn padded(tensor: &Tensor) -> u32 {
    let row = tensor.format.bytes() * tensor.shape.row_len() as u32;
    row.next_multiple_of(wgpu::COPY_BYTES_PER_ROW_ALIGNMENT)
}

pub(super) fn buffer(
    device: &wgpu::Device,
    label: &str,
    size: u64,
    usage: wgpu::BufferUsages,
) -> wgpu::Buffer {
    device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size,
        usage,
        mapped_at_creation: false,
    })
}
