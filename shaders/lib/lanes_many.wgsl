// lanes: the S invocations of a subgroup work together: consecutive ones, since workgroups are flat.  The importing
// kernel declares `const S`; the host runs it only where every subgroup has that size.

// Every lane receives the least, or the greatest, of all lanes.
fn least(value: u32) -> u32 {
    return subgroupMin(value);
}

fn most(value: u32) -> u32 {
    return subgroupMax(value);
}
