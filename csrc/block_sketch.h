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

// Lines that are looked up; a tile is a part of one line. `tiling` is BlockTiling::of(shape, ...) with one row a tile.
struct LineSketch {
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

// A block of threads with its shared memory: the gradients, then, for each warp, room for `ahead` blocks of P.
template <class Number, class S, class Sketch>
struct SketchBlock {
  const Sketch& sketch;
  int64_t chunk;
  int ahead;
  uint32_t* memory;

  // All of the chunk's part of plan.workspace is written.
  GRADEX_INLINE void run() const {
    const SketchPlan& plan = sketch.plan;
    for (int64_t first = 0; first < plan.samples; first += S::kSamples) {
      const int samples = static_cast<int>(plan.samples - first < S::kSamples ? plan.samples - first : S::kSamples);
      const Gradients gradients(memory, samples, sketch.tiling.elements());
      bool fresh = true;
      for (int64_t tile = chunk; tile < sketch.tiling.tiles(); tile += sketch.tiling.chunks) {
        if (sketch.empty(tile)) continue;
        add(gradients, tile, first, samples, fresh);
        fresh = false;
      }
      if (fresh) every_warp([&](int warp) { clear(warp, first, samples); });
    }
  }

 private:
  GRADEX_INLINE void add(const Gradients& gradients, int64_t tile, int64_t first, int samples, bool fresh) const {
    Warps<int> made;
    every_warp([&](int warp) {
      WarpProjection projection = on(gradients, tile, warp, 0);
      sketch.template make<Number, S>(gradients, tile, first, warp, &projection);
      made[warp] = projection.kept.made;
    });
    every_warp([&](int warp) {
      const WarpProjection projection = on(gradients, tile, warp, made[warp]);
      if (projection.share() >= sketch.tiling.shares) return;
      projection.template add_projected<S::kSamples>(partial(projection.share(), first), fresh, gradients, samples);
    });
  }

  GRADEX_INLINE WarpProjection on(const Gradients& gradients, int64_t tile, int warp, int made) const {
    uint32_t* own = memory + gradients.words() + warp * ahead * KeptProjection::kWords;
    return {sketch.plan, sketch.keys, sketch.tiling, sketch.elements(tile), warp, {own, ahead, made}};
  }

  GRADEX_INLINE float* partial(int share, int64_t first) const {
    const SketchPlan& plan = sketch.plan;
    return plan.workspace + ((chunk * sketch.tiling.shares + share) * plan.samples + first) * plan.dim;
  }

  GRADEX_INLINE void clear(int warp, int64_t first, int samples) const {
    for (int share = 0; share < sketch.tiling.shares; ++share) {
      every_lane([&](int lane) {
        for (int64_t i = warp * kLanes + lane; i < samples * sketch.plan.dim; i += kWarps * kLanes)
          partial(share, first)[i] = 0.0f;
      });
    }
  }
};

// out[i] += scale * the sum over chunks and shares, for 32 i: every warp sums some of them, and the warps' sums are
// added in order. memory: kWarps * kLanes doubles.
GRADEX_INLINE void add_chunks(const SketchPlan& plan, const BlockTiling& t, int64_t first, double* memory) {
  constexpr int kAtOnce = 16;  // reads before the first is added: nothing else hides what they wait for
  const int64_t size = plan.samples * plan.dim, parts = t.chunks * t.shares;
  every_warp([&](int warp) {
    every_lane([&](int lane) {
      const bool inside = first + lane < size;
      const int64_t end = inside ? (warp + 1) * parts / kWarps : 0;
      const float* from = plan.workspace + (inside ? first + lane : 0);
      double total = 0.0;
      GRADEX_UNROLL(1)
      for (int64_t part = warp * parts / kWarps; part < end; part += kAtOnce) {
        float x[kAtOnce];
        GRADEX_UNROLL(16) for (int i = 0; i < kAtOnce; ++i) x[i] = part + i < end ? from[(part + i) * size] : 0.0f;
        GRADEX_UNROLL(16) for (int i = 0; i < kAtOnce; ++i) total += x[i];
      }
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
