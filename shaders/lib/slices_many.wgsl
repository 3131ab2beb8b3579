// slices: each of SLICES groups of LX*LY invocations has a part of the inner elements; their sums are added in order of
// the groups.  Called by lib/product_tiled.wgsl between two uses of its workgroup memory.
//
// Each slice adds and stores the rows slice, slice + SLICES, … of the 8 by 8, so that all invocations have work.

const_assert TM == 8u && TN == 8u && SLICES > 1u && (8u % SLICES == 0u || SLICES % 8u == 0u);
const AT_A_TIME: u32 = 16u * BK / BN; // rows of an 8 by 8 that fit workgroup memory
const_assert BM <= BN && 8u % AT_A_TIME == 0u;

// The slice of the inner elements that an invocation has.
fn slice_of(lid: u32) -> u32 {
    return lid / (LX * LY);
}

// The invocation's 8 by 8 in the workgroup's tile.
fn place_of(lid: u32) -> u32 {
    return lid % (LX * LY);
}

// All invocations of a workgroup must call this.
fn add_slices(own: Product, lid: u32) -> Product {
    var sums: Product;
    #unroll b BN/BK/2
    #unroll j 16*BK/BN
    put(lid * AT_A_TIME + {j}u, own.y{16*BK/BN*b+j});
    #end
    workgroupBarrier();
    #unroll m HELD
    if held(lid, {m}u) / AT_A_TIME == {b}u {
        sums.y{m} = sum_of(place_of(lid) * AT_A_TIME + held(lid, {m}u) % AT_A_TIME);
    }
    #end
    workgroupBarrier();
    #end
    return sums;
}

// Row of the 8 by 8 that is row m of an invocation's sums; if there is none, a row beyond T.
fn held(lid: u32, m: u32) -> u32 {
    let row = m * SLICES + slice_of(lid);
    return select(params.rows, row, row < 8u);
}

fn put(at: u32, row: Row) {
    sh_x[at / 8u][at % 8u] = row.c0;
    sh_w[at / 8u][at % 8u] = row.c1;
}

fn sum_of(first: u32) -> Row {
    var sum = Row(sh_x[first / 8u][first % 8u], sh_w[first / 8u][first % 8u]);
    for (var at = first + LX * LY * AT_A_TIME; at < WG * AT_A_TIME; at += LX * LY * AT_A_TIME) {
        sum.c0 += sh_x[at / 8u][at % 8u];
        sum.c1 += sh_w[at / 8u][at % 8u];
    }
    return sum;
}
