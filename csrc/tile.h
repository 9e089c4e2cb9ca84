// A tile of P on the CPU: entries P[j, k] for some elements j (the lanes) and a few columns k.
#pragma once
#include <cstdint>

#include "gaussian.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int64_t kLanes = 16;

inline int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// tile[(k - 4 quad) * stride + lane] = P[j[lane], k] for the columns 4 quad ... 4 (quad + quads) - 1.
// lanes: a multiple of kLanes.
inline void gaussian_tile(float* __restrict tile, int64_t stride, const uint64_t* __restrict j, int64_t lanes,
                          uint32_t quad, int64_t quads, uint64_t key) {
  for (int64_t q = 0; q < quads; ++q) {
    float* __restrict out = tile + 4 * q * stride;
    const uint32_t counter = quad + static_cast<uint32_t>(q);
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const Normals normals =
          gaussian(static_cast<uint32_t>(j[lane]), static_cast<uint32_t>(j[lane] >> 32), counter, key);
      out[lane] = normals.z[0];
      out[lane + stride] = normals.z[1];
      out[lane + 2 * stride] = normals.z[2];
      out[lane + 3 * stride] = normals.z[3];
    }
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
