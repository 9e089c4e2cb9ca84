// The solver of csrc/solve.h: a start that all subsets share, chunks of them together, the rest one by one.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>

#include "array.h"
#include "exact_solve.h"
#include "parallel.h"
#include "solve.h"
#include "solve_start.h"
#include "subset_chunk.h"
#include "subset_sums.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

inline SolveStatus to_solve_status(MinimizeStatus status) {
  switch (status) {
    case MinimizeStatus::converged: return kConverged;
    case MinimizeStatus::iteration_limit: return kIterationLimit;
    case MinimizeStatus::stalled: return kStalled;
    case MinimizeStatus::not_finite: break;
  }
  return kNotFinite;
}

inline void write(const SolveArguments& a, int64_t s, SolveStatus status, int32_t iterations) {
  a.status[s] = status;
  a.iterations[s] = iterations;
}

// Counts what is done, and asks the caller now and then whether to go on.
class Progress {
 public:
  explicit Progress(const SolveArguments& a) : a_(a) {}

  bool stopped() const { return stopped_; }

  void add(int64_t subsets, int worker) {
    const int64_t done = done_ += subsets;
    if (worker == 0 && a_.proceed && !a_.proceed(done)) stopped_ = true;
  }

 private:
  const SolveArguments& a_;
  std::atomic<int64_t> done_{0};
  std::atomic<bool> stopped_{false};
};

template <class Element>
class Solver final : public SubsetSolver {
 public:
  Solver(const SubsetData& data, int threads) : known_(data, threads) {}

  const SolverData<Element>& known() const { return known_; }

  int64_t solve(const SolveArguments& a) const override {
    const SolveStart<Element> start = make_start(known_, a);
    const ChunkShared<Element> shared{
        known_.data, known_.rows, start.at,        start.hessians ? nullptr : &start.preconditioner,
        a.l2,        a.tol,       a.max_iterations};
    const int64_t batch = std::clamp<int64_t>(a.subset_count / (4 * a.threads), 4 * kTileColumns, 256);
    const int64_t size = a.without & kBatches ? 1 : batch;
    Array<Ending> endings(a.subset_count, Ending::open);
    Array<std::unique_ptr<SubsetChunk<Element>>> chunks(a.threads);  // a worker's, for all that it solves
    Progress progress(a);
    parallel_for_worker(divide_up(a.subset_count, size), a.threads, [&](int64_t chunk, int worker) {
      if (progress.stopped()) return;
      if (!chunks[worker]) chunks[worker] = std::make_unique<SubsetChunk<Element>>(shared, size);
      const int64_t first = chunk * size, count = std::min(size, a.subset_count - first);
      solve_chunk(a, start, first, count, chunks[worker].get(), endings.data());
      const auto rest = [](Ending ending) { return ending == Ending::near || ending == Ending::hard; };
      progress.add(count - std::count_if(endings.begin() + first, endings.begin() + first + count, rest), worker);
    });
    Array<int64_t> rest;
    for (int64_t s = 0; s < a.subset_count; ++s)
      if (endings[s] == Ending::near || endings[s] == Ending::hard) rest.push_back(s);
    parallel_for_worker(static_cast<int64_t>(rest.size()), a.threads, [&](int64_t i, int worker) {
      if (progress.stopped()) return;
      const bool near = endings[rest[i]] == Ending::near && start.preconditioner.usable();
      solve_exactly(a, rest[i], near ? start.preconditioner.factor().data() : nullptr);
      progress.add(1, worker);
    });
    return static_cast<int64_t>(rest.size());
  }

  void evaluate(const EvaluateArguments& a) const override {
    parallel_for(a.subset_count, a.threads, [&](int64_t s) {
      const uint8_t* subset = a.subsets + s * known_.data.groups;
      const GroupSums sums = known_.add_up(subset);
      a.loss[s] = a.gradient_norm[s] = sums.finite() ? 0.0 : kNaN;
      if (!(sums.finite() && sums.weight > 0.0)) return;
      Array<double> gradient(known_.data.dim);
      const double divisor = known_.data.divisor_of(sums.weight);
      a.loss[s] = SubsetObjective{known_.data, subset, divisor, a.l2}(a.x + s * known_.data.dim, gradient.data());
      a.gradient_norm[s] = norm(gradient.data(), known_.data.dim);
    });
  }

  std::unique_ptr<NeighbourSearch> neighbours(const ValidationData& validation, double l2, int threads) const override;

 private:
  void solve_chunk(const SolveArguments& a, const SolveStart<Element>& start, int64_t first, int64_t count,
                   SubsetChunk<Element>* chunk, Ending* endings) const {
    chunk->clear();
    Array<double> gradient(known_.data.dim);
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* subset = a.subsets + (first + i) * known_.data.groups;
      const SubsetSums sums = subset_sums(subset, known_.groups, start.at);
      std::fill_n(a.x + (first + i) * known_.data.dim, known_.data.dim, 0.0);
      endings[first + i] = Ending::converged;
      if (!sums.groups.finite()) {
        write(a, first + i, kNotFinite, 0);
      } else if (!(sums.groups.weight > 0.0)) {
        write(a, first + i, kEmpty, 0);
      } else {
        endings[first + i] = Ending::open;
        subset_gradient(gradient.data(), subset, known_.usable, start.whole, start.at);
        chunk->start(i, chunk_start(subset, sums, start, a.l2, &gradient));
      }
    }
    if (start.hessians)
      chunk->factorise([&](SubsetFactors* factors) {
        start.hessians->fill(factors, count, [&](int64_t i) { return chunk->problem(i).subset; });
      });
    if (start.preconditioner.usable()) chunk->run();
    for (int64_t i = 0; i < count; ++i) {
      if (endings[first + i] != Ending::open) continue;
      const Problem& problem = chunk->problem(i);
      endings[first + i] = problem.ending == Ending::open ? Ending::hard : problem.ending;
      chunk->write_x(i, a.x + (first + i) * known_.data.dim);
      write(a, first + i, problem.ending == Ending::iteration_limit ? kIterationLimit : kConverged, problem.iterations);
    }
  }

  // *gradient: a sum over the subset's rows on entry, that of F on return.
  ChunkStart chunk_start(const uint8_t* subset, const SubsetSums& sums, const SolveStart<Element>& start, double l2,
                         Array<double>* gradient) const {
    const double weight = sums.groups.weight, divisor = known_.data.divisor_of(weight), *x = start.at.x.data();
    for (int64_t k = 0; k < known_.data.dim; ++k) (*gradient)[k] = (*gradient)[k] / divisor + l2 * x[k];
    const double loss = sums.loss / divisor + 0.5 * l2 * dot(x, x, known_.data.dim), scale = weight / divisor;
    const bool like_union =
        weight >= 0.5 * known_.weight && sums.groups.rows >= 4 * known_.data.dim && scale > 0.7 && scale < 1.4;
    const Trust trust = start.hessians ? Trust::own : like_union ? Trust::of_union : Trust::none;
    return {subset,
            divisor,
            loss,
            gradient->data(),
            sums.curvature / divisor,
            static_cast<double>(sums.groups.rows) / scale,
            trust};
  }

  // From where the chunk left it.
  void solve_exactly(const SolveArguments& a, int64_t s, const double* factor) const {
    const uint8_t* subset = a.subsets + s * known_.data.groups;
    const GroupSums sums = known_.add_up(subset);
    const SubsetObjective objective{known_.data, subset, known_.data.divisor_of(sums.weight), a.l2};
    ExactSolve exact(objective, sums, a.tol, a.max_iterations - a.iterations[s]);
    const Minimum minimum = exact.run(a.x + s * known_.data.dim, factor);
    write(a, s, to_solve_status(minimum.status), a.iterations[s] + minimum.iterations);
  }

  SolverData<Element> known_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
