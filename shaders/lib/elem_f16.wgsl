// elem: how activations and weights are stored.  f16, two to a u32, rounded to nearest even; arithmetic stays f32.
// No extension of WGSL is needed.  With `enable f16;` and vec4<f16> AMD's compiler makes the same loops of the same
// registers, and stores in 3 % fewer instructions (benches/record/radv-null).

alias Elem4 = vec2<u32>;

fn load4(stored: Elem4) -> vec4<f32> {
    return vec4(unpack2x16float(stored.x), unpack2x16float(stored.y));
}

fn store4(value: vec4<f32>) -> Elem4 {
    return vec2(pack2x16float(value.xy), pack2x16float(value.zw));
}
