// What the subsets of a chunk share, and what each of them is.
#pragma once

#include <algorithm>
#include <cstdint>

#include "expansion.h"
#include "packed_rows.h"
#include "preconditioner.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
struct ChunkShared {
  const SubsetData& data;
  const PackedRows<Element>& rows;
  const Expansion& at;
  const Preconditioner* preconditioner;  // inverse of about every subset's Hessian, or nullptr: each has its own
  double l2, tol;
  int32_t max_iterations;
};

// How far the preconditioner can be taken for the inverse of a subset's Hessian.
enum class Trust : uint8_t { none, of_union, own };

// A subset at the expansion point.
struct ChunkStart {
  const uint8_t* subset;   // [groups]
  double divisor;          // of the sum over its rows
  double loss;             // F
  const double* gradient;  // [dim], of F
  double curvature;        // sum of w_i p_i (1 - p_i) / divisor
  double rows;             // times divisor / sum of w_i: so many of mean curvature `curvature` say as much
  Trust trust;
};

// near: needs double precision to come closer; hard: and a Hessian of its own.
enum class Ending : uint8_t { open, converged, iteration_limit, near, hard };

struct Problem {
  const uint8_t* subset;                              // [groups], or nullptr for none
  double divisor, loss_at_start, loss;                // loss: a bound from below
  double decrement, last_decrement, first_decrement;  // g.Hg, about 2 (F - min F); 0 before there is one
  double gradient_norm;
  double contraction;  // the best so far, of the decrement by a step
  double rounding;     // see rounding_share
  double curvature;    // sum of w_i p_i (1 - p_i) / divisor at the start
  int32_t iterations;  // and pairs of the history
  Trust trust;
  Ending ending;
};

// What rounding adds to the decrement, as a share of the first: it is an independent error of every row, and shifts x
// as a sample of so many rows does, by sqrt(d / rows) of it. Rows of p near 0 or 1 do not count; curvature: the mean of
// p (1 - p).
template <class Element>
double rounding_share(int64_t dim, double rows, double curvature) {
  const double count = std::max(1.0, 4.0 * curvature * rows);
  return Element::kRounding * Element::kRounding * static_cast<double>(dim) / count;
}

// F - min F after the step that is about to be taken. It contracts the decrement by at most twice what the best one
// before did, or the change of the margins on the way lets it, if that is small and the Hessian nearly right. Certain
// is only F - min F <= |g|^2 / (2 l2); of a union's Hessian, which may hold curvature that the subset lacks, that is
// asked too.
inline double expected_gap(const Problem& problem, double l2, double tol) {
  constexpr double kNear = 0.25, kOfChange = 1.0 / 16.0;
  const double bound = problem.gradient_norm * problem.gradient_norm / (2.0 * l2);
  const double change = problem.first_decrement / problem.curvature;  // mean square, of the margins
  const bool right =
      problem.trust == Trust::own || (problem.trust == Trust::of_union && bound <= 100.0 * tol * problem.loss);
  const double contraction = std::max(problem.contraction, kOfChange * change);
  const double gap = right && change < kNear ? std::min(bound, problem.decrement * contraction) : bound;
  return gap + 0.5 * problem.rounding * problem.first_decrement;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
