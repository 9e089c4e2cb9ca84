// The words of P for two vectors of elements at once: 32 with AVX-512.
#pragma once

#include <cstdint>

#include "gaussian.h"
#include "two.h"
#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

GRADEX_INLINE WideVector every_wide(uint64_t value) { return value - WideVector{}; }

// What Philox's first two rounds make of (j low, j high, column, tag): round 1 mixes j low with the tag and the column
// with j high, so of round 2 one product depends on the element alone and the other on the column alone.
struct ElementRounds {
  uint64_t product;  // of the element: multiplier 1 times z after round 1
  uint64_t word;     // w after round 1

  ElementRounds() = default;
  ElementRounds(uint32_t j_low, uint32_t tag, const RoundKeys& keys) {
    const uint64_t first = static_cast<uint64_t>(kMultiplier0) * j_low;
    const uint32_t z = static_cast<uint32_t>(first >> 32) ^ tag ^ keys.high[0];
    product = static_cast<uint64_t>(kMultiplier1) * z;
    word = static_cast<uint32_t>(first);
  }
};

struct ColumnRounds {
  uint32_t x, z, w;  // what round 2 mixes into x and z; w after it

  ColumnRounds(uint32_t column, uint32_t j_high, const RoundKeys& keys) {
    const uint64_t first = static_cast<uint64_t>(kMultiplier1) * column;
    const uint32_t x1 = static_cast<uint32_t>(first >> 32) ^ j_high ^ keys.low[0];
    const uint64_t second = static_cast<uint64_t>(kMultiplier0) * x1;
    x = static_cast<uint32_t>(first) ^ keys.low[1];
    z = static_cast<uint32_t>(second >> 32) ^ keys.high[1];
    w = static_cast<uint32_t>(second);
  }
};

struct WideWords {
  WideVector x, y, z, w;  // in the low words; the high ones hold anything
};

// The other eight rounds of several half vectors. They take turns: a round's products wait for the round before.
template <int Count>
GRADEX_INLINE void finish_rounds(WideWords (&c)[Count], const RoundKeys& keys) {
  const WideVector multiplier0 = every_wide(kMultiplier0), multiplier1 = every_wide(kMultiplier1);
  GRADEX_UNROLL(8) for (int round = 2; round < 10; ++round) {
    WideVector from_x[Count], from_z[Count];
    GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) from_x[i] = multiply_words(multiplier0, c[i].x);
    GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) from_z[i] = multiply_words(multiplier1, c[i].z);
    GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) {
      c[i] = {xor_three(from_z[i] >> 32, c[i].y, every_wide(keys.low[round])), from_z[i],
              xor_three(from_x[i] >> 32, c[i].w, every_wide(keys.high[round])), from_x[i]};
    }
  }
}

// product, word: of a vector's even elements, then of its odd ones; then the same of the next vector.
GRADEX_INLINE void philox_vectors(Two<WordVector> (&words)[4], const uint64_t* product, const uint64_t* word,
                                  const ColumnRounds& column, const RoundKeys& keys) {
  WideWords c[4];
  GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
    const auto p = load<WideVector>(product + i * kDoubleLanes), w = load<WideVector>(word + i * kDoubleLanes);
    c[i] = {(p >> 32) ^ every_wide(column.x), p, w ^ every_wide(column.z), every_wide(column.w)};
  }
  finish_rounds(c, keys);
  words[0] = {interleave(c[0].x, c[1].x), interleave(c[2].x, c[3].x)};
  words[1] = {interleave(c[0].y, c[1].y), interleave(c[2].y, c[3].y)};
  words[2] = {interleave(c[0].z, c[1].z), interleave(c[2].z, c[3].z)};
  words[3] = {interleave(c[0].w, c[1].w), interleave(c[2].w, c[3].w)};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
