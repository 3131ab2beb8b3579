//! Errors that wgpu reports beside what its calls return.

/// Does `work` and catches what wgpu reports of it.  Scopes are a thread's own: what other threads
/// do meanwhile is not caught.
pub(super) fn scoped<R>(
    device: &wgpu::Device,
    work: impl FnOnce() -> R,
) -> (R, Option<wgpu::Error>) {
    let filters = [
        wgpu::ErrorFilter::Validation,
        wgpu::ErrorFilter::OutOfMemory,
        wgpu::ErrorFilter::Internal,
    ];
    let scopes = filters.map(|filter| device.push_error_scope(filter));
    let result = work();
    // Scopes nest: the last opened closes first.
    let errors: Vec<_> =
        scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    (result, errors.into_iter().next())
}
