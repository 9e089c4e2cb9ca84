// Many ridge-penalised logistic regressions, one per subset of groups, over one shared matrix.
#pragma once

#include <cstdint>

namespace gradex {

enum SolveStatus : int32_t {
  kConverged = 0,       // |grad F(x)| <= max(tol * |grad F(0)|, rounding error of grad F)
  kIterationLimit = 1,  // max_iterations steps were taken first
  kStalled = 2,         // no step lowers F at double precision, and the test is not met
  kNotFinite = 3,       // a NaN or infinity among the subset's rows: x = 0, loss = NaN
  kEmpty = 4,           // no rows, or no weight: x = 0, loss = 0
};

struct SolveArguments {
  double* x;                 // [subsets, dim]  out
  double* loss;              // [subsets]       out, F_S(x_S)
  double* gradient_norm;     // [subsets]       out, euclidean norm of grad F_S(x_S)
  int32_t* iterations;       // [subsets]       out
  int32_t* status;           // [subsets]       out, SolveStatus
  const float* features;     // [rows, dim], sorted by group
  const double* margins;     // [rows]
  const double* weights;     // [rows] or nullptr (all one), none negative
  const int64_t* group_ptr;  // [groups + 1]
  const uint8_t* subsets;    // [subsets, groups], 1 = in (groups always in are already set)
  int64_t rows, dim, groups, subset_count;
  double l2, tol;
  int32_t max_iterations, threads;
};

// Each subset is solved by one thread alone: the same bits for any number of threads.
void solve_cpu(const SolveArguments& arguments);

}  // namespace gradex
