// product: 8 by 8 elements of x·Wᵀ per invocation, staged in workgroup memory.
//
// The importing kernel declares `const BM, BN, BK` (rows, columns and inner elements of a workgroup's tile), `params`
// with rows (T), outer (N) and inner (K), and x and w in vec4s along K.
//
// Tiles lie K-major in workgroup memory, vec4s along T and N: for each k an invocation reads four vec4s, 8 rows and 8
// columns, and does 64 multiply-adds.  Rows are padded by a vec4, so the transposing stores spread over the banks.
// Columns 8c..8c+3 of W go to the left half of the tile and 8c+4..8c+7 to the right: neighbours read neighbouring
// vec4s, and yet an invocation's eight columns are consecutive.

const LX: u32 = BN / 8u; // invocations along N
const LY: u32 = BM / 8u; // invocations along T
const WG: u32 = LX * LY;
const BK4: u32 = BK / 4u;
const STEP_X: u32 = BM / 4u + 1u; // vec4s from one k to the next
const STEP_W: u32 = BN / 4u + 1u;
const_assert BK % 4u == 0u && BM % 8u == 0u && BN % 8u == 0u;

var<workgroup> sh_x: array<vec4<f32>, BK * STEP_X>;
var<workgroup> sh_w: array<vec4<f32>, BK * STEP_W>;

// Row m of the sums: columns 0 to 3 and 4 to 7.
struct Row8 {
    l: vec4<f32>,
    r: vec4<f32>,
}

// Rows 0 to 3 are consecutive, rows 4 to 7 are BM/2 further on.
struct Product {
    #unroll m 8
    y{m}: Row8,
    #end
}

// The first row and column of an invocation's 8 by 8.
fn product_origin(wg: vec3<u32>, grid: vec3<u32>, lid: u32) -> vec2<u32> {
    let across = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    return vec2(group / across * BM + lid / LX * 4u, group % across * BN + lid % LX * 8u);
}

// All invocations of a workgroup must call this.
fn product(origin: vec2<u32>, lid: u32) -> Product {
    let lx = lid % LX;
    let ly = lid / LX;
    let row0 = origin.x - ly * 4u;
    let col0 = origin.y - lx * 8u;
    let k4 = params.inner / 4u;
    #unroll m 8
    var l{m} = vec4<f32>();
    var r{m} = vec4<f32>();
    #end
    for (var k0 = 0u; k0 < k4; k0 += BK4) {
        // What lies outside is zero and adds nothing.
        for (var i = lid; i < BM * BK4; i += WG) {
            let m = i / BK4;
            let row = row0 + m;
            let k = k0 + i % BK4;
            var value = vec4(0.0);
            if row < params.rows && k < k4 { value = load4(x[row * k4 + k]); }
            let to = i % BK4 * 4u * STEP_X + m / 4u;
            #unroll j 4
            sh_x[to + {j}u * STEP_X][m % 4u] = value[{j}];
            #end
        }
        for (var i = lid; i < BN * BK4; i += WG) {
            let n = i / BK4;
            let col = col0 + n;
            let k = k0 + i % BK4;
            var value = vec4(0.0);
            if col < params.outer && k < k4 { value = load4(w[col * k4 + k]); }
            let to = i % BK4 * 4u * STEP_W + n / 4u % 2u * LX + n / 8u;
            #unroll j 4
            sh_w[to + {j}u * STEP_W][n % 4u] = value[{j}];
            #end
        }
        workgroupBarrier();
        for (var k = 0u; k < BK; k++) {
            let xl = sh_x[k * STEP_X + ly];
            let xr = sh_x[k * STEP_X + LY + ly];
            let wl = sh_w[k * STEP_W + lx];
            let wr = sh_w[k * STEP_W + LX + lx];
            #unroll m 4
            l{m} = fma(vec4(xl[{m}]), wl, l{m});
            r{m} = fma(vec4(xl[{m}]), wr, r{m});
            l{m+4} = fma(vec4(xr[{m}]), wl, l{m+4});
            r{m+4} = fma(vec4(xr[{m}]), wr, r{m+4});
            #end
        }
        workgroupBarrier();
    }
    var sums: Product;
    #unroll m 8
    sums.y{m} = Row8(l{m}, r{m});
    #end
    return sums;
}
