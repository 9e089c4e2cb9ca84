// Every group's Hessian at the expansion point; a subset's is the sum of its groups'.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "expansion.h"
#include "hessian.h"
#include "subset_factors.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Sum over every stride-th row of the group, each for all that it stands for: [dim, dim], lower triangle.
inline Array<double> group_hessian(const SubsetData& data, int64_t group, const double* x, int64_t stride) {
  OuterProducts products(data.dim);
  const RowBlock rows = group_rows(data, group);
  for (int64_t i = 0; i < rows.rows; i += stride) {
    const double slope = sigmoid(-(rows.margins[i] + dot_row(rows.row(i), x, data.dim)));
    const auto times = static_cast<double>(std::min(stride, rows.rows - i));
    products.add(rows.row(i), times * rows.weight(i) * slope * (1.0 - slope));
  }
  return products.lower();
}

template <class Element>
class GroupHessians {
 public:
  using Word = typename Element::Word;

  // Where they cost no more than one pass over the rows, and little memory.
  static bool worthwhile(const SubsetData& data) {
    return data.dim <= 200 && data.groups * data.dim <= data.rows && data.groups <= 1024;
  }

  GroupHessians(const SubsetData& data, const Array<uint8_t>& usable, const double* x, int threads)
      : dim_(divide_up(data.dim, kCholeskyBlock) * kCholeskyBlock),
        groups_(data.groups),
        steps_(divide_up(data.groups, Element::kDepth)),
        total_(static_cast<size_t>(data.dim * data.dim)) {
    const int64_t stride = std::max<int64_t>(1, data.rows / kRows);
    Array<Array<double>> lower(data.groups);
    parallel_for(data.groups, threads, [&](int64_t t) {
      lower[t] = usable[t] ? group_hessian(data, t, x, stride) : Array<double>(data.dim * data.dim);
    });
    for (const Array<double>& group : lower) axpy(total_.data(), 1.0, group.data(), data.dim * data.dim);
    words_.resize(static_cast<size_t>(triangle(dim_) * steps_));
    parallel_for(data.dim, threads, [&](int64_t row) { pack_row(lower, row, data.dim); });
  }

  const Array<double>& total() const { return total_; }

  // The sums over subsets(i) [groups], i < count, or nullptr for nobody's lane.
  template <class Subsets>
  void fill(SubsetFactors* factors, int64_t count, const Subsets& subsets) const {
    const int64_t vectors = divide_up(count, kVectorLanes), entries = triangle(dim_);
    const Array<Word> masks = pack_masks(vectors, count, subsets);
    const Word* right[kTileColumns];
    for (int64_t entry = 0; entry < entries; entry += kTileColumns) {
      for (int64_t c = 0; c < kTileColumns; ++c) right[c] = words_.data() + std::min(entry + c, entries - 1) * steps_;
      for_vector_tiles(vectors, [&](auto tile, int64_t first) {
        Vector sums[tile][kTileColumns];
        const int64_t stride = steps_ * kVectorLanes;
        tile_product<Element, tile>(sums, masks.data() + first * stride, stride, kVectorLanes, right, steps_);
        for (int64_t c = 0; c < kTileColumns && entry + c < entries; ++c)
          for (int v = 0; v < tile; ++v) factors->hessians(first + v)[entry + c] = sums[v][c];
      });
    }
  }

 private:
  static constexpr int64_t kRows = 65'536;  // enough for a matrix that only steers the steps

  // [vectors][steps][lanes] of zeros and ones
  template <class Subsets>
  Array<Word> pack_masks(int64_t vectors, int64_t count, const Subsets& subsets) const {
    Array<Word> masks(static_cast<size_t>(vectors * steps_ * kVectorLanes));
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* subset = subsets(i);
      Word* words = masks.data() + i / kVectorLanes * steps_ * kVectorLanes + i % kVectorLanes;
      for (int64_t step = 0; subset && step < steps_; ++step) {
        float terms[Element::kDepth];
        for (int64_t k = 0; k < Element::kDepth; ++k) {
          const int64_t t = step * Element::kDepth + k;
          terms[k] = t < groups_ && subset[t] ? 1.0f : 0.0f;
        }
        words[step * kVectorLanes] = Element::pack(terms);
      }
    }
    return masks;
  }

  // Entries (row, 0) ... (row, row) of every group, group after group in the words of an entry.
  void pack_row(const Array<Array<double>>& lower, int64_t row, int64_t dim) {
    const int64_t groups = steps_ * Element::kDepth;
    Array<float> sums(static_cast<size_t>((row + 1) * groups));
    for (size_t t = 0; t < lower.size(); ++t)
      for (int64_t j = 0; j <= row; ++j) sums[j * groups + t] = static_cast<float>(lower[t][row * dim + j]);
    Word* words = words_.data() + triangle(row) * steps_;
    for (int64_t i = 0; i < (row + 1) * steps_; ++i) words[i] = Element::pack(sums.data() + i * Element::kDepth);
  }

  int64_t dim_, groups_, steps_;  // dim: a multiple of kCholeskyBlock; steps: words of a mask
  Array<double> total_;           // [dim, dim], lower triangle, over all groups
  Array<Word> words_;             // [entries of the triangle][steps]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
