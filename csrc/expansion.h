// The point that all subsets are expanded around: what every group and every row is there.
#pragma once

#include <cstdint>

#include "array.h"
#include "packed_rows.h"
#include "union_start.h"
#include "vector_functions.h"

namespace gradex {
inline namespace GRADEX_ISA {

struct Expansion {
  Array<double> x;          // [dim]
  Array<double> gradient;   // [groups, dim], sum_i -w_i p_i g_i with p_i = sigmoid(-z_i), z_i = h_i + g_i . x
  Array<double> loss;       // [groups], sum_i w_i softplus(-z_i)
  Array<double> curvature;  // [groups], sum_i w_i p_i (1 - p_i)
  Array<float> p;           // [packed rows]
  Array<float> wq;          // [packed rows], w_i (1 - p_i)
};

// Rows in pieces of a few blocks of one group, each summed by one thread: the same sums for any number of threads.
template <class Element>
Expansion expand(const SubsetData& data, const PackedRows<Element>& packed, Array<double> x, int threads) {
  constexpr int64_t kBlocks = 16;
  struct Piece {
    int64_t group;
    const PackedBlock *begin, *end;
    double loss, curvature;
    Array<double> gradient;
  };
  Array<Piece> pieces;
  for (int64_t t = 0; t < data.groups; ++t)
    for (const PackedBlock* block = packed.begin(t); block < packed.end(t); block += kBlocks)
      pieces.push_back({t, block, std::min(block + kBlocks, packed.end(t)), 0.0, 0.0, Array<double>(data.dim)});

  const auto rows = static_cast<size_t>(packed.packed_rows());
  const auto groups = static_cast<size_t>(data.groups);
  Expansion at{std::move(x),          Array<double>(groups * data.dim),
               Array<double>(groups), Array<double>(groups),
               Array<float>(rows),    Array<float>(rows)};
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t index) {
    Piece& piece = pieces[index];
    for (const PackedBlock* block = piece.begin; block < piece.end; ++block) {
      const RowBlock part = row_block(data, block->first, block->rows);
      alignas(64) float z[kTileVectors * kVectorLanes] = {}, w[kTileVectors * kVectorLanes] = {};
      for (int64_t i = 0; i < part.rows; ++i) {
        z[i] = static_cast<float>(part.margins[i] + dot_row(part.row(i), at.x.data(), data.dim));
        w[i] = static_cast<float>(part.weight(i));
      }
      Vector loss{}, curvature{};
      float *p = at.p.data() + block->packed, *wq = at.wq.data() + block->packed;
      for (int64_t i = 0; i < block->vectors * kVectorLanes; i += kVectorLanes) {
        const SoftplusVector point = softplus(-load(z + i));
        loss += load(w + i) * point.value;
        curvature += load(w + i) * point.slope * (1.0f - point.slope);
        store(p + i, point.slope);
        store(wq + i, load(w + i) * (1.0f - point.slope));
      }
      for (int64_t lane = 0; lane < kVectorLanes; ++lane) piece.loss += loss[lane], piece.curvature += curvature[lane];
      for (int64_t i = 0; i < part.rows; ++i)
        add_row(piece.gradient.data(), -part.weight(i) * static_cast<double>(p[i]), part.row(i), data.dim);
    }
  });
  for (const Piece& piece : pieces) {
    at.loss[piece.group] += piece.loss;
    at.curvature[piece.group] += piece.curvature;
    axpy(at.gradient.data() + piece.group * data.dim, 1.0, piece.gradient.data(), data.dim);
  }
  return at;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
