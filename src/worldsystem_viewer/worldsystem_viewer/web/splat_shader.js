// SPDX-License-Identifier: Apache-2.0
// A splat on the screen: EWA splatting (Zwicker et al., 2001) of the packed words; the same rules as
// worldsystem_core/splats/projection.py. Colours stay sRGB, in which they are blended, as in 3DGS.

export const VERTEX = /* glsl */ `
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2D;
uniform usampler2D words;
uniform sampler2D places;
uniform vec2 viewport;
uniform vec2 focal;
in uint number;
out vec4 colour;
out vec2 sigmas;

const float BLUR_PX2 = 0.3;
const float CUTOFF = 3.0;
const float WIDEST_PX = 1024.0;

vec4 quaternion(uvec4 word) { // x y z w, from an octahedral axis and an angle
  vec2 flat2 = vec2(word.z >> 16u & 255u, word.z >> 24u) * (2.0 / 255.0) - 1.0;
  vec3 axis = vec3(flat2, 1.0 - abs(flat2.x) - abs(flat2.y));
  float below = max(-axis.z, 0.0);
  axis.xy += mix(vec2(below), vec2(-below), greaterThanEqual(axis.xy, vec2(0.0)));
  float angle = float(word.w >> 24u) * (0.5 * 3.14159265 / 255.0);
  return vec4(normalize(axis) * sin(angle), cos(angle));
}

mat3 rotation(vec4 q) {
  vec3 two = 2.0 * q.xyz;
  vec3 own = q.xyz * two;
  vec3 w = q.w * two;
  float xy = q.x * two.y, xz = q.x * two.z, yz = q.y * two.z;
  return mat3(
    1.0 - own.y - own.z, xy + w.z, xz - w.y,
    xy - w.z, 1.0 - own.x - own.z, yz + w.x,
    xz + w.y, yz - w.x, 1.0 - own.x - own.y
  );
}

vec3 lengths(uint word) {
  vec3 steps = vec3(word & 255u, word >> 8u & 255u, word >> 16u & 255u);
  return mix(exp((steps - 1.0) * (21.0 / 254.0) - 12.0), vec3(0.0), equal(steps, vec3(0.0)));
}

void main() {
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside, unless it is seen
  uvec4 word = texelFetch(words, ivec2(number & 1023u, number >> 10u), 0);
  if (word.x >> 24u == 0u) return;
  int page = int(number >> 8u);
  ivec2 place = ivec2(3 * (page & 63), page >> 6);
  vec4 r0 = texelFetch(places, place, 0);
  vec4 r1 = texelFetch(places, place + ivec2(1, 0), 0);
  vec4 r2 = texelFetch(places, place + ivec2(2, 0), 0);
  vec4 local = vec4(unpackHalf2x16(word.y), unpackHalf2x16(word.z).x, 1.0);
  vec4 seen = modelViewMatrix * vec4(dot(r0, local), dot(r1, local), dot(r2, local), 1.0);
  vec4 clip = projectionMatrix * seen;
  if (seen.z > -1e-4 || any(greaterThan(abs(clip.xy), vec2(1.3 * clip.w)))) return;

  mat3 placed = mat3(modelViewMatrix) * transpose(mat3(r0.xyz, r1.xyz, r2.xyz));
  vec3 size = lengths(word.w);
  mat3 spread = placed * rotation(quaternion(word));
  spread = mat3(spread[0] * size.x, spread[1] * size.y, spread[2] * size.z);
  float deep = -seen.z;
  vec3 jx = vec3(focal.x / deep, 0.0, focal.x * seen.x / (deep * deep));
  vec3 jy = vec3(0.0, focal.y / deep, focal.y * seen.y / (deep * deep));
  vec3 u = jx * spread;
  vec3 v = jy * spread;
  float a = dot(u, u) + BLUR_PX2;
  float b = dot(u, v);
  float c = dot(v, v) + BLUR_PX2;
  float mean = 0.5 * (a + c);
  float apart = length(vec2(0.5 * (a - c), b));
  float wide = mean + apart;
  float narrow = max(mean - apart, 0.05);
  vec2 first = apart < 1e-6 ? vec2(1.0, 0.0) : normalize(abs(b) > 1e-6 ? vec2(b, wide - a) : (a > c ? vec2(1.0, 0.0) : vec2(0.0, 1.0)));
  vec2 second = vec2(-first.y, first.x);
  sigmas = CUTOFF * position.xy;
  vec2 offset = first * (sigmas.x * min(sqrt(wide), WIDEST_PX / CUTOFF)) + second * (sigmas.y * min(sqrt(narrow), WIDEST_PX / CUTOFF));
  colour = vec4(word.x & 255u, word.x >> 8u & 255u, word.x >> 16u & 255u, word.x >> 24u) / 255.0;
  gl_Position = vec4(clip.xy + offset * (2.0 / viewport) * clip.w, clip.zw);
}
`;

export const FRAGMENT = /* glsl */ `
precision highp float;
in vec4 colour;
in vec2 sigmas;
out vec4 pixel;

void main() {
  float power = dot(sigmas, sigmas);
  if (power > 9.0) discard;
  float alpha = min(0.99, colour.a * exp(-0.5 * power));
  if (alpha < 1.0 / 255.0) discard;
  pixel = vec4(colour.rgb * alpha, alpha);
}
`;
