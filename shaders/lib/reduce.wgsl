// reduce: sums over a workgroup of WG invocations.  The importing kernel declares `const WG`, a power of two.

const_assert ((WG & (WG - 1u)) == 0u);

var<workgroup> sh_reduce: array<f32, WG>;

// Every invocation of the workgroup must call this, and every one receives the sum.
fn workgroup_sum(lid: u32, value: f32) -> f32 {
    sh_reduce[lid] = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lid < half {
            sh_reduce[lid] += sh_reduce[lid + half];
        }
        workgroupBarrier();
    }
    let sum = sh_reduce[0];
    workgroupBarrier(); // sh_reduce may be overwritten by the next call
    return sum;
}
