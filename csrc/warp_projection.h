// A warp multiplies a tile of samples' gradients by 32 columns of P at a time, made once for all samples of the tile.
#pragma once
#include <cstdint>

#include "projection_block.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A warp's first blocks of P, made while it waits for tokens and kept in shared memory until it multiplies by them.
struct KeptProjection {
  static constexpr int kWords = 2 * 2 * 2 * kLanes;  // of a block: halves, columns, words of a lane

  uint32_t* memory;    // of this warp: a lane reads what it wrote
  int capacity, made;  // blocks; halves of blocks

  GRADEX_INLINE Right* at(int half, int m, int lane) const {
    return reinterpret_cast<Right*>(memory) + (2 * half + m) * kLanes + lane;
  }
};

// A warp's work on P for one tile of some samples: its share of the elements, by its blocks of columns. In this order
// the warp makes its blocks of P and multiplies by them.
struct WarpProjection {
  const SketchPlan& plan;
  const RoundKeys& keys;
  const BlockTiling& tiling;
  TileElements elements;
  int warp;
  KeptProjection kept;

  GRADEX_INLINE int share() const { return warp / tiling.column_blocks; }

  // Make half a block more ahead, if any is left and there is room.
  GRADEX_INLINE void make_ahead() {
    if (kept.made == 2 * kept.capacity || share() >= tiling.shares) return;
    const int first = first_of(share());
    const auto count = static_cast<uint32_t>((first_of(share() + 1) - first) / kElementBlock);
    const auto index = static_cast<uint32_t>(kept.made) / 2u, turn = count == 0u ? 0u : index / count;
    const int block = warp % tiling.column_blocks + static_cast<int>(turn) * kWarps;
    if (count == 0u || block >= tiling.column_blocks) return;
    const int element = first + static_cast<int>(index - turn * count) * kElementBlock;
    HalfBlock p;
    p.make(keys, in_p(element), elements.column_stride, block, kept.made % 2);
    GRADEX_UNROLL(2)
    for (int m = 0; m < 2; ++m) every_lane([&](int lane) { *kept.at(kept.made, m, lane) = p.columns[m][lane]; });
    ++kept.made;
  }

  // partial[slot, column] = (or += unless `fresh`) the share's gradients times P, for slot < samples.
  template <int Samples>
  GRADEX_INLINE void add_projected(float* partial, bool fresh, const Gradients& tile, int samples) const {
    int half = 0;  // of the next block, as kept
    for (int block = warp % tiling.column_blocks; block < tiling.column_blocks; block += kWarps) {
      Lanes<Sums> sums[2][Samples / 8];
      GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
        GRADEX_UNROLL(8)
        for (int n = 0; n < Samples / 8; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
      }
      for (int element = first_of(share()); element < first_of(share() + 1); element += kElementBlock) {
        ProjectionBlock p;
        take(&p, half, element, block);
        half += 2;
        multiply<Samples>(sums, p, tile, samples, element);
      }
      put<Samples>(partial, fresh, sums, samples, block);
    }
  }

 private:
  GRADEX_INLINE int first_of(int share) const {
    const auto blocks = static_cast<uint32_t>(share * (tiling.elements() / kElementBlock));
    return static_cast<int>(blocks / static_cast<uint32_t>(tiling.shares)) * kElementBlock;
  }

  // Where an element of the tile is in P.
  GRADEX_INLINE uint64_t in_p(int element) const {
    const auto at = static_cast<uint32_t>(element), columns = static_cast<uint32_t>(tiling.columns);
    return elements.first + at / columns * elements.row_stride + at % columns * elements.column_stride;
  }

  GRADEX_INLINE void take(ProjectionBlock* p, int first, int element, int block) const {
    if (first + 2 > kept.made) return p->make(plan.distribution, keys, in_p(element), elements.column_stride, block);
    GRADEX_UNROLL(2) for (int half = 0; half < 2; ++half) {
      HalfBlock made;
      GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
        every_lane([&](int lane) { made.columns[m][lane] = *kept.at(first + half, m, lane); });
      }
      p->put_half(half, made);
    }
  }

  template <int Samples>
  GRADEX_INLINE void multiply(Lanes<Sums> (&sums)[2][Samples / 8], const ProjectionBlock& p, const Gradients& tile,
                              int samples, int element) const {
    GRADEX_UNROLL(8) for (int n = 0; n < Samples / 8; ++n) {
      if (8 * n >= samples) break;
      GRADEX_UNROLL(2) for (int part = 0; part < 2; ++part) {
        Lanes<Right> g;
        every_lane([&](int lane) {
          g[lane] = *reinterpret_cast<const Right*>(tile.at(part, 8 * n + lane / 4, element + lane % 4 * 4));
        });
        GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) multiply_add(&sums[m][n], p.columns[m], g);
      }
    }
  }

  template <int Samples>
  GRADEX_INLINE void put(float* partial, bool fresh, const Lanes<Sums> (&sums)[2][Samples / 8], int samples,
                         int block) const {
    every_lane([&](int lane) {
      const int64_t first = block * kColumnBlock + lane / 4 * 4;
      GRADEX_UNROLL(8) for (int n = 0; n < Samples / 8; ++n) {
        GRADEX_UNROLL(2) for (int which = 0; which < 2; ++which) {
          const int slot = 8 * n + lane % 4 * 2 + which;
          if (slot >= samples) continue;
          GRADEX_UNROLL(4) for (int k = 0; k < 4; ++k) {
            if (first + k >= plan.dim) continue;
            float* sum = partial + slot * plan.dim + first + k;
            *sum = (fresh ? 0.0f : *sum) + sums[k / 2][n][lane].at[k % 2 * 2 + which];
          }
        }
      }
    });
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
