// What a GPU's thread does for the adjoint of the sketch: a row of P, made once for several vectors.
#pragma once
#include <cstdint>

#include "distribution.h"
#include "lift.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int kVectors = 8;

// out[m, index] for vectors first ... first + kVectors - 1
GRADEX_INLINE void lift_element(const LiftArguments& a, int64_t index, int64_t first) {
  float sums[kVectors] = {};
  const int64_t vectors = a.vectors - first;
  for (int64_t k = 0; k < a.dim; k += 4) {
    const Normals p =
        entries(a.distribution, a.offset + static_cast<uint64_t>(index), static_cast<uint32_t>(k / 4), a.key);
    GRADEX_UNROLL(8) for (int m = 0; m < kVectors; ++m) {
      GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
        if (m < vectors && k + i < a.dim) sums[m] = fused(a.weights[(first + m) * a.dim + k + i], p.z[i], sums[m]);
      }
    }
  }
  GRADEX_UNROLL(8)
  for (int m = 0; m < kVectors; ++m)
    if (m < vectors) a.out[(first + m) * a.size + index] = a.scale * sums[m];
}

}  // namespace GRADEX_ISA
}  // namespace gradex
