// A layer's sketch as a block of threads sees it: where its tiles are, and how warps make their gradients.
#pragma once
#include <cstdint>

#include "warp_gradient.h"
#include "warp_projection.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A layer of which one side is called left; `tiling` is BlockTiling::of(shape, left.features, right.features, dim).
struct LayerSketch {
  static constexpr bool kWaits = true;  // for tokens, so that P can be made meanwhile

  SketchPlan plan;
  RoundKeys keys;
  BlockTiling tiling;
  Factor left, right;
  const int64_t* lengths;
  int64_t tokens;
  uint64_t offset;

  GRADEX_INLINE int64_t row(int64_t tile) const { return int64_t{tiling.down_of(tile)} * tiling.rows; }
  GRADEX_INLINE int64_t column(int64_t tile) const { return int64_t{tiling.across_of(tile)} * tiling.columns; }
  GRADEX_INLINE bool empty(int64_t) const { return false; }

  GRADEX_INLINE TileElements elements(int64_t tile) const {
    const auto row_of = static_cast<uint64_t>(row(tile)), column_of = static_cast<uint64_t>(column(tile));
    return {offset + row_of * left.stride + column_of * right.stride, left.stride, right.stride};
  }

  GRADEX_INLINE int64_t length(int64_t sample) const {
    if (!lengths) return tokens;
    return lengths[sample] < tokens ? lengths[sample] : tokens;
  }

  // A warp's share of the gradients of samples first ... first + out.slots - 1, and between its reads and their use,
  // evenly, blocks of P.
  template <class Number, class S>
  GRADEX_INLINE void make(const Gradients& out, int64_t tile, int64_t first, int warp,
                          WarpProjection* projection) const {
    const int pieces = tiling.columns / S::kColumns;
    const int64_t top = row(tile), across = column(tile);
    using Gradient = WarpGradient<Number, S::kRows, S::kColumns>;
    const int64_t steps = ratio_up(out.slots * pieces, kWarps) * ratio_up(tokens, Gradient::kTokens);
    const int pace = projection->kept.capacity > 0 ? static_cast<int>(steps / (2 * projection->kept.capacity)) : 0;
    int wait = 0;
    for (int task = warp; task < out.slots * pieces; task += kWarps) {
      const int slot = task / pieces, at = task % pieces * S::kColumns;
      const int64_t sample = first + slot, from = across + at;
      const int64_t start = sample * tokens, end = sample < plan.samples ? start + length(sample) : start;
      Gradient gradient;
      GRADEX_UNROLL(1)
      for (int64_t token = start; token < end; token += Gradient::kTokens)
        gradient.add({left, right, top, from, token, end}, [&] {
          if (!S::kMakesAhead || --wait > 0) return;
          projection->make_ahead();
          wait = pace;
        });
      gradient.each_run([&](int r, int c, auto& x) {
        if (r < tiling.rows) store(out, slot, r * tiling.columns + at + c, within(top + r, from + c, x));
      });
    }
  }

 private:
  // 0 beyond the last feature.
  template <int Count>
  GRADEX_INLINE const float (&within(int64_t row, int64_t column, float (&x)[Count]) const)[Count] {
    GRADEX_UNROLL(4)
    for (int i = 0; i < Count; ++i)
      if (row >= left.features || column + i >= right.features) x[i] = 0.0f;
    return x;
  }
};

// A layer of one token and one left feature: a sample's gradient is X times a number, with nothing to sum.
struct DenseSketch : LayerSketch {
  static constexpr bool kWaits = false;

  template <class, class>
  GRADEX_INLINE void make(const Gradients& out, int64_t tile, int64_t first, int warp, WarpProjection*) const {
    const int pairs = tiling.columns / 2;
    every_lane([&](int lane) {
      for (int task = warp * kLanes + lane; task < out.slots * pairs; task += kWarps * kLanes) {
        const int slot = task / pairs, at = task % pairs * 2;
        const int64_t sample = first + slot, from = column(tile) + at;
        const bool there = sample < plan.samples && length(sample) > 0;
        float x[2];
        for (int i = 0; i < 2; ++i) {
          x[i] = there && from + i < right.features
                     ? number_of(left.data, left.type, sample) *
                           number_of(right.data, right.type, sample * right.features + from + i)
                     : 0.0f;
        }
        store(out, slot, at, x);
      }
    });
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
