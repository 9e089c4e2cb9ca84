// Sums and updates of vectors.
#pragma once

#include <cmath>
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A compiler may not reorder one sum, so it goes to as many as a vector has.
template <class T>
inline T dot(const T* a, const T* b, int64_t dim) {
  constexpr int64_t kSums = 64 / sizeof(T);
  T sums[kSums] = {}, sum = 0;
  int64_t k = 0;
  for (; k + kSums <= dim; k += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += a[k + j] * b[k + j];
  for (; k < dim; ++k) sum += a[k] * b[k];
  for (T part : sums) sum += part;
  return sum;
}

inline double norm(const double* a, int64_t dim) { return std::sqrt(dot(a, a, dim)); }

// y += scale * x
template <class T>
inline void axpy(T* y, T scale, const T* x, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) y[k] += scale * x[k];
}

// out = a - b
template <class T>
inline void subtract(T* out, const T* a, const T* b, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) out[k] = a[k] - b[k];
}

}  // namespace GRADEX_ISA
}  // namespace gradex
