// Where all subsets start: about the minimum over the union of the groups. It need not be exact, only near.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "array.h"
#include "cholesky.h"
#include "group_sums.h"
#include "hessian.h"
#include "parallel.h"

namespace gradex {
inline namespace GRADEX_ISA {

// F over some of the rows, each as often as it takes for them to stand for all.
class RowSample {
 public:
  struct Point {
    double value = 0.0;
    Array<double> gradient;  // [dim]
    Array<double> hessian;   // [dim, dim], lower triangle
  };

  // About `wanted` rows of the groups that are `usable`, evenly spread.
  RowSample(const SubsetData& data, const Array<uint8_t>& usable, double l2, int64_t wanted, int threads)
      : data_(data), l2_(l2), threads_(threads) {
    int64_t total = 0;
    for (int64_t t = 0; t < data.groups; ++t)
      if (usable[t]) total += data.group_ptr[t + 1] - data.group_ptr[t];
    const int64_t stride = std::max<int64_t>(1, total / std::max<int64_t>(1, wanted));
    int64_t next = stride / 2, passed = 0;
    for (int64_t t = 0; t < data.groups; ++t) {
      const int64_t rows = usable[t] ? data.group_ptr[t + 1] - data.group_ptr[t] : 0;
      for (; next < passed + rows; next += stride) rows_.push_back(data.group_ptr[t] + next - passed);
      passed += rows;
    }
    for (int64_t row : rows_) weight_ += weight(row);
  }

  double weight() const { return weight_; }

  Point at(const double* x) const {
    Array<Point> parts(kParts);
    parallel_for(kParts, threads_, [&](int64_t part) { parts[part] = sum_part(x, part); });
    const int64_t dim = data_.dim;
    Point sum{0.0, Array<double>(dim), Array<double>(dim * dim)};
    for (const Point& part : parts) {
      sum.value += part.value / weight_;
      axpy(sum.gradient.data(), 1.0 / weight_, part.gradient.data(), dim);
      axpy(sum.hessian.data(), 1.0 / weight_, part.hessian.data(), dim * dim);
    }
    sum.value += 0.5 * l2_ * dot(x, x, dim);
    axpy(sum.gradient.data(), l2_, x, dim);
    for (int64_t k = 0; k < dim; ++k) sum.hessian[k * dim + k] += l2_;
    return sum;
  }

  Array<double> gradient_at(const double* x) const {
    const int64_t dim = data_.dim;
    Array<Array<double>> parts(kParts, Array<double>(dim));
    parallel_for(kParts, threads_, [&](int64_t part) {
      for (int64_t i = begin(part); i < begin(part + 1); ++i) {
        add_row(parts[part].data(), -weight(rows_[i]) * sigmoid(-margin(rows_[i], x)), row(rows_[i]), dim);
      }
    });
    Array<double> sum(dim);
    for (const Array<double>& part : parts) axpy(sum.data(), 1.0 / weight_, part.data(), dim);
    axpy(sum.data(), l2_, x, dim);
    return sum;
  }

 private:
  static constexpr int64_t kParts = 16;  // fixed, so that the sums do not depend on the threads

  int64_t begin(int64_t part) const { return part * static_cast<int64_t>(rows_.size()) / kParts; }
  const float* row(int64_t i) const { return data_.features + i * data_.dim; }
  double weight(int64_t i) const { return data_.weights ? data_.weights[i] : 1.0; }
  double margin(int64_t i, const double* x) const { return data_.margins[i] + dot_row(row(i), x, data_.dim); }

  Point sum_part(const double* x, int64_t part) const {
    Point sum{0.0, Array<double>(data_.dim), {}};
    OuterProducts products(data_.dim);
    for (int64_t i = begin(part); i < begin(part + 1); ++i) {
      const double weight = this->weight(rows_[i]);
      const Softplus point = softplus(-margin(rows_[i], x));
      sum.value += weight * point.value;
      add_row(sum.gradient.data(), -weight * point.slope, row(rows_[i]), data_.dim);
      products.add(row(rows_[i]), weight * point.slope * (1.0 - point.slope));
    }
    sum.hessian = products.lower();
    return sum;
  }

  const SubsetData& data_;
  double l2_, weight_ = 0.0;
  int threads_;
  Array<int64_t> rows_;
};

// Damped Newton steps on the sample, until one promises less than a hundredth of F, or none helps.
inline void minimize_sample(const RowSample& sample, Array<double>* x) {
  constexpr int kSteps = 30, kHalvings = 20;
  const auto dim = static_cast<int64_t>(x->size());
  Array<double> factor, step(dim), trial(dim);
  RowSample::Point now = sample.at(x->data());
  for (int i = 0; i < kSteps && regularised_cholesky(&factor, now.hessian, dim); ++i) {
    for (int64_t k = 0; k < dim; ++k) step[k] = -now.gradient[k];
    cholesky_solve(factor.data(), step.data(), dim);
    const double slope = dot(step.data(), now.gradient.data(), dim);
    if (!(-slope > 1e-2 * now.value)) return;
    bool better = false;
    double length = 1.0;
    for (int halving = 0; halving < kHalvings && !better; ++halving, length /= 2.0) {
      for (int64_t k = 0; k < dim; ++k) trial[k] = (*x)[k] + length * step[k];
      RowSample::Point next = sample.at(trial.data());
      better = next.value <= now.value + 1e-4 * length * slope;
      if (better) now = std::move(next);
    }
    if (!better) return;
    *x = trial;
  }
}

// x [dim]: minimises over a sample of the usable rows, then takes one step for all of them.
inline Array<double> union_start(const SubsetData& data, const Array<uint8_t>& usable, double l2, int threads) {
  const int64_t dim = data.dim, some = std::max<int64_t>(2048, 8 * dim), many = std::max<int64_t>(40'000, 16 * dim);
  Array<double> x(dim), factor;
  const RowSample sample(data, usable, l2, some, threads), larger(data, usable, l2, many, threads);
  if (!(sample.weight() > 0.0)) return x;
  minimize_sample(sample, &x);
  Array<double> step = RowSample(data, usable, l2, data.rows, threads).gradient_at(x.data());
  if (!regularised_cholesky(&factor, larger.at(x.data()).hessian, dim)) return x;
  cholesky_solve(factor.data(), step.data(), dim);
  if (std::isfinite(norm(step.data(), dim))) axpy(x.data(), -1.0, step.data(), dim);
  return x;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
