// product: 8 by 8 elements of x·Wᵀ per invocation, staged in workgroup memory.
//
// The importing kernel declares `const BM, BN, BK` (rows, columns and inner elements of a workgroup's tile), `params`
// with first and rows (of T), outer (N) and inner (K), and x and w as arrays of Elem4_x and Elem4_w along K.  It also
// declares `SLICES`: that many times BK inner elements are staged at a time, each BK for other invocations, whose sums
// are added in the end (import `slices`).
//
// Both operands are K-major in memory already and stay so: what an invocation reads at one k, the vec4s of its eight
// rows or columns, lies together, so that eight loads share an address and its bounds check, and is followed by one
// vec4 unused, so that what eight neighbours read together is in eight different bank groups.  Staging is written out,
// so that all its loads are under way before the first is waited for.

#import elem as x
#import elem as w

const LX: u32 = BN / 8u; // invocations along N
const LY: u32 = BM / 8u; // invocations along T
const WG: u32 = LX * LY * SLICES;
const BK4: u32 = BK / 4u;
const STEP4: u32 = BK4 * SLICES; // vec4s along K staged at a time
const_assert BK % 4u == 0u && BM % 8u == 0u && BN % 8u == 0u && WG % STEP4 == 0u;
const_assert 16u * BK % BN == 0u && 16u * BK % BM == 0u; // whole rounds of staging

alias Eight = array<vec4<f32>, 9>;

var<workgroup> sh_x: array<Eight, STEP4 * LY>;
var<workgroup> sh_w: array<Eight, STEP4 * LX>;

// Row m of the sums: columns 0 to 3 and 4 to 7.
struct Row8 {
    l: vec4<f32>,
    r: vec4<f32>,
}

// Eight consecutive rows.
struct Product {
    #unroll m 8
    y{m}: Row8,
    #end
}

#import slices

// The first row and column of an invocation's 8 by 8.
fn product_origin(wg: vec3<u32>, grid: vec3<u32>, lid: u32) -> vec2<u32> {
    let across = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    let place = place_of(lid);
    return vec2(params.first + group / across * BM + place / LX * 8u, group % across * BN + place % LX * 8u);
}

// All invocations of a workgroup must call this.  Row m of an invocation's sums is row `held(lid, m)` of its 8 by 8.
fn product(origin: vec2<u32>, lid: u32) -> Product {
    let lx = place_of(lid) % LX;
    let ly = place_of(lid) / LX;
    let skip = slice_of(lid) * BK4;
    let row0 = origin.x - ly * 8u;
    let col0 = origin.y - lx * 8u;
    let k4 = params.inner / 4u;
    #unroll m 8
    var l{m} = vec4<f32>();
    var r{m} = vec4<f32>();
    #end
    // This invocation stages vec4 number sk of rows and columns s, s + WG/STEP4, …
    let sk = lid % STEP4;
    let s = lid / STEP4;
    for (var k0 = 0u; k0 < k4; k0 += STEP4) {
        // Past the last row or column the last one is staged again, and not stored; the last step is cut short.
        let k = min(k0 + sk, k4 - 1u);
        #unroll j 16*BK/BN
        let x{j} = load4_x(x[min(row0 + s + {j}u * WG / STEP4, params.rows - 1u) * k4 + k]);
        #end
        #unroll j 16*BK/BM
        let w{j} = load4_w(w[min(col0 + s + {j}u * WG / STEP4, params.outer - 1u) * k4 + k]);
        #end
        #unroll j 16*BK/BN
        sh_x[sk * LY + (s + {j}u * WG / STEP4) / 8u][(s + {j}u * WG / STEP4) % 8u] = x{j};
        #end
        #unroll j 16*BK/BM
        sh_w[sk * LX + (s + {j}u * WG / STEP4) / 8u][(s + {j}u * WG / STEP4) % 8u] = w{j};
        #end
        workgroupBarrier();

        let steps = min(BK4, max(k4 - k0, skip) - skip);
        for (var k = 0u; k < steps; k++) {
            let col = (skip + k) * LX + lx;
            let row = (skip + k) * LY + ly;
            let left = transpose(mat4x4(sh_w[col][0], sh_w[col][1], sh_w[col][2], sh_w[col][3]));
            let right = transpose(mat4x4(sh_w[col][4], sh_w[col][5], sh_w[col][6], sh_w[col][7]));
            #unroll m 8
            let row{m} = sh_x[row][{m}];
            #unroll c 4
            l{m} = fma(vec4(row{m}[{c}]), left[{c}], l{m});
            r{m} = fma(vec4(row{m}[{c}]), right[{c}], r{m});
            #end
            #end
        }
        workgroupBarrier();
    }
    var sums: Product;
    #unroll m 8
    sums.y{m} = Row8(l{m}, r{m});
    #end
    return add_slices(sums, lid);
}
