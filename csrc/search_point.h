// Where a neighbour search is: a subset S, its minimum x_S, and all rows expanded around that.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "array.h"
#include "exact_solve.h"
#include "expansion.h"
#include "move.h"
#include "move_hessians.h"
#include "preconditioner.h"
#include "solve_start.h"
#include "subset_chunk.h"
#include "validation.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
class SearchPoint {
 public:
  SearchPoint(const SolverData<Element>& known, const ValidationData& validation, double l2, int threads)
      : known_(known),
        data_(known.data),
        l2_(l2),
        threads_(threads),
        validation_(validation, data_.dim, threads),
        hessians_(data_),
        inverse_(Array<double>(), 0),
        slope_(static_cast<size_t>(data_.dim)) {}

  // Expands everything around the minimum over the subset.
  void arrive(const uint8_t* subset) {
    if (subset_.empty() || !std::equal(subset_.begin(), subset_.end(), subset)) {
      subset_.assign(subset, subset + data_.groups);
      x_.assign(static_cast<size_t>(data_.dim), 0.0);
      solve_subset(subset_, &x_, nullptr);
      loss_error_ = 0.0;
    }
    sums_ = known_.add_up(subset);
    loss_ = validation_.loss(x_.data());
    validation_.move_to(x_.data(), slope_.data());
    if (empty()) return;
    expand_rows();
    place_hessians();
    measure_slope();
  }

  // To where a solved move leads; `arrive` completes it.
  void leave_for(const Move& move) {
    x_.assign(move.x, move.x + data_.dim);
    loss_error_ = move.error;
    subset_[move.group] ^= 1;
  }

  // Solves x_S in double precision. Returns how much lower the validation loss is.
  double come_closer() {
    const double before = loss_;
    solve_subset(subset_, &x_, factor());
    loss_ = validation_.loss(x_.data());
    loss_error_ = kExact * loss_;
    return before - loss_;
  }

  const SolverData<Element>& known() const { return known_; }
  const Validation& validation() const { return validation_; }
  const MoveHessians& hessians() const { return hessians_; }
  const Preconditioner& inverse() const { return inverse_; }  // of S's Hessian
  const double* factor() const { return inverse_.usable() ? inverse_.factor().data() : nullptr; }
  const Expansion& at() const { return at_; }

  double l2() const { return l2_; }
  int threads() const { return threads_; }
  bool empty() const { return !(sums_.weight > 0.0); }
  int64_t rows() const { return sums_.rows; }
  double curvature() const { return curvature_; }  // sum of w_i p_i (1 - p_i) / divisor
  // So many of mean curvature `curvature` say as much as S's rows.
  double equal_rows() const { return static_cast<double>(sums_.rows) * divisor() / sums_.weight; }
  double loss() const { return loss_; }  // mean over the validation rows
  double loss_error() const { return loss_error_; }
  double steepest() const { return steepest_; }  // the most that the loss can change with a unit of distance
  double drift() const { return drift_; }        // root mean square change of the margins since the Hessians were taken

  // S with or without the group.
  Array<uint8_t> toggled(int64_t group) const {
    Array<uint8_t> subset = subset_;
    subset[group] ^= 1;
    return subset;
  }
  double weight_after(int64_t group) const { return sums_.weight + sign(group) * known_.groups[group].weight; }
  double divisor_after(int64_t group) const { return data_.divisor_of(weight_after(group)); }

  // F after a move, at x_S; the gradient goes to *gradient [dim].
  ChunkStart start_after(int64_t group, const uint8_t* subset, Array<double>* gradient) const {
    const double divisor = divisor_after(group);
    for (int64_t k = 0; k < data_.dim; ++k) {
      const double sum = gradient_[k] + sign(group) * at_.gradient[group * data_.dim + k];
      (*gradient)[k] = sum / divisor + l2_ * x_[k];
    }
    const double loss = (row_loss_ + sign(group) * at_.loss[group]) / divisor;
    const int64_t rows = sums_.rows + (subset_[group] ? -1 : 1) * known_.groups[group].rows;
    return {subset,           divisor,    loss + 0.5 * l2_ * dot(x_.data(), x_.data(), data_.dim),
            gradient->data(), curvature_, static_cast<double>(rows) * divisor / weight_after(group),
            Trust::own};
  }

  // The group's own Hessian as a share of S's: of n random rows' covariance, the top eigenvalue is about
  // (sqrt(n) + sqrt(d))^2 / n times their mean curvature.
  double share_of(int64_t group) const {
    const GroupSums& sums = known_.groups[group];
    if (sums.rows == 0) return 0.0;
    const double root = 1.0 + std::sqrt(static_cast<double>(data_.dim) / static_cast<double>(sums.rows));
    return root * root * sums.curvature / sums_.curvature;
  }

  // move->x in double precision, from where it is, or from x_S if that is no place.
  void solve_exactly(Move* move) const {
    Array<double> x(move->x, move->x + data_.dim);
    const double length = norm(x.data(), data_.dim);
    if (!std::isfinite(length) || length == 0.0) x = x_;
    solve_subset(toggled(move->group), &x, factor());
    std::copy(x.begin(), x.end(), move->x);
    move->change = validation_.loss(move->x) - loss_;
    move->error = 0.5 * kExact * loss_;
    move->known = Known::solved;
  }

 private:
  static constexpr double kDrift = 0.02;  // of the margins, before the Hessians are taken anew
  static constexpr int32_t kIterations = 500;

  double divisor() const { return data_.divisor_of(sums_.weight); }
  double sign(int64_t group) const { return subset_[group] ? -1.0 : 1.0; }

  void solve_subset(const Array<uint8_t>& subset, Array<double>* x, const double* factor) const {
    const GroupSums sums = known_.add_up(subset.data());
    if (!(sums.weight > 0.0)) return x->assign(static_cast<size_t>(data_.dim), 0.0);
    const SubsetObjective objective{data_, subset.data(), data_.divisor_of(sums.weight), l2_};
    ExactSolve(objective, sums, 0.0, kIterations).run(x->data(), factor);
  }

  void expand_rows() {
    at_ = expand(data_, known_.rows, x_, threads_);
    row_loss_ = 0.0;
    gradient_.assign(static_cast<size_t>(data_.dim), 0.0);
    double curvature = 0.0;
    for (int64_t t = 0; t < data_.groups; ++t) {
      if (!subset_[t]) continue;
      axpy(gradient_.data(), 1.0, at_.gradient.data() + t * data_.dim, data_.dim);
      row_loss_ += at_.loss[t];
      curvature += at_.curvature[t];
    }
    curvature_ = curvature / divisor();
  }

  void place_hessians() {
    if (hessians_.placed()) {
      hessians_.follow(subset_.data(), at_.curvature);
      measure_drift();
    }
    if (drift_ <= kDrift) return;
    hessians_.move_to(x_.data(), subset_.data(), at_.curvature, threads_);
    drift_ = 0.0;
  }

  void measure_drift() {
    const int64_t dim = data_.dim;
    Array<double> shift(x_);
    axpy(shift.data(), -1.0, hessians_.x().data(), dim);
    const Array<double> hessian = hessians_.mean(divisor(), 0.0);
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i)
      square += shift[i] * (2.0 * dot(hessian.data() + i * dim, shift.data(), i) + hessian[i * dim + i] * shift[i]);
    drift_ = std::sqrt(std::max(square, 0.0) / curvature_);
    if (std::isnan(drift_)) drift_ = kUnknown;
  }

  void measure_slope() {
    inverse_ = Preconditioner(hessians_.mean(divisor(), l2_), data_.dim);
    inverse_.invert();
    steepest_ = kUnknown;
    if (!inverse_.usable()) return;
    Array<double> solution(slope_);
    cholesky_solve(factor(), solution.data(), data_.dim);
    steepest_ = std::sqrt(std::max(dot(solution.data(), slope_.data(), data_.dim), 0.0));
  }

  const SolverData<Element>& known_;
  const SubsetData& data_;
  double l2_;
  int threads_;
  Validation validation_;
  MoveHessians hessians_;
  Preconditioner inverse_;
  Array<uint8_t> subset_;               // S
  Array<double> x_, gradient_, slope_;  // x_S; sum of the rows' gradients there; gradient of the validation loss there
  Expansion at_;                        // around x_S
  GroupSums sums_;                      // of S
  double row_loss_ = 0.0;               // sum of w_i times the rows' losses
  double curvature_ = 0.0, loss_ = 0.0, loss_error_ = 0.0, steepest_ = 0.0, drift_ = kUnknown;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
