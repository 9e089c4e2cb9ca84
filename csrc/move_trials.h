// The effects of moves from a search point, at a rising price: all by one Newton step with S's Hessian, some by one
// with their own, a few by full solves, and single ones closer still.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "array.h"
#include "expansion.h"
#include "move.h"
#include "parallel.h"
#include "search_point.h"
#include "subset_chunk.h"

namespace gradex {
inline namespace GRADEX_ISA {

template <class Element>
class MoveTrials {
 public:
  explicit MoveTrials(const SearchPoint<Element>& here) : here_(here), data_(here.known().data) {}

  // What is added to the errors that are said of Newton steps, as a factor.
  double& caution(Known known) { return caution_[static_cast<int>(known)]; }

  // Few numbers in S's rows: a solve in double precision costs next to nothing.
  bool cheap() const { return here_.rows() * data_.dim <= 200'000; }

  // With the Hessian of S. What that leaves out of the step is the group's own Hessian, and the Hessian's change, which
  // is of the order of the margins' root mean square change.
  void screen(Array<Move>* moves) const {
    const auto count = static_cast<int64_t>(moves->size());
    const int64_t padded = here_.known().rows.padded_dim(), dim = data_.dim;
    parallel_for(divide_up(count, kTileColumns), here_.threads(), [&](int64_t tile) {
      const int64_t first = tile * kTileColumns, used = std::min<int64_t>(kTileColumns, count - first);
      Array<float> steps(static_cast<size_t>(kTileColumns * padded)), scratch(steps.size());
      Array<double> gradients(static_cast<size_t>(kTileColumns * dim)), gradient(static_cast<size_t>(dim));
      float* vectors[kTileColumns];
      for (int64_t c = 0; c < kTileColumns; ++c) {
        vectors[c] = steps.data() + c * padded;
        if (c >= used || !(here_.weight_after((*moves)[first + c].group) > 0.0)) continue;
        here_.start_after((*moves)[first + c].group, nullptr, &gradient);
        std::copy(gradient.begin(), gradient.end(), gradients.begin() + c * dim);
        for (int64_t k = 0; k < dim; ++k) vectors[c][k] = static_cast<float>(-gradient[k]);
      }
      if (here_.inverse().usable()) here_.inverse().apply(vectors, scratch.data());
      write_changes(
          used, [&](int64_t c) { return vectors[c]; },
          [&](int64_t c, double change) {
            double decrement = 0.0;
            for (int64_t k = 0; k < dim; ++k) decrement -= gradients[c * dim + k] * static_cast<double>(vectors[c][k]);
            Move* move = &(*moves)[first + c];
            judge(move, change, decrement, here_.share_of(move->group), Known::roughly);
          });
    });
  }

  // With Hessians of their own.
  void step(const Array<int64_t>& which, Array<Move>* moves) const {
    for_chunks(which, *moves, [&](SubsetChunk<Element>* chunk, int64_t first, int64_t used) {
      chunk->look();
      write_changes(
          used, [&](int64_t i) { return chunk->direction(i); },
          [&](int64_t i, double change) {
            judge(&(*moves)[which[first + i]], change, chunk->problem(i).decrement, 0.0, Known::by_newton);
          });
    });
  }

  // In double precision where single does not do, or where its rounding may leave more than largest_gap of F.
  void solve(const Array<int64_t>& which, Array<Move>* moves, double largest_gap) const {
    Array<uint8_t> left(which.size());
    const double share = share_left_by_solves();
    for_chunks(which, *moves, [&](SubsetChunk<Element>* chunk, int64_t first, int64_t used) {
      chunk->run();
      write_changes(
          used, [&](int64_t i) { return chunk->shift(i); },
          [&](int64_t i, double change) {
            Move* move = &(*moves)[which[first + i]];
            const Problem& problem = chunk->problem(i);
            const double gap = 0.5 * problem.rounding * problem.first_decrement;  // of F, if that was all
            left[first + i] = !problem.subset || problem.ending == Ending::hard || !std::isfinite(change) ||
                              !(gap <= largest_gap * problem.loss);
            const double distance = std::sqrt(std::max(problem.first_decrement, 0.0));
            *move = {move->group, move->x, change, share * effect(change, distance), distance, Known::solved};
            chunk->write_x(i, move->x);
          });
    });
    parallel_for(static_cast<int64_t>(which.size()), here_.threads(), [&](int64_t i) {
      if (left[i]) here_.solve_exactly(&(*moves)[which[i]]);
    });
  }

  // One Newton step from a solved move's x with the exact gradient and the Hessian of S. Whether it was much shorter
  // than the error before said: then the next would be shorter again. A move so large that it might not has all steps
  // at once.
  bool refine(Move* move) const {
    if (!(here_.share_of(move->group) + moved(move->distance) + here_.drift() < 0.2)) {
      here_.solve_exactly(move);
      return true;
    }
    if (!(here_.weight_after(move->group) > 0.0) || !here_.factor()) return false;
    Array<double> gradient = gradient_at(*move), step = gradient;
    cholesky_solve(here_.factor(), step.data(), data_.dim);
    const double length = here_.steepest() * std::sqrt(std::max(dot(step.data(), gradient.data(), data_.dim), 0.0));
    axpy(move->x, -1.0, step.data(), data_.dim);
    const double before = move->error, exact = kExact * here_.loss();
    move->change = here_.validation().loss(move->x) - here_.loss();
    move->error = std::max(0.5 * length, 0.5 * exact);
    return length <= before || length <= exact;
  }

 private:
  static constexpr int64_t kChunk = 64;
  static constexpr double kTol = 1e-10;  // of a full solve, where rounding lets it
  static constexpr int32_t kIterations = 500;

  // Root mean square change of the margins.
  double moved(double distance) const { return distance / std::sqrt(here_.curvature()); }

  // What the same distance in another direction could change: by the slope, or where that is small by the curvature.
  double effect(double change, double distance) const {
    return std::max(here_.steepest() * distance, 2.0 * std::fabs(change));
  }

  void judge(Move* move, double change, double decrement, double left_out, Known known) const {
    const double distance = std::sqrt(std::max(decrement, 0.0));
    const double share = caution_[static_cast<int>(known)] * (left_out + moved(distance) + here_.drift());
    const double error = share * effect(change, distance);
    const bool sure = here_.weight_after(move->group) > 0.0 && left_out < 0.5 && moved(distance) < 1.0 &&
                      std::isfinite(change + error);
    *move = {move->group, move->x, sure ? change : 0.0, sure ? error : kUnknown, distance, known};
  }

  // By their tolerance; and by rounding, whose direction is random, so that three standard deviations of what it does
  // along the slope are 3 / sqrt(d) of it. Few rows may be ten times as far off.
  double share_left_by_solves() const {
    const double rounding = std::sqrt(rounding_share<Element>(data_.dim, here_.equal_rows(), here_.curvature()) /
                                      static_cast<double>(data_.dim));
    return (std::sqrt(100.0 * kTol) + 3.0 * rounding) * (cheap() ? 10.0 : 1.0);
  }

  // Puts the moves `which` into chunks and calls body(chunk, first position, count) with each.
  template <class Body>
  void for_chunks(const Array<int64_t>& which, const Array<Move>& moves, const Body& body) const {
    const auto count = static_cast<int64_t>(which.size());
    const int64_t size = std::clamp<int64_t>(divide_up(count, here_.threads()), kTileColumns, kChunk);
    const ChunkShared<Element> common{data_, here_.known().rows, here_.at(), nullptr, here_.l2(), kTol, kIterations};
    parallel_for(divide_up(count, size), here_.threads(), [&](int64_t index) {
      const int64_t first = index * size, used = std::min(size, count - first);
      SubsetChunk<Element> chunk(common, used);
      Array<Array<uint8_t>> subsets(static_cast<size_t>(used));
      Array<int64_t> groups(static_cast<size_t>(used));
      Array<double> gradient(static_cast<size_t>(data_.dim));
      for (int64_t i = 0; i < used; ++i) {
        groups[i] = moves[which[first + i]].group;
        subsets[i] = here_.toggled(groups[i]);
        if (here_.weight_after(groups[i]) > 0.0)
          chunk.start(i, here_.start_after(groups[i], subsets[i].data(), &gradient));
      }
      chunk.factorise([&](SubsetFactors* factors) { here_.hessians().fill(factors, groups.data(), used); });
      body(&chunk, first, used);
    });
  }

  // put(i, change of the validation loss at shift(i)) for i < count.
  template <class Shift, class Put>
  void write_changes(int64_t count, const Shift& shift, const Put& put) const {
    for (int64_t first = 0; first < count; first += kTileColumns) {
      const float* shifts[kTileColumns];
      double changes[kTileColumns];
      for (int64_t c = 0; c < kTileColumns; ++c) shifts[c] = shift(std::min(first + c, count - 1));
      here_.validation().changes(changes, shifts);
      for (int64_t c = 0; c < std::min<int64_t>(kTileColumns, count - first); ++c) put(first + c, changes[c]);
    }
  }

  // [dim], of F at move.x
  Array<double> gradient_at(const Move& move) const {
    const PackedRows<Element>& packed = here_.known().rows;
    const Array<uint8_t> subset = here_.toggled(move.group);
    Array<double> gradient(static_cast<size_t>(data_.dim));
    for (int64_t t = 0; t < data_.groups; ++t) {
      for (const PackedBlock* block = packed.begin(t); subset[t] && block < packed.end(t); ++block) {
        const RowBlock rows = row_block(data_, block->first, block->rows);
        BlockPoint(rows, move.x).add_gradient(gradient.data(), rows);
      }
    }
    const double divisor = here_.divisor_after(move.group);
    for (int64_t k = 0; k < data_.dim; ++k) gradient[k] = gradient[k] / divisor + here_.l2() * move.x[k];
    return gradient;
  }

  const SearchPoint<Element>& here_;
  const SubsetData& data_;
  double caution_[2] = {2.0, 2.0};
};

}  // namespace GRADEX_ISA
}  // namespace gradex
