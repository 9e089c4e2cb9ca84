// The losses of some rows at many points.
#pragma once

#include <cstdint>

namespace gradex {

struct LossArguments {
  double* mean;           // [points]        out, mean_i softplus(-(h_i + g_i . x))
  float* losses;          // [points, rows]  out, or nullptr
  const double* x;        // [points, dim]
  const float* features;  // [rows, dim], g_i
  const double* margins;  // [rows], h_i
  int64_t points, rows, dim;
  int32_t threads;
};

// float32 products and functions, double sums over rows; the same bits for any number of threads.
void losses_cpu(const LossArguments& arguments);

}  // namespace gradex
