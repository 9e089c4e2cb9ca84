// What a subset is at the expansion point, from what its groups are there.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "expansion.h"
#include "group_sums.h"
#include "vector_math.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct SubsetSums {
  GroupSums groups;
  double loss, curvature;  // sums over the rows at the expansion point
};

inline SubsetSums subset_sums(const uint8_t* subset, const Array<GroupSums>& groups, const Expansion& at) {
  SubsetSums sums{{}, 0.0, 0.0};
  for (size_t t = 0; t < groups.size(); ++t) {
    if (!subset[t]) continue;
    sums.groups += groups[t];
    sums.loss += at.loss[t];
    sums.curvature += at.curvature[t];
  }
  return sums;
}

// gradient [dim] = sum over the subset's groups of at.gradient; of a subset that is more than half of everything, by
// what it lacks. whole [dim] is the sum over all `usable` groups.
inline void subset_gradient(double* gradient, const uint8_t* subset, const Array<uint8_t>& usable,
                            const Array<double>& whole, const Expansion& at) {
  const auto groups = static_cast<int64_t>(usable.size()), dim = static_cast<int64_t>(whole.size());
  int64_t in = 0, out = 0;
  for (int64_t t = 0; t < groups; ++t) usable[t] && (subset[t] ? ++in : ++out);
  const bool complement = out < in;
  std::fill(gradient, gradient + dim, 0.0);
  if (complement) std::copy(whole.begin(), whole.end(), gradient);
  const double sign = complement ? -1.0 : 1.0;
  for (int64_t t = 0; t < groups; ++t)
    if (usable[t] && static_cast<bool>(subset[t]) != complement)
      axpy(gradient, sign, at.gradient.data() + t * dim, dim);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
