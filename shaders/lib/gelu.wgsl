// activation: exact GELU, x * Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016, arXiv:1606.08415).
//
//     gelu(x) = x/2 * (1 + erf(x / sqrt 2)) = max(x, 0) - |x|/2 * erfc(|x| / sqrt 2)
//
// WGSL has no erf.  erfc(z), z >= 0, is the rational Chebyshev fit of Press et al., Numerical Recipes, section 6.2
// ("erfcc"): its relative error is below 1.2e-7 for every z, so small values left of zero stay accurate.
// (The usual Abramowitz & Stegun 7.1.26 has an absolute error of 1.5e-7, 5e-5 of erfc at x = -3.)
// Measured in f32: |gelu - exact| <= 4e-7 * max(1, |x|) on [-12, 12]; checked by tests/kernels/linear_geglu.rs.

fn erfc4(z: vec4<f32>) -> vec4<f32> {
    let t = 1.0 / (1.0 + 0.5 * z);
    var p = vec4(0.17087277);
    p = p * t - 0.82215223;
    p = p * t + 1.48851587;
    p = p * t - 1.13520398;
    p = p * t + 0.27886807;
    p = p * t - 0.18628806;
    p = p * t + 0.09678418;
    p = p * t + 0.37409196;
    p = p * t + 1.00002368;
    p = p * t - 1.26551223;
    return t * exp(p - z * z);
}

fn activation(x: vec4<f32>) -> vec4<f32> {
    let size = abs(x);
    return max(x, vec4(0.0)) - 0.5 * size * erfc4(size * 0.70710678);
}
