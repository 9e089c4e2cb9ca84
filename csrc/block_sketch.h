// What a block of threads does for a sketch on the GPU: for every tile of its chunk, the samples' gradients into shared
// memory, then their products with P into its own sums. Nothing else synchronises, and every sum has a fixed order.
#pragma once
#include <cstdint>

#include "warp_gradient.h"
#include "warp_projection.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A layer of which one side is called left; `tiling` is BlockTiling::of(shape, left.features, right.features, dim).
struct LayerSketch {
  SketchPlan plan;
  BlockTiling tiling;
  Factor left, right;
  const int64_t* lengths;
  int64_t tokens;
  uint64_t offset;

  GRADEX_INLINE int64_t row(int64_t tile) const { return tile % tiling.down * tiling.rows; }
  GRADEX_INLINE int64_t column(int64_t tile) const { return tile / tiling.down * tiling.columns; }
  GRADEX_INLINE bool empty(int64_t) const { return false; }

  GRADEX_INLINE TileElements elements(int64_t tile) const {
    const auto row_of = static_cast<uint64_t>(row(tile)), column_of = static_cast<uint64_t>(column(tile));
    return {offset + row_of * left.stride + column_of * right.stride, left.stride, right.stride};
  }

  GRADEX_INLINE int64_t length(int64_t sample) const {
    if (!lengths) return tokens;
    return lengths[sample] < tokens ? lengths[sample] : tokens;
  }

  // A warp's share of the gradients of samples first ... first + out.slots - 1.
  template <class Number, class S>
  GRADEX_INLINE void make(const Gradients& out, int64_t tile, int64_t first, int warp) const {
    const int pieces = tiling.columns / S::kColumns;
    const int64_t top = row(tile), across = column(tile);
    for (int task = warp; task < out.slots * pieces; task += kWarps) {
      const int slot = task / pieces, at = task % pieces * S::kColumns;
      const int64_t sample = first + slot, from = across + at;
      const int64_t start = sample * tokens, end = sample < plan.samples ? start + length(sample) : start;
      using Gradient = WarpGradient<Number, S::kRows, S::kColumns>;
      Gradient gradient;
      GRADEX_UNROLL(1)
      for (int64_t token = start; token < end; token += Gradient::kTokens)
        gradient.add(left, top, right, from, token, end);
      gradient.each_run([&](int r, int c, const auto& x) {
        if (r < tiling.rows) store(out, slot, r * tiling.columns + at + c, x);
      });
    }
  }
};

// Lines that are looked up; a tile is a part of one line. `tiling` is BlockTiling::of(shape, ...) with one row a tile.
struct LineSketch {
  SketchPlan plan;
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
  GRADEX_INLINE void make(const Gradients& out, int64_t tile, int64_t first, int warp) const {
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

  GRADEX_INLINE float value(int64_t index) const {
    if (lines.values_type == DType::kFloat32) return static_cast<const float*>(lines.values)[index];
    if (lines.values_type == DType::kFloat16) return to_float(static_cast<const Float16*>(lines.values)[index]);
    return to_float(static_cast<const BFloat16*>(lines.values)[index]);
  }
};

// The block of a chunk. memory: Gradients(...).words(). plan.workspace starts as zeros.
template <class Number, class S, class Sketch>
GRADEX_INLINE void sketch_block(const Sketch& sketch, int64_t chunk, uint32_t* memory) {
  const SketchPlan& plan = sketch.plan;
  const BlockTiling& t = sketch.tiling;
  for (int64_t first = 0; first < plan.samples; first += S::kSamples) {
    const int samples = static_cast<int>(plan.samples - first < S::kSamples ? plan.samples - first : S::kSamples);
    const Gradients gradients(memory, samples, t.elements());
    for (int64_t tile = chunk; tile < t.tiles(); tile += t.chunks) {
      if (sketch.empty(tile)) continue;
      every_warp([&](int warp) { sketch.template make<Number, S>(gradients, tile, first, warp); });
      every_warp([&](int warp) {
        const int share = warp / t.column_blocks;
        if (share >= t.shares) return;
        float* partial = plan.workspace + ((chunk * t.shares + share) * plan.samples + first) * plan.dim;
        for (int block = warp % t.column_blocks; block < t.column_blocks; block += kWarps)
          add_projected<S::kSamples>(partial, plan, t, gradients, sketch.elements(tile), samples, block, share);
      });
    }
  }
}

// out[i] += scale * the sum over chunks and shares, for 32 i: every warp sums some of them, and the warps' sums are
// added in order. memory: kWarps * kLanes doubles.
GRADEX_INLINE void add_chunks(const SketchPlan& plan, const BlockTiling& t, int64_t first, double* memory) {
  const int64_t size = plan.samples * plan.dim, parts = t.chunks * t.shares;
  every_warp([&](int warp) {
    every_lane([&](int lane) {
      double total = 0.0;
      for (int64_t part = warp * parts / kWarps; part < (warp + 1) * parts / kWarps; ++part)
        total += first + lane < size ? plan.workspace[part * size + first + lane] : 0.0f;
      memory[warp * kLanes + lane] = total;
    });
  });
  every_warp([&](int warp) {
    every_lane([&](int lane) {
      if (warp > 0 || first + lane >= size) return;
      double total = 0.0;
      for (int from = 0; from < kWarps; ++from) total += memory[from * kLanes + lane];
      plan.out[first + lane] += static_cast<float>(plan.scale * total);
    });
  });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
