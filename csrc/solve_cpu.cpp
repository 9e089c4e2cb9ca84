// Subset regressions on the CPU; compiled once per instruction set.
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
#include "subset_chunk.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

SolveStatus to_solve_status(MinimizeStatus status) {
  switch (status) {
    case MinimizeStatus::converged: return kConverged;
    case MinimizeStatus::iteration_limit: return kIterationLimit;
    case MinimizeStatus::stalled: return kStalled;
    case MinimizeStatus::not_finite: break;
  }
  return kNotFinite;
}

void write(const SolveArguments& a, int64_t s, SolveStatus status, int32_t iterations) {
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
  Solver(const SubsetData& data, int threads)
      : data_(data), rows_(data, threads), groups_(data.groups), usable_(data.groups) {
    parallel_for(data.groups, threads, [&](int64_t t) {
      groups_[t] = sum_group(group_rows(data, t));
      usable_[t] = groups_[t].finite() && groups_[t].weight > 0.0;
    });
    for (int64_t t = 0; t < data.groups; ++t)
      if (usable_[t]) weight_ += groups_[t].weight;
  }

  int64_t solve(const SolveArguments& a) const override {
    const Expansion at = expand(data_, rows_, start(a), a.threads);
    Array<double> whole(data_.dim);
    for (int64_t t = 0; t < data_.groups; ++t)
      if (usable_[t]) axpy(whole.data(), 1.0, at.gradient.data() + t * data_.dim, data_.dim);
    std::optional<GroupHessians<Element>> hessians;
    if (GroupHessians<Element>::worthwhile(data_)) hessians.emplace(data_, usable_, at.x.data(), a.threads);
    Preconditioner preconditioner(hessians ? mean_hessian(a, hessians->total()) : hessian(a, at.x), data_.dim);
    if (!hessians) preconditioner.invert();
    const SharedStart<Element> shared{data_,   rows_, groups_,        usable_,
                                      at,      whole, preconditioner, hessians ? &*hessians : nullptr,
                                      weight_, a.l2,  a.tol,          a.max_iterations};

    const int64_t size = std::clamp<int64_t>(a.subset_count / (4 * a.threads), 4 * kTileColumns, 256);
    Array<Ending> endings(a.subset_count, Ending::open);
    Array<std::unique_ptr<SubsetChunk<Element>>> chunks(a.threads);  // a worker's, for all that it solves
    Progress progress(a);
    parallel_for_worker(divide_up(a.subset_count, size), a.threads, [&](int64_t chunk, int worker) {
      if (progress.stopped()) return;
      const int64_t first = chunk * size, count = std::min(size, a.subset_count - first);
      if (!chunks[worker]) chunks[worker] = std::make_unique<SubsetChunk<Element>>(shared, size);
      solve_chunk(a, shared, first, count, chunks[worker].get(), endings.data());
      progress.add(std::count(endings.begin() + first, endings.begin() + first + count, Ending::converged), worker);
    });
    Array<int64_t> rest;
    for (int64_t s = 0; s < a.subset_count; ++s)
      if (endings[s] == Ending::near || endings[s] == Ending::hard) rest.push_back(s);
    parallel_for_worker(static_cast<int64_t>(rest.size()), a.threads, [&](int64_t i, int worker) {
      if (progress.stopped()) return;
      const bool near = endings[rest[i]] == Ending::near && preconditioner.usable();
      solve_exactly(a, rest[i], near ? preconditioner.factor().data() : nullptr);
      progress.add(1, worker);
    });
    return static_cast<int64_t>(rest.size());
  }

  void evaluate(const EvaluateArguments& a) const override {
    parallel_for(a.subset_count, a.threads, [&](int64_t s) {
      const uint8_t* subset = a.subsets + s * data_.groups;
      const GroupSums sums = add_up(subset);
      a.loss[s] = a.gradient_norm[s] = sums.finite() ? 0.0 : kNaN;
      if (!(sums.finite() && sums.weight > 0.0)) return;
      Array<double> gradient(data_.dim);
      a.loss[s] = SubsetObjective{data_, subset, sums.weight, a.l2}(a.x + s * data_.dim, gradient.data());
      a.gradient_norm[s] = norm(gradient.data(), data_.dim);
    });
  }

 private:
  GroupSums add_up(const uint8_t* subset) const {
    GroupSums sums;
    for (int64_t t = 0; t < data_.groups; ++t)
      if (subset[t]) sums += groups_[t];
    return sums;
  }

  bool too_wide() const { return data_.dim > kLargestHessian; }

  Array<double> start(const SolveArguments& a) const {
    return too_wide() ? Array<double>(data_.dim) : union_start(data_, usable_, a.l2, a.threads);
  }

  Array<double> mean_hessian(const SolveArguments& a, Array<double> sum) const {
    for (double& entry : sum) entry /= weight_;
    for (int64_t k = 0; k < data_.dim; ++k) sum[k * data_.dim + k] += a.l2;
    return sum;
  }

  Array<double> hessian(const SolveArguments& a, const Array<double>& x) const {
    if (too_wide()) return Array<double>(data_.dim * data_.dim);
    return RowSample(data_, usable_, a.l2, std::max<int64_t>(40'000, 16 * data_.dim), a.threads).at(x.data()).hessian;
  }

  void solve_chunk(const SolveArguments& a, const SharedStart<Element>& shared, int64_t first, int64_t count,
                   SubsetChunk<Element>* chunk, Ending* endings) const {
    chunk->clear();
    for (int64_t i = 0; i < count; ++i) {
      const uint8_t* subset = a.subsets + (first + i) * data_.groups;
      const SubsetSums sums = subset_sums(subset, groups_, shared.at);
      double* x = a.x + (first + i) * data_.dim;
      std::fill(x, x + data_.dim, 0.0);
      endings[first + i] = Ending::converged;
      if (!sums.groups.finite()) {
        write(a, first + i, kNotFinite, 0);
      } else if (!(sums.groups.weight > 0.0)) {
        write(a, first + i, kEmpty, 0);
      } else {
        endings[first + i] = Ending::open;
        chunk->start(i, subset, sums);
      }
    }
    chunk->run();
    for (int64_t i = 0; i < count; ++i) {
      if (endings[first + i] != Ending::open) continue;
      const Problem& problem = chunk->problem(i);
      const SolveStatus status = problem.ending == Ending::iteration_limit ? kIterationLimit : kConverged;
      endings[first + i] = problem.ending;
      chunk->write_x(i, a.x + (first + i) * data_.dim);
      write(a, first + i, status, problem.iterations);
    }
  }

  // From where the chunk left it.
  void solve_exactly(const SolveArguments& a, int64_t s, const double* factor) const {
    const uint8_t* subset = a.subsets + s * data_.groups;
    const GroupSums sums = add_up(subset);
    const SubsetObjective objective{data_, subset, sums.weight, a.l2};
    ExactSolve exact(objective, sums, a.tol, a.max_iterations - a.iterations[s]);
    const Minimum minimum = exact.run(a.x + s * data_.dim, factor);
    write(a, s, to_solve_status(minimum.status), a.iterations[s] + minimum.iterations);
  }

  SubsetData data_;
  PackedRows<Element> rows_;
  Array<GroupSums> groups_;
  Array<uint8_t> usable_;  // [groups], 1 = finite, with weight
  double weight_ = 0.0;    // of the usable groups
};

}  // namespace

std::unique_ptr<SubsetSolver> make_subset_solver(const SubsetData& data, int threads) {
  return std::make_unique<Solver<Element>>(data, threads);
}

}  // namespace GRADEX_ISA
}  // namespace gradex
