// The shared matrix in the two orders that the passes read it in, block by block of a group's rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "parallel.h"
#include "solve.h"
#include "tile_product.h"

namespace gradex {
inline namespace GRADEX_ISA {

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kBlockRows = kTileVectors * kVectorLanes;

// At most kTileVectors vectors of rows of one group.
struct PackedBlock {
  int64_t first, rows;  // in the matrix
  int64_t vectors;      // of rows; the lanes beyond the last row hold zeros
  int64_t packed;       // first row, where every block starts at a vector
  int64_t by_row, by_column;
};

template <class Element>
class PackedRows {
 public:
  using Word = typename Element::Word;

  PackedRows(const SubsetData& data, int threads)
      : dim_(data.dim), steps_(divide_up(data.dim, Element::kDepth)), vectors_(divide_up(data.dim, kVectorLanes)) {
    place_blocks(data);
    by_row_.resize(static_cast<size_t>(packed_rows_ * steps_));
    by_column_.resize(static_cast<size_t>(column_words_));
    parallel_for(static_cast<int64_t>(blocks_.size()), threads, [&](int64_t b) { pack(data, blocks_[b]); });
  }

  int64_t dim() const { return dim_; }
  int64_t padded_dim() const { return vectors_ * kVectorLanes; }
  int64_t steps() const { return steps_; }  // words of a coefficient vector
  int64_t dim_vectors() const { return vectors_; }
  int64_t packed_rows() const { return packed_rows_; }
  const PackedBlock* begin(int64_t group) const { return blocks_.data() + first_block_[group]; }
  const PackedBlock* end(int64_t group) const { return begin(group + 1); }

  // Word (vector v of rows, step k, lane) at [(v * steps + k) * lanes + lane]: the terms k of row v * lanes + lane.
  const Word* by_row(const PackedBlock& block) const { return by_row_.data() + block.by_row; }
  // Word (step r of rows, vector v of columns, lane) at [(r * dim_vectors + v) * lanes + lane].
  const Word* by_column(const PackedBlock& block) const { return by_column_.data() + block.by_column; }

 private:
  void place_blocks(const SubsetData& data) {
    for (int64_t t = 0; t < data.groups; ++t) {
      first_block_.push_back(static_cast<int64_t>(blocks_.size()));
      for (int64_t first = data.group_ptr[t]; first < data.group_ptr[t + 1]; first += kBlockRows) {
        const int64_t rows = std::min(kBlockRows, data.group_ptr[t + 1] - first);
        const int64_t vectors = divide_up(rows, kVectorLanes);
        blocks_.push_back({first, rows, vectors, packed_rows_, packed_rows_ * steps_, column_words_});
        packed_rows_ += vectors * kVectorLanes;
        column_words_ += divide_up(rows, Element::kDepth) * padded_dim();
      }
    }
    first_block_.push_back(static_cast<int64_t>(blocks_.size()));
  }

  void pack(const SubsetData& data, const PackedBlock& block) {
    constexpr int64_t kDepth = Element::kDepth;
    const float* features = data.features + block.first * dim_;
    const auto entry = [&](int64_t row, int64_t column) {
      return row < block.rows && column < dim_ ? features[row * dim_ + column] : 0.0f;
    };
    float terms[kDepth];
    Word* row_words = by_row_.data() + block.by_row;
    for (int64_t row = 0; row < block.vectors * kVectorLanes; ++row) {
      Word* out = row_words + row / kVectorLanes * steps_ * kVectorLanes + row % kVectorLanes;
      for (int64_t k = 0; k < steps_; ++k) {
        for (int64_t i = 0; i < kDepth; ++i) terms[i] = entry(row, k * kDepth + i);
        out[k * kVectorLanes] = Element::pack(terms);
      }
    }
    Word* column_words = by_column_.data() + block.by_column;
    for (int64_t row = 0; row < block.rows; row += kDepth) {
      for (int64_t column = 0; column < padded_dim(); ++column) {
        for (int64_t i = 0; i < kDepth; ++i) terms[i] = entry(row + i, column);
        *column_words++ = Element::pack(terms);
      }
    }
  }

  int64_t dim_, steps_, vectors_;
  int64_t packed_rows_ = 0, column_words_ = 0;
  Array<PackedBlock> blocks_;
  Array<int64_t> first_block_;  // [groups + 1]
  Array<Word> by_row_, by_column_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
