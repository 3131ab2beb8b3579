// low_rank: the two halves of a low-rank product for one row, by the WG invocations of a workgroup.
//
//     z = A·x          y = Bᵀ·z
//
// The importing kernel declares `const WG`, `const R`, and as vec4s `a`: [n·R, K] and `b`: [n·R, N].  z is summed in
// WG parts.

const_assert R % 4u == 0u;

var<workgroup> sh_part: array<vec4<f32>, WG>;
var<workgroup> sh_z: array<vec4<f32>, R / 4u>;

// Dot products of four elements of x and those of four rows of A, the first at vec4 number `at_a`, k4 vec4s a row.
fn four_rows(at_a: u32, k4: u32, value: vec4<f32>) -> vec4<f32> {
    return vec4(
        dot(a[at_a], value), dot(a[at_a + k4], value), dot(a[at_a + 2u * k4], value), dot(a[at_a + 3u * k4], value),
    );
}

// Sums the parts of all invocations into z_j to z_j+3.  All of the workgroup must call it.
fn sum_parts(lid: u32, j: u32, part: vec4<f32>) {
    sh_part[lid] = part;
    workgroupBarrier();
    if lid == 0u {
        var sum = vec4<f32>();
        for (var n = 0u; n < WG; n++) { sum += sh_part[n]; }
        sh_z[j / 4u] = sum;
    }
    workgroupBarrier();
}

// Four elements of Bᵀ·z by four rows of B, for z_j to z_j+3: the first at vec4 number `at_b`, n4 vec4s a row.
fn four_columns(j: u32, at_b: u32, n4: u32) -> vec4<f32> {
    let z = sh_z[j / 4u];
    return z.x * b[at_b] + z.y * b[at_b + n4] + z.z * b[at_b + 2u * n4] + z.w * b[at_b + 3u * n4];
}
