// tile_max: maximum over the workgroup, uniform for every compiler, so that it may bound a loop with barriers.
//
// The importing kernel declares `const WG` and `sh_row`, vec4s for WG invocations, not in use by any.

fn tile_max(lid: u32, value: f32) -> f32 {
    sh_row[lid].x = value;
    workgroupBarrier();
    for (var half = WG / 2u; half > 1u; half /= 2u) {
        if lid < half { sh_row[lid].x = max(sh_row[lid].x, sh_row[lid + half].x); }
        workgroupBarrier();
    }
    if lid == 0u { sh_row[0].x = max(sh_row[0].x, sh_row[1].x); }
    return workgroupUniformLoad(&sh_row[0]).x; // with barriers before and after; sh_row may be overwritten
}
