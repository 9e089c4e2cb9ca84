// Sums of weighted outer products of rows: Hessians.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "packed_rows.h"
#include "tile_product.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Adds up sum_i c_i g_i g_i^T over rows that are handed to it one by one; float32 products, double sums across blocks.
class OuterProducts {
 public:
  explicit OuterProducts(int64_t dim)
      : dim_(dim),
        padded_(divide_up(dim + kTileColumns, kVectorLanes) * kVectorLanes),
        rows_(static_cast<size_t>(kRows * padded_)),
        scaled_(static_cast<size_t>(kRows * padded_)),
        sums_(static_cast<size_t>(dim * dim)) {}

  void add(const float* row, double coefficient) {
    float *plain = rows_.data() + count_ * padded_, *scaled = scaled_.data() + count_ * padded_;
    const auto scale = static_cast<float>(coefficient);
    for (int64_t k = 0; k < dim_; ++k) plain[k] = row[k], scaled[k] = scale * row[k];
    if (++count_ == kRows) flush();
  }

  // [dim, dim]; the lower triangle alone.
  const Array<double>& lower() {
    flush();
    return sums_;
  }

 private:
  static constexpr int64_t kRows = 64;

  void flush() {
    for (int64_t column = 0; count_ > 0 && column < dim_; column += kTileColumns) add_columns(column);
    count_ = 0;
  }

  // The rows `column` ... of the sum, as far as the diagonal.
  void add_columns(int64_t column) {
    const float* right[kTileColumns];
    for (int64_t c = 0; c < kTileColumns; ++c) right[c] = scaled_.data() + column + c;
    const int64_t wanted = std::min(divide_up(column + kTileColumns, kVectorLanes), padded_ / kVectorLanes);
    for_vector_tiles(wanted, [&](auto vectors, int64_t first) {
      Vector tile[vectors][kTileColumns];
      tile_product<Single, vectors>(tile, rows_.data() + first * kVectorLanes, kVectorLanes, padded_, right, count_,
                                    padded_);
      for (int64_t c = 0; c < kTileColumns && column + c < dim_; ++c) {
        for (int64_t v = 0; v < vectors; ++v) add_lanes(tile[v][c], column + c, (first + v) * kVectorLanes);
      }
    });
  }

  void add_lanes(const Vector& lanes, int64_t row, int64_t first) {
    const int64_t end = std::min(first + kVectorLanes, row + 1);
    for (int64_t k = first; k < end; ++k) sums_[row * dim_ + k] += static_cast<double>(lanes[k - first]);
  }

  int64_t dim_, padded_, count_ = 0;  // padded: a tile of columns may begin at the last
  Array<float> rows_, scaled_;        // [kRows, padded], g_i and c_i g_i
  Array<double> sums_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
