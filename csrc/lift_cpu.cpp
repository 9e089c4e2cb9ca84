// The adjoint of the sketch on the CPU; compiled once per instruction set.
#include <algorithm>

#include "lift.h"
#include "parallel.h"
#include "tile.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

// out[lane] += sum_i weights[i] columns[i, lane]
void add_columns(float* __restrict out, int64_t lanes, const float* weights, int64_t count, const float* columns) {
  for (int64_t i = 0; i < count; ++i) {
    const float* __restrict column = columns + i * kTileLanes;
    for (int64_t lane = 0; lane < lanes; ++lane) out[lane] += weights[i] * column[lane];
  }
}

void lift_tile(ProjectionTile* projection, const LiftArguments& a, int64_t first) {
  const int64_t lanes = std::min(kTileLanes, a.size - first);
  uint64_t j[kTileLanes];
  for (int64_t lane = 0; lane < lanes; ++lane) j[lane] = a.offset + static_cast<uint64_t>(first + lane);
  projection->place(j, lanes);
  for (int64_t m = 0; m < a.vectors; ++m) std::fill_n(a.out + m * a.size + first, lanes, 0.0f);
  for (int64_t column = 0; column < a.dim; column += kTileQuad) {
    const int64_t count = std::min(kTileQuad, a.dim - column);
    const float* columns = projection->columns(column / kTileQuad);
    for (int64_t m = 0; m < a.vectors; ++m) {
      float weights[kTileQuad];
      for (int64_t i = 0; i < count; ++i) weights[i] = a.scale * a.weights[m * a.dim + column + i];
      add_columns(a.out + m * a.size + first, lanes, weights, count, columns);
    }
  }
}

}  // namespace

void lift_cpu(const LiftArguments& a, int workers) {
  const int64_t tiles = (a.size + kTileLanes - 1) / kTileLanes, share = 16;
  parallel_for((tiles + share - 1) / share, workers, [&](int64_t index) {
    ProjectionTile projection(a.distribution, a.key);
    for (int64_t tile = index * share; tile < std::min(tiles, (index + 1) * share); ++tile)
      lift_tile(&projection, a, tile * kTileLanes);
  });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
