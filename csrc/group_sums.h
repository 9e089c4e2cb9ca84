// Sums over one group's rows that depend on no x; they add up over a subset's groups.
#pragma once

#include <cmath>
#include <cstdint>

#include "logistic.h"
#include "solve.h"

namespace gradex {
inline namespace GRADEX_ISA {

inline RowBlock row_block(const SubsetData& data, int64_t first, int64_t rows) {
  return {data.features + first * data.dim, data.margins + first, data.weights ? data.weights + first : nullptr, rows,
          data.dim};
}

inline RowBlock group_rows(const SubsetData& data, int64_t group) {
  return row_block(data, data.group_ptr[group], data.group_ptr[group + 1] - data.group_ptr[group]);
}

struct GroupSums {
  double weight = 0.0;          // sum w_i
  double curvature = 0.0;       // sum w_i |g_i|^2 / 4 >= the trace of the unscaled Hessian, any x
  double loss_terms = 0.0;      // sum w_i (softplus(-h_i) + sigmoid(-h_i) |h_i|)
  double gradient_terms = 0.0;  // sum w_i sigmoid(-h_i) (1 + |h_i|) |g_i|
  int64_t rows = 0;

  void operator+=(const GroupSums& other) {
    weight += other.weight;
    curvature += other.curvature;
    loss_terms += other.loss_terms;
    gradient_terms += other.gradient_terms;
    rows += other.rows;
  }

  // A float32 row's |g|^2 cannot overflow a double, so only bad input is not finite.
  bool finite() const { return std::isfinite(weight + curvature + loss_terms + gradient_terms); }
};

inline GroupSums sum_group(const RowBlock& block) {
  GroupSums sums;
  for (int64_t i = 0; i < block.rows; ++i) {
    const float* g = block.row(i);
    const double square = square_row(g, block.dim), weight = block.weight(i), margin = block.margins[i];
    const Softplus point = softplus(-margin);
    sums += {weight, weight * square / 4.0, weight * (point.value + point.slope * std::fabs(margin)),
             weight * point.slope * (1.0 + std::fabs(margin)) * std::sqrt(square), 1};
  }
  return sums;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
