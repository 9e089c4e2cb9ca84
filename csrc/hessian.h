// Sums of weighted outer products of rows: Hessians, as exact as what only steers steps has to be.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "packed_rows.h"
#include "tile_product.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Adds up sum_i c_i g_i g_i^T over rows that are handed to it one by one: products of the instruction set's words,
// double sums across blocks.
class OuterProducts {
 public:
  explicit OuterProducts(int64_t dim)
      : dim_(dim),
        padded_(divide_up(dim + kTileColumns, kVectorLanes) * kVectorLanes),
        pending_(static_cast<size_t>(2 * kDepth * padded_)),
        rows_(static_cast<size_t>(kSteps * padded_)),
        scaled_(static_cast<size_t>(kSteps * padded_)),
        sums_(static_cast<size_t>(dim * dim)) {}

  void add(const float* row, double coefficient) {
    float *plain = pending_.data() + count_ * padded_, *scaled = plain + kDepth * padded_;
    const auto scale = static_cast<float>(coefficient);
    for (int64_t k = 0; k < dim_; ++k) plain[k] = row[k], scaled[k] = scale * row[k];
    if (++count_ == kDepth) pack();
  }

  // [dim, dim]; the lower triangle alone.
  const Array<double>& lower() {
    if (count_ > 0) {
      std::fill_n(pending_.begin() + count_ * padded_, (kDepth - count_) * padded_, 0.0f);
      pack();
    }
    flush();
    return sums_;
  }

 private:
  using Word = Element::Word;
  static constexpr int64_t kDepth = Element::kDepth, kSteps = 128 / kDepth;

  void pack() {
    const float *plain = pending_.data(), *scaled = plain + kDepth * padded_;
    for (int64_t k = 0; k < dim_; ++k) {
      float terms[2 * kDepth];
      for (int64_t i = 0; i < kDepth; ++i)
        terms[i] = plain[i * padded_ + k], terms[kDepth + i] = scaled[i * padded_ + k];
      rows_[steps_ * padded_ + k] = Element::pack(terms);
      scaled_[steps_ * padded_ + k] = Element::pack(terms + kDepth);
    }
    count_ = 0;
    if (++steps_ == kSteps) flush();
  }

  void flush() {
    for (int64_t column = 0; steps_ > 0 && column < dim_; column += kTileColumns) add_columns(column);
    steps_ = 0;
  }

  // The rows `column` ... of the sum, as far as the diagonal.
  void add_columns(int64_t column) {
    const Word* right[kTileColumns];
    for (int64_t c = 0; c < kTileColumns; ++c) right[c] = scaled_.data() + column + c;
    const int64_t wanted = std::min(divide_up(column + kTileColumns, kVectorLanes), padded_ / kVectorLanes);
    for_vector_tiles(wanted, [&](auto vectors, int64_t first) {
      Vector tile[vectors][kTileColumns];
      tile_product<Element, vectors>(tile, rows_.data() + first * kVectorLanes, kVectorLanes, padded_, right, steps_,
                                     padded_);
      for (int64_t c = 0; c < kTileColumns && column + c < dim_; ++c) {
        for (int64_t v = 0; v < vectors; ++v) add_lanes(tile[v][c], column + c, (first + v) * kVectorLanes);
      }
    });
  }

  void add_lanes(const Vector& lanes, int64_t row, int64_t first) {
    if (first > row) return;
    float terms[kVectorLanes];
    store(terms, lanes);
    double* sums = sums_.data() + row * dim_ + first;
    if (first + kVectorLanes <= row + 1) {  // a loop of fixed length is vectorised
      for (int64_t k = 0; k < kVectorLanes; ++k) sums[k] += static_cast<double>(terms[k]);
    } else {
      for (int64_t k = 0; k < row + 1 - first; ++k) sums[k] += static_cast<double>(terms[k]);
    }
  }

  int64_t dim_, padded_, count_ = 0, steps_ = 0;  // padded: a tile of columns may begin at the last
  Array<float> pending_;                          // [2, kDepth, padded], g_i and c_i g_i, before they are words
  Array<Word> rows_, scaled_;                     // [kSteps, padded]
  Array<double> sums_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
