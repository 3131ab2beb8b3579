// lanes: an invocation works alone.  The importing kernel declares `const S`, here 1.

const_assert S == 1u;

fn least(value: u32) -> u32 {
    return value;
}

fn most(value: u32) -> u32 {
    return value;
}
