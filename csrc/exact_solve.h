// One subset's regression in double precision, whatever it takes.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "array.h"
#include "cholesky.h"
#include "group_sums.h"
#include "hessian.h"
#include "lbfgs.h"

namespace gradex {
inline namespace GRADEX_ISA {

// F_S and its derivatives.
struct SubsetObjective {
  const SubsetData& data;
  const uint8_t* subset;  // [groups]
  double divisor;         // of the sum over the subset
  double l2;

  double operator()(const double* x, double* gradient) const {
    std::fill(gradient, gradient + data.dim, 0.0);
    double loss = 0.0;
    for (int64_t t = 0; t < data.groups; ++t)
      if (subset[t]) loss += add_loss_and_gradient(gradient, group_rows(data, t), x);
    for (int64_t k = 0; k < data.dim; ++k) gradient[k] = gradient[k] / divisor + l2 * x[k];
    return loss / divisor + 0.5 * l2 * dot(x, x, data.dim);
  }

  Array<double> hessian(const double* x) const {
    OuterProducts products(data.dim);
    for (int64_t t = 0; t < data.groups; ++t) {
      const RowBlock rows = group_rows(data, t);
      for (int64_t i = 0; subset[t] && i < rows.rows; ++i) {
        const double slope = softplus(-(rows.margins[i] + dot_row(rows.row(i), x, data.dim))).slope;
        products.add(rows.row(i), rows.weight(i) * slope * (1.0 - slope));
      }
    }
    Array<double> sum = products.lower();
    for (double& entry : sum) entry /= divisor;
    for (int64_t k = 0; k < data.dim; ++k) sum[k * data.dim + k] += l2;
    return sum;
  }
};

constexpr int64_t kLargestHessian = 1024;  // of [dim, dim]; beyond, products with it cost more than they save

class ExactSolve {
 public:
  ExactSolve(const SubsetObjective& objective, const GroupSums& sums, double tol, int32_t max_iterations)
      : objective_(objective),
        dim_(objective.data.dim),
        storage_(LbfgsVectors::storage_size(dim_)),
        vectors_(storage_.data(), dim_),
        left_(max_iterations) {
    // A sum of n terms is wrong by about sqrt(n) eps times the sum of their sizes (Higham & Mary
    // 2019), and a term by what the error eps |h| of z does to it. Sizes at x = 0 stand for others.
    const auto terms = static_cast<double>(sums.rows + dim_);
    const double rounding = std::numeric_limits<double>::epsilon() * std::sqrt(terms);
    Array<double> zero(dim_), gradient(dim_);
    if (tol > 0.0) value_at_zero_ = objective_(zero.data(), gradient.data());
    options_.tol = tol;
    options_.first_decrement = std::numeric_limits<double>::infinity();
    options_.l2 = objective.l2;
    options_.gradient_target =
        std::max(tol * tol * norm(gradient.data(), dim_), rounding * sums.gradient_terms / objective.divisor);
    options_.value_noise = rounding * sums.loss_terms / objective.divisor;
    // 1 over a bound of the Hessian: down the gradient no longer step is sure not to climb. It is
    // infinite only if l2 and all features are 0, and then the gradient is as well.
    gradient_step_ = 1.0 / (objective.l2 + sums.curvature / objective.divisor);
  }

  // From x; if tol > 0 from 0 where F is lower there. factor: Cholesky, of the union's Hessian, or nullptr.
  Minimum run(double* x, const double* factor) {
    constexpr int32_t kSteps = 6;  // with one Hessian, before a new one is worth its price
    if (options_.tol > 0.0 && !(objective_(x, vectors_.gradient) <= value_at_zero_)) std::fill(x, x + dim_, 0.0);
    Minimum minimum = factor ? newton(x, factor, kSteps, false) : end_of_none();
    Array<double> own;
    while (minimum.status == MinimizeStatus::iteration_limit && left_ > 0 && dim_ <= kLargestHessian &&
           regularised_cholesky(&own, objective_.hessian(x), dim_)) {
      minimum = newton(x, own.data(), kSteps, true);
    }
    if (minimum.status != MinimizeStatus::converged && left_ > 0) minimum = plain(x);
    minimum.iterations = taken_;
    return minimum;
  }

 private:
  static Minimum end_of_none() { return {0.0, 0.0, 0.0, 0, MinimizeStatus::iteration_limit}; }

  Minimum newton(double* x, const double* factor, int32_t steps, bool own) {
    options_.newton = own;
    options_.first_step = 1.0;
    options_.max_iterations = std::min(steps, left_);
    return count(minimize(
        objective_, [&](double* vector, double) { cholesky_solve(factor, vector, dim_); }, x, dim_, options_,
        &vectors_));
  }

  Minimum plain(double* x) {
    options_.newton = false;
    options_.first_step = gradient_step_;
    options_.max_iterations = left_;
    const auto scale = [&](double* vector, double by) {
      for (int64_t k = 0; k < dim_; ++k) vector[k] *= by;
    };
    return count(minimize(objective_, scale, x, dim_, options_, &vectors_));
  }

  Minimum count(const Minimum& minimum) {
    if (options_.newton && std::isinf(options_.first_decrement)) options_.first_decrement = minimum.first_decrement;
    vectors_.history.clear();
    left_ -= minimum.iterations;
    taken_ += minimum.iterations;
    return minimum;
  }

  const SubsetObjective& objective_;
  int64_t dim_;
  Array<double> storage_;
  LbfgsVectors vectors_;
  MinimizeOptions options_{};
  double value_at_zero_ = 0.0, gradient_step_ = 0.0;
  int32_t left_, taken_ = 0;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
