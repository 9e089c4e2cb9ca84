// What a GPU's thread does for the adjoint of the sketch: a row of P, made once for several vectors.
#pragma once
#include <cstdint>

#include "distribution.h"
#include "lift.h"
#include "parts.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int kVectors = 8;

// P[j, 4 quad ... 4 quad + 3]
GRADEX_INLINE Normals lane_entries(Distribution distribution, uint64_t j, uint32_t quad, const RoundKeys& keys) {
  if (distribution == Distribution::kRademacher) return rademacher(j, quad, keys);
  const Normals z = exact_gaussian(j, quad, keys);
  const uint32_t low = packed(z.z[0], z.z[1]), high = packed(z.z[2], z.z[3]);
  return {{bit_cast<float>(low << 16), bit_cast<float>(low & 0xFFFF0000u), bit_cast<float>(high << 16),
           bit_cast<float>(high & 0xFFFF0000u)}};
}

// out[m, index] for the Count vectors from `first` on.
template <int Count>
GRADEX_INLINE void lift_element(const LiftArguments& a, const RoundKeys& keys, int64_t index, int64_t first) {
  float sums[Count] = {};
  const float* weights = a.weights + first * a.dim;
  for (int64_t k = 0; k < a.dim; k += 4) {
    const uint64_t j = a.offset + static_cast<uint64_t>(index);
    const Normals p = lane_entries(a.distribution, j, static_cast<uint32_t>(k / 4), keys);
    const int64_t left = a.dim - k;
    GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
      if (i >= left) break;
      GRADEX_UNROLL(8) for (int m = 0; m < Count; ++m) sums[m] = fused(weights[m * a.dim + k + i], p.z[i], sums[m]);
    }
  }
  GRADEX_UNROLL(8) for (int m = 0; m < Count; ++m) a.out[(first + m) * a.size + index] = a.scale * sums[m];
}

GRADEX_INLINE void lift_elements(const LiftArguments& a, const RoundKeys& keys, int64_t index) {
  int64_t first = 0;
  for (; first + kVectors <= a.vectors; first += kVectors) lift_element<kVectors>(a, keys, index, first);
  for (; first < a.vectors; ++first) lift_element<1>(a, keys, index, first);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
