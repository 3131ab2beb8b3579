// lanes: the S invocations of a subgroup cooperate; they are consecutive, as workgroups are one-dimensional.  The
// importing kernel declares `const S`; the host runs it only where every subgroup has that size.

// Minimum and maximum over all lanes, returned to every lane.
fn least(value: u32) -> u32 {
    return subgroupMin(value);
}

fn most(value: u32) -> u32 {
    return subgroupMax(value);
}
