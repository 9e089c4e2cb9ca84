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

class GroupHessians {
 public:
  // Where they cost no more than one pass over the rows, and little memory.
  static bool worthwhile(const SubsetData& data) {
    return data.dim <= 200 && data.groups * data.dim <= data.rows && data.groups <= 1024;
  }

  GroupHessians(const SubsetData& data, const Array<uint8_t>& usable, const double* x, int threads)
      : dim_(divide_up(data.dim, kCholeskyBlock) * kCholeskyBlock),
        groups_(data.groups),
        sums_(static_cast<size_t>(triangle(dim_) * data.groups)) {
    const int64_t stride = std::max<int64_t>(1, data.rows / kRows);
    parallel_for(data.groups, threads, [&](int64_t t) {
      OuterProducts products(data.dim);
      const RowBlock rows = group_rows(data, t);
      for (int64_t i = 0; usable[t] && i < rows.rows; i += stride) {
        const double slope = sigmoid(-(rows.margins[i] + dot_row(rows.row(i), x, data.dim)));
        const auto times = static_cast<double>(std::min(stride, rows.rows - i));
        products.add(rows.row(i), times * rows.weight(i) * slope * (1.0 - slope));
      }
      const Array<double>& lower = products.lower();
      for (int64_t i = 0; i < data.dim; ++i)
        for (int64_t j = 0; j <= i; ++j)
          sums_[(triangle(i) + j) * groups_ + t] = static_cast<float>(lower[i * data.dim + j]);
    });
  }

  int64_t dim() const { return dim_; }  // a multiple of kCholeskyBlock

  // hessians[v][entry] = sum over the groups of masks [vectors][groups] of their Hessians: `vectors` of subsets, one in
  // every lane.
  void add_up(Vector* const* hessians, const Array<Vector>& masks, int64_t vectors) const {
    const auto* left = reinterpret_cast<const float*>(masks.data());
    const float* right[kTileColumns];
    for (int64_t entry = 0; entry < triangle(dim_); entry += kTileColumns) {
      for (int64_t c = 0; c < kTileColumns; ++c)
        right[c] = sums_.data() + std::min(entry + c, triangle(dim_) - 1) * groups_;
      for_vector_tiles(vectors, [&](auto tile, int64_t first) {
        Vector sums[tile][kTileColumns];
        const int64_t stride = groups_ * kVectorLanes;
        tile_product<Single, tile>(sums, left + first * stride, stride, kVectorLanes, right, groups_);
        for (int64_t c = 0; c < kTileColumns && entry + c < triangle(dim_); ++c)
          for (int v = 0; v < tile; ++v) hessians[first + v][entry + c] = sums[v][c];
      });
    }
  }

 private:
  static constexpr int64_t kRows = 65'536;  // enough for a matrix that only steers the steps

  int64_t dim_, groups_;
  Array<float> sums_;  // [entries of the triangle][groups]
};

// The Hessians of a chunk's subsets, as Cholesky factors.
class SubsetFactors {
 public:
  SubsetFactors(const GroupHessians& groups, int64_t count)
      : groups_(groups), entries_(triangle(groups.dim())), vectors_(divide_up(count, kVectorLanes)) {
    factors_.resize(static_cast<size_t>(vectors_ * entries_));
    inverses_.resize(static_cast<size_t>(vectors_ * groups.dim()));
    solution_.resize(static_cast<size_t>(groups.dim()));
  }

  // subset(i) -> its groups [groups] or nullptr; weight(i) -> the sum of its weights.
  template <class Subset, class Weight>
  void factorise(int64_t count, int64_t group_count, double l2, const Subset& subset, const Weight& weight) {
    Array<Vector> masks(static_cast<size_t>(vectors_ * group_count));
    Array<Vector> scales(static_cast<size_t>(vectors_));
    Array<Vector*> hessians;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t v = i / kVectorLanes, lane = i % kVectorLanes;
      if (!subset(i)) continue;
      scales[v][lane] = static_cast<float>(1.0 / weight(i));
      for (int64_t t = 0; t < group_count; ++t) masks[v * group_count + t][lane] = subset(i)[t] ? 1.0f : 0.0f;
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
  const GroupHessians& groups_;
  int64_t entries_, vectors_;
  Array<Vector> factors_;   // [vectors][entries]
  Array<Vector> inverses_;  // [vectors][dim]
  Array<Vector> solution_;  // [dim]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
