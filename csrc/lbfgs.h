// L-BFGS for a smooth convex function: history, line search, minimise.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

enum class MinimizeStatus { converged, iteration_limit, stalled, not_finite };

struct MinimizeOptions {
  double tol;             // stop at |gradient| <= tol * |gradient at the start|,
  double gradient_noise;  // or at |gradient| <= its rounding error
  double value_noise;     // rounding error of the objective: an increase below it is none
  double first_step;      // x - first_step * gradient is the first trial point
  int32_t max_iterations;
};

struct Minimum {
  double value, gradient_norm;
  int32_t iterations;
  MinimizeStatus status;
};

// A compiler may not reorder one sum, so it goes to eight that can be vectorised.
inline double dot(const double* a, const double* b, int64_t dim) {
  constexpr int64_t kSums = 8;
  double sums[kSums] = {}, sum = 0.0;
  int64_t k = 0;
  for (; k + kSums <= dim; k += kSums)
    for (int64_t j = 0; j < kSums; ++j) sums[j] += a[k + j] * b[k + j];
  for (; k < dim; ++k) sum += a[k] * b[k];
  for (double part : sums) sum += part;
  return sum;
}

inline double norm(const double* a, int64_t dim) { return std::sqrt(dot(a, a, dim)); }

// y += scale * x
inline void axpy(double* y, double scale, const double* x, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) y[k] += scale * x[k];
}

// out = a - b
inline void subtract(double* out, const double* a, const double* b, int64_t dim) {
  for (int64_t k = 0; k < dim; ++k) out[k] = a[k] - b[k];
}

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

  // out = -H gradient by the two-loop recursion (Nocedal & Wright, algorithm 7.4); H = I if empty.
  void direction(double* out, const double* gradient) const {
    double alpha[kSlots];
    const int64_t oldest = std::max<int64_t>(0, count_ - kPairs);
    for (int64_t k = 0; k < dim_; ++k) out[k] = -gradient[k];
    for (int64_t i = count_ - 1; i >= oldest; --i) {
      alpha[i % kSlots] = rho_[i % kSlots] * dot(step(i), out, dim_);
      axpy(out, -alpha[i % kSlots], change(i), dim_);
    }
    const double scale = empty() ? 1.0 : scale_;
    for (int64_t k = 0; k < dim_; ++k) out[k] *= scale;
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

// phi(step) = F(x + step * direction), and its derivative.
struct LinePoint {
  double step, value, slope;
};

template <class Objective>
struct Line {
  const Objective& objective;
  const double* x;          // [dim]
  const double* direction;  // [dim]
  double* trial;            // [dim]  out, x + step * direction
  double* trial_gradient;   // [dim]  out
  int64_t dim;

  LinePoint at(double step) const {
    for (int64_t k = 0; k < dim; ++k) trial[k] = x[k] + step * direction[k];
    const double value = objective(trial, trial_gradient);
    return {step, value, dot(trial_gradient, direction, dim)};
  }
};

// The zero of phi', taken as linear through two points; infinite if their slopes are equal.
inline double secant(const LinePoint& a, const LinePoint& b) {
  return a.step - a.slope * (b.step - a.step) / (b.slope - a.slope);
}

// phi is convex: a good step lies between one that is too short and one that is too long.
struct Bracket {
  LinePoint low;   // too short
  LinePoint high;  // too long; at infinity until one is found

  bool bounded() const { return std::isfinite(high.step); }
  double middle() const { return 0.5 * (low.step + high.step); }

  // A tenth of the bracket away from its ends, or it might hardly shrink.
  double inside() const {
    const double step = secant(low, high), margin = 0.1 * (high.step - low.step);
    return std::isnan(step) ? middle() : std::clamp(step, low.step + margin, high.step - margin);
  }

  // Beyond a point that is still too short; at least twice as far, at most ten times.
  double beyond(const LinePoint& point) const {
    return std::clamp(secant(low, point), 2.0 * point.step, 10.0 * point.step);
  }
};

// The strong Wolfe conditions (Nocedal & Wright, 3.7), but that an increase below the rounding
// error of F counts as none: near the minimum slopes alone still tell points apart (Hager & Zhang
// 2005). Moves *now to the accepted point, whose x and gradient are left in line.trial and
// line.trial_gradient; false if there is none at double precision.
template <class Objective>
bool search_line(const Line<Objective>& line, LinePoint* now, double step, double noise) {
  constexpr double kDecrease = 1e-4, kCurvature = 0.9;  // Nocedal & Wright's for quasi-Newton
  constexpr int kTrials = 60;                           // 30 of them halve the bracket: to 1e-9 of the first step
  const LinePoint start = *now;
  const double infinity = std::numeric_limits<double>::infinity();
  Bracket bracket{start, {infinity, infinity, infinity}};
  for (int trial = 0; trial < kTrials && start.slope < 0.0; ++trial) {
    const LinePoint point = line.at(step);
    const double bound = start.value + kDecrease * step * start.slope + noise;
    if (!(point.value <= bound && point.slope <= -kCurvature * start.slope)) {  // NaN: too long
      bracket.high = point;
    } else if (point.slope < kCurvature * start.slope) {
      step = bracket.beyond(point);
      bracket.low = point;
    } else {
      *now = point;
      return true;
    }
    if (bracket.bounded()) step = trial % 2 == 0 ? bracket.inside() : bracket.middle();
  }
  return false;
}

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
// place. Allocates nothing and throws nothing.
template <class Objective>
Minimum minimize(const Objective& objective, double* x, int64_t dim, const MinimizeOptions& options,
                 LbfgsVectors* vectors) {
  auto& [gradient, direction, trial, trial_gradient, history] = *vectors;
  const Line<Objective> line{objective, x, direction, trial, trial_gradient, dim};
  LinePoint point{0.0, objective(x, gradient), 0.0};
  double gradient_norm = norm(gradient, dim);
  int32_t iterations = 0;
  const auto end = [&](MinimizeStatus status) { return Minimum{point.value, gradient_norm, iterations, status}; };
  if (!std::isfinite(point.value + gradient_norm)) return end(MinimizeStatus::not_finite);

  const double target = std::max(options.tol * gradient_norm, options.gradient_noise);
  while (gradient_norm > target) {
    if (iterations == options.max_iterations) return end(MinimizeStatus::iteration_limit);
    history.direction(direction, gradient);
    point = {0.0, point.value, dot(gradient, direction, dim)};
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
