// page: position of a matrix row in its texture: pages of 8192 rows side by side (Page in src/recording/mod.rs).

// First texel of a row of `width` texels.
fn at(row: u32, width: u32) -> vec2<u32> {
    return vec2(row / 8192u * width, row % 8192u);
}
