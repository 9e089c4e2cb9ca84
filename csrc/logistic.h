// The logistic loss: a point function, then loss and gradient over one block of rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Softplus {
  double value;  // softplus(z) = log(1 + e^z) = max(z, 0) + log(1 + e^-|z|)
  double slope;  // sigmoid(z) = 1 / (1 + e^-z)
};

// Both from the one exponential e^-|z|, which never overflows; no 1 - (nearly 1) either.
inline Softplus softplus(double z) {
  const double e = std::exp(-std::fabs(z));
  return {(z > 0.0 ? z : 0.0) + std::log1p(e), (z > 0.0 ? 1.0 : e) / (1.0 + e)};
}

// The slope alone.
inline double sigmoid(double z) {
  const double e = std::exp(-std::fabs(z));
  return (z > 0.0 ? 1.0 : e) / (1.0 + e);
}

struct RowBlock {
  const float* features;  // [rows, dim]
  const double* margins;  // [rows]
  const double* weights;  // [rows] or nullptr (all one)
  int64_t rows, dim;

  const float* row(int64_t i) const { return features + i * dim; }
  double weight(int64_t i) const { return weights ? weights[i] : 1.0; }
};

// g . x. A compiler may not reorder one sum, so it goes to several chains of vectors.
inline double dot_row(const float* g, const double* x, int64_t dim) {
  constexpr int64_t kSums = 32;
  double sums[kSums] = {}, sum = 0.0;
  int64_t k = 0;
  for (; k + kSums <= dim; k += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += static_cast<double>(g[k + j]) * x[k + j];
  for (int64_t j = 0; k + j < dim; ++j) sums[j] += static_cast<double>(g[k + j]) * x[k + j];
  for (int64_t j = 0; j < 16; ++j) sums[j] += sums[j + 16];
  for (int64_t j = 0; j < 8; ++j) sums[j] += sums[j + 8];
  for (int64_t j = 0; j < 4; ++j) sum += sums[j] + sums[j + 4];
  return sum;
}

// |g|^2
inline double square_row(const float* g, int64_t dim) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {}, sum = 0.0;
  int64_t k = 0;
  for (; k + kSums <= dim; k += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += static_cast<double>(g[k + j]) * static_cast<double>(g[k + j]);
  for (; k < dim; ++k) sum += static_cast<double>(g[k]) * static_cast<double>(g[k]);
  for (double part : sums) sum += part;
  return sum;
}

// gradient += scale * g
inline void add_row(double* gradient, double scale, const float* g, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) gradient[k] += scale * static_cast<double>(g[k]);
}

// Returns sum_i w_i softplus(-z_i), z_i = h_i + g_i . x, and adds its gradient
// -sum_i w_i sigmoid(-z_i) g_i to gradient [dim].
inline double add_loss_and_gradient(double* gradient, const RowBlock& block, const double* x) {
  double loss = 0.0;
  for (int64_t i = 0; i < block.rows; ++i) {
    const double z = block.margins[i] + dot_row(block.row(i), x, block.dim);
    const Softplus point = softplus(-z);
    loss += block.weight(i) * point.value;
    add_row(gradient, -block.weight(i) * point.slope, block.row(i), block.dim);
  }
  return loss;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
