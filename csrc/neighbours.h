// The neighbour search of csrc/solve.h: all moves by one Newton step at the subset's own minimum, then those that may
// be the best by full solves, then those that still cannot be told apart in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <mutex>
#include <numeric>

#include "array.h"
#include "move.h"
#include "move_trials.h"
#include "parallel.h"
#include "search_point.h"
#include "solve.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
class Neighbours final : public NeighbourSearch {
 public:
  Neighbours(const SolverData<Element>& known, const ValidationData& validation, double l2, int threads)
      : dim_(known.data.dim), here_(known, validation, l2, threads), trials_(here_) {}

  Best best(double* x, const uint8_t* subset, const int64_t* groups, int64_t count) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Array<double> found;
    Array<Move> moves = arrive(subset, groups, count, &found);
    int64_t winner;
    if (here_.empty()) {
      winner = best_of_exact(everything(count), &moves);
    } else {
      trials_.screen(&moves);
      raise(Known::by_newton, &moves);
      raise(Known::solved, &moves);
      winner = settle(&moves);
    }
    std::copy_n(moves[winner].x, dim_, x);
    const auto solved = [](const Move& move) { return move.known == Known::solved; };
    const Best best{winner, here_.validation().loss(x), here_.loss(),
                    std::count_if(moves.begin(), moves.end(), solved)};
    here_.leave_for(moves[winner]);
    return best;
  }

  void solve(double* x, const uint8_t* subset, const int64_t* groups, int64_t count) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    Array<double> found;
    Array<Move> moves = arrive(subset, groups, count, &found);
    if (here_.empty()) {
      solve_exactly(everything(count), &moves);
    } else {
      trials_.solve(everything(count), &moves, kLargestGap);
    }
    std::copy(found.begin(), found.end(), x);
  }

 private:
  static constexpr double kLargestGap = 1e-7;  // of F, that rounding may leave of a minimum to be returned
  static constexpr double kSafety = 3.0;  // how many times as far off the others may be than those that were looked at
  static constexpr int kRounds = 12;

  static Array<int64_t> everything(int64_t count) {
    Array<int64_t> all(static_cast<size_t>(count));
    std::iota(all.begin(), all.end(), int64_t{0});
    return all;
  }

  // The moves, at the subset; x [count, dim] is their memory.
  Array<Move> arrive(const uint8_t* subset, const int64_t* groups, int64_t count, Array<double>* x) {
    here_.arrive(subset);
    x->assign(static_cast<size_t>(count * dim_), 0.0);
    Array<Move> moves;
    for (int64_t i = 0; i < count; ++i) moves.push_back({groups[i], x->data() + i * dim_});
    return moves;
  }

  // Those that may be the best, until the rest cannot be: by Newton steps or solved. If the level before was further
  // off than it said, with more caution; if it was nearer, with less the next time, but not less than three standard
  // deviations of what an error in a random direction does along the slope: the few that were looked at say no more.
  void raise(Known level, Array<Move>* moves) {
    double& caution = trials_.caution(level == Known::solved ? Known::by_newton : Known::roughly);
    double off = 0.0;
    while (true) {
      const Array<int64_t> contenders = contenders_below(level, *moves);
      if (contenders.empty()) break;
      const Array<Move> before = *moves;
      level == Known::solved ? trials_.solve(contenders, moves, kUnknown) : trials_.step(contenders, moves);
      double worst = 0.0;
      for (int64_t i : contenders) {
        const Move &was = before[i], &is = (*moves)[i];
        if (!(std::isfinite(was.error) && was.error > 0.0)) continue;
        const double seen = std::fabs(was.change - is.change), other = std::isfinite(is.error) ? is.error : 0.0;
        worst = std::max(worst, (seen - other) / was.error);  // that much is sure
        off = std::max(off, caution * seen / was.error);
      }
      if (kSafety * worst <= 1.0) continue;
      for (Move& move : *moves)
        if (move.known < level) move.error *= kSafety * worst;
      caution *= kSafety * worst;
    }
    caution = std::max({kSafety * off, 0.9 * caution, 3.0 / std::sqrt(static_cast<double>(dim_))});
  }

  // The best of the solved. Where others are within the error, they and S are brought closer until they can be told
  // apart, or are equal in double precision.
  int64_t settle(Array<Move>* moves) {
    Array<int64_t> tied = first_among(*moves);
    const auto exact = [&](int64_t i) { return (*moves)[i].error <= kExact * here_.loss(); };
    for (int round = 0; round < kRounds && (trials_.cheap() || tied.size() > 1 || unclear((*moves)[tied[0]]));
         ++round) {
      Array<uint8_t> closer(tied.size());
      parallel_for(static_cast<int64_t>(tied.size()), here_.threads(),
                   [&](int64_t i) { closer[i] = trials_.refine(&(*moves)[tied[i]]); });
      if (unclear((*moves)[tied[0]])) {
        const double lower = here_.come_closer();
        for (Move& move : *moves) move.change += lower;
      }
      if (std::find(closer.begin(), closer.end(), 0) != closer.end()) return best_of_exact(tied, moves);
      tied = first_among(*moves);
      if (std::all_of(tied.begin(), tied.end(), exact)) break;
    }
    return first_of_equals(tied, *moves);
  }

  // Whether it may as well raise the loss as lower it.
  bool unclear(const Move& move) const { return !(std::fabs(move.change) > move.error + here_.loss_error()); }

  int64_t best_of_exact(const Array<int64_t>& which, Array<Move>* moves) const {
    solve_exactly(which, moves);
    return first_of_equals(which, *moves);
  }

  void solve_exactly(const Array<int64_t>& which, Array<Move>* moves) const {
    parallel_for(static_cast<int64_t>(which.size()), here_.threads(),
                 [&](int64_t i) { here_.solve_exactly(&(*moves)[which[i]]); });
  }

  int64_t first_of_equals(const Array<int64_t>& which, const Array<Move>& moves) const {
    double lowest = kUnknown;
    for (int64_t i : which) lowest = std::min(lowest, moves[i].change);
    const double tie = lowest + 2.0 * kExact * std::max(here_.loss(), here_.loss() + lowest);
    Array<int64_t> equals;
    std::copy_if(which.begin(), which.end(), std::back_inserter(equals),
                 [&](int64_t i) { return moves[i].change <= tie; });
    return equals.empty() ? which[0] : *std::min_element(equals.begin(), equals.end());  // empty: all are NaN
  }

  int64_t dim_;
  std::mutex mutex_;  // every call moves the point
  SearchPoint<Element> here_;
  MoveTrials<Element> trials_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
