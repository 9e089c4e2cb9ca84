// Hessians of subsets that differ from one by one group: its own, plus or minus the group's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "array.h"
#include "group_hessians.h"
#include "parallel.h"
#include "subset_factors.h"

namespace gradex {
inline namespace GRADEX_ISA {

class MoveHessians {
 public:
  explicit MoveHessians(const SubsetData& data)
      : data_(data),
        entries_(triangle(data.dim)),
        scales_(data.groups),
        in_sum_(data.groups),
        sum_(static_cast<size_t>(entries_)) {}

  // Takes all groups' Hessians at x, and the subset's as their sum. curvature [groups]: sum_i w_i p_i (1 - p_i) at x.
  void move_to(const double* x, const uint8_t* subset, const Array<double>& curvature, int threads) {
    x_.assign(x, x + data_.dim);
    curvature_ = curvature;
    kept_.resize(keeps() ? data_.groups : 0);
    parallel_for(static_cast<int64_t>(kept_.size()), threads, [&](int64_t t) { kept_[t] = triangle_of(t); });
    std::fill(in_sum_.begin(), in_sum_.end(), uint8_t{0});
    std::fill(sum_.begin(), sum_.end(), 0.0);
    follow(subset, curvature);
  }

  // Another subset, and another x not far away: what changes of a Hessian is mostly its size.
  void follow(const uint8_t* subset, const Array<double>& curvature) {
    double then = 0.0, now = 0.0;
    for (int64_t t = 0; t < data_.groups; ++t) {
      scales_[t] = curvature_[t] > 0.0 ? curvature[t] / curvature_[t] : 1.0;
      if (subset[t]) then += curvature_[t], now += curvature[t];
      if (subset[t] == in_sum_[t]) continue;
      Array<float> made;
      const float* group = group_entries(t, &made);
      const double sign = subset[t] ? 1.0 : -1.0;
      for (int64_t entry = 0; entry < entries_; ++entry) sum_[entry] += sign * static_cast<double>(group[entry]);
      in_sum_[t] = subset[t];
    }
    scale_ = then > 0.0 ? now / then : 1.0;
  }

  bool placed() const { return !x_.empty(); }
  const Array<double>& x() const { return x_; }

  // [dim, dim], lower triangle: the subset's sum / weight + l2
  Array<double> mean(double weight, double l2) const {
    const int64_t dim = data_.dim;
    Array<double> square(static_cast<size_t>(dim * dim));
    for (int64_t i = 0; i < dim; ++i)
      for (int64_t j = 0; j <= i; ++j)
        square[i * dim + j] = sum_[triangle(i) + j] * scale_ / weight + (i == j ? l2 : 0.0);
    return square;
  }

  // Of the subset with each of the moves made.
  void fill(SubsetFactors* factors, const int64_t* moves, int64_t count) const {
    for (int64_t first = 0; first < count; first += kVectorLanes) {
      const int64_t lanes = std::min(kVectorLanes, count - first);
      Vector* out = factors->hessians(first / kVectorLanes);
      Array<Array<float>> made(kVectorLanes);
      const float* group[kVectorLanes];
      for (int64_t lane = 0; lane < lanes; ++lane) group[lane] = group_entries(moves[first + lane], &made[lane]);
      for (int64_t begin = 0; begin < entries_; begin += kVectorLanes) {  // a few lines of the cache at a time
        const int64_t end = std::min(begin + kVectorLanes, entries_);
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const int64_t t = moves[first + lane];
          const auto sign = static_cast<float>(in_sum_[t] ? -scales_[t] : scales_[t]);
          for (int64_t entry = begin; entry < end; ++entry)
            out[entry][lane] = static_cast<float>(sum_[entry] * scale_) + sign * group[lane][entry];
        }
      }
      std::fill(out + entries_, out + triangle(factors->dim()), Vector{});
    }
  }

 private:
  static constexpr int64_t kBytes = 128 << 20;  // that all groups' Hessians may take; else each is made when asked for

  bool keeps() const { return data_.groups * entries_ * static_cast<int64_t>(sizeof(float)) <= kBytes; }

  Array<float> triangle_of(int64_t t) const {
    const Array<double> square = group_hessian(data_, t, x_.data(), 1);
    Array<float> packed(static_cast<size_t>(entries_));
    for (int64_t i = 0; i < data_.dim; ++i)
      for (int64_t j = 0; j <= i; ++j) packed[triangle(i) + j] = static_cast<float>(square[i * data_.dim + j]);
    return packed;
  }

  const float* group_entries(int64_t t, Array<float>* made) const {
    if (keeps()) return kept_[t].data();
    *made = triangle_of(t);
    return made->data();
  }

  const SubsetData& data_;
  int64_t entries_;
  Array<double> x_;                   // [dim]
  Array<double> curvature_, scales_;  // [groups], there; now, as multiples of it
  double scale_ = 1.0;                // of the subset's sum
  Array<uint8_t> in_sum_;
  Array<double> sum_;         // [entries]
  Array<Array<float>> kept_;  // [groups][entries]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
