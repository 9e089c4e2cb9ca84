// Vectors of floats, as wide as the instruction set has them; the only intrinsics are here.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "bits.h"
#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

#if defined(__AVX512F__)
constexpr int64_t kVectorLanes = 16;
constexpr int kTileVectors = 4, kTileColumns = 6;  // 24 sums, 4 + 1 operands of 32 registers
#elif defined(__AVX2__)
constexpr int64_t kVectorLanes = 8;
constexpr int kTileVectors = 3, kTileColumns = 4;  // 12 sums, 3 + 1 operands of 16 registers
#else
constexpr int64_t kVectorLanes = 4;
constexpr int kTileVectors = 3, kTileColumns = 4;
#endif

typedef float Vector __attribute__((vector_size(sizeof(float) * kVectorLanes)));
typedef int32_t IntVector __attribute__((vector_size(sizeof(int32_t) * kVectorLanes)));
typedef uint32_t WordVector __attribute__((vector_size(sizeof(uint32_t) * kVectorLanes)));

constexpr int64_t kDoubleLanes = kVectorLanes / 2;
typedef double DoubleVector __attribute__((vector_size(sizeof(double) * kDoubleLanes)));
typedef int64_t LongVector __attribute__((vector_size(sizeof(int64_t) * kDoubleLanes)));
typedef uint64_t WideVector __attribute__((vector_size(sizeof(uint64_t) * kDoubleLanes)));

template <class Loaded = Vector>
GRADEX_INLINE Loaded load(const void* from) {
  Loaded loaded;
  std::memcpy(&loaded, from, sizeof(Loaded));
  return loaded;
}

GRADEX_INLINE void store(void* to, const Vector& value) { std::memcpy(to, &value, sizeof(Vector)); }

GRADEX_INLINE Vector splat(float value) { return value - Vector{}; }

GRADEX_INLINE Vector to_float(const IntVector& value) { return __builtin_convertvector(value, Vector); }

// a b + c, rounded once.
GRADEX_INLINE Vector fused(const Vector& a, const Vector& b, const Vector& c) {
#if defined(__AVX512F__)
  return bit_cast<Vector>(_mm512_fmadd_ps(bit_cast<__m512>(a), bit_cast<__m512>(b), bit_cast<__m512>(c)));
#elif defined(__FMA__)
  return bit_cast<Vector>(_mm256_fmadd_ps(bit_cast<__m256>(a), bit_cast<__m256>(b), bit_cast<__m256>(c)));
#else
  Vector sum;
  for (int64_t lane = 0; lane < kVectorLanes; ++lane) sum[lane] = __builtin_fmaf(a[lane], b[lane], c[lane]);
  return sum;
#endif
}

GRADEX_INLINE Vector square_root(const Vector& value) {
#if defined(__AVX512F__)
  return bit_cast<Vector>(_mm512_sqrt_ps(bit_cast<__m512>(value)));
#elif defined(__AVX2__)
  return bit_cast<Vector>(_mm256_sqrt_ps(bit_cast<__m256>(value)));
#else
  Vector root;
  for (int64_t lane = 0; lane < kVectorLanes; ++lane) root[lane] = __builtin_sqrtf(value[lane]);
  return root;
#endif
}

// Products of the low words; the high words are not read.
GRADEX_INLINE WideVector multiply_words(const WideVector& a, const WideVector& b) {
#if defined(__AVX512F__)
  return bit_cast<WideVector>(_mm512_mul_epu32(bit_cast<__m512i>(a), bit_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return bit_cast<WideVector>(_mm256_mul_epu32(bit_cast<__m256i>(a), bit_cast<__m256i>(b)));
#elif defined(__SSE2__)
  return bit_cast<WideVector>(_mm_mul_epu32(bit_cast<__m128i>(a), bit_cast<__m128i>(b)));
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// a ^ b ^ c
GRADEX_INLINE WideVector xor_three(const WideVector& a, const WideVector& b, const WideVector& c) {
#if defined(__AVX512F__)
  return bit_cast<WideVector>(
      _mm512_ternarylogic_epi64(bit_cast<__m512i>(a), bit_cast<__m512i>(b), bit_cast<__m512i>(c), 0x96));
#else
  return a ^ b ^ c;
#endif
}

// The low words of both: even[0], odd[0], even[1], odd[1] ...
GRADEX_INLINE WordVector interleave(const WideVector& even, const WideVector& odd) {
#if defined(__AVX512F__)
  return bit_cast<WordVector>(
      _mm512_mask_shuffle_epi32(bit_cast<__m512i>(even), 0xAAAA, bit_cast<__m512i>(odd), _MM_PERM_CCAA));
#else
  return bit_cast<WordVector>((even & 0xFFFFFFFFu) | (odd << 32));
#endif
}

// What one step of a product's sum reads of each factor: a number, or a pair of bfloat16. A word holds it.
struct Single {
  using Word = float;
  using Words = Vector;
  static constexpr int64_t kDepth = 1;       // terms in a word
  using Sum = double;                        // of the gradient, across blocks of rows
  static constexpr double kRounding = 2e-7;  // of a row's product, relative
  static constexpr double kGrid = 1e-12;     // square of the rounding of a point, relative
  // (e^r - 1 - r) / r^2: as exact as float32.
  static constexpr float kExpTail[] = {1 / 2.0f, 1 / 6.0f, 1 / 24.0f, 1 / 120.0f, 1 / 720.0f, 1 / 5040.0f};
  static Word pack(const float* terms) { return terms[0]; }
  static float rounded(float value) { return value; }
  static GRADEX_INLINE Words splat_word(Word word) { return splat(word); }
  static GRADEX_INLINE Vector multiply_add(Vector sum, Words a, Words b) { return sum + a * b; }
  static GRADEX_INLINE void store_words(Word* to, const Vector& terms) { store(to, terms); }
};

// The nearest bfloat16 (ties to even) of a finite float.
inline uint32_t bfloat16_bits(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

#ifdef __AVX512BF16__
struct Pair {
  using Word = uint32_t;
  using Words = IntVector;
  static constexpr int64_t kDepth = 2;
  using Sum = float;
  static constexpr double kRounding = 3e-3;
  static constexpr double kGrid = 8e-6;
  static constexpr float kExpTail[] = {1 / 2.0f, 1 / 6.0f, 1 / 24.0f, 1 / 120.0f};  // 1e-5; a bfloat16 has 4e-3
  static Word pack(const float* terms) { return bfloat16_bits(terms[0]) | bfloat16_bits(terms[1]) << 16; }
  static float rounded(float value) { return bit_cast<float>(bfloat16_bits(value) << 16); }
  static GRADEX_INLINE Words splat_word(Word word) { return static_cast<int32_t>(word) - Words{}; }
  static GRADEX_INLINE Vector multiply_add(Vector sum, Words a, Words b) {
    return bit_cast<Vector>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), bit_cast<__m512bh>(a), bit_cast<__m512bh>(b)));
  }
  // Lanes 0 ... 15 become eight words.
  static GRADEX_INLINE void store_words(Word* to, const Vector& terms) {
    const __m256bh rounded = _mm512_cvtneps_pbh(bit_cast<__m512>(terms));
    std::memcpy(to, &rounded, sizeof(rounded));
  }
};
using Element = Pair;
#else
using Element = Single;
#endif

}  // namespace GRADEX_ISA
}  // namespace gradex
