// A line search for smooth convex functions, exact about rounding near the minimum.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "vector_math.h"

namespace gradex {
inline namespace GRADEX_ISA {

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

}  // namespace GRADEX_ISA
}  // namespace gradex
