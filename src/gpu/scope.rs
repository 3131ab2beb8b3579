//! Errors that wgpu reports outside the results of its calls.

/// Runs `work` and catches errors that wgpu reports.  Error scopes are per thread: errors of other
/// threads are not caught.
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
    // Scopes nest: the last opened is closed first.
    let errors: Vec<_> =
        scopes.into_iter().rev().filter_map(|scope| pollster::block_on(scope.pop())).collect();
    (result, errors.into_iter().next())
}
