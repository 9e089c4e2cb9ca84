// The point that all subsets are expanded around: what every group and every row is there.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

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

// Of a block's rows at x: z_i = h_i + g_i . x and p_i = sigmoid(-z_i).
struct BlockPoint {
  alignas(64) double z[kBlockRows], p[kBlockRows];

  BlockPoint(const RowBlock& rows, const double* x) {
    std::fill_n(z, kBlockRows, 0.0);
    for (int64_t i = 0; i < rows.rows; ++i) z[i] = rows.margins[i] + dot_row(rows.row(i), x, rows.dim);
    for (int64_t i = 0; i < rows.rows; i += kDoubleLanes) {
      const DoubleVector lanes = falling_sigmoid(load<DoubleVector>(z + i));
      std::memcpy(p + i, &lanes, sizeof(lanes));
    }
  }

  // sum_i w_i softplus(-z_i), to float32
  double loss(const RowBlock& rows) const {
    double sum = 0.0;
    for (int64_t first = 0; first < rows.rows; first += kVectorLanes) {
      const int64_t lanes = std::min(kVectorLanes, rows.rows - first);
      Vector u{};
      for (int64_t lane = 0; lane < lanes; ++lane) u[lane] = static_cast<float>(-z[first + lane]);
      const Vector value = softplus(u).value;
      for (int64_t lane = 0; lane < lanes; ++lane) sum += rows.weight(first + lane) * static_cast<double>(value[lane]);
    }
    return sum;
  }

  // gradient [dim] -= sum_i w_i p_i g_i
  void add_gradient(double* gradient, const RowBlock& rows) const {
    for (int64_t i = 0; i < rows.rows; ++i) add_row(gradient, -rows.weight(i) * p[i], rows.row(i), rows.dim);
  }
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
    for (const PackedBlock *block = packed.begin(t), *end; block < packed.end(t); block = end) {
      end = block + std::min<int64_t>(kBlocks, packed.end(t) - block);
      pieces.push_back({t, block, end, 0.0, 0.0, Array<double>(data.dim)});
    }

  const auto rows = static_cast<size_t>(packed.packed_rows());
  const auto groups = static_cast<size_t>(data.groups);
  Expansion at{std::move(x),          Array<double>(groups * data.dim),
               Array<double>(groups), Array<double>(groups),
               Array<float>(rows),    Array<float>(rows)};
  parallel_for(static_cast<int64_t>(pieces.size()), threads, [&](int64_t index) {
    Piece& piece = pieces[index];
    for (const PackedBlock* block = piece.begin; block < piece.end; ++block) {
      const RowBlock part = row_block(data, block->first, block->rows);
      const BlockPoint point(part, at.x.data());
      piece.loss += point.loss(part);
      point.add_gradient(piece.gradient.data(), part);
      for (int64_t i = 0; i < part.rows; ++i) {
        const double weight = part.weight(i), p = point.p[i];
        piece.curvature += weight * p * (1.0 - p);
        at.p[block->packed + i] = static_cast<float>(p);
        at.wq[block->packed + i] = static_cast<float>(weight * (1.0 - p));
      }
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
