// The words of P for a vector of elements at once: sixteen lanes with AVX-512.
#pragma once

#include <cstdint>

#include "gaussian.h"
#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

GRADEX_INLINE WideVector every_wide(uint64_t value) { return value - WideVector{}; }

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;

// Philox's key of every round.
struct RoundKeys {
  uint32_t low[10], high[10];

  explicit RoundKeys(uint64_t key) {
    for (uint32_t round = 0; round < 10; ++round) {
      low[round] = static_cast<uint32_t>(key) + round * 0x9E3779B9u;
      high[round] = static_cast<uint32_t>(key >> 32) + round * 0xBB67AE85u;
    }
  }
};

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

// The other eight rounds for half a vector of elements.
GRADEX_INLINE WideWords finish_rounds(const WideVector& product, const WideVector& word, const ColumnRounds& column,
                                      const RoundKeys& keys) {
  WideWords c{(product >> 32) ^ every_wide(column.x), product, word ^ every_wide(column.z), every_wide(column.w)};
  const WideVector multiplier0 = every_wide(kMultiplier0), multiplier1 = every_wide(kMultiplier1);
  GRADEX_UNROLL(8)
  for (int round = 2; round < 10; ++round) {
    const WideVector from_x = multiply_words(multiplier0, c.x), from_z = multiply_words(multiplier1, c.z);
    c = {xor_three(from_z >> 32, c.y, every_wide(keys.low[round])), from_z,
         xor_three(from_x >> 32, c.w, every_wide(keys.high[round])), from_x};
  }
  return c;
}

struct WordVectors {
  WordVector x, y, z, w;
};

// product, word [2, half a vector]: of the even elements, then of the odd ones.
GRADEX_INLINE WordVectors philox_vectors(const uint64_t* product, const uint64_t* word, const ColumnRounds& column,
                                         const RoundKeys& keys) {
  const WideWords even = finish_rounds(load<WideVector>(product), load<WideVector>(word), column, keys);
  const WideWords odd =
      finish_rounds(load<WideVector>(product + kDoubleLanes), load<WideVector>(word + kDoubleLanes), column, keys);
  return {interleave(even.x, odd.x), interleave(even.y, odd.y), interleave(even.z, odd.z), interleave(even.w, odd.w)};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
