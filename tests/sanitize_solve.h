// The solver, its searches and losses, and the threads that they run on.
#pragma once
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <numeric>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "losses.h"
#include "parallel.h"
#include "sanitize.h"
#include "solve.h"

namespace {

// Rows sorted by group, as solve.h has them.
struct Rows {
  int64_t dim;
  Exact<int64_t> group_ptr;
  Exact<float> features;
  Exact<double> margins, weights;  // weights: of no length if all are one
  int64_t most_packed = 1 << 30;

  int64_t groups() const { return group_ptr.size() - 1; }
  int64_t rows() const { return margins.size(); }
  SubsetData data() const {
    const double* weight = weights.size() ? weights.data() : nullptr;
    return {features.data(), margins.data(), weight, group_ptr.data(), rows(), dim, groups(), most_packed};
  }
};

using Sizes = std::vector<int64_t>;  // rows of every group

Rows make_rows(const Sizes& sizes, int64_t dim, bool weighted = false) {
  Exact<int64_t> ptr(static_cast<int64_t>(sizes.size()) + 1);
  for (size_t t = 0; t < sizes.size(); ++t) ptr[t + 1] = ptr[t] + sizes[t];
  const int64_t rows = ptr[ptr.size() - 1];
  const double length = std::sqrt(static_cast<double>(std::max<int64_t>(dim, 1)));
  return {dim, ptr, draw<float>(rows * dim, [&] { return (normal() + 0.3) / length; }),
          draw<double>(rows, [] { return 1.0 + 2.0 * normal(); }),
          draw<double>(weighted ? rows : 0, [] { return chance(0.2) ? 0.0 : 0.5 + chance(0.5); })};
}

Sizes many_groups(int64_t groups) {
  Sizes sizes;
  for (int64_t t = 0; t < groups; ++t) sizes.push_back(t % 9 == 4 ? 0 : t % 5 == 2 ? 1 : t * 7 % 37);
  return sizes;
}

// [count, groups]: by turns near the union, one group alone, and half; the first empty, the second whole.
Exact<uint8_t> make_subsets(int64_t count, int64_t groups) {
  Exact<uint8_t> subsets(count * groups);
  for (int64_t s = 0; s < count; ++s)
    for (int64_t t = 0; t < groups; ++t)
      subsets[s * groups + t] = s < 2 && count > 2 ? s == 1 : s % 3 == 1 ? t == s % groups : chance(s % 3 ? 0.5 : 0.9);
  return subsets;
}

struct Solutions {
  Exact<double> x;
  Exact<int32_t> iterations, status;

  explicit Solutions(int64_t count, int64_t dim) : x(count * dim, kNaN), iterations(count, -1), status(count, -1) {}
};

struct Limits {
  double l2, tol;
  int32_t max_iterations = 200, without = 0;
};

Solutions solve(const SubsetSolver& solver, const Rows& rows, const Exact<uint8_t>& subsets, int64_t count,
                const Limits& limits, int32_t threads, const std::function<bool(int64_t)>& proceed = {}) {
  Solutions found(count, rows.dim);
  solver.solve({found.x.data(), found.iterations.data(), found.status.data(), subsets.data(), count, limits.l2,
                limits.tol, limits.max_iterations, threads, limits.without, proceed});
  return found;
}

Exact<double> losses_at(const SubsetSolver& solver, const Exact<double>& x, const Exact<uint8_t>& subsets,
                        int64_t count, double l2, int32_t threads) {
  Exact<double> loss(count, -1.0), gradient_norm(count, -1.0);
  solver.evaluate({loss.data(), gradient_norm.data(), x.data(), subsets.data(), count, l2, threads});
  for (int64_t s = 0; s < count; ++s)
    check(gradient_norm[s] >= 0.0 || std::isnan(loss[s]), "gradient norm is not negative");
  return loss;
}

void check_solve(const Rows& rows, int64_t count, const Limits& limits, int32_t threads) {
  const Exact<uint8_t> subsets = make_subsets(count, rows.groups());
  const auto solver = make_subset_solver(rows.data(), threads);
  const Solutions one = solve(*solver, rows, subsets, count, limits, 1);
  const Solutions some = solve(*solver, rows, subsets, count, limits, threads);
  check(same_bits(one.x, some.x) && same_bits(one.status, some.status) && same_bits(one.iterations, some.iterations),
        "the same bits for any number of threads");
  check(all_finite(one.x), "x is finite");
  const Exact<double> zero(count * rows.dim);
  const Exact<double> start = losses_at(*solver, zero, subsets, count, limits.l2, threads);
  const Exact<double> end = losses_at(*solver, one.x, subsets, count, limits.l2, threads);
  for (int64_t s = 0; s < count; ++s) {
    const int32_t status = one.status[s], iterations = one.iterations[s];
    check(status >= kConverged && status <= kEmpty, "status is in range");
    check(iterations >= 0 && iterations <= limits.max_iterations, "iterations are within the limit");
    check((status == kNotFinite) == std::isnan(start[s]), "a subset is not finite if a row of it is not");
    check(status == kIterationLimit || !(end[s] > start[s] * (1.0 + 1e-9)), "the loss is no higher than at 0");
  }
}

void check_solves() {
  const Sizes layouts[] = {{200, 64, 0, 65, 1, 17, 1100}, many_groups(60)};
  constexpr int64_t kCounts[] = {300, 5, 1};
  constexpr int32_t kThreads[] = {3, 2, 7};
  int64_t turn = 0;
  for (int64_t dim : {1, 5, 17, 101}) {
    for (double l2 : {0.05, 1e-9, 0.0}) {
      for (const Sizes& sizes : layouts) {
        Rows rows = make_rows(sizes, dim, turn % 2 == 1);
        if (turn % 3 == 1) rows.most_packed = 0;
        if (turn % 5 == 1) rows.features[dim * 329] = std::numeric_limits<float>::infinity();
        if (turn % 5 == 3) rows.margins[rows.rows() - 1] = kNaN;
        const int64_t count = dim > 5 ? 5 : kCounts[turn % 3];
        if (dim <= 17 || l2 != 1e-9) check_solve(rows, count, {l2, turn % 4 ? 1e-6 : 0.0}, kThreads[turn % 3]);
        ++turn;
      }
    }
  }
  for (SolvePart part : {kSharedStart, kSubsetHessians, kUnionHessian, kBatches})
    check_solve(make_rows(many_groups(60), 5), 40, {0.05, 1e-6, 200, part}, 3);
  check_solve(make_rows({5, 0, 30}, 1030), 4, {0.1, 1e-6}, 2);  // too wide for Hessians
  check_solve(make_rows({5, 0, 30}, 5), 4, {0.1, 1e-6, 0}, 2);
  check_solve(make_rows({5, 0, 30}, 0), 4, {0.1, 1e-6}, 2);
  check_solve(make_rows({0, 0}, 5), 4, {0.1, 1e-6}, 2);
  check_solve(make_rows({5, 30}, 5), 0, {0.1, 1e-6}, 2);

  Rows huge = make_rows({40, 0, 100}, 5);
  for (int64_t i = 0; i < huge.rows(); ++i) huge.margins[i] = chance(0.5) ? 1e4 : -1e4;
  check_solve(huge, 5, {1e-6, 1e-6}, 2);
  for (int64_t i = 0; i < huge.features.size(); ++i) huge.features[i] *= 1e18f;
  check_solve(huge, 5, {1e-6, 1e-6}, 2);
  Rows stalling = make_rows({300}, 5);  // its rows cancel to fewer digits than a solve assumes
  for (int64_t i = 0; i < stalling.rows(); ++i) {
    const double sign = chance(0.5) ? 1.0 : -1.0;
    stalling.margins[i] = 0.0;
    for (int64_t k = 0; k < 5; ++k) stalling.features[i * 5 + k] = static_cast<float>(sign * (1e6 + normal()));
  }
  check_solve(stalling, 3, {0.0, 0.0}, 2);
}

// Two bodies that throw at the same time.
void check_parallel() {
  std::atomic<int> inside{0};
  bool thrown = false;
  try {
    parallel_for(2, 2, [&](int64_t) {
      for (++inside; inside < 2;) std::this_thread::yield();
      throw std::runtime_error("both");
    });
  } catch (const std::runtime_error&) {
    thrown = true;
  }
  check(thrown, "an exception leaves a parallel loop");
}

// A false or an exception of `proceed` ends a solve; one solver serves several threads at once.
void check_control() {
  constexpr int64_t kCount = 300;
  const Rows rows = make_rows(many_groups(60), 17);
  const Exact<uint8_t> subsets = make_subsets(kCount, rows.groups());
  const auto solver = make_subset_solver(rows.data(), 2);
  const Limits limits{0.01, 1e-6};
  const Solutions all = solve(*solver, rows, subsets, kCount, limits, 1);
  for (int32_t threads : {1, 3}) {
    int64_t calls = 0, before = 0;
    const auto caller = std::this_thread::get_id();
    const Solutions stopped = solve(*solver, rows, subsets, kCount, limits, threads, [&](int64_t done) {
      check(std::this_thread::get_id() == caller, "the caller's thread is asked");
      check(done >= before && done <= kCount, "what is done grows");
      before = done;
      return ++calls < 2;
    });
    check(calls <= 2, "a stopped solve asks no more");
    const bool whole = std::find(stopped.status.begin(), stopped.status.end(), -1) == stopped.status.end();
    check(threads > 1 || !whole, "a stopped solve leaves the rest");
    bool thrown = false;
    try {
      solve(*solver, rows, subsets, kCount, limits, threads, [](int64_t) -> bool { throw std::runtime_error("no"); });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    check(threads > 1 || thrown, "an exception goes on to the caller");
  }
  Solutions here(0, 0), there(0, 0);
  std::thread other([&] { there = solve(*solver, rows, subsets, kCount, limits, 2); });
  here = solve(*solver, rows, subsets, kCount, limits, 2);
  other.join();
  check(same_bits(here.x, all.x) && same_bits(there.x, all.x), "two solves at once do not disturb each other");
}

class Search {
 public:
  Search(const Rows& rows, const Rows& validation, double l2, int32_t threads)
      : rows_(rows),
        validation_(validation),
        threads_(threads),
        solver_(make_subset_solver(rows.data(), threads)),
        search_(solver_->neighbours({validation.features.data(), validation.margins.data(), validation.rows()}, l2,
                                    threads)) {}

  // Loss and x of the best moves from `subset` on, `steps` of them.
  Exact<double> path(Exact<uint8_t> subset, std::vector<int64_t> groups, int64_t steps) const {
    Exact<double> found(steps * (rows_.dim + 1), kNaN);
    for (int64_t step = 0; step < steps; ++step) {
      Exact<int64_t> moves(static_cast<int64_t>(groups.size()));
      std::copy(groups.begin(), groups.end(), moves.data());
      Exact<double> x(rows_.dim, kNaN), all(moves.size() * rows_.dim, kNaN);
      search_->solve(all.data(), subset.data(), moves.data(), moves.size());
      const NeighbourSearch::Best best = search_->best(x.data(), subset.data(), moves.data(), moves.size());
      check(best.move >= 0 && best.move < moves.size(), "the best move is one of the moves");
      check(best.solved >= 0 && best.solved <= moves.size(), "no more is solved than there is");
      check_best(best.loss, all);
      found[step * (rows_.dim + 1)] = best.loss;
      std::copy(x.begin(), x.end(), found.data() + step * (rows_.dim + 1) + 1);
      subset[moves[best.move]] ^= 1;
      groups.erase(groups.begin() + best.move);
    }
    check(all_finite(found), "losses and x of a path are finite");
    return found;
  }

 private:
  void check_best(double loss, const Exact<double>& x) const {
    const int64_t points = x.size() / std::max<int64_t>(rows_.dim, 1);
    Exact<double> mean(points, kNaN);
    losses_cpu({mean.data(), nullptr, x.data(), validation_.features.data(), validation_.margins.data(), points,
                validation_.rows(), rows_.dim, threads_});
    const double lowest = *std::min_element(mean.begin(), mean.end());
    check(std::fabs(lowest - loss) <= 1e-2 * (1.0 + loss), "the best move has about the lowest loss");
  }

  const Rows &rows_, &validation_;
  int32_t threads_;
  std::unique_ptr<SubsetSolver> solver_;
  std::unique_ptr<NeighbourSearch> search_;
};

void check_search(const Rows& rows, int64_t validation_rows, double l2, const Exact<uint8_t>& subset, int64_t moves,
                  int64_t steps) {
  const Rows validation = make_rows({validation_rows}, rows.dim);
  std::vector<int64_t> groups(static_cast<size_t>(moves));
  std::iota(groups.begin(), groups.end(), 0);
  const auto path = [&](int32_t threads) { return Search(rows, validation, l2, threads).path(subset, groups, steps); };
  check(same_bits(path(1), path(3)), "the same path for any number of threads");
}

void check_searches() {
  const Sizes sizes = {30, 1, 0, 65, 17, 8, 130};
  const auto groups = static_cast<int64_t>(sizes.size());
  for (int64_t dim : {1, 5, 17}) {
    for (double l2 : {0.05, 1e-6}) {
      Rows rows = make_rows(sizes, dim, l2 < 0.01);
      if (dim == 17) rows.most_packed = 0;
      check_search(rows, dim == 5 ? 1 : 70, l2, Exact<uint8_t>(groups, 0), groups, groups);  // forward
      check_search(rows, dim == 5 ? 1 : 70, l2, Exact<uint8_t>(groups, 1), groups, groups);  // backward
    }
  }
  const Rows large = make_rows({1100, 700, 90, 65, 64, 300, 0, 200}, 101);  // too many numbers to solve all exactly
  check_search(large, 129, 0.05, make_subsets(1, large.groups()), large.groups(), 2);
  const Rows many = make_rows(Sizes(1700, 1), 200);  // too many to keep all groups' Hessians
  check_search(many, 20, 0.05, draw<uint8_t>(many.groups(), [] { return chance(0.01); }), 3, 2);
}

void check_losses() {
  for (int64_t dim : {1, 5, 17, 101}) {
    for (int64_t rows : {1, 63, 65, 200}) {
      const Rows validation = make_rows({rows}, dim);
      for (int64_t points : {1, 7, 300}) {
        const Exact<double> x = draw<double>(points * dim, normal);
        const auto losses = [&](int32_t threads, float* each) {
          Exact<double> mean(points, kNaN);
          losses_cpu({mean.data(), each, x.data(), validation.features.data(), validation.margins.data(), points, rows,
                      dim, threads});
          return mean;
        };
        Exact<float> each(points * rows, static_cast<float>(kNaN));
        const Exact<double> one = losses(1, nullptr), some = losses(3, each.data());
        check(same_bits(one, some), "the same mean losses for any number of threads");
        check(all_finite(one) && all_finite(each), "losses are finite");
      }
    }
  }
}

}  // namespace
