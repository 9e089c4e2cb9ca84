// Cholesky factors of many small matrices at once: one in every lane.
#pragma once

#include <cmath>
#include <cstdint>

#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Lower triangles, packed row by row: entry (i, j) at i (i + 1) / 2 + j; dim is a multiple of kCholeskyBlock.
constexpr int64_t kCholeskyBlock = 4;

inline int64_t triangle(int64_t dim) { return dim * (dim + 1) / 2; }

// sums[r][c] = a(i + r, j + c) - sum_{k < j} a(i + r, k) a(j + c, k) where i + r >= j + c
GRADEX_INLINE void reduce_block(Vector (&sums)[kCholeskyBlock][kCholeskyBlock], const Vector* a, int64_t i, int64_t j) {
  const Vector *left[kCholeskyBlock], *right[kCholeskyBlock];
  for (int64_t r = 0; r < kCholeskyBlock; ++r) left[r] = a + triangle(i + r), right[r] = a + triangle(j + r);
  GRADEX_UNROLL(4) for (int r = 0; r < kCholeskyBlock; ++r) {
    GRADEX_UNROLL(4) for (int c = 0; c < kCholeskyBlock; ++c) sums[r][c] = i + r >= j + c ? left[r][j + c] : Vector{};
  }
  for (int64_t k = 0; k < j; ++k) {
    Vector rows[kCholeskyBlock];
    GRADEX_UNROLL(4) for (int r = 0; r < kCholeskyBlock; ++r) rows[r] = left[r][k];
    GRADEX_UNROLL(4) for (int c = 0; c < kCholeskyBlock; ++c) {
      const Vector column = right[c][k];
      GRADEX_UNROLL(4) for (int r = 0; r < kCholeskyBlock; ++r) sums[r][c] -= rows[r] * column;
    }
  }
}

// a = L L^T in place, but that inverse [dim] gets 1 / the diagonal of L; a lane that is not positive definite gets NaN.
inline void lane_cholesky(Vector* a, Vector* inverse, int64_t dim) {
  for (int64_t j = 0; j < dim; j += kCholeskyBlock) {
    for (int64_t i = j; i < dim; i += kCholeskyBlock) {
      Vector sums[kCholeskyBlock][kCholeskyBlock];
      reduce_block(sums, a, i, j);
      for (int64_t c = 0; c < kCholeskyBlock; ++c) {
        for (int64_t r = i == j ? c : 0; r < kCholeskyBlock; ++r) {
          for (int64_t k = 0; k < c; ++k) sums[r][c] -= sums[r][k] * a[triangle(j + c) + j + k];
          if (i == j && r == c) inverse[j + c] = 1.0f / square_root(sums[r][c]);
          sums[r][c] *= inverse[j + c];
          a[triangle(i + r) + j + c] = sums[r][c];
        }
      }
    }
  }
}

// x [dim] = (L L^T)^-1 x
inline void lane_cholesky_solve(const Vector* factor, const Vector* inverse, Vector* x, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i) {
    const Vector* row = factor + triangle(i);
    Vector sums[4] = {x[i]};
    for (int64_t k = 0; k < i; ++k) sums[k % 4] -= row[k] * x[k];
    x[i] = (sums[0] + sums[1] + sums[2] + sums[3]) * inverse[i];
  }
  for (int64_t i = dim - 1; i >= 0; --i) {
    const Vector* row = factor + triangle(i);
    x[i] *= inverse[i];
    for (int64_t k = 0; k < i; ++k) x[k] -= row[k] * x[i];
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
