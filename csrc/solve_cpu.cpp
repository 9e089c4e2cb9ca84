// L-BFGS on the CPU, one subset per thread at a time.
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
namespace {

// Sums over one group that depend on no subset; they add up over a subset's groups.
struct GroupSums {
  double weight = 0.0;          // sum w_i
  double curvature = 0.0;       // sum w_i |g_i|^2 / 4 >= the trace of the unscaled Hessian, any x
  double loss = 0.0;            // sum w_i softplus(-h_i)
  double gradient_terms = 0.0;  // sum w_i sigmoid(-h_i) (1 + |h_i|) |g_i|
  int64_t rows = 0;

  void operator+=(const GroupSums& other) {
    weight += other.weight;
    curvature += other.curvature;
    loss += other.loss;
    gradient_terms += other.gradient_terms;
    rows += other.rows;
  }

  // A float32 row's |g|^2 cannot overflow a double, so only bad input is not finite.
  bool finite() const { return std::isfinite(weight + curvature + loss + gradient_terms); }
};

RowBlock group_rows(const SolveArguments& a, int64_t group) {
  const int64_t first = a.group_ptr[group];
  return {a.features + first * a.dim, a.margins + first, a.weights ? a.weights + first : nullptr,
          a.group_ptr[group + 1] - first, a.dim};
}

GroupSums sum_group(const RowBlock& block) {
  GroupSums sums;
  for (int64_t i = 0; i < block.rows; ++i) {
    const float* row = block.features + i * block.dim;
    double square = 0.0;
    for (int64_t k = 0; k < block.dim; ++k) square += static_cast<double>(row[k]) * row[k];
    const double weight = block.weight(i), margin = block.margins[i];
    const Softplus point = softplus(-margin);
    sums += {weight, weight * square / 4.0, weight * point.value,
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
  // 2019); z = h + g.x by eps |h|. Sizes at x = 0 stand for those at the minimum.
  const double terms = static_cast<double>(sums.rows + a.dim);
  const double rounding = std::numeric_limits<double>::epsilon() * std::sqrt(terms) / sums.weight;
  MinimizeOptions options;
  options.tol = a.tol;
  options.gradient_noise = rounding * sums.gradient_terms;
  options.value_noise = rounding * sums.loss;
  // 1 over a bound of the Hessian: along the gradient no longer step is sure to descend.
  options.first_step = 1.0 / (a.l2 + sums.curvature / sums.weight);
  options.max_iterations = a.max_iterations;
  return options;
}

SolveStatus to_solve_status(MinimizeStatus status) {
  switch (status) {
    case MinimizeStatus::converged:
      return kConverged;
    case MinimizeStatus::iteration_limit:
      return kIterationLimit;
    case MinimizeStatus::stalled:
      return kStalled;
    case MinimizeStatus::not_finite:
      break;
  }
  return kNotFinite;
}

void solve_subset(const SolveArguments& a, const std::vector<GroupSums>& groups, int64_t s) {
  const uint8_t* subset = a.subsets + s * a.groups;
  GroupSums sums;
  for (int64_t t = 0; t < a.groups; ++t)
    if (subset[t]) sums += groups[t];

  double* x = a.x + s * a.dim;
  std::fill(x, x + a.dim, 0.0);
  Minimum minimum{0.0, 0.0, 0, MinimizeStatus::not_finite};
  SolveStatus status = kEmpty;
  if (!sums.finite()) {
    status = kNotFinite;
  } else if (sums.weight > 0.0) {
    std::vector<double> storage(LbfgsVectors::storage_size(a.dim));
    LbfgsVectors vectors(storage.data(), a.dim);
    minimum = minimize(SubsetObjective{a, subset, sums.weight}, x, a.dim, choose_options(a, sums),
                       vectors);
    status = to_solve_status(minimum.status);
  }
  const double nan = std::numeric_limits<double>::quiet_NaN();
  a.loss[s] = status == kNotFinite ? nan : minimum.value;
  a.gradient_norm[s] = status == kNotFinite ? nan : minimum.gradient_norm;
  a.iterations[s] = minimum.iterations;
  a.status[s] = status;
}

}  // namespace

void solve_cpu(const SolveArguments& arguments) {
  std::vector<GroupSums> groups(arguments.groups);
  parallel_for(arguments.groups, arguments.threads,
               [&](int64_t t) { groups[t] = sum_group(group_rows(arguments, t)); });
  parallel_for(arguments.subset_count, arguments.threads,
               [&](int64_t s) { solve_subset(arguments, groups, s); });
}

}  // namespace gradex
