// slices: SLICES groups of LX*LY invocations have a part of the inner elements each, and add up what they found, in the
// order of their numbers.  For lib/product_8x8.wgsl, which calls it between two uses of its workgroup memory.
//
// Each slice ends up with the rows slice, slice + SLICES, … of the 8 by 8, so that all invocations add, and all store.

const_assert SLICES > 1u && (8u % SLICES == 0u || SLICES % 8u == 0u);
const AT_A_TIME: u32 = 16u * BK / BN; // rows of an 8 by 8 for which there is room
const_assert BM <= BN && 8u % AT_A_TIME == 0u;

// Which part of the inner elements an invocation has.
fn slice_of(lid: u32) -> u32 {
    return lid / (LX * LY);
}

// Which 8 by 8 of the workgroup's tile.
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
    #unroll m 7/SLICES+1
    if held(lid, {m}u) / AT_A_TIME == {b}u {
        sums.y{m} = sum_of(place_of(lid) * AT_A_TIME + held(lid, {m}u) % AT_A_TIME);
    }
    #end
    workgroupBarrier();
    #end
    return sums;
}

// The row of its 8 by 8 that an invocation has as row m of its sums; where there is none, one beyond T.
fn held(lid: u32, m: u32) -> u32 {
    let row = m * SLICES + slice_of(lid);
    return select(params.rows, row, row < 8u);
}

fn put(at: u32, row: Row8) {
    sh_x[at / 8u][at % 8u] = row.l;
    sh_w[at / 8u][at % 8u] = row.r;
}

fn sum_of(first: u32) -> Row8 {
    var sum = Row8(sh_x[first / 8u][first % 8u], sh_w[first / 8u][first % 8u]);
    for (var at = first + LX * LY * AT_A_TIME; at < WG * AT_A_TIME; at += LX * LY * AT_A_TIME) {
        sum.l += sh_x[at / 8u][at % 8u];
        sum.r += sh_w[at / 8u][at % 8u];
    }
    return sum;
}
