// The neighbour search of csrc/solve.h: all moves by one Newton step at the subset's own minimum, then those that may
// be the best by full solves, then those that still cannot be told apart in double precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>

#include "array.h"
#include "exact_solve.h"
#include "expansion.h"
#include "move_hessians.h"
#include "solve_start.h"
#include "subset_chunk.h"
#include "validation.h"

namespace gradex {
inline namespace GRADEX_ISA {

// How a move's effect on the validation loss is known: by a Newton step with the subset's own Hessian, or with that of
// the subset that it leads to, or by a full solve.
enum class Known : uint8_t { roughly, by_newton, solved };

struct Move {
  double change;    // of the mean validation loss
  double error;     // that `change` is known to
  double distance;  // |x - x_S| in the norm of the Hessian
  Known known;
};

template <class Element>
class Neighbours final : public NeighbourSearch {
 public:
  Neighbours(const SolverData<Element>& known, const ValidationData& validation, double l2, int threads)
      : known_(known),
        data_(known.data),
        l2_(l2),
        threads_(threads),
        validation_(validation, data_.dim, threads),
        hessians_(data_),
        inverse_(Array<double>(), 0),
        slope_(static_cast<size_t>(data_.dim)) {}

  Best best(double* x, const uint8_t* subset, const int64_t* moves, int64_t count) override {
    arrive(subset);
    if (!(weight_ > 0.0)) return best_of_exact(x, moves, count);
    x_found_.resize(static_cast<size_t>(count * data_.dim));
    Array<Move> found = screen(moves, count);
    raise(Known::by_newton, &found, moves);
    raise(Known::solved, &found, moves);
    return settle(x, found, moves);
  }

  void solve(double* x, const uint8_t* subset, const int64_t* moves, int64_t count) override {
    arrive(subset);
    Array<Move> found(static_cast<size_t>(count));
    x_found_.assign(static_cast<size_t>(count * data_.dim), 0.0);
    if (weight_ > 0.0) {
      solve_moves(everything(count), &found, moves, kLargestGap);
    } else {
      parallel_for(count, threads_, [&](int64_t i) { solve_exactly(moves[i], x_at(i)); });
    }
    std::copy(x_found_.begin(), x_found_.end(), x);
  }

 private:
  static constexpr int64_t kChunk = 64;
  static constexpr double kDrift = 0.02;       // of the margins, before the Hessians are taken anew
  static constexpr double kExact = 1e-11;      // relative error of a loss in double precision
  static constexpr double kTol = 1e-10;        // of a full solve, where rounding lets it
  static constexpr double kLargestGap = 1e-7;  // of F, that rounding may leave of a minimum to be returned
  static constexpr int32_t kIterations = 500;
  static constexpr int kRounds = 12;
  static constexpr int64_t kCheap = 200'000;  // numbers in a subset's rows: exact for no other reason

  double* x_at(int64_t i) { return x_found_.data() + i * data_.dim; }
  static Array<int64_t> everything(int64_t count) {
    Array<int64_t> all(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) all[i] = i;
    return all;
  }
  bool cheap() const { return rows_ * data_.dim <= kCheap; }
  // S with or without the group.
  Array<uint8_t> toggled(int64_t group) const {
    Array<uint8_t> subset = subset_;
    subset[group] ^= 1;
    return subset;
  }
  double weight_of(int64_t group) const {
    const double weight = known_.groups[group].weight;
    return subset_[group] ? weight_ - weight : weight_ + weight;
  }

  // Expands everything around the minimum x_S over the subset.
  void arrive(const uint8_t* subset) {
    const int64_t groups = data_.groups;
    if (subset_.empty() || !std::equal(subset, subset + groups, subset_.begin())) {
      subset_.assign(subset, subset + groups);
      x_.assign(static_cast<size_t>(data_.dim), 0.0);
      if (known_.add_up(subset).weight > 0.0) solve_subset(subset_, &x_, 0.0, nullptr);
      now_error_ = 0.0;
    }
    const GroupSums sums = known_.add_up(subset);
    weight_ = sums.weight;
    rows_ = sums.rows;
    bound_ = sums.curvature;
    now_ = validation_.loss(x_.data());
    validation_.move_to(x_.data(), slope_.data());
    if (!(weight_ > 0.0)) return;
    at_ = expand(data_, known_.rows, x_, threads_);
    loss_ = 0.0;
    gradient_.assign(static_cast<size_t>(data_.dim), 0.0);
    double curvature = 0.0;
    for (int64_t t = 0; t < groups; ++t) {
      if (!subset[t]) continue;
      axpy(gradient_.data(), 1.0, at_.gradient.data() + t * data_.dim, data_.dim);
      loss_ += at_.loss[t];
      curvature += at_.curvature[t];
    }
    curvature_ = curvature / weight_;
    if (hessians_.placed()) {
      hessians_.follow(subset, at_.curvature);
      measure_drift();
    }
    if (!(drift_ <= kDrift)) {
      hessians_.move_to(x_.data(), subset, at_.curvature, threads_);
      drift_ = 0.0;
    }
    measure_slope();
  }

  // Root mean square change of the margins since the Hessians were taken.
  void measure_drift() {
    const int64_t dim = data_.dim;
    Array<double> shift(x_);
    axpy(shift.data(), -1.0, hessians_.x().data(), dim);
    const Array<double> hessian = hessians_.mean(weight_, 0.0);
    double square = 0.0;
    for (int64_t i = 0; i < dim; ++i)
      square += shift[i] * (2.0 * dot(hessian.data() + i * dim, shift.data(), i) + hessian[i * dim + i] * shift[i]);
    drift_ = std::sqrt(std::max(square, 0.0) / curvature_);
  }

  // The most that the validation loss can change with a unit of distance.
  void measure_slope() {
    inverse_ = Preconditioner(hessians_.mean(weight_, l2_), data_.dim);
    inverse_.invert();
    Array<double> solution(slope_);
    if (inverse_.usable()) cholesky_solve(inverse_.factor().data(), solution.data(), data_.dim);
    steepest_ =
        inverse_.usable() ? std::sqrt(std::max(dot(solution.data(), slope_.data(), data_.dim), 0.0)) : unknown();
  }

  // F after a move, at x_S.
  ChunkStart start_of(int64_t group, const uint8_t* subset, Array<double>* gradient) const {
    const double sign = subset_[group] ? -1.0 : 1.0, weight = weight_of(group);
    for (int64_t k = 0; k < data_.dim; ++k) {
      const double sum = gradient_[k] + sign * at_.gradient[group * data_.dim + k];
      (*gradient)[k] = sum / weight + l2_ * x_[k];
    }
    const double loss = (loss_ + sign * at_.loss[group]) / weight + 0.5 * l2_ * dot(x_.data(), x_.data(), data_.dim);
    const int64_t rows = rows_ + (subset_[group] ? -1 : 1) * known_.groups[group].rows;
    return {subset, weight, loss, gradient->data(), curvature_, rows, Trust::own};
  }

  // Puts the moves `which` into chunks and calls body(chunk, first position, count) with each.
  template <class Body>
  void for_chunks(const Array<int64_t>& which, const int64_t* moves, const Body& body) {
    const auto count = static_cast<int64_t>(which.size());
    const int64_t size = std::clamp<int64_t>(divide_up(count, threads_), kTileColumns, kChunk);
    const ChunkShared<Element> common{data_, known_.rows, at_, nullptr, l2_, kTol, kIterations};
    parallel_for(divide_up(count, size), threads_, [&](int64_t index) {
      const int64_t first = index * size, used = std::min(size, count - first);
      SubsetChunk<Element> chunk(common, used);
      Array<Array<uint8_t>> subsets(static_cast<size_t>(used));
      Array<int64_t> groups(static_cast<size_t>(used));
      Array<double> gradient(static_cast<size_t>(data_.dim));
      for (int64_t i = 0; i < used; ++i) {
        groups[i] = moves[which[first + i]];
        subsets[i] = toggled(groups[i]);
        if (weight_of(groups[i]) > 0.0) chunk.start(i, start_of(groups[i], subsets[i].data(), &gradient));
      }
      chunk.factorise([&](SubsetFactors* factors) { hessians_.fill(factors, groups.data(), used); });
      body(&chunk, first, used);
    });
  }

  // The group's own Hessian as a share of S's: of n random rows' covariance, the top eigenvalue is about
  // (sqrt(n) + sqrt(d))^2 / n times their mean curvature.
  double share_of(int64_t group) const {
    const GroupSums& sums = known_.groups[group];
    if (sums.rows == 0) return 0.0;
    const double root = 1.0 + std::sqrt(static_cast<double>(data_.dim) / static_cast<double>(sums.rows));
    return root * root * sums.curvature / bound_;
  }

  // Every move by a Newton step with the Hessian of S. What that leaves out of the step is the group's own Hessian, and
  // the Hessian's change, which is of the order of the margins' root mean square change.
  Array<Move> screen(const int64_t* moves, int64_t count) {
    Array<Move> found(static_cast<size_t>(count));
    const int64_t padded = known_.rows.padded_dim(), dim = data_.dim;
    parallel_for(divide_up(count, kTileColumns), threads_, [&](int64_t tile) {
      const int64_t first = tile * kTileColumns, used = std::min<int64_t>(kTileColumns, count - first);
      Array<float> steps(static_cast<size_t>(kTileColumns * padded)), scratch(steps.size());
      Array<double> gradients(static_cast<size_t>(kTileColumns * dim)), gradient(static_cast<size_t>(dim));
      float* vectors[kTileColumns];
      for (int64_t c = 0; c < kTileColumns; ++c) {
        vectors[c] = steps.data() + c * padded;
        if (c >= used || !(weight_of(moves[first + c]) > 0.0)) continue;
        start_of(moves[first + c], nullptr, &gradient);
        std::copy(gradient.begin(), gradient.end(), gradients.begin() + c * dim);
        for (int64_t k = 0; k < dim; ++k) vectors[c][k] = static_cast<float>(-gradient[k]);
      }
      if (inverse_.usable()) inverse_.apply(vectors, scratch.data());
      write_changes(
          used, [&](int64_t c) { return vectors[c]; },
          [&](int64_t c, double change) {
            double decrement = 0.0;
            for (int64_t k = 0; k < dim; ++k) decrement -= gradients[c * dim + k] * static_cast<double>(vectors[c][k]);
            const int64_t group = moves[first + c];
            found[first + c] = judged(group, change, decrement, share_of(group), Known::roughly);
          });
    });
    return found;
  }

  // What the same distance in another direction could change: by the slope, or where that is small by the curvature.
  double effect(double change, double distance) const {
    return std::max(steepest_ * distance, 2.0 * std::fabs(change));
  }

  Move judged(int64_t group, double change, double decrement, double left_out, Known known) const {
    const double distance = std::sqrt(std::max(decrement, 0.0)), moved = distance / std::sqrt(curvature_);
    const double share = caution_[static_cast<int>(known)] * (left_out + moved + drift_);
    const double error = share * effect(change, distance);
    const bool sure = weight_of(group) > 0.0 && left_out < 0.5 && moved < 1.0 && std::isfinite(change + error);
    return {sure ? change : 0.0, sure ? error : unknown(), distance, known};
  }

  // Those that may be the best, until the rest cannot be: by Newton steps or solved. If the level before was further
  // off than it said, with more caution; if it was nearer, with less the next time, but not less than three standard
  // deviations of what an error in a random direction does along the slope: the few that were looked at say no more.
  void raise(Known level, Array<Move>* found, const int64_t* moves) {
    double& caution = caution_[static_cast<int>(level) - 1];
    double off = 0.0;
    while (true) {
      const Array<int64_t> contenders = contenders_below(level, *found);
      if (contenders.empty()) break;
      const Array<Move> before = *found;
      level == Known::solved ? solve_moves(contenders, found, moves, unknown()) : step_moves(contenders, found, moves);
      double worst = 0.0;
      for (int64_t i : contenders) {
        const Move &was = before[i], &is = (*found)[i];
        if (!(std::isfinite(was.error) && was.error > 0.0)) continue;
        const double seen = std::fabs(was.change - is.change), other = std::isfinite(is.error) ? is.error : 0.0;
        worst = std::max(worst, (seen - other) / was.error);  // that much is sure
        off = std::max(off, caution * seen / was.error);
      }
      if (kSafety * worst <= 1.0) continue;
      for (Move& move : *found)
        if (move.known < level) move.error *= kSafety * worst;
      caution *= kSafety * worst;
    }
    caution = std::max({kSafety * off, 0.9 * caution, 3.0 / std::sqrt(static_cast<double>(data_.dim))});
  }

  static Array<int64_t> contenders_below(Known level, const Array<Move>& found) {
    double ceiling = unknown();
    for (const Move& move : found) ceiling = std::min(ceiling, move.change + move.error);
    Array<int64_t> contenders;
    for (size_t i = 0; i < found.size(); ++i)
      if (found[i].known < level && !(found[i].change - found[i].error > ceiling))
        contenders.push_back(static_cast<int64_t>(i));
    return contenders;
  }

  // Newton steps with Hessians of their own.
  void step_moves(const Array<int64_t>& which, Array<Move>* found, const int64_t* moves) {
    for_chunks(which, moves, [&](SubsetChunk<Element>* chunk, int64_t first, int64_t used) {
      chunk->look();
      write_changes(
          used, [&](int64_t i) { return chunk->direction(i); },
          [&](int64_t i, double change) {
            const int64_t move = which[first + i];
            (*found)[move] = judged(moves[move], change, chunk->problem(i).decrement, 0.0, Known::by_newton);
          });
    });
  }

  static double unknown() { return std::numeric_limits<double>::infinity(); }

  // put(i, change of the validation loss at shift(i)) for i < count.
  template <class Shift, class Put>
  void write_changes(int64_t count, const Shift& shift, const Put& put) const {
    for (int64_t first = 0; first < count; first += kTileColumns) {
      const float* shifts[kTileColumns];
      double changes[kTileColumns];
      for (int64_t c = 0; c < kTileColumns; ++c) shifts[c] = shift(std::min(first + c, count - 1));
      validation_.changes(changes, shifts);
      for (int64_t c = 0; c < std::min<int64_t>(kTileColumns, count - first); ++c) put(first + c, changes[c]);
    }
  }

  // In double precision where that does not do: where rounding may leave more than largest_gap of F.
  void solve_moves(const Array<int64_t>& which, Array<Move>* found, const int64_t* moves, double largest_gap) {
    Array<uint8_t> left(which.size());
    // The share that a solve leaves: by its tolerance; and by rounding, whose direction is random, so that three
    // standard deviations of what it does along the slope are 3 / sqrt(d) of it. Few rows may be ten times as far off.
    const double rounding =
        std::sqrt(rounding_share<Element>(data_.dim, rows_, curvature_) / static_cast<double>(data_.dim));
    const double share = (std::sqrt(100.0 * kTol) + 3.0 * rounding) * (cheap() ? 10.0 : 1.0);
    for_chunks(which, moves, [&](SubsetChunk<Element>* chunk, int64_t first, int64_t used) {
      chunk->run();
      write_changes(
          used, [&](int64_t i) { return chunk->shift(i); },
          [&](int64_t i, double change) {
            const int64_t move = which[first + i];
            const Problem& problem = chunk->problem(i);
            const double gap = 0.5 * problem.rounding * problem.first_decrement;  // of F, if that was all
            left[first + i] = !problem.subset || problem.ending == Ending::hard || !std::isfinite(change) ||
                              !(gap <= largest_gap * problem.loss);
            const double distance = std::sqrt(std::max(problem.first_decrement, 0.0));
            (*found)[move] = {change, share * effect(change, distance), distance, Known::solved};
            chunk->write_x(i, x_at(move));
          });
    });
    parallel_for(static_cast<int64_t>(which.size()), threads_, [&](int64_t i) {
      if (!left[i]) return;
      solve_exactly(moves[which[i]], x_at(which[i]));
      (*found)[which[i]] = {validation_.loss(x_at(which[i])) - now_, kExact * now_, 0.0, Known::solved};
    });
  }

  // x [dim], from where it is, or from x_S if that is no place.
  void solve_exactly(int64_t group, double* x) const {
    Array<uint8_t> subset = toggled(group);
    Array<double> start(x, x + data_.dim);
    if (!std::isfinite(norm(start.data(), data_.dim)) || norm(start.data(), data_.dim) == 0.0) start = x_;
    solve_subset(subset, &start, 0.0, factor());
    std::copy(start.begin(), start.end(), x);
  }

  void solve_subset(const Array<uint8_t>& subset, Array<double>* x, double tol, const double* factor) const {
    const GroupSums sums = known_.add_up(subset.data());
    if (!(sums.weight > 0.0)) return x->assign(static_cast<size_t>(data_.dim), 0.0);
    const SubsetObjective objective{data_, subset.data(), sums.weight, l2_};
    ExactSolve(objective, sums, tol, kIterations).run(x->data(), factor);
  }

  // The best of the solved. Where others are within the error, they and S are brought closer until they can be told
  // apart, or are equal in double precision.
  Best settle(double* x, Array<Move> found, const int64_t* moves) {
    Best best{-1, 0.0, now_, 0};
    for (const Move& move : found) best.solved += move.known == Known::solved;
    Array<int64_t> tied = first_among(found);
    for (int round = 0; round < kRounds && (cheap() || tied.size() > 1 || unclear(found[tied[0]])); ++round) {
      Array<uint8_t> closer(tied.size());
      parallel_for(static_cast<int64_t>(tied.size()), threads_,
                   [&](int64_t i) { closer[i] = refine(&found[tied[i]], moves[tied[i]], x_at(tied[i])); });
      if (unclear(found[tied[0]])) best.now = refine_here(&found);
      if (std::find(closer.begin(), closer.end(), 0) != closer.end()) return best_of(x, tied, moves, best);
      tied = first_among(found);
      if (std::all_of(tied.begin(), tied.end(), [&](int64_t i) { return found[i].error <= kExact * now_; })) break;
    }
    int64_t winner = tied[0];
    for (int64_t i : tied)
      if (found[i].change <= found[tied[0]].change + 2.0 * kExact * now_) winner = std::min(winner, i);
    now_error_ = found[winner].error;
    return leave_for(x, winner, moves[winner], now_ + found[winner].change, best);
  }

  // The solved that may be the best; the lowest first, of equals the first.
  static Array<int64_t> first_among(const Array<Move>& found) {
    Array<int64_t> order;
    double ceiling = unknown();
    for (size_t i = 0; i < found.size(); ++i) {
      if (found[i].known != Known::solved) continue;
      ceiling = std::min(ceiling, found[i].change + found[i].error);
      order.push_back(static_cast<int64_t>(i));
    }
    order.erase(std::remove_if(order.begin(), order.end(),
                               [&](int64_t i) { return found[i].change - found[i].error > ceiling; }),
                order.end());
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t i, int64_t j) { return found[i].change < found[j].change; });
    return order;
  }

  bool unclear(const Move& move) const { return !(std::fabs(move.change) > move.error + now_error_); }

  // The loss at S's own minimum, of which the changes are from then on.
  double refine_here(Array<Move>* found) {
    const double before = now_;
    solve_subset(subset_, &x_, 0.0, factor());
    now_ = validation_.loss(x_.data());
    now_error_ = kExact * now_;
    for (Move& move : *found) move.change += before - now_;
    return now_;
  }

  const double* factor() const { return inverse_.usable() ? inverse_.factor().data() : nullptr; }

  // One Newton step from x [dim] with the exact gradient and the Hessian of S. Whether it was much shorter than the
  // error before said: then the next would be shorter again. A move so large that it might not has all steps at once.
  bool refine(Move* move, int64_t group, double* x) const {
    if (!(share_of(group) + move->distance / std::sqrt(curvature_) + drift_ < 0.2)) {
      solve_exactly(group, x);
      *move = {validation_.loss(x) - now_, 0.5 * kExact * now_, move->distance, Known::solved};
      return true;
    }
    const Array<uint8_t> subset = toggled(group);
    const double weight = weight_of(group);
    if (!(weight > 0.0) || !inverse_.usable()) return false;
    Array<double> gradient(static_cast<size_t>(data_.dim)), step;
    for (int64_t t = 0; t < data_.groups; ++t) {
      for (const PackedBlock* block = known_.rows.begin(t); subset[t] && block < known_.rows.end(t); ++block) {
        const RowBlock rows = row_block(data_, block->first, block->rows);
        BlockPoint(rows, x).add_gradient(gradient.data(), rows);
      }
    }
    for (int64_t k = 0; k < data_.dim; ++k) gradient[k] = gradient[k] / weight + l2_ * x[k];
    step = gradient;
    cholesky_solve(factor(), step.data(), data_.dim);
    const double length = steepest_ * std::sqrt(std::max(dot(step.data(), gradient.data(), data_.dim), 0.0));
    axpy(x, -1.0, step.data(), data_.dim);
    const double before = move->error;
    *move = {validation_.loss(x) - now_, std::max(0.5 * length, 0.5 * kExact * now_), move->distance, Known::solved};
    return length <= before || length <= kExact * now_;
  }

  Best best_of_exact(double* x, const int64_t* moves, int64_t count) {
    Array<int64_t> all(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) all[i] = i;
    x_found_.assign(static_cast<size_t>(count * data_.dim), 0.0);
    return best_of(x, all, moves, {-1, 0.0, now_, count});
  }

  Best best_of(double* x, const Array<int64_t>& which, const int64_t* moves, const Best& so_far) {
    Array<double> losses(which.size());
    parallel_for(static_cast<int64_t>(which.size()), threads_, [&](int64_t i) {
      solve_exactly(moves[which[i]], x_at(which[i]));
      losses[i] = validation_.loss(x_at(which[i]));
    });
    size_t lowest = std::min_element(losses.begin(), losses.end()) - losses.begin();
    for (size_t i = 0; i < which.size(); ++i)
      if (losses[i] <= losses[lowest] * (1.0 + 2.0 * kExact) && which[i] < which[lowest]) lowest = i;
    now_error_ = kExact * losses[lowest];
    return leave_for(x, which[lowest], moves[which[lowest]], losses[lowest], so_far);
  }

  Best leave_for(double* x, int64_t move, int64_t group, double loss, Best best) {
    best.move = move;
    best.loss = loss;
    x_.assign(x_at(move), x_at(move) + data_.dim);
    std::copy(x_.begin(), x_.end(), x);
    subset_[group] ^= 1;
    return best;
  }

  const SolverData<Element>& known_;
  const SubsetData& data_;
  double l2_;
  int threads_;
  Validation validation_;
  MoveHessians hessians_;
  Preconditioner inverse_;              // of S's Hessian
  Array<uint8_t> subset_;               // S
  Array<double> x_, gradient_, slope_;  // x_S; sum of the rows' gradients there; gradient of the validation loss there
  Expansion at_;                        // around x_S
  double weight_ = 0.0, loss_ = 0.0, curvature_ = 0.0, now_ = 0.0, steepest_ = 0.0;
  double now_error_ = 0.0;                // that now_ is known to
  double drift_ = unknown();              // root mean square change of the margins since the Hessians were taken
  int64_t rows_ = 0;                      // of S
  double bound_ = 0.0;                    // GroupSums::curvature of S
  double caution_[2] = {2.0, 2.0};        // of the errors that are said of rough and of Newton steps
  static constexpr double kSafety = 3.0;  // how many times as far off the others may be than those that were looked at
  Array<double> x_found_;                 // [moves, dim]
};

}  // namespace GRADEX_ISA
}  // namespace gradex
