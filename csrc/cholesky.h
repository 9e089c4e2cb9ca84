// Dense symmetric positive definite systems, in double precision.
#pragma once

#include <cmath>
#include <cstdint>

#include "array.h"
#include "vector_math.h"

namespace gradex {
inline namespace GRADEX_ISA {

// a = L L^T in place: L in the lower triangle of a [dim, dim]. False if a is not positive definite.
inline bool cholesky(double* a, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i) {
    double* row = a + i * dim;
    for (int64_t j = 0; j < i; ++j) row[j] = (row[j] - dot(row, a + j * dim, j)) / a[j * dim + j];
    const double pivot = row[i] - dot(row, row, i);
    if (!(pivot > 1e-14 * row[i])) return false;
    row[i] = std::sqrt(pivot);
  }
  return true;
}

// x = (L L^T)^-1 x
inline void cholesky_solve(const double* factor, double* x, int64_t dim) {
  for (int64_t i = 0; i < dim; ++i) x[i] = (x[i] - dot(factor + i * dim, x, i)) / factor[i * dim + i];
  for (int64_t i = dim - 1; i >= 0; --i) {
    x[i] /= factor[i * dim + i];
    axpy(x, -x[i], factor + i * dim, i);
  }
}

// factor [dim, dim] = a Cholesky factor of symmetric a [dim, dim], of which the lower triangle is read; where a is
// singular but for rounding its diagonal is raised. False where nothing helps.
inline bool regularised_cholesky(Array<double>* factor, const Array<double>& a, int64_t dim) {
  double trace = 0.0;
  for (int64_t k = 0; k < dim; ++k) trace += a[k * dim + k];
  if (!(trace > 0.0 && std::isfinite(trace))) return false;
  for (double raise = 0.0; raise < 1e-2; raise = raise > 0.0 ? 100.0 * raise : 1e-12) {
    *factor = a;
    for (int64_t k = 0; k < dim; ++k) (*factor)[k * dim + k] += raise * trace / static_cast<double>(dim);
    if (cholesky(factor->data(), dim)) return true;
  }
  return false;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
