// product: 8 by 8 elements of x·Wᵀ per invocation, staged in workgroup memory.
//
// The importing kernel declares `const BM, BN, BK` (rows, columns and inner elements of a workgroup's tile), `params`
// with first and rows (of T), outer (N) and inner (K), and x and w as arrays of Elem4_x and Elem4_w along K.
//
// Both operands are K-major in memory already and stay so: what an invocation reads at one k, the vec4s of its eight
// rows or columns, lies together, so that eight loads share an address and its bounds check, and is followed by one
// vec4 unused, so that what eight neighbours read together is in eight different bank groups.  Staging is written out,
// so that all its loads are under way before the first is waited for.

#import elem as x
#import elem as w

const LX: u32 = BN / 8u; // invocations along N
const LY: u32 = BM / 8u; // invocations along T
const WG: u32 = LX * LY;
const BK4: u32 = BK / 4u;
const_assert BK % 4u == 0u && BM % 8u == 0u && BN % 8u == 0u && WG % BK4 == 0u;
const_assert 16u * BK % BN == 0u && 16u * BK % BM == 0u; // whole rounds of staging

alias Eight = array<vec4<f32>, 9>;

var<workgroup> sh_x: array<Eight, BK4 * LY>;
var<workgroup> sh_w: array<Eight, BK4 * LX>;

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

// The first row and column of an invocation's 8 by 8.
fn product_origin(wg: vec3<u32>, grid: vec3<u32>, lid: u32) -> vec2<u32> {
    let across = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    return vec2(params.first + group / across * BM + lid / LX * 8u, group % across * BN + lid % LX * 8u);
}

// All invocations of a workgroup must call this.
fn product(origin: vec2<u32>, lid: u32) -> Product {
    let lx = lid % LX;
    let ly = lid / LX;
    let row0 = origin.x - ly * 8u;
    let col0 = origin.y - lx * 8u;
    let k4 = params.inner / 4u;
    #unroll m 8
    var l{m} = vec4<f32>();
    var r{m} = vec4<f32>();
    #end
    // This invocation stages vec4 number sk of rows and columns s, s + WG/BK4, …
    let sk = lid % BK4;
    let s = lid / BK4;
    for (var k0 = 0u; k0 < k4; k0 += BK4) {
        // Past the last row or column the last one is staged again, and not stored; the last BK is cut short.
        let k = min(k0 + sk, k4 - 1u);
        #unroll j 16*BK/BN
        let x{j} = load4_x(x[min(row0 + s + {j}u * WG / BK4, params.rows - 1u) * k4 + k]);
        #end
        #unroll j 16*BK/BM
        let w{j} = load4_w(w[min(col0 + s + {j}u * WG / BK4, params.outer - 1u) * k4 + k]);
        #end
        #unroll j 16*BK/BN
        sh_x[sk * LY + (s + {j}u * WG / BK4) / 8u][(s + {j}u * WG / BK4) % 8u] = x{j};
        #end
        #unroll j 16*BK/BM
        sh_w[sk * LX + (s + {j}u * WG / BK4) / 8u][(s + {j}u * WG / BK4) % 8u] = w{j};
        #end
        workgroupBarrier();

        let steps = min(BK4, k4 - k0);
        for (var k = 0u; k < steps; k++) {
            let col = k * LX + lx;
            let row = k * LY + ly;
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
    return sums;
}
