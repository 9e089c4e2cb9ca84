// Some of the subsets, solved together by one thread: L-BFGS steps from the expansion point, one pass over the rows for
// all of them at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>

#include "array.h"
#include "block_pass.h"
#include "group_hessians.h"
#include "preconditioner.h"
#include "subset_sums.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What all chunks share.
template <class Element>
struct SharedStart {
  const SubsetData& data;
  const PackedRows<Element>& rows;
  const Array<GroupSums>& groups;  // [groups]
  const Array<uint8_t>& usable;    // [groups], 1 = finite, with rows
  const Expansion& at;
  const Array<double>& whole;              // [dim], sum of at.gradient over the usable groups
  const Preconditioner& preconditioner;    // of the union
  const GroupHessians<Element>* hessians;  // or nullptr: then the union's is every subset's preconditioner
  double weight;                           // sum over the usable groups
  double l2, tol;
  int32_t max_iterations;
};

enum class Ending : uint8_t { open, converged, iteration_limit, near, hard };  // near, hard: double precision is needed

// One subset of a chunk.
struct Problem {
  const uint8_t* subset;  // [groups]
  double weight, loss_at_start, loss;
  bool like_union;                                   // the union's Hessian can stand for the subset's
  double decrement, first_decrement, gradient_norm;  // g.Hg, about 2 (F - min F)
  int32_t iterations, pairs;
  Ending ending;
};

template <class Element>
class SubsetChunk {
 public:
  using Word = typename Element::Word;
  using Sum = typename Element::Sum;
  static constexpr int32_t kPairs = 6, kPasses = 12;
  static constexpr float kSmallestGradient = 1e-10f;  // of a smaller one float32 products may underflow

  // Room for `count` subsets.
  SubsetChunk(const SharedStart<Element>& shared, int64_t count)
      : shared_(shared), dim_(shared.data.dim), padded_(shared.rows.padded_dim()), problems_(count) {
    if (shared.hessians) factors_.emplace(*shared.hessians, count);
    const auto size = static_cast<size_t>((count + 1) * padded_);  // the last is nobody's
    for (auto* vectors : {&start_gradient_, &gradient_, &shift_, &direction_, &trial_}) vectors->resize(size);
    for (int32_t pair = 0; pair < kPairs; ++pair) steps_[pair].resize(size), changes_[pair].resize(size);
    words_.resize(static_cast<size_t>((count + 1) * shared.rows.steps()));
    sums_.resize(size);
    scratch_.resize(static_cast<size_t>(padded_ * kTileColumns));
    for (auto* scalars : {&rho_, &alpha_}) scalars->resize(static_cast<size_t>(count * kPairs));
  }

  // Forgets its subsets.
  void clear() {
    std::fill(problems_.begin(), problems_.end(), Problem{});
    active_.clear();
  }

  // Puts subset `index` of the chunk at the expansion point.
  void start(int64_t index, const uint8_t* subset, const SubsetSums& sums) {
    const double weight = sums.groups.weight, l2 = shared_.l2;
    const Array<double>& x = shared_.at.x;
    Array<double> gradient(dim_);
    subset_gradient(gradient.data(), subset, shared_.usable, shared_.whole, shared_.at);
    float* start = at(start_gradient_, index);
    for (int64_t k = 0; k < dim_; ++k) start[k] = static_cast<float>(gradient[k] / weight + l2 * x[k]);
    std::copy(start, start + padded_, at(gradient_, index));
    std::fill_n(at(shift_, index), padded_, 0.0f);
    const double loss = sums.loss / weight + 0.5 * l2 * dot(x.data(), x.data(), dim_);
    const bool like_union = weight >= 0.5 * shared_.weight && sums.groups.rows >= 4 * dim_;
    problems_[index] = {subset, weight, loss, loss, like_union, 0.0, 0.0, 0.0, 0, 0, Ending::open};
    const float size = std::sqrt(dot(start, start, padded_));
    if (size < kSmallestGradient) problems_[index].ending = Ending::near;
    active_.push_back(index);
  }

  void run() {
    if (!shared_.preconditioner.usable()) return end_all(Ending::hard);
    keep_open();
    if (shared_.hessians) factorise();
    for (int32_t pass = 0; !active_.empty() && pass < kPasses; ++pass) {
      for (int64_t index : active_) first_loop(index);
      precondition();
      for (int64_t index : active_) second_loop(index), judge(index);
      keep_open();
      for (int64_t index : active_) make_trial(index);
      evaluate();
      for (int64_t index : active_) take_trial(index);
      keep_open();
    }
    end_all(Ending::hard);
  }

  const Problem& problem(int64_t index) const { return problems_[index]; }

  // x [dim] = expansion point + shift
  void write_x(int64_t index, double* x) const {
    const float* shift = shift_.data() + index * padded_;
    for (int64_t k = 0; k < dim_; ++k) x[k] = shared_.at.x[k] + static_cast<double>(shift[k]);
  }

 private:
  float* at(Array<float>& vectors, int64_t index) { return vectors.data() + index * padded_; }

  void end_all(Ending ending) {
    for (int64_t index : active_) problems_[index].ending = ending;
    active_.clear();
  }

  void keep_open() {
    const auto ended = [&](int64_t index) { return problems_[index].ending != Ending::open; };
    active_.erase(std::remove_if(active_.begin(), active_.end(), ended), active_.end());
  }

  // The two-loop recursion (Nocedal & Wright, algorithm 7.4), up to the initial matrix.
  void first_loop(int64_t index) {
    float *direction = at(direction_, index), *gradient = at(gradient_, index);
    for (int64_t k = 0; k < padded_; ++k) direction[k] = -gradient[k];
    for (int32_t pair = problems_[index].pairs - 1; pair >= 0; --pair) {
      float& alpha = alpha_of(index, pair);
      alpha = rho_[index * kPairs + pair] * dot(at(steps_[pair], index), direction, padded_);
      axpy(direction, -alpha, at(changes_[pair], index), padded_);
    }
  }

  void factorise() {
    const auto count = static_cast<int64_t>(problems_.size());
    factors_->factorise(
        count, shared_.data.groups, shared_.l2,
        [&](int64_t index) { return is_open(index) ? problems_[index].subset : nullptr; },
        [&](int64_t index) { return problems_[index].weight; });
  }

  void precondition() {
    if (factors_) {
      for (int64_t v = 0; v < factors_->vectors(); ++v)
        factors_->apply(v, dim_, [&](int64_t index) { return is_open(index) ? at(direction_, index) : nullptr; });
      return;
    }
    float* vectors[kTileColumns];
    for (size_t first = 0; first < active_.size(); first += kTileColumns) {
      for (size_t c = 0; c < kTileColumns; ++c) vectors[c] = at(direction_, member(first + c));
      shared_.preconditioner.apply(vectors, scratch_.data());
    }
  }

  void second_loop(int64_t index) {
    float* direction = at(direction_, index);
    for (int32_t pair = 0; pair < problems_[index].pairs; ++pair) {
      const float beta = rho_[index * kPairs + pair] * dot(at(changes_[pair], index), direction, padded_);
      axpy(direction, alpha_of(index, pair) - beta, at(steps_[pair], index), padded_);
    }
  }

  // Ends what has converged, or will have with one more step that needs no look; and what this cannot solve.
  void judge(int64_t index) {
    Problem& problem = problems_[index];
    const float *gradient = at(gradient_, index), *direction = at(direction_, index);
    const double before = problem.decrement, tol = shared_.tol;
    problem.decrement = -static_cast<double>(dot(gradient, direction, padded_));
    problem.gradient_norm = std::sqrt(static_cast<double>(dot(gradient, gradient, padded_)));
    if (!(problem.decrement > 0.0)) return end(problem, Ending::hard);
    if (problem.iterations == 0) {
      problem.first_decrement = problem.decrement;
    } else {
      const double target = tol * std::min(problem.loss, 50.0 * problem.first_decrement);
      if (2.0 * problem.decrement > before) return end(problem, Ending::hard);
      if (expected_gap(problem, before) <= target) return finish(index);
      if (problem.decrement < Element::kResolution * problem.first_decrement) return end(problem, Ending::near);
    }
    if (problem.iterations == shared_.max_iterations) end(problem, Ending::iteration_limit);
  }

  // F - min F after the step that is about to be taken. Where the Hessian is the subset's own, or nearly, the step
  // contracts the decrement by at most twice what the last one did; else only F - min F <= |g|^2 / (2 l2) is certain.
  double expected_gap(const Problem& problem, double before) const {
    const double bound = problem.gradient_norm * problem.gradient_norm / (2.0 * shared_.l2);
    if (!factors_ && !(problem.like_union && bound <= 100.0 * shared_.tol * problem.loss)) return bound;
    return std::min(bound, problem.decrement * problem.decrement / before);
  }

  static void end(Problem& problem, Ending ending) { problem.ending = ending; }

  void finish(int64_t index) {
    Problem& problem = problems_[index];
    if (problem.iterations == shared_.max_iterations) return end(problem, Ending::iteration_limit);
    axpy(at(shift_, index), 1.0f, at(direction_, index), padded_);
    ++problem.iterations;
    end(problem, Ending::converged);
  }

  // The trial point is one that the words can hold: its evaluation is exact but for the rows' rounding.
  void make_trial(int64_t index) {
    const float *shift = at(shift_, index), *direction = at(direction_, index);
    float* trial = at(trial_, index);
    for (int64_t k = 0; k < padded_; ++k) trial[k] = Element::rounded(shift[k] + direction[k]);
    Word* words = words_.data() + index * shared_.rows.steps();
    for (int64_t step = 0; step < shared_.rows.steps(); ++step)
      words[step] = Element::pack(trial + step * Element::kDepth);
    std::fill(sums_.begin() + index * padded_, sums_.begin() + (index + 1) * padded_, Sum{0});
  }

  void evaluate() {
    for (int64_t t = 0; t < shared_.data.groups; ++t) {
      columns_.clear();
      for (int64_t index : active_)
        if (problems_[index].subset[t]) columns_.push_back(column(index));
      while (columns_.size() % kTileColumns) columns_.push_back(column(nobody()));
      pass_group(shared_.rows, t, shared_.at, columns_.data(), static_cast<int64_t>(columns_.size()));
    }
  }

  // Keeps the trial point if the slope along the step has at least halved: of a convex function's values that says
  // enough, and more exactly than they do near the minimum (Hager & Zhang 2005).
  void take_trial(int64_t index) {
    Problem& problem = problems_[index];
    float *shift = at(shift_, index), *gradient = at(gradient_, index), *trial = at(trial_, index);
    const float* start = at(start_gradient_, index);
    const Sum* sums = sums_.data() + index * padded_;
    float* step = at(steps_[problem.pairs % kPairs], index);
    float* change = at(changes_[problem.pairs % kPairs], index);
    const auto l2 = static_cast<float>(shared_.l2), weight = static_cast<float>(problem.weight);
    for (int64_t k = 0; k < padded_; ++k) {
      step[k] = trial[k] - shift[k];
      change[k] = start[k] + l2 * trial[k] - static_cast<float>(sums[k]) / weight - gradient[k];
    }
    const double slope = dot(step, gradient, padded_), curvature = dot(step, change, padded_);
    if (!(std::fabs(slope + curvature) <= -0.5 * slope)) return end(problem, Ending::hard);
    axpy(gradient, 1.0f, change, padded_);
    std::copy(trial, trial + padded_, shift);
    rho_[index * kPairs + problem.pairs] = static_cast<float>(1.0 / curvature);
    // The trapezoidal rule from the start.
    problem.loss = problem.loss_at_start + 0.5 * (dot(start, trial, padded_) + dot(gradient, trial, padded_));
    ++problem.iterations;
    if (++problem.pairs == kPairs) end(problem, Ending::hard);
  }

  bool is_open(int64_t index) const {
    return index < nobody() && problems_[index].subset && problems_[index].ending == Ending::open;
  }
  int64_t nobody() const { return static_cast<int64_t>(problems_.size()); }
  int64_t member(size_t position) const { return position < active_.size() ? active_[position] : nobody(); }
  PassColumn<Element> column(int64_t index) {
    return {words_.data() + index * shared_.rows.steps(), sums_.data() + index * padded_};
  }
  float& alpha_of(int64_t index, int32_t pair) { return alpha_[static_cast<size_t>(index * kPairs + pair)]; }

  const SharedStart<Element>& shared_;
  int64_t dim_, padded_;
  Array<Problem> problems_;
  Array<int64_t> active_;
  Array<float> start_gradient_, gradient_, shift_, direction_, trial_;  // [count + 1, padded dim] each
  Array<float> steps_[kPairs], changes_[kPairs];                        // the same, of L-BFGS
  Array<float> rho_, alpha_;                                            // [count, kPairs], 1 / step.change
  Array<Word> words_;                                                   // [count + 1, steps], the trial points
  Array<Sum> sums_;                                                     // [count + 1, padded dim]
  Array<float> scratch_;
  Array<PassColumn<Element>> columns_;
  std::optional<SubsetFactors<Element>> factors_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
