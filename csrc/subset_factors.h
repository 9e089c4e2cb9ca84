// The Hessians of some subsets, one in every lane, as Cholesky factors.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "lane_cholesky.h"
#include "packed_rows.h"

namespace gradex {
inline namespace GRADEX_ISA {

class SubsetFactors {
 public:
  SubsetFactors(int64_t dim, int64_t count)
      : dim_(divide_up(dim, kCholeskyBlock) * kCholeskyBlock),
        vectors_(divide_up(count, kVectorLanes)),
        factors_(static_cast<size_t>(vectors_ * triangle(dim_))),
        inverses_(static_cast<size_t>(vectors_ * dim_)),
        solution_(static_cast<size_t>(dim_)) {}

  int64_t dim() const { return dim_; }  // a multiple of kCholeskyBlock
  int64_t vectors() const { return vectors_; }

  // [triangle(dim)]: sums over rows go in, unscaled; the lanes of nobody may hold anything.
  Vector* hessians(int64_t v) { return factors_.data() + v * triangle(dim_); }

  // The first `count` hessians, times scale(i), plus l2.
  template <class Scale>
  void factorise(int64_t count, double l2, const Scale& scale) {
    for (int64_t v = 0; v < divide_up(count, kVectorLanes); ++v) {
      Vector scales{}, *entries = hessians(v);
      for (int64_t i = v * kVectorLanes; i < std::min(count, (v + 1) * kVectorLanes); ++i)
        scales[i % kVectorLanes] = static_cast<float>(scale(i));
      for (int64_t entry = 0; entry < triangle(dim_); ++entry) entries[entry] *= scales;
      for (int64_t k = 0; k < dim_; ++k) entries[triangle(k) + k] += static_cast<float>(l2);
      lane_cholesky(entries, inverses_.data() + v * dim_, dim_);
    }
  }

  // member(i) [dim] = inverse of hessian i times it, or nullptr to leave that out; for the lanes of vector v.
  template <class Member>
  void apply(int64_t v, int64_t dim, const Member& member) {
    std::fill(solution_.begin(), solution_.end(), Vector{});
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) {
      const float* from = member(v * kVectorLanes + lane);
      for (int64_t k = 0; from && k < dim; ++k) solution_[k][lane] = from[k];
    }
    lane_cholesky_solve(hessians(v), inverses_.data() + v * dim_, solution_.data(), dim_);
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) {
      float* to = member(v * kVectorLanes + lane);
      for (int64_t k = 0; to && k < dim; ++k) to[k] = solution_[k][lane];
    }
  }

 private:
  int64_t dim_, vectors_;
  Array<Vector> factors_;   // [vectors][triangle(dim)]
  Array<Vector> inverses_;  // [vectors][dim], 1 / diagonals
  Array<Vector> solution_;  // [dim]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
