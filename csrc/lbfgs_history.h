// The memory of L-BFGS: an inverse Hessian from the latest steps, never formed.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "vector_math.h"

namespace gradex {
inline namespace GRADEX_ISA {

// The latest pairs s = change of x, y = change of the gradient: an inverse Hessian H, never formed.
class LbfgsHistory {
 public:
  static constexpr int64_t kPairs = 10;
  static constexpr int64_t kSlots = kPairs + 1;  // so that a refused pair costs no old one

  static int64_t storage_size(int64_t dim) { return 2 * kSlots * dim; }

  // storage [storage_size(dim)] stays the caller's.
  LbfgsHistory(double* storage, int64_t dim) : steps_(storage), changes_(storage + kSlots * dim), dim_(dim) {}

  bool empty() const { return count_ == 0; }
  void clear() { count_ = 0; }

  // Adds the step from -> to, unless its curvature s.y is lost in rounding.
  void add(const double* x_to, const double* x_from, const double* g_to, const double* g_from) {
    double *s = step(count_), *y = change(count_);
    subtract(s, x_to, x_from, dim_);
    subtract(y, g_to, g_from, dim_);
    const double sy = dot(s, y, dim_), ss = dot(s, s, dim_), yy = dot(y, y, dim_);
    if (!(sy > std::numeric_limits<double>::epsilon() * std::sqrt(ss * yy))) return;
    rho_[count_ % kSlots] = 1.0 / sy;
    scale_ = sy / yy;
    ++count_;
  }

  // out = -H gradient by the two-loop recursion (Nocedal & Wright, algorithm 7.4). initial(out, scale) multiplies out
  // by the matrix that the pairs are added to; scale times the identity, say, which is I if there are none.
  template <class Initial>
  void direction(double* out, const double* gradient, const Initial& initial) const {
    double alpha[kSlots];
    const int64_t oldest = std::max<int64_t>(0, count_ - kPairs);
    for (int64_t k = 0; k < dim_; ++k) out[k] = -gradient[k];
    for (int64_t i = count_ - 1; i >= oldest; --i) {
      alpha[i % kSlots] = rho_[i % kSlots] * dot(step(i), out, dim_);
      axpy(out, -alpha[i % kSlots], change(i), dim_);
    }
    initial(out, empty() ? 1.0 : scale_);
    for (int64_t i = oldest; i < count_; ++i) {
      const double beta = rho_[i % kSlots] * dot(change(i), out, dim_);
      axpy(out, alpha[i % kSlots] - beta, step(i), dim_);
    }
  }

 private:
  double* step(int64_t i) const { return steps_ + i % kSlots * dim_; }
  double* change(int64_t i) const { return changes_ + i % kSlots * dim_; }

  double* steps_;         // s, [kSlots, dim], a ring
  double* changes_;       // y, [kSlots, dim]
  double rho_[kSlots]{};  // 1 / s.y
  double scale_ = 1.0;    // s.y / y.y of the latest pair
  int64_t dim_;
  int64_t count_ = 0;  // pairs added since the last clear()
};

}  // namespace GRADEX_ISA
}  // namespace gradex
