// The point that a batch of subsets starts from, and what is known of the groups there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "array.h"
#include "exact_solve.h"
#include "expansion.h"
#include "group_hessians.h"
#include "group_sums.h"
#include "parallel.h"
#include "preconditioner.h"
#include "solve.h"
#include "union_start.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What no l2 and no subset changes.
template <class Element>
struct SolverData {
  SubsetData data;
  PackedRows<Element> rows;
  Array<GroupSums> groups;
  Array<uint8_t> usable;  // [groups], 1 = finite, with weight
  double weight = 0.0;    // of the usable groups

  SolverData(const SubsetData& given, int threads)
      : data(given), rows(given, threads), groups(given.groups), usable(given.groups) {
    parallel_for(given.groups, threads, [&](int64_t t) {
      groups[t] = sum_group(group_rows(given, t));
      usable[t] = groups[t].finite() && groups[t].weight > 0.0;
    });
    for (int64_t t = 0; t < given.groups; ++t)
      if (usable[t]) weight += groups[t].weight;
  }

  GroupSums add_up(const uint8_t* subset) const {
    GroupSums sums;
    for (int64_t t = 0; t < data.groups; ++t)
      if (subset[t]) sums += groups[t];
    return sums;
  }
};

template <class Element>
struct SolveStart {
  Expansion at;
  Array<double> whole;  // [dim], sum of at.gradient over the usable groups
  std::optional<GroupHessians<Element>> hessians;
  Preconditioner preconditioner;  // of the union
};

// The identity, times the mean eigenvalue.
inline void scale_of(Array<double>* hessian, int64_t dim) {
  double trace = 0.0;
  for (int64_t k = 0; k < dim; ++k) trace += (*hessian)[k * dim + k];
  std::fill(hessian->begin(), hessian->end(), 0.0);
  for (int64_t k = 0; k < dim; ++k) (*hessian)[k * dim + k] = trace / static_cast<double>(dim);
}

// [dim, dim], lower triangle; from the sum of the groups' if there is one. Zero where it would cost too much.
template <class Element>
Array<double> union_hessian(const SolverData<Element>& known, const SolveArguments& a, const Array<double>& x,
                            const Array<double>* sum) {
  const int64_t dim = known.data.dim, rows = std::max<int64_t>(40'000, 16 * dim);
  Array<double> mean(static_cast<size_t>(dim * dim));
  if (dim > kLargestHessian) return mean;
  if (!sum) {
    mean = RowSample(known.data, known.usable, a.l2, rows, a.threads).at(x.data()).hessian;
  } else {
    for (int64_t i = 0; i < dim * dim; ++i) mean[i] = (*sum)[i] / known.weight;
    for (int64_t k = 0; k < dim; ++k) mean[k * dim + k] += a.l2;
  }
  if (a.without & kUnionHessian) scale_of(&mean, dim);
  return mean;
}

template <class Element>
SolveStart<Element> make_start(const SolverData<Element>& known, const SolveArguments& a) {
  const SubsetData& data = known.data;
  const bool wide = data.dim > kLargestHessian, at_zero = wide || a.without & kSharedStart;
  Array<double> x = at_zero ? Array<double>(data.dim) : union_start(data, known.usable, a.l2, a.threads);
  Expansion at = expand(data, known.rows, std::move(x), a.threads);
  Array<double> whole(data.dim);
  for (int64_t t = 0; t < data.groups; ++t)
    if (known.usable[t]) axpy(whole.data(), 1.0, at.gradient.data() + t * data.dim, data.dim);
  std::optional<GroupHessians<Element>> hessians;
  if (!wide && !(a.without & kSubsetHessians) && GroupHessians<Element>::worthwhile(data))
    hessians.emplace(data, known.usable, at.x.data(), a.threads);
  Preconditioner preconditioner(union_hessian(known, a, at.x, hessians ? &hessians->total() : nullptr), data.dim);
  if (!hessians) preconditioner.invert();
  return {std::move(at), std::move(whole), std::move(hessians), std::move(preconditioner)};
}

}  // namespace GRADEX_ISA
}  // namespace gradex
