// The one inner loop: a tile of a matrix product, its sums in registers.
#pragma once

#include <cstdint>
#include <type_traits>

#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

// sums[v][c] = sum_k left[v][k] * right[c][k], a vector of lanes at a time.
// left: word (v, k, lane) is at left[v * vector_stride + k * step_stride + lane]; right: word (c, k) at
// right[c][k * right_stride].
template <class Element, int Vectors>
GRADEX_INLINE void tile_product(Vector (&sums)[Vectors][kTileColumns], const typename Element::Word* left,
                                int64_t vector_stride, int64_t step_stride, const typename Element::Word* const* right,
                                int64_t steps, int64_t right_stride = 1) {
  GRADEX_UNROLL(4)
  for (int v = 0; v < Vectors; ++v) GRADEX_UNROLL(6) for (int c = 0; c < kTileColumns; ++c) sums[v][c] = Vector{};
  for (int64_t k = 0; k < steps; ++k) {
    typename Element::Words words[Vectors];
    GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) {
      words[v] = load<typename Element::Words>(left + v * vector_stride + k * step_stride);
    }
    GRADEX_UNROLL(6) for (int c = 0; c < kTileColumns; ++c) {
      const auto word = Element::splat_word(right[c][k * right_stride]);
      GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) sums[v][c] = Element::multiply_add(sums[v][c], words[v], word);
    }
  }
}

template <int N>
using Count = std::integral_constant<int, N>;

// Calls body(Count<V>, first) for tiles of V <= kTileVectors vectors that cover `vectors`.
template <class Body>
GRADEX_INLINE void for_vector_tiles(int64_t vectors, Body&& body) {
  int64_t first = 0;
  for (; first + kTileVectors <= vectors; first += kTileVectors) body(Count<kTileVectors>{}, first);
  switch (vectors - first) {
    case 3: return body(Count < kTileVectors<3 ? kTileVectors : 3>{}, first);
    case 2: return body(Count<2>{}, first);
    case 1: return body(Count<1>{}, first);
    default: return;
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
