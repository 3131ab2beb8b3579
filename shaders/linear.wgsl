// linear: y = x·Wᵀ + bias, tiled.
//
//     y_tn = sum over k of x_tk * w_nk + bias_n
//
// Shapes      x: [T, K]   w: [N, K]   bias: [N]   y: [T, N]   (row-major; W as PyTorch stores it)
// Work        workgroup = BM rows by BN columns of y; invocation = TM by TN of them, in registers
// Memory      sh_x, sh_w: BM and BN rows of BK elements, vec4s along K.  Both operands are K-major already, so
//             nothing is transposed: four k at once are one dot product.  Rows are padded by one vec4, so the 8
//             rows that a subgroup reads together start in 8 different bank groups (stride 5 vec4 = 20 words).
// Traffic     reads T*N*K*(1/BM + 1/BN) elements; compute-bound from T of about 64 on
// Numerics    f32 accumulate in fixed order of k: a row's result does not depend on its neighbours
// Host        src/kernels/linear.rs           CPU twin  src/reference/linear.rs
// Test        tests/kernels/linear.rs         Bench     benches/kernels.rs "linear"

#import elem

// Spec: fixed when the pipeline is built (host may rewrite the values).
const BM: u32 = 64u; // rows of y per workgroup
const BN: u32 = 64u; // columns of y per workgroup
const BK: u32 = 16u; // inner elements staged at a time
const TM: u32 = 8u;  // rows of y per invocation
const TN: u32 = 8u;  // columns of y per invocation

const LX: u32 = BN / TN; // invocations along N
const LY: u32 = BM / TM; // invocations along T
const WG: u32 = LX * LY;
const BK4: u32 = BK / 4u;
const STRIDE: u32 = BK4 + 1u; // vec4s from row to row in workgroup memory
const_assert BK % 4u == 0u && BM % TM == 0u && BN % TN == 0u;

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

    var acc: array<array<f32, TN>, TM>;
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
            var a: array<vec4<f32>, TM>;
            for (var m = 0u; m < TM; m++) {
                a[m] = sh_x[(m * LY + ly) * STRIDE + k];
            }
            for (var n = 0u; n < TN; n++) {
                let b = sh_w[(n * LX + lx) * STRIDE + k];
                for (var m = 0u; m < TM; m++) {
                    acc[m][n] += dot(a[m], b);
                }
            }
        }
        workgroupBarrier();
    }

    for (var n = 0u; n < TN; n++) {
        let col = col0 + n * LX + lx;
        if col >= params.outer { continue; }
        for (var m = 0u; m < TM; m++) {
            let row = row0 + m * LY + ly;
            if row < params.rows {
                y[row * params.outer + col] = acc[m][n] + bias[col];
            }
        }
    }
}
