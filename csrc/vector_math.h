// Sums and updates of vectors of doubles.
#pragma once

#include <cmath>
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A compiler may not reorder one sum, so it goes to eight that can be vectorised.
inline double dot(const double* a, const double* b, int64_t dim) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {}, sum = 0.0;
  int64_t k = 0;
  for (; k + kSums <= dim; k += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += a[k + j] * b[k + j];
  for (; k < dim; ++k) sum += a[k] * b[k];
  for (double part : sums) sum += part;
  return sum;
}

inline double norm(const double* a, int64_t dim) { return std::sqrt(dot(a, a, dim)); }

// y += scale * x
inline void axpy(double* y, double scale, const double* x, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) y[k] += scale * x[k];
}

// out = a - b
inline void subtract(double* out, const double* a, const double* b, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) out[k] = a[k] - b[k];
}

}  // namespace GRADEX_ISA
}  // namespace gradex
