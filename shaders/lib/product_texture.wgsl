// product, within a function: a{m}_{n}, m < TM, n < TN/4: columns col+4n to col+4n+3 of row row+m of x·Wᵀ.
//
// The S lanes of a subgroup have TM rows each and share TN columns: each loads TN/S texels of W and
// broadcasts them to the subgroup (share_many); if S is 1, it loads all (share_one).  No workgroup memory, no barriers.
// LX groups of S lanes lie along N.  Values read beyond T or N are never stored.
let lane = lid % S;
let unit = lid / S;
let across = (params.outer + TN * LX - 1u) / (TN * LX); // workgroups along N
let group = wg.y * grid.x + wg.x;
let row = params.first + ((group / across * (WG / S / LX) + unit / LX) * S + lane) * TM;
let col = (group % across * LX + unit % LX) * TN;
if params.first + group / across * (WG / LX) * TM >= params.rows { return; } // uniform over the workgroup
let k4 = params.inner / 4u;
#unroll m TM
let from{m} = at(row + {m}u, k4);
#unroll n TN/4
var a{m}_{n} = vec4<f32>();
#end
#end
for (var k = 0u; k < k4; k++) {
    #unroll m TM
    let x{m} = textureLoad(x, from{m} + vec2(k, 0u), 0);
    #end
    #unroll q TN/S
    let part{q} = textureLoad(w, vec2(4u * k + ({q}u * S + lane) % 4u, (col + {q}u * S + lane) / 4u), 0);
    #end
    #unroll i TN
    #paste share
    #end
    #unroll n TN/4
    #unroll m TM
    #unroll c 4
    a{m}_{n} = fma(vec4(x{m}[{c}]), b{4*n+c}, a{m}_{n});
    #end
    #end
    #end
}
