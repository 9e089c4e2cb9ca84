// The definition of P: element (j, k) of the projection matrix, the same bits on every device.
//
// The four words of philox((j low, j high, k / 4, 0), key) give the columns 4 (k / 4) ... + 3 by Box-Muller,
//     z0 = sqrt(-2 ln u) cos(2 pi v),  z1 = sqrt(-2 ln u) sin(2 pi v),
// each rounded to bfloat16. Only IEEE float32 operations occur (add, multiply, fma, sqrt, conversions), in this order,
// and no plain product feeds a plain sum, so that no compiler can contract them: equality of bits needs no rule about
// rounding boundaries. The functions are templates: of a float and a uint32_t, or of as many as a vector holds. The
// polynomials are minimax fits of relative error 1.1e-6 (logarithm), 1.5e-6 (sine) and 3e-8 (cosine), 1/1,300 of half a
// bfloat16 step.
#pragma once
#include <cstdint>

#include "bits.h"
#include "philox.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Normals {
  float z[4];
};

// The float and the signed integer beside a uint32_t; two.h says it of vectors.
template <class Word>
struct Beside;
template <>
struct Beside<uint32_t> {
  using Float = float;
  using Signed = int32_t;
};
template <class Word>
using FloatOf = typename Beside<Word>::Float;
template <class Word>
using SignedOf = typename Beside<Word>::Signed;

GRADEX_INLINE float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }

// To nearest. On the GPU, of 0 and of what is far from the ends of float's range: __fsqrt_rn's own steps without its
// branch for the others, so that several normals are made at once.
GRADEX_INLINE float square_root(float value) {
#ifdef __CUDA_ARCH__
  float inverse;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaxf(value, 0x1p-126f)));
  const float root = __fmul_rn(value, inverse);
  return __fmaf_rn(__fmaf_rn(-root, root, value), __fmul_rn(inverse, 0.5f), root);
#else
  return __builtin_sqrtf(value);
#endif
}

GRADEX_INLINE float to_float(int32_t value) { return static_cast<float>(value); }

template <class Value>
GRADEX_INLINE Value every(float value) {
  return value - Value{};
}

// Nearest bfloat16, ties to even, kept in a float. Finite input.
template <class Word>
GRADEX_INLINE FloatOf<Word> round_to_bfloat16(const FloatOf<Word>& value) {
  const Word bits = bit_cast<Word>(value);
  return bit_cast<FloatOf<Word>>((bits + 0x7FFFu + ((bits >> 16) & 1u)) & 0xFFFF0000u);
}

// -2 ln u for the float32 next to u = (floor(word / 2^8) + 1/2) / 2^24, by u = 2^e m with m in [1/sqrt 2, sqrt 2).
template <class Word>
GRADEX_INLINE FloatOf<Word> minus_two_log(const Word& word) {
  using Float = FloatOf<Word>;
  using Signed = SignedOf<Word>;
  constexpr uint32_t kHalfSqrt = 0x3F3504F3u;  // 1 / sqrt 2
  const Float u = fused(to_float(bit_cast<Signed>(word >> 8)), every<Float>(0x1p-24f), every<Float>(0x1p-25f));
  const Word shifted = bit_cast<Word>(u) - kHalfSqrt;
  const Float e = to_float(bit_cast<Signed>(shifted) >> 23);
  const Float f = bit_cast<Float>((shifted & 0x007FFFFFu) + kHalfSqrt) - 1.0f;
  Float r = every<Float>(-0.237922187f);
  r = fused(r, f, every<Float>(0.373357103f));
  r = fused(r, f, every<Float>(-0.409926574f));
  r = fused(r, f, every<Float>(0.498194883f));
  r = fused(r, f, every<Float>(-0.66629018f));
  r = fused(r, f, every<Float>(1.00002226f));
  r = fused(r, f, every<Float>(-2.00000195f));
  return fused(e, every<Float>(-1.38629436f), f * r);
}

// cos and sin of 2 pi word / 2^32: a quarter turn k and a remainder y pi / 4, |y| <= 1.
template <class Word>
GRADEX_INLINE void cosine_sine(const Word& word, FloatOf<Word>* cosine, FloatOf<Word>* sine) {
  using Float = FloatOf<Word>;
  const Word k = (word + 0x20000000u) >> 30;
  const Float y = to_float(bit_cast<SignedOf<Word>>(word - (k << 30))) * 0x1p-29f;
  const Float y2 = y * y;
  Float s = fused(every<Float>(0.00243562279f), y2, every<Float>(-0.0807247556f));
  s = y * fused(s, y2, every<Float>(0.78539698f));
  Float c = fused(every<Float>(-0.000318727841f), y2, every<Float>(0.0158496842f));
  c = fused(fused(c, y2, every<Float>(-0.308424166f)), y2, every<Float>(0.999999967f));
  const Word odd = 0u - (k & 1u);
  const Word swap = (bit_cast<Word>(c) ^ bit_cast<Word>(s)) & odd;
  *cosine = bit_cast<Float>(bit_cast<Word>(c) ^ swap ^ (((k + 1u) & 2u) << 30));
  *sine = bit_cast<Float>(bit_cast<Word>(s) ^ swap ^ ((k & 2u) << 30));
}

// Two normals from two words, not rounded yet.
template <class Word>
GRADEX_INLINE void exact_box_muller(const Word& length, const Word& angle, FloatOf<Word>* z0, FloatOf<Word>* z1) {
  const FloatOf<Word> radius = square_root(minus_two_log(length));
  FloatOf<Word> cosine, sine;
  cosine_sine(angle, &cosine, &sine);
  *z0 = radius * cosine;
  *z1 = radius * sine;
}

template <class Word>
GRADEX_INLINE void box_muller(const Word& length, const Word& angle, FloatOf<Word>* z0, FloatOf<Word>* z1) {
  exact_box_muller(length, angle, z0, z1);
  *z0 = round_to_bfloat16<Word>(*z0);
  *z1 = round_to_bfloat16<Word>(*z1);
}

// P[j, 4 quad ... 4 quad + 3] for one who rounds it to bfloat16. Key: a uint64_t or its RoundKeys.
template <class Key>
GRADEX_INLINE Normals exact_gaussian(uint64_t j, uint32_t quad, const Key& key) {
  const Words words = philox({static_cast<uint32_t>(j), static_cast<uint32_t>(j >> 32), quad, 0u}, key);
  Normals normals;
  exact_box_muller(words.x, words.y, &normals.z[0], &normals.z[1]);
  exact_box_muller(words.z, words.w, &normals.z[2], &normals.z[3]);
  return normals;
}

// P[j, 4 quad ... 4 quad + 3]
GRADEX_INLINE Normals gaussian(uint64_t j, uint32_t quad, uint64_t key) {
  Normals normals = exact_gaussian(j, quad, key);
  GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) normals.z[i] = round_to_bfloat16<uint32_t>(normals.z[i]);
  return normals;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
