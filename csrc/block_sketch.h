// What a block of threads does for a sketch on the GPU: for every tile of its chunk, the samples' gradients into shared
// memory, then their products with P into its own sums. Nothing else synchronises, and every sum has a fixed order.
#pragma once
#include <cstdint>

#include "warp_projection.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

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
