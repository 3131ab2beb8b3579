//! Tensors in host memory.

use crate::{
    elements::TensorData,
    error::Error,
    memory::Zeroed,
    recording::{Format, Shape, Tensor},
};
use std::{borrow::Cow, mem};

/// Buffers of a CPU engine, by slot.
#[derive(Default)]
pub struct Tensors(Vec<Zeroed>);

impl Tensors {
    /// Bytes of the whole buffer of a tensor.
    pub fn bytes(&self, tensor: &Tensor) -> &[u8] {
        self.0[tensor.slot as usize].get()
    }

    /// Elements of the buffer from the tensor's first on.
    pub fn slot(&self, tensor: &Tensor) -> &[f32] {
        assert_eq!(tensor.format, Format::F32, "only tables and weights are in other formats");
        let elements: &[f32] = bytemuck::cast_slice(self.bytes(tensor));
        &elements[tensor.offset as usize..]
    }

    /// Elements.
    pub fn f32(&self, tensor: &Tensor) -> &[f32] {
        &self.slot(tensor)[..tensor.shape.len()]
    }

    /// Elements of a tensor of integers.
    pub fn u32(&self, tensor: &Tensor) -> &[u32] {
        bytemuck::cast_slice(self.f32(tensor))
    }

    /// Elements of a tensor that may be stored in 16 bits.
    pub fn elements(&self, tensor: &Tensor) -> TensorData<'_> {
        match tensor.format {
            Format::F16 => TensorData::F16(Cow::Borrowed(bytemuck::cast_slice(self.bytes(tensor)))),
            Format::BF16 => {
                TensorData::BF16(Cow::Borrowed(bytemuck::cast_slice(self.bytes(tensor))))
            }
            _ => self.f32(tensor).into(),
        }
    }

    /// Elements in row-major order, without gaps.
    pub fn dense(&self, tensor: &Tensor) -> Cow<'_, [f32]> {
        let [rows, cols] = tensor.shape2();
        let step = tensor.step as usize;
        if step == cols as usize {
            return self.f32(tensor).into();
        }
        let columns = tensor.column as usize..(tensor.column + cols) as usize;
        let rows = self.slot(tensor).chunks(step).take(rows as usize);
        rows.flat_map(|row| &row[columns.clone()]).copied().collect()
    }

    /// Borrows the elements of `tensor` for writing, and all other tensors for reading.
    pub fn store<R>(&mut self, tensor: &Tensor, fill: impl FnOnce(&Self, &mut [f32]) -> R) -> R {
        let slot = &mut self.0[tensor.slot as usize];
        let mut buffer = mem::replace(slot, Zeroed::NONE);
        let elements: &mut [f32] = bytemuck::cast_slice_mut(buffer.get_mut());
        let result = fill(self, &mut elements[tensor.offset as usize..][..tensor.shape.len()]);
        self.0[tensor.slot as usize] = buffer;
        result
    }

    /// Creates a tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room.
    pub fn alloc(&mut self, shape: Shape, format: Format) -> Result<Tensor, Error> {
        assert!(!format.texture(), "the CPU has no textures");
        self.0.push(room(shape.len(), format)?);
        Ok(Tensor::new(self.0.len() as u32 - 1, shape, format))
    }

    /// Creates a tensor with given elements.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room.
    pub fn upload(
        &mut self,
        shape: Shape,
        format: Format,
        data: &TensorData<'_>,
    ) -> Result<Tensor, Error> {
        let tensor = self.alloc(shape, format)?;
        let buffer = self.0[tensor.slot as usize].get_mut();
        match format {
            Format::F16 => data.write_f16(bytemuck::cast_slice_mut(buffer)),
            Format::BF16 => data.write_bf16(bytemuck::cast_slice_mut(buffer)),
            _ => data.write_f32(bytemuck::cast_slice_mut(buffer)),
        }
        Ok(tensor)
    }

    /// Makes the common buffer of some views large enough for each of them.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room.
    pub fn reserve(&mut self, views: &[Tensor]) -> Result<(), Error> {
        let buffer = &mut self.0[views[0].slot as usize];
        let needed = views.iter().map(|view| view.shape.len()).max().unwrap_or(0);
        if buffer.get().len() < 4 * needed {
            *buffer = Zeroed::NONE; // release the old buffer before allocating more
            *buffer = room(needed, Format::F32)?;
        }
        Ok(())
    }

    /// Frees the buffers of some tensors.
    pub fn release(&mut self, tensors: &[Tensor]) {
        for tensor in tensors {
            self.0[tensor.slot as usize] = Zeroed::NONE;
        }
    }

    /// Bytes of all buffers.
    pub fn allocated_bytes(&self) -> u64 {
        self.0.iter().map(|buffer| buffer.get().len() as u64).sum()
    }
}

fn room(elements: usize, format: Format) -> Result<Zeroed, Error> {
    let bytes = elements * format.bytes() as usize;
    Zeroed::new(bytes)
        .map_err(|_| Error::Memory(format!("no room for a tensor of {bytes} bytes on the CPU")))
}
