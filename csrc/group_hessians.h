// Every group's Hessian at the expansion point; a subset's is the sum of its groups'.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "expansion.h"
#include "hessian.h"
#include "lane_cholesky.h"

namespace gradex {
inline namespace GRADEX_ISA {

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
        steps_(divide_up(data.groups, Element::kDepth)),
        total_(static_cast<size_t>(data.dim * data.dim)) {
    const int64_t stride = std::max<int64_t>(1, data.rows / kRows);
    Array<Array<double>> lower(data.groups);
    parallel_for(data.groups, threads, [&](int64_t t) { lower[t] = hessian(data, x, usable[t] ? t : -1, stride); });
    for (const Array<double>& group : lower) axpy(total_.data(), 1.0, group.data(), data.dim * data.dim);
    words_.resize(static_cast<size_t>(triangle(dim_) * steps_));
    parallel_for(data.dim, threads, [&](int64_t row) { pack_row(lower, row, data.dim); });
  }

  int64_t dim() const { return dim_; }      // a multiple of kCholeskyBlock
  int64_t steps() const { return steps_; }  // words of a mask
  const Array<double>& total() const { return total_; }

  // hessians[v][entry] = sum over the groups of masks [vectors][steps][lanes] of their Hessians: `vectors` of subsets,
  // one in every lane.
  void add_up(Vector* const* hessians, const Array<Word>& masks, int64_t vectors) const {
    const Word* right[kTileColumns];
    for (int64_t entry = 0; entry < triangle(dim_); entry += kTileColumns) {
      for (int64_t c = 0; c < kTileColumns; ++c)
        right[c] = words_.data() + std::min(entry + c, triangle(dim_) - 1) * steps_;
      for_vector_tiles(vectors, [&](auto tile, int64_t first) {
        Vector sums[tile][kTileColumns];
        const int64_t stride = steps_ * kVectorLanes;
        tile_product<Element, tile>(sums, masks.data() + first * stride, stride, kVectorLanes, right, steps_);
        for (int64_t c = 0; c < kTileColumns && entry + c < triangle(dim_); ++c)
          for (int v = 0; v < tile; ++v) hessians[first + v][entry + c] = sums[v][c];
      });
    }
  }

 private:
  static constexpr int64_t kRows = 65'536;  // enough for a matrix that only steers the steps

  static Array<double> hessian(const SubsetData& data, const double* x, int64_t group, int64_t stride) {
    OuterProducts products(data.dim);
    const RowBlock rows = group_rows(data, std::max<int64_t>(group, 0));
    for (int64_t i = 0; group >= 0 && i < rows.rows; i += stride) {
      const double slope = sigmoid(-(rows.margins[i] + dot_row(rows.row(i), x, data.dim)));
      const auto times = static_cast<double>(std::min(stride, rows.rows - i));
      products.add(rows.row(i), times * rows.weight(i) * slope * (1.0 - slope));
    }
    return products.lower();
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

  int64_t dim_, steps_;
  Array<double> total_;  // [dim, dim], lower triangle, over all groups
  Array<Word> words_;    // [entries of the triangle][steps]
};

// The Hessians of a chunk's subsets, as Cholesky factors.
template <class Element>
class SubsetFactors {
 public:
  SubsetFactors(const GroupHessians<Element>& groups, int64_t count)
      : groups_(groups), entries_(triangle(groups.dim())), vectors_(divide_up(count, kVectorLanes)) {
    factors_.resize(static_cast<size_t>(vectors_ * entries_));
    inverses_.resize(static_cast<size_t>(vectors_ * groups.dim()));
    solution_.resize(static_cast<size_t>(groups.dim()));
  }

  // subset(i) -> its groups [groups] or nullptr; weight(i) -> the sum of its weights.
  template <class Subset, class Weight>
  void factorise(int64_t count, int64_t group_count, double l2, const Subset& subset, const Weight& weight) {
    constexpr int64_t kDepth = Element::kDepth;
    Array<typename Element::Word> masks(static_cast<size_t>(vectors_ * groups_.steps() * kVectorLanes));
    Array<Vector> scales(static_cast<size_t>(vectors_));
    Array<Vector*> hessians;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t v = i / kVectorLanes, lane = i % kVectorLanes;
      if (!subset(i)) continue;
      scales[v][lane] = static_cast<float>(1.0 / weight(i));
      for (int64_t step = 0; step < groups_.steps(); ++step) {
        float terms[kDepth];
        for (int64_t k = 0; k < kDepth; ++k) {
          const int64_t t = step * kDepth + k;
          terms[k] = t < group_count && subset(i)[t] ? 1.0f : 0.0f;
        }
        masks[(v * groups_.steps() + step) * kVectorLanes + lane] = Element::pack(terms);
      }
    }
    for (int64_t v = 0; v < vectors_; ++v) hessians.push_back(factors_.data() + v * entries_);
    groups_.add_up(hessians.data(), masks, vectors_);
    for (int64_t v = 0; v < vectors_; ++v) {
      for (int64_t entry = 0; entry < entries_; ++entry) hessians[v][entry] *= scales[v];
      for (int64_t k = 0; k < groups_.dim(); ++k) hessians[v][triangle(k) + k] += static_cast<float>(l2);
      lane_cholesky(hessians[v], inverses_.data() + v * groups_.dim(), groups_.dim());
    }
  }

  // vectors(i) [dim] = inverse of subset i's Hessian times it, for the lanes of vector v that have one.
  template <class Member>
  void apply(int64_t v, int64_t dim, const Member& member) {
    for (int64_t k = 0; k < groups_.dim(); ++k) solution_[k] = Vector{};
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) {
      const float* from = member(v * kVectorLanes + lane);
      for (int64_t k = 0; from && k < dim; ++k) solution_[k][lane] = from[k];
    }
    const int64_t padded = groups_.dim();
    lane_cholesky_solve(factors_.data() + v * entries_, inverses_.data() + v * padded, solution_.data(), padded);
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) {
      float* to = member(v * kVectorLanes + lane);
      for (int64_t k = 0; to && k < dim; ++k) to[k] = solution_[k][lane];
    }
  }

  int64_t vectors() const { return vectors_; }

 private:
  const GroupHessians<Element>& groups_;
  int64_t entries_, vectors_;
  Array<Vector> factors_;   // [vectors][entries]
  Array<Vector> inverses_;  // [vectors][dim]
  Array<Vector> solution_;  // [dim]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
