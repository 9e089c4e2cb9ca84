// A move is a group to toggle in a subset S: what is known of its effect on the validation loss, and which of several
// may be the best.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "array.h"

namespace gradex {
inline namespace GRADEX_ISA {

constexpr double kUnknown = std::numeric_limits<double>::infinity();
constexpr double kExact = 1e-11;  // relative error of a loss at a minimum in double precision

// How the effect is known: by a Newton step with the Hessian of S, or with that of the subset after the move, or by a
// full solve.
enum class Known : uint8_t { roughly, by_newton, solved };

struct Move {
  int64_t group;
  double* x;                // [dim], the minimum after it, once it is solved; the search's memory
  double change = 0.0;      // of the mean validation loss
  double error = kUnknown;  // that `change` is known to
  double distance = 0.0;    // |x - x_S| in the norm of the Hessian
  Known known = Known::roughly;
};

// Those known less well than `level` that may be lower than the lowest.
inline Array<int64_t> contenders_below(Known level, const Array<Move>& moves) {
  double ceiling = kUnknown;
  for (const Move& move : moves) ceiling = std::min(ceiling, move.change + move.error);
  Array<int64_t> contenders;
  for (size_t i = 0; i < moves.size(); ++i)
    if (moves[i].known < level && !(moves[i].change - moves[i].error > ceiling))
      contenders.push_back(static_cast<int64_t>(i));
  return contenders;
}

// The solved that may be the best; the lowest first, of equals the first.
inline Array<int64_t> first_among(const Array<Move>& moves) {
  Array<int64_t> order;
  double ceiling = kUnknown;
  for (size_t i = 0; i < moves.size(); ++i) {
    if (moves[i].known != Known::solved) continue;
    ceiling = std::min(ceiling, moves[i].change + moves[i].error);
    order.push_back(static_cast<int64_t>(i));
  }
  const auto behind = [&](int64_t i) { return moves[i].change - moves[i].error > ceiling; };
  order.erase(std::remove_if(order.begin(), order.end(), behind), order.end());
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return moves[i].change < moves[j].change; });
  return order;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
