// elem: storage of weights: bf16, the upper half of an f32, two to a u32; read only.

alias Elem4 = vec2<u32>;

fn load4(stored: Elem4) -> vec4<f32> {
    let even = bitcast<vec2<f32>>(stored << vec2(16u));
    let odd = bitcast<vec2<f32>>(stored & vec2(0xffff0000u));
    return vec4(even.x, odd.x, even.y, odd.y);
}
