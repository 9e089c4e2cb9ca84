// Losses as one matrix product with softplus in its tiles; compiled once per instruction set.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "array.h"
#include "losses.h"
#include "packed_rows.h"
#include "parallel.h"
#include "vector_functions.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

// kTileColumns points, or the last few.
void add_points(const LossArguments& a, const PackedRows<Single>& rows, const Array<float>& margins, int64_t first) {
  const int64_t count = std::min<int64_t>(kTileColumns, a.points - first), stride = a.dim * kVectorLanes;
  Array<float> x(static_cast<size_t>(kTileColumns * a.dim));
  std::copy(a.x + first * a.dim, a.x + (first + count) * a.dim, x.begin());
  const float* right[kTileColumns];
  for (int64_t c = 0; c < kTileColumns; ++c) right[c] = x.data() + c * a.dim;
  double sums[kTileColumns] = {};
  Array<float> scratch;
  for (const PackedBlock* block = rows.begin(0); block < rows.end(0); ++block) {
    const BlockWords<Single> words = rows.words(*block, &scratch);
    for_vector_tiles(block->vectors, [&](auto vectors, int64_t) {
      Vector losses[vectors][kTileColumns], total[kTileColumns] = {};
      tile_product<Single, vectors>(losses, words.by_row, stride, kVectorLanes, right, a.dim);
      for (int v = 0; v < vectors; ++v) {
        const Vector h = load(margins.data() + block->packed + v * kVectorLanes);
        for (int c = 0; c < kTileColumns; ++c) total[c] += losses[v][c] = softplus(-(h + losses[v][c])).value;
      }
      for (int64_t c = 0; c < count; ++c) {
        for (int64_t lane = 0; lane < kVectorLanes; ++lane) sums[c] += static_cast<double>(total[c][lane]);
        if (!a.losses) continue;
        float* out = a.losses + (first + c) * a.rows + block->first;
        for (int64_t row = 0; row < block->rows; ++row) out[row] = losses[row / kVectorLanes][c][row % kVectorLanes];
      }
    });
  }
  for (int64_t c = 0; c < count; ++c) a.mean[first + c] = sums[c] / static_cast<double>(a.rows);
}

}  // namespace

void losses_cpu(const LossArguments& a) {
  const int64_t group[] = {0, a.rows};
  const PackedRows<Single> rows({a.features, a.margins, nullptr, group, a.rows, a.dim, 1}, a.threads);
  constexpr float kNoLoss = 200.0f;  // of the lanes beyond the last row: softplus(-200) is 0
  Array<float> margins(static_cast<size_t>(rows.packed_rows()), kNoLoss);
  std::copy(a.margins, a.margins + a.rows, margins.begin());
  parallel_for(divide_up(a.points, kTileColumns), a.threads,
               [&](int64_t tile) { add_points(a, rows, margins, tile * kTileColumns); });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
