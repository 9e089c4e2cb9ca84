// The L-BFGS memory of many problems in float32: the two-loop recursion in two halves, with the initial matrix between.
#pragma once

#include <cstdint>

#include "array.h"
#include "vector_math.h"

namespace gradex {
inline namespace GRADEX_ISA {

class ChunkHistory {
 public:
  static constexpr int32_t kPairs = 6;

  ChunkHistory(int64_t count, int64_t dim) : dim_(dim), rho_(count * kPairs), alpha_(count * kPairs) {
    for (int32_t pair = 0; pair < kPairs; ++pair) steps_[pair].resize(count * dim), changes_[pair].resize(count * dim);
  }

  // Where the step and the change of the gradient of pair `pair` < kPairs go, [dim] each.
  float* step(int64_t index, int32_t pair) { return steps_[pair].data() + index * dim_; }
  float* change(int64_t index, int32_t pair) { return changes_[pair].data() + index * dim_; }
  void set_curvature(int64_t index, int32_t pair, double curvature) {  // step . change
    rho_[index * kPairs + pair] = static_cast<float>(1.0 / curvature);
  }

  // Nocedal & Wright, algorithm 7.4: before the initial matrix,
  void before(float* direction, int64_t index, int32_t pairs) {
    for (int32_t pair = pairs - 1; pair >= 0; --pair) {
      float& alpha = alpha_[index * kPairs + pair];
      alpha = rho_[index * kPairs + pair] * dot(step(index, pair), direction, dim_);
      axpy(direction, -alpha, change(index, pair), dim_);
    }
  }

  // and after it.
  void after(float* direction, int64_t index, int32_t pairs) {
    for (int32_t pair = 0; pair < pairs; ++pair) {
      const float beta = rho_[index * kPairs + pair] * dot(change(index, pair), direction, dim_);
      axpy(direction, alpha_[index * kPairs + pair] - beta, step(index, pair), dim_);
    }
  }

 private:
  int64_t dim_;
  Array<float> steps_[kPairs], changes_[kPairs];  // [count, dim] each
  Array<float> rho_, alpha_;                      // [count, kPairs]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
