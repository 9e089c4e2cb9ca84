// Philox4x32-10, the counter-based generator of Salmon et al. (SC 2011): four random words from (counter, key).
#pragma once
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Words {
  uint32_t x, y, z, w;
};

constexpr uint32_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
constexpr uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;  // what a round adds to the key

GRADEX_INLINE Words philox_round(Words c, uint32_t key0, uint32_t key1) {
  const uint64_t from_x = static_cast<uint64_t>(kMultiplier0) * c.x, from_z = static_cast<uint64_t>(kMultiplier1) * c.z;
  return {static_cast<uint32_t>(from_z >> 32) ^ c.y ^ key0, static_cast<uint32_t>(from_z),
          static_cast<uint32_t>(from_x >> 32) ^ c.w ^ key1, static_cast<uint32_t>(from_x)};
}

GRADEX_INLINE Words philox(Words counter, uint64_t key) {
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  GRADEX_UNROLL(10)
  for (int round = 0; round < 10; ++round) {
    counter = philox_round(counter, key0, key1);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// The key of every round, for those who ask for it again and again.
struct RoundKeys {
  uint32_t low[10], high[10];

  explicit RoundKeys(uint64_t key) {
    for (uint32_t round = 0; round < 10; ++round) {
      low[round] = static_cast<uint32_t>(key) + round * kWeyl0;
      high[round] = static_cast<uint32_t>(key >> 32) + round * kWeyl1;
    }
  }
};

GRADEX_INLINE Words philox(Words counter, const RoundKeys& keys) {
  GRADEX_UNROLL(10)
  for (int round = 0; round < 10; ++round) counter = philox_round(counter, keys.low[round], keys.high[round]);
  return counter;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
