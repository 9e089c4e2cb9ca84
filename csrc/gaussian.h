// The definition of P: element (j, k) of the projection matrix, the same bits on every device.
//
// The four words of philox((j low, j high, k / 4, 0), key) give the columns 4 (k / 4) ... + 3 by Box-Muller,
//     z0 = sqrt(-2 ln u) cos(2 pi v),  z1 = sqrt(-2 ln u) sin(2 pi v),
// each rounded to bfloat16. Only IEEE float32 operations occur (add, multiply, fma, sqrt, conversions), in this order,
// and no plain product feeds a plain sum, so that no compiler can contract them: equality of bits needs no rule about
// rounding boundaries. The polynomials are minimax fits of relative error 1.1e-6 (logarithm), 1.5e-6 (sine) and 3e-8
// (cosine), 1/1,300 of half a bfloat16 step.
#pragma once
#include <cstdint>
#include <cstring>

#include "philox.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Normals {
  float z[4];
};

GRADEX_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

GRADEX_INLINE float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

GRADEX_INLINE uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

GRADEX_INLINE float square_root(float value) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(value);
#else
  return __builtin_sqrtf(value);
#endif
}

// Nearest bfloat16, ties to even, kept in a float. Finite input.
GRADEX_INLINE float round_to_bfloat16(float value) {
  const uint32_t bits = as_bits(value);
  return as_float((bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u);
}

// -2 ln u for the float32 next to u = (floor(word / 2^8) + 1/2) / 2^24, by u = 2^e m with m in [1/sqrt 2, sqrt 2).
GRADEX_INLINE float minus_two_log(uint32_t word) {
  constexpr uint32_t kHalfSqrt = 0x3F3504F3u;  // 1 / sqrt 2
  const float u = fused(static_cast<float>(static_cast<int32_t>(word >> 8)), 0x1p-24f, 0x1p-25f);
  const uint32_t shifted = as_bits(u) - kHalfSqrt;
  const float e = static_cast<float>(static_cast<int32_t>(shifted) >> 23);
  const float f = as_float((shifted & 0x007FFFFFu) + kHalfSqrt) - 1.0f;
  float r = -0.237922187f;
  r = fused(r, f, 0.373357103f);
  r = fused(r, f, -0.409926574f);
  r = fused(r, f, 0.498194883f);
  r = fused(r, f, -0.66629018f);
  r = fused(r, f, 1.00002226f);
  r = fused(r, f, -2.00000195f);
  return fused(e, -1.38629436f, f * r);
}

// cos and sin of 2 pi word / 2^32: a quarter turn k and a remainder y pi / 4, |y| <= 1.
GRADEX_INLINE void cosine_sine(uint32_t word, float* cosine, float* sine) {
  const uint32_t k = (word + 0x20000000u) >> 30;
  const float y = static_cast<float>(static_cast<int32_t>(word - (k << 30))) * 0x1p-29f;
  const float y2 = y * y;
  const float s = y * fused(fused(0.00243562279f, y2, -0.0807247556f), y2, 0.78539698f);
  float c = fused(-0.000318727841f, y2, 0.0158496842f);
  c = fused(fused(c, y2, -0.308424166f), y2, 0.999999967f);
  const uint32_t odd = 0u - (k & 1u);
  const uint32_t swap = (as_bits(c) ^ as_bits(s)) & odd;
  *cosine = as_float(as_bits(c) ^ swap ^ (((k + 1u) & 2u) << 30));
  *sine = as_float(as_bits(s) ^ swap ^ ((k & 2u) << 30));
}

// P[j, 4 quad ... 4 quad + 3]
GRADEX_INLINE Normals gaussian(uint32_t j_low, uint32_t j_high, uint32_t quad, uint64_t key) {
  const Words words = philox({j_low, j_high, quad, 0u}, key);
  const float radius0 = square_root(minus_two_log(words.x));
  const float radius1 = square_root(minus_two_log(words.z));
  float cosine0, sine0, cosine1, sine1;
  cosine_sine(words.y, &cosine0, &sine0);
  cosine_sine(words.w, &cosine1, &sine1);
  return {{round_to_bfloat16(radius0 * cosine0), round_to_bfloat16(radius0 * sine0),
           round_to_bfloat16(radius1 * cosine1), round_to_bfloat16(radius1 * sine1)}};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
