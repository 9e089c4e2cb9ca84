// Many ridge-penalised logistic regressions, one per subset of groups, over one shared matrix.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace gradex {

enum SolveStatus : int32_t {
  kConverged = 0,       // by the test of SolveArguments::tol, or at the rounding error of the gradient
  kIterationLimit = 1,  // max_iterations steps were taken first
  kStalled = 2,         // no step lowers F at double precision, and the test is not met
  kNotFinite = 3,       // a NaN or infinity among the subset's rows: x = 0, loss = NaN
  kEmpty = 4,           // no rows, or no weight: x = 0, loss = 0
};

// The caller keeps all of it alive, and unchanged, as long as a solver uses it.
struct SubsetData {
  const float* features;     // [rows, dim], sorted by group
  const double* margins;     // [rows]
  const double* weights;     // [rows] or nullptr (all one), none negative
  const int64_t* group_ptr;  // [groups + 1]
  int64_t rows, dim, groups;
  int64_t most_packed =
      int64_t{1} << 30;  // bytes of packed copies that are kept; of larger ones each reader makes its own
  double divisor = 0.0;  // of the sum over a subset's rows in F_S; 0: the sum of the subset's own weights

  double divisor_of(double weight) const { return divisor > 0.0 ? divisor : weight; }
};

// What a solve can go without: for benchmarks, to see what each part buys.
enum SolvePart : int32_t { kSharedStart = 1, kSubsetHessians = 2, kUnionHessian = 4, kBatches = 8 };

struct SolveArguments {
  double* x;               // [subsets, dim]  out
  int32_t* iterations;     // [subsets]       out
  int32_t* status;         // [subsets]       out, SolveStatus
  const uint8_t* subsets;  // [subsets, groups], 1 = in (groups always in are already set)
  int64_t subset_count;
  double l2;
  double tol;  // F_S(x) - min F_S <= tol * min(F_S(x), 100 * (F_S(start) - min F_S)), by the Newton decrement;
               // or |grad F_S(x)| <= tol^2 * |grad F_S(0)|, for where there is no minimum
  int32_t max_iterations, threads;
  int32_t without;                            // SolvePart, or-ed
  std::function<bool(int64_t done)> proceed;  // called by the calling thread alone; false stops the solve
};

struct EvaluateArguments {
  double* loss;            // [subsets]  out, F_S(x); 0 without rows or weight, NaN with bad ones
  double* gradient_norm;   // [subsets]  out, |grad F_S(x)|
  const double* x;         // [subsets, dim]
  const uint8_t* subsets;  // [subsets, groups]
  int64_t subset_count;
  double l2;
  int32_t threads;
};

// Rows whose mean loss at x_S is to be made small.
struct ValidationData {
  const float* features;  // [rows, dim]
  const double* margins;  // [rows]
  int64_t rows;
};

// Subsets that differ from one subset S by one group: S with a group that it lacks, or without one that it holds.
class NeighbourSearch {
 public:
  struct Best {
    int64_t move;      // position in `moves`
    double loss, now;  // mean validation loss at its minimum, and at S's
    int64_t solved;    // how many moves were solved and not only screened
  };
  virtual ~NeighbourSearch() = default;
  // The move of lowest validation loss, the first of equals; x [dim] out, its minimum. A move that leaves no rows
  // counts with x = 0.
  virtual Best best(double* x, const uint8_t* subset, const int64_t* moves, int64_t count) = 0;
  // x [count, dim] out, the minima of all moves.
  virtual void solve(double* x, const uint8_t* subset, const int64_t* moves, int64_t count) = 0;
};

class SubsetSolver {
 public:
  virtual ~SubsetSolver() = default;
  // The bits of a subset's result depend on the data, l2, tol and the instruction set, not on threads or on the other
  // subsets. Returns how many subsets were solved one by one in double precision, as the rest cannot be.
  virtual int64_t solve(const SolveArguments& arguments) const = 0;
  virtual void evaluate(const EvaluateArguments& arguments) const = 0;
  // For finite rows of at most kLargestSearchDim columns. Uses the solver, and the validation rows, while it lives.
  virtual std::unique_ptr<NeighbourSearch> neighbours(const ValidationData& validation, double l2,
                                                      int threads) const = 0;
};

constexpr int64_t kLargestSearchDim = 512;

// Packs the rows for the instruction set in use.
std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData& data, int threads);

}  // namespace gradex
