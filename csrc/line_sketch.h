// The same of a parameter that is looked up by lines.
#pragma once
#include <cstdint>

#include "sketch.h"
#include "warp_gradient.h"
#include "warp_projection.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Lines that are looked up; a tile is a part of one line. `tiling` is BlockTiling::of(shape, ...) with one row a tile.
struct LineSketch {
  static constexpr bool kWaits = false;

  SketchPlan plan;
  RoundKeys keys;
  BlockTiling tiling;
  RowSketchArguments lines;

  GRADEX_INLINE int64_t line(int64_t tile) const { return tile / tiling.across; }
  GRADEX_INLINE int64_t column(int64_t tile) const { return tile % tiling.across * tiling.columns; }
  GRADEX_INLINE bool empty(int64_t tile) const { return lines.start[line(tile)] >= lines.start[line(tile) + 1]; }

  GRADEX_INLINE TileElements elements(int64_t tile) const {
    return {static_cast<uint64_t>(lines.row[line(tile)] * lines.width + column(tile)), 0, 1};
  }

  // A lane has two neighbours of a line.
  template <class, class>
  GRADEX_INLINE void make(const Gradients& out, int64_t tile, int64_t first, int warp, WarpProjection*) const {
    every_lane([&](int lane) {
      const int at = 2 * (warp * kLanes + lane);
      if (at < tiling.columns) make_pair(out, tile, first, at);
    });
  }

 private:
  // The tokens of a line ascend, and so do their samples: each sum ends where the next sample begins.
  GRADEX_INLINE void make_pair(const Gradients& out, int64_t tile, int64_t first, int at) const {
    float sums[2] = {};
    for (int slot = 0; slot < out.slots; ++slot) store(out, slot, at, sums);
    const int64_t from = column(tile) + at;
    int slot = -1;
    for (int64_t i = lines.start[line(tile)]; i < lines.start[line(tile) + 1]; ++i) {
      const int64_t token = lines.token[i], found = token / lines.tokens - first;
      if (found < 0 || found >= out.slots) continue;
      for (int n = 0; n < 2; ++n) {
        const float x = from + n < lines.width ? value(token * lines.width + from + n) : 0.0f;
        sums[n] = found == slot ? sums[n] + x : x;
      }
      slot = static_cast<int>(found);
      store(out, slot, at, sums);
    }
  }

  GRADEX_INLINE float value(int64_t index) const { return number_of(lines.values, lines.values_type, index); }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
