// product: TM by TN elements of x·Wᵀ per invocation, staged in workgroup memory.
//
// The importing kernel declares `const TM, TN`, `const BM, BN, BK` (rows, columns and inner elements of a workgroup's
// tile), `params` with first and rows (of T), outer (N) and inner (K), and x and w as arrays of Elem4_x and Elem4_w
// along K.  It also declares `SLICES`: SLICES times BK inner elements are staged at a time, BK for each slice of the
// invocations, and the slices' sums are added at the end (import `slices`); and `HELD`, rows per invocation after that.
//
// Both operands are K-major in memory and stay so.  The vec4s that an invocation reads at one k, of its TM rows or TN
// columns, are contiguous, so that the loads share an address and a bounds check; one unused vec4 follows, so that
// neighbouring invocations read from different banks.  Staging is unrolled, so that all its loads are in flight before
// the first is waited for.

#import elem as x
#import elem as w

const LX: u32 = BN / TN; // invocations along N
const LY: u32 = BM / TM; // invocations along T
const WG: u32 = LX * LY * SLICES;
const BK4: u32 = BK / 4u;
const STEP4: u32 = BK4 * SLICES; // vec4s along K staged at a time
const_assert BK % 4u == 0u && BM % TM == 0u && BN % TN == 0u && TN % 4u == 0u && WG % STEP4 == 0u;
const_assert BK * TM * TN % (4u * BN) == 0u && BK * TM * TN % (4u * BM) == 0u; // whole rounds of staging

alias Rows = array<vec4<f32>, TM + 1u>;
alias Columns = array<vec4<f32>, TN + 1u>;

var<workgroup> sh_x: array<Rows, STEP4 * LY>;
var<workgroup> sh_w: array<Columns, STEP4 * LX>;

// A row of the sums, in vec4s of columns.
struct Row {
    #unroll g TN/4
    c{g}: vec4<f32>,
    #end
}

// Consecutive rows.
struct Product {
    #unroll m TM
    y{m}: Row,
    #end
}

#import slices

// First row and column of an invocation's TM by TN.
fn product_origin(wg: vec3<u32>, grid: vec3<u32>, lid: u32) -> vec2<u32> {
    let across = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    let place = place_of(lid);
    return vec2(params.first + group / across * BM + place / LX * TM, group % across * BN + place % LX * TN);
}

// All invocations of a workgroup must call this.  Row m of an invocation's sums is row `held(lid, m)` of its TM by TN.
fn product(origin: vec2<u32>, lid: u32) -> Product {
    let lx = place_of(lid) % LX;
    let ly = place_of(lid) / LX;
    let skip = slice_of(lid) * BK4;
    let row0 = origin.x - ly * TM;
    let col0 = origin.y - lx * TN;
    let k4 = params.inner / 4u;
    #unroll m TM
    #unroll g TN/4
    var y{m}_{g} = vec4<f32>();
    #end
    #end
    // This invocation stages vec4 number sk of rows and columns s, s + WG/STEP4, …
    let sk = lid % STEP4;
    let s = lid / STEP4;
    for (var k0 = 0u; k0 < k4; k0 += STEP4) {
        // Beyond the last row or column the last one is staged again, but not stored; the last step is shorter.
        let k = min(k0 + sk, k4 - 1u);
        #unroll j BK*TM*TN/4/BN
        let x{j} = load4_x(x[min(row0 + s + {j}u * WG / STEP4, params.rows - 1u) * k4 + k]);
        #end
        #unroll j BK*TM*TN/4/BM
        let w{j} = load4_w(w[min(col0 + s + {j}u * WG / STEP4, params.outer - 1u) * k4 + k]);
        #end
        #unroll j BK*TM*TN/4/BN
        sh_x[sk * LY + (s + {j}u * WG / STEP4) / TM][(s + {j}u * WG / STEP4) % TM] = x{j};
        #end
        #unroll j BK*TM*TN/4/BM
        sh_w[sk * LX + (s + {j}u * WG / STEP4) / TN][(s + {j}u * WG / STEP4) % TN] = w{j};
        #end
        workgroupBarrier();

        let steps = min(BK4, max(k4 - k0, skip) - skip);
        for (var k = 0u; k < steps; k++) {
            let col = (skip + k) * LX + lx;
            let row = (skip + k) * LY + ly;
            #unroll g TN/4
            let at{g} = mat4x4(sh_w[col][{4*g}], sh_w[col][{4*g+1}], sh_w[col][{4*g+2}], sh_w[col][{4*g+3}]);
            let col{g} = transpose(at{g});
            #end
            #unroll m TM
            let row{m} = sh_x[row][{m}];
            #unroll c 4
            #unroll g TN/4
            y{m}_{g} = fma(vec4(row{m}[{c}]), col{g}[{c}], y{m}_{g});
            #end
            #end
            #end
        }
        workgroupBarrier();
    }
    var sums: Product;
    #unroll m TM
    #unroll g TN/4
    sums.y{m}.c{g} = y{m}_{g};
    #end
    #end
    return add_slices(sums, lid);
}
