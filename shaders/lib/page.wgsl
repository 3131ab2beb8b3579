// page: where a row of a matrix is in its texture: pages of 8192 rows lie side by side (src/recording.rs, Page).

// The first texel of a row of `width` texels.
fn at(row: u32, width: u32) -> vec2<u32> {
    return vec2(row / 8192u * width, row % 8192u);
}
