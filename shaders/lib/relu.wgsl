// activation: max(x, 0), for models with `feed_forward_type: reglu`.

fn activation(x: vec4<f32>) -> vec4<f32> {
    return max(x, vec4(0.0));
}
