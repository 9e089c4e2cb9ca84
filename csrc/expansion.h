// The point that all subsets are expanded around: what every group and every row is there.
#pragma once

#include <cstdint>

#include "array.h"
#include "packed_rows.h"
#include "union_start.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Expansion {
  Array<double> x;         // [dim]
  Array<double> gradient;  // [groups, dim], sum_i -w_i p_i g_i with p_i = sigmoid(-z_i), z_i = h_i + g_i . x
  Array<double> loss;      // [groups], sum_i w_i softplus(-z_i)
  Array<float> p;          // [packed rows]
  Array<float> wq;         // [packed rows], w_i (1 - p_i)
};

// Rows in pieces of a few blocks of one group, each summed by one thread: the same sums for any number of threads.
template <class Element>
Expansion expand(const SubsetData& data, const PackedRows<Element>& packed, Array<double> x, int threads) {
  constexpr int64_t kBlocks = 16;
  struct Piece {
    int64_t group;
    const PackedBlock *begin, *end;
    double loss;
    Array<double> gradient;
  };
  Array<Piece> pieces;
  for (int64_t t = 0; t < data.groups; ++t)
    for (const PackedBlock* block = packed.begin(t); block < packed.end(t); block += kBlocks)
      pieces.push_back({t, block, std::min(block + kBlocks, packed.end(t)), 0.0, Array<double>(data.dim)});

  const auto rows = static_cast<size_t>(packed.packed_rows());
  Expansion at{std::move(x), Array<double>(data.groups * data.dim), Array<double>(data.groups), Array<float>(rows),
               Array<float>(rows)};
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t index) {
    Piece& piece = pieces[index];
    for (const PackedBlock* block = piece.begin; block < piece.end; ++block) {
      const RowBlock part = row_block(data, block->first, block->rows);
      for (int64_t i = 0; i < part.rows; ++i) {
        const double weight = part.weight(i);
        const Softplus point = softplus(-(part.margins[i] + dot_row(part.row(i), at.x.data(), data.dim)));
        piece.loss += weight * point.value;
        add_row(piece.gradient.data(), -weight * point.slope, part.row(i), data.dim);
        at.p[block->packed + i] = static_cast<float>(point.slope);
        at.wq[block->packed + i] = static_cast<float>(weight * (1.0 - point.slope));
      }
    }
  });
  for (const Piece& piece : pieces) {
    at.loss[piece.group] += piece.loss;
    axpy(at.gradient.data() + piece.group * data.dim, 1.0, piece.gradient.data(), data.dim);
  }
  return at;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
