// One block of rows for a few subsets: from shifts of x to changes of the gradient.
#pragma once

#include <cstdint>
#include <limits>

#include "expansion.h"
#include "packed_rows.h"
#include "tile_product.h"
#include "vector_functions.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What a pass reads and adds to for one subset; x = expansion point + shift.
template <class Element>
struct PassColumn {
  const typename Element::Word* shift;  // [steps]
  typename Element::Sum* gradient;      // [padded dim], += sum_i w_i (sigmoid(-z_i) - p_i) g_i
};

// With D = -g . shift, y = p (e^D - 1), q = 1 - p, and p = sigmoid(-z) at the expansion point,
//   sigmoid(-z + D) - p = q y / (1 + y):
// a small difference without cancellation. Valid for |D| < kLargestChange in float32; NaN beyond.
constexpr float kLargestChange = 8.0f;

template <class Element, int Vectors>
GRADEX_INLINE void change_slopes(typename Element::Word (&residuals)[kTileColumns][kTileVectors * kVectorLanes],
                                 const Vector (&changes)[Vectors][kTileColumns], const float* p, const float* wq) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  for (int v = 0; v < Vectors; ++v) {
    const Vector p_v = load(p + v * kVectorLanes), wq_v = load(wq + v * kVectorLanes);
    for (int c = 0; c < kTileColumns; ++c) {
      const Vector change = -changes[v][c], size = change < 0.0f ? -change : change;
      const Vector y = p_v * exp_minus_one<Element>(size < kLargestChange ? change : splat(kNaN));
      Element::store_words(residuals[c] + v * kVectorLanes / Element::kDepth, wq_v * y / (1.0f + y));
    }
  }
}

template <class Sum>
GRADEX_INLINE void add_to(Sum* sums, const Vector& lanes) {
  for (int64_t lane = 0; lane < kVectorLanes; ++lane) sums[lane] += lanes[lane];
}
template <>
GRADEX_INLINE void add_to(float* sums, const Vector& lanes) {
  store(sums, load(sums) + lanes);
}

template <class Element, int Vectors>
__attribute__((noinline)) void pass_block(const PackedRows<Element>& rows, const PackedBlock& block,
                                          const BlockWords<Element>& words, const Expansion& at,
                                          const PassColumn<Element>* columns) {
  using Word = typename Element::Word;
  alignas(64) Word residuals[kTileColumns][kTileVectors * kVectorLanes];
  const Word* right[kTileColumns];
  for (int c = 0; c < kTileColumns; ++c) right[c] = columns[c].shift;
  Vector changes[Vectors][kTileColumns];
  const int64_t steps = rows.steps(), dim_vectors = rows.dim_vectors();
  tile_product<Element, Vectors>(changes, words.by_row, steps * kVectorLanes, kVectorLanes, right, steps);
  change_slopes<Element, Vectors>(residuals, changes, at.p.data() + block.packed, at.wq.data() + block.packed);

  for (int c = 0; c < kTileColumns; ++c) right[c] = residuals[c];
  for_vector_tiles(dim_vectors, [&](auto vectors, int64_t first) {
    Vector sums[vectors][kTileColumns];
    const Word* left = words.by_column + first * kVectorLanes;
    tile_product<Element, vectors>(sums, left, kVectorLanes, dim_vectors * kVectorLanes, right,
                                   divide_up(block.rows, Element::kDepth));
    for (int c = 0; c < kTileColumns; ++c)
      for (int v = 0; v < vectors; ++v) add_to(columns[c].gradient + (first + v) * kVectorLanes, sums[v][c]);
  });
}

// Every row of a group for `count` subsets that hold it, a multiple of kTileColumns: a block stays in the cache for
// all. scratch: for PackedRows::words.
template <class Element>
void pass_group(const PackedRows<Element>& rows, int64_t group, const Expansion& at, const PassColumn<Element>* columns,
                int64_t count, Array<typename Element::Word>* scratch) {
  for (const PackedBlock* block = rows.begin(group); count > 0 && block < rows.end(group); ++block) {
    const BlockWords<Element> words = rows.words(*block, scratch);
    for_vector_tiles(block->vectors, [&](auto vectors, int64_t) {
      for (int64_t c = 0; c < count; c += kTileColumns)
        pass_block<Element, vectors>(rows, *block, words, at, columns + c);
    });
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
