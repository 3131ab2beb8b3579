// elem: storage of activations and weights: f16, two to a u32; arithmetic stays f32.  Rounding depends on the driver:
// to nearest on Vulkan and Metal, possibly towards zero on DX12.
// No WGSL extension is needed.  With `enable f16;` and vec4<f16> AMD's compiler generates the same loops with the same
// registers, and stores in 3 % fewer instructions (benches/record/radv-null).

alias Elem4 = vec2<u32>;

const BEYOND: f32 = 65520.0; // from here on, rounding to nearest overflows f16
const NANS: Elem4 = vec2(0x7e007e00u);

fn load4(stored: Elem4) -> vec4<f32> {
    return vec4(unpack2x16float(stored.x), unpack2x16float(stored.y));
}

// Too large values become NaN, which the host detects; packed by the driver, they could silently become 65504.
fn store4(value: vec4<f32>) -> Elem4 {
    let packed = vec2(pack2x16float(value.xy), pack2x16float(value.zw));
    return select(packed, NANS, any(abs(value) >= vec4(BEYOND)));
}
