// Some subsets, solved together by one thread: L-BFGS steps from the expansion point, and one pass over the rows for
// all of them at a time.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>

#include "array.h"
#include "block_pass.h"
#include "chunk_history.h"
#include "chunk_problem.h"
#include "subset_factors.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
class SubsetChunk {
 public:
  using Word = typename Element::Word;
  using Sum = typename Element::Sum;

  // Room for `count` subsets.
  SubsetChunk(const ChunkShared<Element>& shared, int64_t count)
      : shared_(shared),
        dim_(shared.data.dim),
        padded_(shared.rows.padded_dim()),
        problems_(count),
        history_(count, padded_),
        words_(static_cast<size_t>((count + 1) * shared.rows.steps())),
        sums_(static_cast<size_t>((count + 1) * padded_)),
        scratch_(static_cast<size_t>(padded_ * kTileColumns)) {
    if (!shared.preconditioner) factors_.emplace(dim_, count);
    for (auto* vectors : {&start_gradient_, &gradient_, &shift_, &direction_, &trial_})
      vectors->resize(static_cast<size_t>((count + 1) * padded_));
  }

  // Forgets its subsets.
  void clear() {
    std::fill(problems_.begin(), problems_.end(), Problem{});
    active_.clear();
  }

  void start(int64_t index, const ChunkStart& at_start) {
    float* start = at(start_gradient_, index);
    for (int64_t k = 0; k < dim_; ++k) start[k] = static_cast<float>(at_start.gradient[k]);
    std::copy(start, start + padded_, at(gradient_, index));
    std::fill_n(at(shift_, index), padded_, 0.0f);
    const bool tiny = !(norm(at_start.gradient, dim_) >= kSmallestGradient);
    problems_[index] = Problem{};
    Problem& problem = problems_[index];
    problem.subset = at_start.subset;
    problem.divisor = at_start.divisor;
    problem.loss_at_start = problem.loss = at_start.loss;
    problem.contraction = 1.0;
    problem.rounding = rounding_share<Element>(dim_, at_start.rows, at_start.curvature);
    problem.curvature = at_start.curvature;
    problem.trust = at_start.trust;
    problem.ending = tiny ? Ending::near : Ending::open;
    active_.push_back(index);
    keep_open();
  }

  // Where each subset has a Hessian of its own: fill(factors) writes them, before the first step.
  template <class Fill>
  void factorise(const Fill& fill) {
    fill(&*factors_);
    factors_->factorise(nobody(), shared_.l2,
                        [&](int64_t index) { return is_open(index) ? 1.0 / problems_[index].divisor : 0.0; });
  }

  // The first steps' directions and decrements alone; nothing is taken.
  void look() { find_directions(); }

  // Steps until every subset has an ending.
  void run() {
    constexpr int32_t kPasses = 12;
    for (int32_t pass = 0; !active_.empty() && pass < kPasses; ++pass) {
      find_directions();
      for (int64_t index : active_) judge(index);
      keep_open();
      for (int64_t index : active_) make_trial(index);
      evaluate();
      for (int64_t index : active_) take_trial(index);
      keep_open();
    }
    for (int64_t index : active_) problems_[index].ending = Ending::hard;
    active_.clear();
  }

  const Problem& problem(int64_t index) const { return problems_[index]; }
  const float* shift(int64_t index) const { return shift_.data() + index * padded_; }          // [dim]
  const float* direction(int64_t index) const { return direction_.data() + index * padded_; }  // [dim]

  // x [dim] = expansion point + shift
  void write_x(int64_t index, double* x) const {
    for (int64_t k = 0; k < dim_; ++k) x[k] = shared_.at.x[k] + static_cast<double>(shift(index)[k]);
  }

 private:
  static constexpr double kSmallestGradient = 1e-10;  // of a smaller one float32 products may underflow

  float* at(Array<float>& vectors, int64_t index) { return vectors.data() + index * padded_; }
  bool is_open(int64_t index) const {
    return index < nobody() && problems_[index].subset && problems_[index].ending == Ending::open;
  }
  int64_t nobody() const { return static_cast<int64_t>(problems_.size()); }
  int64_t member(size_t position) const { return position < active_.size() ? active_[position] : nobody(); }
  PassColumn<Element> column(int64_t index) {
    return {words_.data() + index * shared_.rows.steps(), sums_.data() + index * padded_};
  }

  void keep_open() {
    active_.erase(std::remove_if(active_.begin(), active_.end(), [&](int64_t index) { return !is_open(index); }),
                  active_.end());
  }

  void find_directions() {
    for (int64_t index : active_) {
      float *direction = at(direction_, index), *gradient = at(gradient_, index);
      for (int64_t k = 0; k < padded_; ++k) direction[k] = -gradient[k];
      history_.before(direction, index, problems_[index].iterations);
    }
    precondition();
    for (int64_t index : active_) {
      Problem& problem = problems_[index];
      float *direction = at(direction_, index), *gradient = at(gradient_, index);
      history_.after(direction, index, problem.iterations);
      problem.last_decrement = problem.decrement;
      problem.decrement = -static_cast<double>(dot(gradient, direction, padded_));
      problem.gradient_norm = std::sqrt(static_cast<double>(dot(gradient, gradient, padded_)));
    }
  }

  void precondition() {
    for (int64_t v = 0; factors_ && v < factors_->vectors(); ++v)
      factors_->apply(v, dim_, [&](int64_t index) { return is_open(index) ? at(direction_, index) : nullptr; });
    float* vectors[kTileColumns];
    for (size_t first = 0; !factors_ && first < active_.size(); first += kTileColumns) {
      for (size_t c = 0; c < kTileColumns; ++c) vectors[c] = at(direction_, member(first + c));
      shared_.preconditioner->apply(vectors, scratch_.data());
    }
  }

  // Ends what has converged, or will have with one more step that needs no look; and what this cannot solve.
  void judge(int64_t index) {
    Problem& problem = problems_[index];
    if (!(problem.decrement > 0.0)) return end(&problem, Ending::hard);
    if (problem.iterations == 0) {
      problem.first_decrement = problem.decrement;
    } else {
      problem.contraction = std::min(problem.contraction, problem.decrement / problem.last_decrement);
      const double target = shared_.tol * std::min(problem.loss, 50.0 * problem.first_decrement);
      if (expected_gap(problem, shared_.l2, shared_.tol) <= target) return finish(index, Ending::converged);
      const double least = std::max(Element::kGrid, problem.rounding);
      if (problem.decrement < least * problem.first_decrement) return finish(index, Ending::near);
      if (2.0 * problem.decrement > problem.last_decrement) return end(&problem, Ending::hard);
    }
    if (problem.iterations == shared_.max_iterations) end(&problem, Ending::iteration_limit);
  }

  static void end(Problem* problem, Ending ending) { problem->ending = ending; }

  // Takes the last step, which is not rounded and so needs no evaluation to be better.
  void finish(int64_t index, Ending ending) {
    Problem& problem = problems_[index];
    if (problem.iterations == shared_.max_iterations) return end(&problem, Ending::iteration_limit);
    axpy(at(shift_, index), 1.0f, at(direction_, index), padded_);
    ++problem.iterations;
    end(&problem, ending);
  }

  // The trial point is one that the words can hold: its evaluation is exact but for the rows' rounding.
  void make_trial(int64_t index) {
    const float *shift = at(shift_, index), *direction = at(direction_, index);
    float* trial = at(trial_, index);
    for (int64_t k = 0; k < padded_; ++k) trial[k] = Element::rounded(shift[k] + direction[k]);
    Word* words = words_.data() + index * shared_.rows.steps();
    for (int64_t step = 0; step < shared_.rows.steps(); ++step)
      words[step] = Element::pack(trial + step * Element::kDepth);
    std::fill_n(sums_.data() + index * padded_, padded_, Sum{0});
  }

  void evaluate() {
    for (int64_t t = 0; t < shared_.data.groups; ++t) {
      columns_.clear();
      for (int64_t index : active_)
        if (problems_[index].subset[t]) columns_.push_back(column(index));
      while (columns_.size() % kTileColumns) columns_.push_back(column(nobody()));
      pass_group(shared_.rows, t, shared_.at, columns_.data(), static_cast<int64_t>(columns_.size()), &block_);
    }
  }

  // Keeps the trial point if the slope along the step has at least halved: of a convex function's values that says
  // enough, and more exactly than they do near the minimum (Hager & Zhang 2005).
  void take_trial(int64_t index) {
    Problem& problem = problems_[index];
    float *shift = at(shift_, index), *gradient = at(gradient_, index), *trial = at(trial_, index);
    const float* start = at(start_gradient_, index);
    const Sum* sums = sums_.data() + index * padded_;
    const int32_t pair = problem.iterations;
    if (pair == ChunkHistory::kPairs) return end(&problem, Ending::hard);
    float *step = history_.step(index, pair), *change = history_.change(index, pair);
    const auto l2 = static_cast<float>(shared_.l2), divisor = static_cast<float>(problem.divisor);
    for (int64_t k = 0; k < padded_; ++k) {
      step[k] = trial[k] - shift[k];
      change[k] = start[k] + l2 * trial[k] - static_cast<float>(sums[k]) / divisor - gradient[k];
    }
    const double slope = dot(step, gradient, padded_), curvature = dot(step, change, padded_);
    if (!(std::fabs(slope + curvature) <= -0.5 * slope)) return end(&problem, Ending::hard);
    history_.set_curvature(index, pair, curvature);
    axpy(gradient, 1.0f, change, padded_);
    std::copy(trial, trial + padded_, shift);
    problem.loss = problem.loss_at_start + dot(start, trial, padded_);  // at least, as F is convex
    ++problem.iterations;
  }

  const ChunkShared<Element>& shared_;
  int64_t dim_, padded_;
  Array<Problem> problems_;
  Array<int64_t> active_;                                               // that are open
  Array<float> start_gradient_, gradient_, shift_, direction_, trial_;  // [count + 1, padded dim]; the last is nobody's
  ChunkHistory history_;
  Array<Word> words_;  // [count + 1, steps], the trial points
  Array<Word> block_;  // see PackedRows::words
  Array<Sum> sums_;    // [count + 1, padded dim]
  Array<float> scratch_;
  Array<PassColumn<Element>> columns_;
  std::optional<SubsetFactors> factors_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
