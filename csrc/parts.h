// Numbers as sums of bfloat16 parts, two numbers in a word, as the matrix unit reads them. Two parts keep 16 bits.
#pragma once
#include <cstdint>

#include "bits.h"
#include "dtype.h"
#include "gaussian.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Two floats that are bfloat16 already, or are to be rounded to it: ties to even.
GRADEX_INLINE uint32_t packed(float low, float high) {
#ifdef __CUDA_ARCH__
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
#else
  const auto rounded = [](float x) {
    return x == x ? bit_cast<uint32_t>(round_to_bfloat16<uint32_t>(x)) : 0x7FFF0000u;
  };
  return rounded(low) >> 16 | (rounded(high) & 0xFFFF0000u);
#endif
}

template <class Number>
constexpr int kParts = 2;
template <>
constexpr int kParts<BFloat16> = 1;

template <int Parts>
struct Packed {
  uint32_t part[Parts];
};

// A number that is not finite has parts that are none.
GRADEX_INLINE Packed<2> in_parts(float low, float high) {
  const uint32_t word = packed(low, high);
  return {{word, packed(low - bit_cast<float>(word << 16), high - bit_cast<float>(word & 0xFFFF0000u))}};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
