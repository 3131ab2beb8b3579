// linear: y = x·Wᵀ + bias, tiled.
//
//     y_tn = sum over k of x_tk * w_nk + bias_n
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   y: [T, N]   (row-major; W as PyTorch stores it)
// Work        workgroup = BM rows by BN columns of y; invocation = 8 by 8 of them, in registers
// Memory      sh_x, sh_w: BM and BN rows of BK elements, vec4s along K.  Both operands are K-major already, so
//             nothing is transposed: four rows of w are the columns of a mat4x4, and a·M is four dot products.
//             Rows are padded by one vec4, so the 8 rows that a subgroup reads together start in 8 different
//             bank groups (stride 5 vec4 = 20 words).
// Unrolled    by hand: naga asks no driver to unroll, and where a driver does not, an indexed array of
//             accumulators lives in memory
// Traffic     reads T*N*K*(1/BM + 1/BN) elements; compute-bound from T of about 64 on
// Numerics    f32 accumulate in fixed order of k: a row's result does not depend on its neighbours
// Host        src/kernels/linear.rs           CPU twin  src/reference/linear.rs
// Test        tests/kernels/linear.rs         Bench     benches/kernels.rs "linear"

#import elem

// Spec: fixed when the pipeline is built (host may rewrite the values).
const BM: u32 = 64u; // rows of y per workgroup
const BN: u32 = 64u; // columns of y per workgroup
const BK: u32 = 16u; // inner elements staged at a time

const LX: u32 = BN / 8u; // invocations along N
const LY: u32 = BM / 8u; // invocations along T
const WG: u32 = LX * LY;
const BK4: u32 = BK / 4u;
const STRIDE: u32 = BK4 + 1u; // vec4s from row to row in workgroup memory
const_assert BK % 4u == 0u && BM % 8u == 0u && BN % 8u == 0u;

struct Params {
    rows: u32,  // T
    outer: u32, // N
    inner: u32, // K
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Elem4>;       // [T, K]
@group(0) @binding(2) var<storage, read> w: array<Elem4>;       // [N, K]
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // [N]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // [T, N]

// Accumulators: row m of the invocation's 8 by 8 is (l_m, r_m), the left and the right four columns.
struct Row8 {
    l: vec4<f32>,
    r: vec4<f32>,
}

var<workgroup> sh_x: array<vec4<f32>, BM * STRIDE>;
var<workgroup> sh_w: array<vec4<f32>, BN * STRIDE>;

@compute @workgroup_size(WG)
fn linear(
    @builtin(workgroup_id) wg: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let groups = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    let row0 = group / groups * BM;
    let col0 = group % groups * BN;
    if row0 >= params.rows { return; } // uniform over the workgroup
    let lx = lid % LX;
    let ly = lid / LX;
    let k4 = params.inner / 4u;

    var y0: Row8;
    var y1: Row8;
    var y2: Row8;
    var y3: Row8;
    var y4: Row8;
    var y5: Row8;
    var y6: Row8;
    var y7: Row8;
    for (var k0 = 0u; k0 < k4; k0 += BK4) {
        // Stage BK columns of x and w; what lies outside is zero and adds nothing.
        for (var i = lid; i < BM * BK4; i += WG) {
            let row = row0 + i / BK4;
            let k = k0 + i % BK4;
            var value = vec4(0.0);
            if row < params.rows && k < k4 { value = load4(x[row * k4 + k]); }
            sh_x[i / BK4 * STRIDE + i % BK4] = value;
        }
        for (var i = lid; i < BN * BK4; i += WG) {
            let col = col0 + i / BK4;
            let k = k0 + i % BK4;
            var value = vec4(0.0);
            if col < params.outer && k < k4 { value = load4(w[col * k4 + k]); }
            sh_w[i / BK4 * STRIDE + i % BK4] = value;
        }
        workgroupBarrier();

        for (var k = 0u; k < BK4; k++) {
            let col = lx * STRIDE + k;
            let row = ly * STRIDE + k;
            let l = mat4x4(
                sh_w[col],
                sh_w[col + LX * STRIDE],
                sh_w[col + 2u * LX * STRIDE],
                sh_w[col + 3u * LX * STRIDE],
            );
            let r = mat4x4(
                sh_w[col + 4u * LX * STRIDE],
                sh_w[col + 5u * LX * STRIDE],
                sh_w[col + 6u * LX * STRIDE],
                sh_w[col + 7u * LX * STRIDE],
            );
            let x0 = sh_x[row];
            y0.l += x0 * l;
            y0.r += x0 * r;
            let x1 = sh_x[row + LY * STRIDE];
            y1.l += x1 * l;
            y1.r += x1 * r;
            let x2 = sh_x[row + 2u * LY * STRIDE];
            y2.l += x2 * l;
            y2.r += x2 * r;
            let x3 = sh_x[row + 3u * LY * STRIDE];
            y3.l += x3 * l;
            y3.r += x3 * r;
            let x4 = sh_x[row + 4u * LY * STRIDE];
            y4.l += x4 * l;
            y4.r += x4 * r;
            let x5 = sh_x[row + 5u * LY * STRIDE];
            y5.l += x5 * l;
            y5.r += x5 * r;
            let x6 = sh_x[row + 6u * LY * STRIDE];
            y6.l += x6 * l;
            y6.r += x6 * r;
            let x7 = sh_x[row + 7u * LY * STRIDE];
            y7.l += x7 * l;
            y7.r += x7 * r;
        }
        workgroupBarrier();
    }

    store8(y0, row0 + 0u * LY + ly, col0 + lx);
    store8(y1, row0 + 1u * LY + ly, col0 + lx);
    store8(y2, row0 + 2u * LY + ly, col0 + lx);
    store8(y3, row0 + 3u * LY + ly, col0 + lx);
    store8(y4, row0 + 4u * LY + ly, col0 + lx);
    store8(y5, row0 + 5u * LY + ly, col0 + lx);
    store8(y6, row0 + 6u * LY + ly, col0 + lx);
    store8(y7, row0 + 7u * LY + ly, col0 + lx);
}

// Writes one row of the invocation's results: columns col, col + LX, …
fn store8(sums: Row8, row: u32, col: u32) {
    if row >= params.rows { return; }
    for (var n = 0u; n < 4u; n++) {
        let left = col + n * LX;
        if left < params.outer { y[row * params.outer + left] = sums.l[n] + bias[left]; }
        let right = left + 4u * LX;
        if right < params.outer { y[row * params.outer + right] = sums.r[n] + bias[right]; }
    }
}
