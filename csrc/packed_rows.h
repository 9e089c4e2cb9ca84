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

// A block's words in both orders.
// by_row: word (vector v of rows, step k, lane) at [(v * steps + k) * lanes + lane]: the terms k of row v * lanes +
// lane. by_column: word (step r of rows, vector v of columns, lane) at [(r * dim_vectors + v) * lanes + lane].
template <class Element>
struct BlockWords {
  const typename Element::Word *by_row, *by_column;
};

// Keeps the words of all blocks, or none where they take more than data.most_packed bytes: then the matrix stays the
// only copy, and whoever reads a block packs it first, in memory of its own.
template <class Element>
class PackedRows {
 public:
  using Word = typename Element::Word;

  // Reads data.features as long as it lives.
  PackedRows(const SubsetData& data, int threads)
      : features_(data.features),
        dim_(data.dim),
        steps_(divide_up(data.dim, Element::kDepth)),
        vectors_(divide_up(data.dim, kVectorLanes)) {
    place_blocks(data);
    const int64_t words = packed_rows_ * steps_ + column_words_;
    if (words * static_cast<int64_t>(sizeof(Word)) > data.most_packed) return;
    by_row_.resize(static_cast<size_t>(packed_rows_ * steps_));
    by_column_.resize(static_cast<size_t>(column_words_));
    parallel_for(static_cast<int64_t>(blocks_.size()), threads, [&](int64_t b) {
      pack(blocks_[b], by_row_.data() + blocks_[b].by_row, by_column_.data() + blocks_[b].by_column);
    });
  }

  int64_t dim() const { return dim_; }
  int64_t padded_dim() const { return vectors_ * kVectorLanes; }
  int64_t steps() const { return steps_; }  // words of a coefficient vector
  int64_t dim_vectors() const { return vectors_; }
  int64_t packed_rows() const { return packed_rows_; }
  const PackedBlock* begin(int64_t group) const { return blocks_.data() + first_block_[group]; }
  const PackedBlock* end(int64_t group) const { return begin(group + 1); }

  // Valid until `scratch`, which is the reader's own, is used again.
  BlockWords<Element> words(const PackedBlock& block, Array<Word>* scratch) const {
    if (!by_row_.empty()) return {by_row_.data() + block.by_row, by_column_.data() + block.by_column};
    const int64_t row_words = block.vectors * kVectorLanes * steps_;
    scratch->resize(static_cast<size_t>(kBlockRows * (steps_ + divide_up(padded_dim(), Element::kDepth))));
    pack(block, scratch->data(), scratch->data() + row_words);
    return {scratch->data(), scratch->data() + row_words};
  }

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

  void pack(const PackedBlock& block, Word* row_words, Word* column_words) const {
    constexpr int64_t kDepth = Element::kDepth;
    const float* features = features_ + block.first * dim_;
    const auto entry = [&](int64_t row, int64_t column) {
      return row < block.rows && column < dim_ ? features[row * dim_ + column] : 0.0f;
    };
    float terms[kDepth];
    for (int64_t row = 0; row < block.vectors * kVectorLanes; ++row) {
      Word* out = row_words + row / kVectorLanes * steps_ * kVectorLanes + row % kVectorLanes;
      for (int64_t k = 0; k < steps_; ++k) {
        for (int64_t i = 0; i < kDepth; ++i) terms[i] = entry(row, k * kDepth + i);
        out[k * kVectorLanes] = Element::pack(terms);
      }
    }
    for (int64_t row = 0; row < block.rows; row += kDepth) {
      for (int64_t column = 0; column < padded_dim(); ++column) {
        for (int64_t i = 0; i < kDepth; ++i) terms[i] = entry(row + i, column);
        *column_words++ = Element::pack(terms);
      }
    }
  }

  const float* features_;  // [rows, dim]
  int64_t dim_, steps_, vectors_;
  int64_t packed_rows_ = 0, column_words_ = 0;
  Array<PackedBlock> blocks_;
  Array<int64_t> first_block_;      // [groups + 1]
  Array<Word> by_row_, by_column_;  // of all blocks, or empty
};

}  // namespace GRADEX_ISA
}  // namespace gradex
