// L-BFGS for a smooth convex function. Knows no logistic.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lbfgs_history.h"
#include "line_search.h"

namespace gradex {
inline namespace GRADEX_ISA {

enum class MinimizeStatus { converged, iteration_limit, stalled, not_finite };  // the limit, or a newer Hessian is due

struct MinimizeOptions {
  double tol;              // stop where F - min F <= tol * min(F, 50 * first_decrement): as is certain where
                           // |gradient|^2 / (2 l2) is, and likely where the decrement g.Hg is and H is newton's: half
                           // of it is F - min F to first order, and the other half is for what that leaves out
  double first_decrement;  // where the search for the minimum began; infinite if that is here
  double l2;               // the objective has at least this curvature
  double gradient_target;  // stop at |gradient| <= this, too
  double value_noise;      // rounding error of the objective: an increase below it is none
  double first_step;       // x + first_step * direction is the first trial point
  bool newton;             // the initial matrix is the inverse Hessian at the first x
  int32_t max_iterations;
};

struct Minimum {
  double value, gradient_norm, first_decrement;
  int32_t iterations;
  MinimizeStatus status;
};

// The vectors of one minimisation. storage [storage_size(dim)] stays the caller's.
struct LbfgsVectors {
  static int64_t storage_size(int64_t dim) { return 4 * dim + LbfgsHistory::storage_size(dim); }

  LbfgsVectors(double* storage, int64_t dim)
      : gradient(storage),
        direction(storage + dim),
        trial(storage + 2 * dim),
        trial_gradient(storage + 3 * dim),
        history(storage + 4 * dim, dim) {}

  double *gradient, *direction, *trial, *trial_gradient;  // [dim] each
  LbfgsHistory history;
};

// Minimises a convex objective(const double* x, double* gradient) -> double from x [dim] on, in
// place; `initial` as in LbfgsHistory::direction. Allocates nothing and throws nothing.
template <class Objective, class Initial>
Minimum minimize(const Objective& objective, const Initial& initial, double* x, int64_t dim,
                 const MinimizeOptions& options, LbfgsVectors* vectors) {
  auto& [gradient, direction, trial, trial_gradient, history] = *vectors;
  const Line<Objective> line{objective, x, direction, trial, trial_gradient, dim};
  LinePoint point{0.0, objective(x, gradient), 0.0};
  double gradient_norm = norm(gradient, dim), first_decrement = 0.0;
  int32_t iterations = 0;
  const auto end = [&](MinimizeStatus status) {
    return Minimum{point.value, gradient_norm, first_decrement, iterations, status};
  };
  if (!std::isfinite(point.value + gradient_norm)) return end(MinimizeStatus::not_finite);

  while (gradient_norm > options.gradient_target) {
    history.direction(direction, gradient, initial);
    point = {0.0, point.value, dot(gradient, direction, dim)};
    if (iterations == 0) first_decrement = -point.slope;
    const double target = options.tol * std::min(point.value, 50.0 * options.first_decrement);
    if (gradient_norm * gradient_norm <= 2.0 * options.l2 * target) return end(MinimizeStatus::converged);
    if (options.newton && -point.slope <= target) {  // by a Hessian of elsewhere, that is no more than a hint
      return end(iterations == 0 ? MinimizeStatus::converged : MinimizeStatus::iteration_limit);
    }
    if (iterations == options.max_iterations) return end(MinimizeStatus::iteration_limit);
    const double step = history.empty() ? options.first_step : 1.0;
    if (search_line(line, &point, step, options.value_noise)) {
      history.add(trial, x, trial_gradient, gradient);
      std::copy(trial, trial + dim, x);
      std::copy(trial_gradient, trial_gradient + dim, gradient);
      gradient_norm = norm(gradient, dim);
      ++iterations;
    } else if (history.empty()) {
      return end(MinimizeStatus::stalled);
    } else {
      history.clear();  // its pairs may be rounding error: try the gradient itself
    }
  }
  return end(MinimizeStatus::converged);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
