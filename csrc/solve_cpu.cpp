// L-BFGS on the CPU, one subset per thread at a time; compiled once per instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "lbfgs.h"
#include "logistic.h"
#include "parallel.h"
#include "solve.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Sums over one group that depend on no subset; they add up over a subset's groups.
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

RowBlock group_rows(const SolveArguments& a, int64_t group) {
  const int64_t first = a.group_ptr[group];
  return {a.features + first * a.dim, a.margins + first, a.weights ? a.weights + first : nullptr,
          a.group_ptr[group + 1] - first, a.dim};
}

GroupSums sum_group(const RowBlock& block) {
  GroupSums sums;
  for (int64_t i = 0; i < block.rows; ++i) {
    const float* g = block.row(i);
    double square = 0.0;
    for (int64_t k = 0; k < block.dim; ++k) square += static_cast<double>(g[k]) * g[k];
    const double weight = block.weight(i), margin = block.margins[i];
    const Softplus point = softplus(-margin);
    sums += {weight, weight * square / 4.0, weight * (point.value + point.slope * std::fabs(margin)),
             weight * point.slope * (1.0 + std::fabs(margin)) * std::sqrt(square), 1};
  }
  return sums;
}

// F_S and its gradient.
struct SubsetObjective {
  const SolveArguments& a;
  const uint8_t* subset;  // [groups]
  double weight;          // sum over the subset of w_i

  double operator()(const double* x, double* gradient) const {
    std::fill(gradient, gradient + a.dim, 0.0);
    double loss = 0.0;
    for (int64_t t = 0; t < a.groups; ++t)
      if (subset[t]) loss += add_loss_and_gradient(gradient, group_rows(a, t), x);
    for (int64_t k = 0; k < a.dim; ++k) gradient[k] = gradient[k] / weight + a.l2 * x[k];
    return loss / weight + 0.5 * a.l2 * dot(x, x, a.dim);
  }
};

MinimizeOptions choose_options(const SolveArguments& a, const GroupSums& sums) {
  // A sum of n terms is wrong by about sqrt(n) eps times the sum of their sizes (Higham & Mary
  // 2019), and a term by what the error eps |h| of z does to it. Sizes at x = 0 stand for others.
  const double terms = static_cast<double>(sums.rows + a.dim);
  const double rounding = std::numeric_limits<double>::epsilon() * std::sqrt(terms);
  MinimizeOptions options;
  options.tol = a.tol;
  options.gradient_noise = rounding * (sums.gradient_terms / sums.weight);
  options.value_noise = rounding * (sums.loss_terms / sums.weight);
  // 1 over a bound of the Hessian: down the gradient no longer step is sure not to climb. It is
  // infinite only if l2 and all features are 0, and then the gradient is as well.
  options.first_step = 1.0 / (a.l2 + sums.curvature / sums.weight);
  options.max_iterations = a.max_iterations;
  return options;
}

SolveStatus to_solve_status(MinimizeStatus status) {
  switch (status) {
    case MinimizeStatus::converged: return kConverged;
    case MinimizeStatus::iteration_limit: return kIterationLimit;
    case MinimizeStatus::stalled: return kStalled;
    case MinimizeStatus::not_finite: break;
  }
  return kNotFinite;
}

void write(const SolveArguments& a, int64_t s, SolveStatus status, double loss, double gradient_norm,
           int32_t iterations) {
  a.status[s] = status;
  a.loss[s] = loss;
  a.gradient_norm[s] = gradient_norm;
  a.iterations[s] = iterations;
}

void solve_subset(const SolveArguments& a, const std::vector<GroupSums>& groups, int64_t s) {
  const uint8_t* subset = a.subsets + s * a.groups;
  GroupSums sums;
  for (int64_t t = 0; t < a.groups; ++t)
    if (subset[t]) sums += groups[t];

  double* x = a.x + s * a.dim;
  std::fill(x, x + a.dim, 0.0);
  if (!sums.finite()) return write(a, s, kNotFinite, kNaN, kNaN, 0);
  if (!(sums.weight > 0.0)) return write(a, s, kEmpty, 0.0, 0.0, 0);
  std::vector<double> storage(LbfgsVectors::storage_size(a.dim));
  LbfgsVectors vectors(storage.data(), a.dim);
  const SubsetObjective objective{a, subset, sums.weight};
  const Minimum minimum = minimize(objective, x, a.dim, choose_options(a, sums), &vectors);
  write(a, s, to_solve_status(minimum.status), minimum.value, minimum.gradient_norm, minimum.iterations);
}

}  // namespace

void solve_cpu(const SolveArguments& a) {
  std::vector<GroupSums> groups(a.groups);
  parallel_for(a.groups, a.threads, [&](int64_t t) { groups[t] = sum_group(group_rows(a, t)); });
  parallel_for(a.subset_count, a.threads, [&](int64_t s) { solve_subset(a, groups, s); });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
