// elem: storage of activations and weights: f32, no conversion.

alias Elem4 = vec4<f32>;

fn load4(stored: Elem4) -> vec4<f32> {
    return stored;
}

fn store4(value: vec4<f32>) -> Elem4 {
    return value;
}
