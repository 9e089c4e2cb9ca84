// The logistic loss: point functions, then loss and gradient over one block of rows.
#pragma once

#include <cmath>
#include <cstdint>

namespace gradex {

struct Softplus {
  double value;  // softplus(z) = log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)
  double slope;  // sigmoid(z) = 1 / (1 + e^-z)
};

// Both from the one exponential e^-|z|, which never overflows; no 1 - (nearly 1) either.
inline Softplus softplus(double z) {
  const double e = std::exp(-std::fabs(z));
  return {(z > 0.0 ? z : 0.0) + std::log1p(e), (z > 0.0 ? 1.0 : e) / (1.0 + e)};
}

struct RowBlock {
  const float* features;  // [rows, dim]
  const double* margins;  // [rows]
  const double* weights;  // [rows] or nullptr (all one)
  int64_t rows, dim;

  double weight(int64_t row) const { return weights ? weights[row] : 1.0; }
};

// row . x. A compiler may not reorder one sum, so the columns go to eight sums it can vectorise;
// the order of additions is then the same on every instruction set.
inline double dot_row(const float* row, const double* x, int64_t dim) {
  constexpr int64_t kLanes = 8;
  double lane[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= dim; k += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lane[j] += static_cast<double>(row[k + j]) * x[k + j];
  double tail = 0.0;
  for (; k < dim; ++k) tail += static_cast<double>(row[k]) * x[k];
  return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7])) +
         tail;
}

// gradient += scale * row
inline void add_row(double* gradient, double scale, const float* row, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) gradient[k] += scale * static_cast<double>(row[k]);
}

// Returns sum_i w_i softplus(-z_i), z_i = h_i + g_i . x, and adds its gradient
// -sum_i w_i sigmoid(-z_i) g_i to gradient [dim].
inline double add_loss_and_gradient(double* gradient, const RowBlock& block, const double* x) {
  double loss = 0.0;
  for (int64_t i = 0; i < block.rows; ++i) {
    const float* row = block.features + i * block.dim;
    const double weight = block.weight(i);
    const Softplus point = softplus(-(block.margins[i] + dot_row(row, x, block.dim)));
    loss += weight * point.value;
    add_row(gradient, -weight * point.slope, row, block.dim);
  }
  return loss;
}

}  // namespace gradex
