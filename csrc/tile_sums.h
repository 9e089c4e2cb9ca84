// Products of samples' gradients with four columns of P, summed over a tile's lanes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "tile.h"
#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

// As many samples as fill a vector with their four sums.
constexpr int64_t kTileSamples = kVectorLanes / kTileQuad;

// In every block of 2 half lanes: the first half plus the second of a, then of b.
#ifdef __clang__
template <int64_t Half, int64_t... kLane>
GRADEX_INLINE Vector fold(const Vector& a, const Vector& b, std::integer_sequence<int64_t, kLane...>) {
  constexpr auto first = [](int64_t lane) {
    const int64_t block = lane / (2 * Half) * 2 * Half, within = lane % (2 * Half);
    return within < Half ? block + within : kVectorLanes + block + within - Half;
  };
  return __builtin_shufflevector(a, b, first(kLane)...) + __builtin_shufflevector(a, b, first(kLane) + Half...);
}
template <int64_t Half>
GRADEX_INLINE Vector fold(const Vector& a, const Vector& b) {
  return fold<Half>(a, b, std::make_integer_sequence<int64_t, kVectorLanes>());
}
#else  // GCC has Clang's builtin from version 12
template <int64_t Half>
GRADEX_INLINE Vector fold(const Vector& a, const Vector& b) {
  IntVector first{}, second{};
  for (int64_t lane = 0; lane < kVectorLanes; ++lane) {
    const int64_t block = lane / (2 * Half) * 2 * Half, within = lane % (2 * Half);
    first[lane] = static_cast<int32_t>(within < Half ? block + within : kVectorLanes + block + within - Half);
    second[lane] = first[lane] + static_cast<int32_t>(Half);
  }
  return __builtin_shuffle(a, b, first) + __builtin_shuffle(a, b, second);
}
#endif

// Lane l of what is left in sums[0] is the sum of the lanes of sums[l].
template <int64_t Half = kVectorLanes / 2>
GRADEX_INLINE void fold_all(Vector (&sums)[kVectorLanes]) {
  GRADEX_UNROLL(8) for (int64_t i = 0; i < Half; ++i) sums[i] = fold<Half>(sums[i], sums[i + Half]);
  if constexpr (Half > 1) fold_all<Half / 2>(sums);
}

// out[s * stride + i] += sum_lane gradients[s, lane] columns[i, lane] for s < samples <= kTileSamples, i < count <= 4.
// gradients [kTileSamples rows, gradient_stride]
GRADEX_INLINE void add_products_of_few(float* out, int64_t stride, int64_t samples, int64_t count,
                                       const float* gradients, int64_t gradient_stride, const float* columns,
                                       int64_t lanes) {
  Vector sums[kVectorLanes] = {};
  for (int64_t lane = 0; lane < lanes; lane += kVectorLanes) {
    Vector p[kTileQuad];
    GRADEX_UNROLL(4) for (int64_t i = 0; i < kTileQuad; ++i) p[i] = load(columns + i * kTileLanes + lane);
    GRADEX_UNROLL(4) for (int64_t s = 0; s < kTileSamples; ++s) {
      const Vector g = load(gradients + s * gradient_stride + lane);
      GRADEX_UNROLL(4) for (int64_t i = 0; i < kTileQuad; ++i) sums[s * kTileQuad + i] += g * p[i];
    }
  }
  fold_all(sums);
  float totals[kVectorLanes];
  store(totals, sums[0]);
  for (int64_t s = 0; s < samples; ++s)
    for (int64_t i = 0; i < count; ++i) out[s * stride + i] += totals[s * kTileQuad + i];
}

// The same for any number of samples; gradients has rows for whole kTileSamples.
inline void add_products(float* out, int64_t stride, int64_t samples, int64_t count, const float* gradients,
                         int64_t gradient_stride, const float* columns, int64_t lanes) {
  for (int64_t s = 0; s < samples; s += kTileSamples)
    add_products_of_few(out + s * stride, stride, std::min(kTileSamples, samples - s), count,
                        gradients + s * gradient_stride, gradient_stride, columns, lanes);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
