// The distributions of P's entries, and the one function that has them all.
#pragma once
#include <cstdint>

#include "gaussian.h"
#include "philox.h"

namespace gradex {

enum class Distribution : int32_t { kGaussian = 0, kRademacher = 1 };

// Philox's fourth counter word: no two distributions share a word.
constexpr uint32_t kGaussianTag = 0u, kRademacherTag = 1u;  // gaussian.h has the first, too

inline namespace GRADEX_ISA {

// The signs of P[j, 128 block ... 128 block + 127]: column k has bit k mod 32 of word (k mod 128) / 32; 1 is negative.
template <class Key>
GRADEX_INLINE Words rademacher_words(uint64_t j, uint32_t block, const Key& key) {
  return philox({static_cast<uint32_t>(j), static_cast<uint32_t>(j >> 32), block, kRademacherTag}, key);
}

template <class Key>
GRADEX_INLINE Normals rademacher(uint64_t j, uint32_t quad, const Key& key) {
  const Words words = rademacher_words(j, quad / 32u, key);
  const uint32_t index = quad % 32u / 8u, shift = quad % 8u * 4u;
  const uint32_t bits = (index == 0u ? words.x : index == 1u ? words.y : index == 2u ? words.z : words.w) >> shift;
  Normals signs;
  for (uint32_t i = 0; i < 4u; ++i) signs.z[i] = (bits >> i) & 1u ? -1.0f : 1.0f;
  return signs;
}

// P[j, 4 quad ... 4 quad + 3]
GRADEX_INLINE Normals entries(Distribution distribution, uint64_t j, uint32_t quad, uint64_t key) {
  if (distribution == Distribution::kRademacher) return rademacher(j, quad, key);
  return gaussian(j, quad, key);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
