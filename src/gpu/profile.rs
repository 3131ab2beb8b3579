//! Kernel times on the device, by timestamp queries around one pass per dispatch.

/// A query set with two timestamps per dispatch, and the buffers to read them.
pub(super) struct Timestamps {
    pub(super) set: wgpu::QuerySet,
    resolve: wgpu::Buffer,
    pub(super) readback: wgpu::Buffer,
    count: u32,
}

impl Timestamps {
    /// Creates queries for `dispatches` passes; at most 2,048, by WebGPU's limit of 4,096 per set.
    pub(super) fn new(device: &wgpu::Device, dispatches: usize) -> Self {
        let count = 2 * dispatches as u32;
        let size = u64::from(count) * 8;
        let buffer = |usage| {
            let label = Some("jinabert timestamps");
            device.create_buffer(&wgpu::BufferDescriptor {
                label,
                size,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            set: device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("jinabert timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count,
            }),
            resolve: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
            readback: buffer(wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ),
            count,
        }
    }

    /// Timestamp writes of pass number `n`.
    pub(super) fn writes(&self, n: usize) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * n as u32),
            end_of_pass_write_index: Some(2 * n as u32 + 1),
        }
    }

    pub(super) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.set, 0..self.count, &self.resolve, 0);
        encoder.copy_buffer_to_buffer(&self.resolve, 0, &self.readback, 0, self.resolve.size());
    }
}
