// The inverse of one positive definite matrix, for many vectors at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "cholesky.h"
#include "packed_rows.h"
#include "tile_product.h"

namespace gradex {
inline namespace GRADEX_ISA {

class Preconditioner {
 public:
  // hessian [dim, dim], of which the lower triangle is read; not `usable` where that is singular.
  Preconditioner(const Array<double>& hessian, int64_t dim) : dim_(dim), vectors_(divide_up(dim, kVectorLanes)) {
    usable_ = regularised_cholesky(&factor_, hessian, dim);
  }

  bool usable() const { return usable_; }
  const Array<double>& factor() const { return factor_; }

  // Before `apply` may be called.
  void invert() {
    if (!usable_) return;
    const int64_t dim = dim_;
    inverse_.resize(static_cast<size_t>(vectors_ * kVectorLanes * dim));
    Array<double> column(dim);
    for (int64_t k = 0; k < dim; ++k) {
      std::fill(column.begin(), column.end(), 0.0);
      column[k] = 1.0;
      cholesky_solve(factor_.data(), column.data(), dim);
      for (int64_t i = 0; i < dim; ++i) {
        inverse_[(i / kVectorLanes * dim + k) * kVectorLanes + i % kVectorLanes] = static_cast<float>(column[i]);
      }
    }
  }

  // vectors[c] [padded dim] = inverse * vectors[c], for kTileColumns of them; scratch [padded dim * kTileColumns].
  void apply(float* const* vectors, float* scratch) const {
    const float* right[kTileColumns];
    for (int c = 0; c < kTileColumns; ++c) right[c] = vectors[c];
    const int64_t padded = vectors_ * kVectorLanes;
    for_vector_tiles(vectors_, [&](auto tile, int64_t first) {
      Vector sums[tile][kTileColumns];
      const int64_t stride = dim_ * kVectorLanes;
      tile_product<Single, tile>(sums, inverse_.data() + first * stride, stride, kVectorLanes, right, dim_);
      for (int c = 0; c < kTileColumns; ++c)
        for (int v = 0; v < tile; ++v) store(scratch + c * padded + (first + v) * kVectorLanes, sums[v][c]);
    });
    for (int c = 0; c < kTileColumns; ++c) std::copy(scratch + c * padded, scratch + (c + 1) * padded, vectors[c]);
  }

 private:
  int64_t dim_, vectors_;
  bool usable_ = false;
  Array<double> factor_;  // [dim, dim], Cholesky
  Array<float> inverse_;  // [vectors of rows][column][lanes]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
