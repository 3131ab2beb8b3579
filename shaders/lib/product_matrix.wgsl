// product: x·Wᵀ in cooperative matrices of M by M, held and multiplied by the lanes of a subgroup.
//
// The importing kernel declares `const M`, `WG`, `FM` and `FN`: a workgroup has BLOCKS blocks of FM by FN matrices, and
// WG invocations, that is, BLOCKS subgroups.  The driver chooses their size: if it is twice what the host assumes, the
// work takes two rounds; if it is half, half of the subgroups repeat the last block.  The kernel
// also declares `params` with first and rows (of T), outer (N) and inner (K), x and w as arrays of Elem4_x and Elem4_w
// along K, and `store8`, which receives eight columns of a row.
//
// Both operands are rounded to f16, sums are f32.  The layout of a matrix in the lanes is up to the driver, so the sums
// pass through workgroup memory.  Rows there are padded by 8 f16 against bank conflicts.

#import elem as x
#import elem as w

const LX: u32 = 2u; // blocks along N
const LY: u32 = 2u; // blocks along T
const BLOCKS: u32 = LX * LY;
const BM: u32 = LY * FM * M;
const BN: u32 = LX * FN * M;
const BK: u32 = 16u; // inner elements staged at a time
const BK4: u32 = BK / 4u;
const STEP4: u32 = BK4 + 2u; // row stride in vec4s
const_assert M == 8u || M == 16u;

alias Quad = array<f16, 4>;
alias MatrixA = coop_mat{M}x{M}<f16, A>;
alias MatrixB = coop_mat{M}x{M}<f16, B>;
alias MatrixC = coop_mat{M}x{M}<f32, C>;

var<workgroup> sh_x: array<Quad, BM * STEP4>;
var<workgroup> sh_w: array<Quad, BN * STEP4>;
var<workgroup> sh_y: array<array<f32, 8>, BLOCKS * M * M / 8u>;

fn stage_x(at: u32, value: vec4<f32>) {
    let half = vec4<f16>(value);
    #unroll c 4
    sh_x[at][{c}] = half[{c}];
    #end
}

fn stage_w(at: u32, value: vec4<f32>) {
    let half = vec4<f16>(value);
    #unroll c 4
    sh_w[at][{c}] = half[{c}];
    #end
}

// All invocations of a workgroup must call this.
fn product(wg: vec3<u32>, grid: vec3<u32>, lid: u32, subgroup: u32, subgroups: u32) {
    let across = (params.outer + BN - 1u) / BN; // workgroups along N
    let group = wg.y * grid.x + wg.x;
    let row0 = params.first + group / across * BM;
    let col0 = group % across * BN;
    let k4 = params.inner / 4u;
    // This invocation stages vec4 number sk of rows and columns s, s + WG/BK4, …
    let sk = lid % BK4;
    let s = lid / BK4;
    for (var first = 0u; first < BLOCKS; first += subgroups) {
        let block = min(first + subgroup, BLOCKS - 1u);
        let from_x = block / LX * FM * M * STEP4;
        let from_w = block % LX * FN * M * STEP4;
        #unroll i FM
        #unroll j FN
        var a{i}_{j} = MatrixC();
        #end
        #end
        for (var k0 = 0u; k0 < k4; k0 += BK4) {
            // Beyond the last row or column the last one is staged again, but not stored; beyond K, zeros.
            let k = min(k0 + sk, k4 - 1u);
            let within = select(0.0, 1.0, k0 + sk < k4);
            #unroll j 2*FM*M*4/WG
            let x{j} = within * load4_x(x[min(row0 + s + {j}u * WG / BK4, params.rows - 1u) * k4 + k]);
            #end
            #unroll j 2*FN*M*4/WG
            let w{j} = within * load4_w(w[min(col0 + s + {j}u * WG / BK4, params.outer - 1u) * k4 + k]);
            #end
            #unroll j 2*FM*M*4/WG
            stage_x((s + {j}u * WG / BK4) * STEP4 + sk, x{j});
            #end
            #unroll j 2*FN*M*4/WG
            stage_w((s + {j}u * WG / BK4) * STEP4 + sk, w{j});
            #end
            workgroupBarrier();
            for (var k = 0u; k < BK4; k += M / 4u) {
                #unroll j FN
                let b{j} = coopLoad<MatrixB>(&sh_w[from_w + {j}u * M * STEP4 + k][0], 4u * STEP4);
                #end
                #unroll i FM
                let m{i} = coopLoadT<MatrixA>(&sh_x[from_x + {i}u * M * STEP4 + k][0], 4u * STEP4);
                #unroll j FN
                a{i}_{j} = coopMultiplyAdd(m{i}, b{j}, a{i}_{j});
                #end
                #end
            }
            workgroupBarrier();
        }
        #unroll i FM
        #unroll j FN
        coopStoreT(a{i}_{j}, &sh_y[block * M * M / 8u][0], M);
        workgroupBarrier();
        for (var n = lid; n < BLOCKS * M * M / 8u; n += WG) {
            let owner = n / (M * M / 8u);
            let row = (owner / LX * FM + {i}u) * M + n / (M / 8u) % M;
            let col = (owner % LX * FN + {j}u) * M + n % (M / 8u) * 8u;
            if owner >= first && owner < first + subgroups {
                let l = vec4(sh_y[n][0], sh_y[n][1], sh_y[n][2], sh_y[n][3]);
                let r = vec4(sh_y[n][4], sh_y[n][5], sh_y[n][6], sh_y[n][7]);
                store8(l, r, row0 + row, col0 + col);
            }
        }
        workgroupBarrier();
        #end
        #end
    }
}
