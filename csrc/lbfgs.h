// L-BFGS for a smooth convex function: history, line search, minimise.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace gradex {

enum class MinimizeStatus { converged, iteration_limit, stalled, not_finite };

struct MinimizeOptions {
  double tol;             // stop at |gradient| <= tol * |gradient at the start|, or
  double gradient_noise;  // at |gradient| <= its rounding error
  double value_noise;     // rounding error of the objective: smaller increases are none
  double first_step;      // x - first_step * gradient is the first trial point
  int32_t max_iterations;
};

struct Minimum {
  double value, gradient_norm;
  int32_t iterations;
  MinimizeStatus status;
};

inline double dot(const double* a, const double* b, int64_t dim) {
  constexpr int64_t kLanes = 8;  // one sum cannot be vectorised, eight can
  double lane[kLanes] = {};
  int64_t k = 0;
  for (; k + kLanes <= dim; k += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lane[j] += a[k + j] * b[k + j];
  double sum = 0.0;
  for (; k < dim; ++k) sum += a[k] * b[k];
  for (double part : lane) sum += part;
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

// The last pairs s = change of x, y = change of the gradient: an implicit inverse Hessian.
class LbfgsHistory {
 public:
  static constexpr int64_t kPairs = 10;

  static int64_t storage_size(int64_t dim) { return 2 * kSlots * dim; }

  // storage [storage_size(dim)] belongs to the caller.
  LbfgsHistory(double* storage, int64_t dim)
      : steps_(storage), changes_(storage + kSlots * dim), dim_(dim) {}

  bool empty() const { return count_ == 0; }
  void clear() { count_ = 0; }

  // Keeps (to - from) unless its curvature s.y is lost in rounding.
  void add(const double* x_to, const double* x_from, const double* g_to, const double* g_from) {
    double* s = steps_ + slot(count_) * dim_;
    double* y = changes_ + slot(count_) * dim_;
    subtract(s, x_to, x_from, dim_);
    subtract(y, g_to, g_from, dim_);
    const double sy = dot(s, y, dim_), yy = dot(y, y, dim_), ss = dot(s, s, dim_);
    if (!(sy > std::numeric_limits<double>::epsilon() * std::sqrt(ss * yy))) return;
    inverse_curvature_[slot(count_)] = 1.0 / sy;
    scale_ = sy / yy;
    ++count_;
  }

  // direction = -H gradient by the two-loop recursion (Nocedal & Wright, algorithm 7.4).
  void direction(double* direction, const double* gradient) const {
    double alpha[kSlots];
    for (int64_t k = 0; k < dim_; ++k) direction[k] = -gradient[k];
    const int64_t oldest = std::max<int64_t>(0, count_ - kPairs);
    for (int64_t i = count_ - 1; i >= oldest; --i) {
      alpha[slot(i)] = inverse_curvature_[slot(i)] * dot(step(i), direction, dim_);
      axpy(direction, -alpha[slot(i)], change(i), dim_);
    }
    for (int64_t k = 0; k < dim_; ++k) direction[k] *= scale_;
    for (int64_t i = oldest; i < count_; ++i) {
      const double beta = inverse_curvature_[slot(i)] * dot(change(i), direction, dim_);
      axpy(direction, alpha[slot(i)] - beta, step(i), dim_);
    }
  }

 private:
  static constexpr int64_t kSlots =
      kPairs + 1;  // one more, so that a refused pair costs no old one
  static int64_t slot(int64_t i) { return i % kSlots; }
  const double* step(int64_t i) const { return steps_ + slot(i) * dim_; }
  const double* change(int64_t i) const { return changes_ + slot(i) * dim_; }

  double* steps_;    // [kSlots, dim], a ring
  double* changes_;  // [kSlots, dim]
  double inverse_curvature_[kSlots] = {};
  double scale_ = 1.0;
  int64_t dim_;
  int64_t count_ = 0;
};

// phi(step) = F(x + step * direction) and its derivative.
struct LinePoint {
  double step, value, slope;
};

template <class Objective>
struct Line {
  Objective& objective;
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

// low is too short a step, high too long: some step between them will do, phi being convex.
struct Bracket {
  LinePoint low, high;
  bool bounded = false;

  // The zero of the slope, taken as linear; no nearer to an end than a tenth of the bracket.
  double secant() const {
    const double width = high.step - low.step;
    const double step = low.step - low.slope * width / (high.slope - low.slope);
    if (!std::isfinite(step)) return middle();
    return std::clamp(step, low.step + 0.1 * width, high.step - 0.1 * width);
  }

  double middle() const { return 0.5 * (low.step + high.step); }

  // No point is too long yet: the same secant through the last two short ones, 2 to 10 times on.
  double extrapolate(const LinePoint& before) const {
    const double width = low.step - before.step;
    const double step = low.step - low.slope * width / (low.slope - before.slope);
    const double most = 10.0 * low.step;
    return step > 0.0 ? std::clamp(step, 2.0 * low.step, most) : most;
  }
};

// Strong Wolfe conditions (Nocedal & Wright, 3.7), where an increase below the rounding error of F
// counts as none: near the minimum only the slopes still tell two points apart (Hager & Zhang
// 2005). Moves *now to the accepted point, whose x and gradient are left in line.trial and
// line.trial_gradient; false if there is none at double precision.
template <class Objective>
bool search_line(const Line<Objective>& line, LinePoint* now, double step, double noise) {
  constexpr double kDecrease = 1e-4, kCurvature = 0.9;  // Nocedal & Wright's for quasi-Newton
  constexpr int kTrials = 60;  // every second one halves the bracket: past double precision
  const LinePoint start = *now;
  if (!(start.slope < 0.0)) return false;
  Bracket bracket{start, start};
  for (int trial = 0; trial < kTrials; ++trial) {
    const LinePoint point = line.at(step);
    const double bound = start.value + kDecrease * step * start.slope + noise;
    if (!(point.value <= bound) || !(point.slope <= -kCurvature * start.slope)) {
      bracket.high = point;
      bracket.bounded = true;
    } else if (point.slope < kCurvature * start.slope) {
      if (!bracket.bounded) step = Bracket{point, point}.extrapolate(bracket.low);
      bracket.low = point;
    } else {
      *now = point;
      return true;
    }
    if (bracket.bounded) step = trial % 2 == 0 ? bracket.secant() : bracket.middle();
  }
  return false;
}

// The vectors of one minimisation; storage [storage_size(dim)] belongs to the caller.
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

// Minimises a convex objective, double objective(const double* x, double* gradient), from x [dim]
// on, in place. Allocates nothing and throws nothing that the objective does not.
template <class Objective>
Minimum minimize(Objective&& objective, double* x, int64_t dim, const MinimizeOptions& options,
                 LbfgsVectors& vectors) {
  auto& [gradient, direction, trial, trial_gradient, history] = vectors;
  const Line<std::remove_reference_t<Objective>> line{objective,      x,  direction, trial,
                                                      trial_gradient, dim};
  Minimum now{objective(x, gradient), 0.0, 0, MinimizeStatus::converged};
  now.gradient_norm = norm(gradient, dim);
  if (!std::isfinite(now.value + now.gradient_norm)) now.status = MinimizeStatus::not_finite;
  const double target = std::max(options.tol * now.gradient_norm, options.gradient_noise);

  while (now.gradient_norm > target && now.status == MinimizeStatus::converged) {
    if (now.iterations == options.max_iterations) {
      now.status = MinimizeStatus::iteration_limit;
      break;
    }
    history.direction(direction, gradient);
    LinePoint point{0.0, now.value, dot(gradient, direction, dim)};
    const double step = history.empty() ? options.first_step : 1.0;
    if (search_line(line, &point, step, options.value_noise)) {
      history.add(trial, x, trial_gradient, gradient);
      std::copy(trial, trial + dim, x);
      std::copy(trial_gradient, trial_gradient + dim, gradient);
      now = {point.value, norm(gradient, dim), now.iterations + 1, now.status};
    } else if (history.empty()) {
      now.status = MinimizeStatus::stalled;
    } else {
      history.clear();  // its pairs have become rounding error: try the gradient itself
    }
  }
  return now;
}

}  // namespace gradex
