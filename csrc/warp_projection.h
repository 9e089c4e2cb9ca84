// A warp multiplies a tile of samples' gradients by 32 columns of P, which its lanes make in the very registers that
// the matrix unit reads: P is never in memory, and made once for all samples of the tile.
#pragma once
#include <cstdint>

#include "distribution.h"
#include "matrix_unit.h"
#include "parts.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// P^T of 16 elements and 32 columns: the columns 4g ... 4g + 3 are rows g and g + 8 of the first, then of the second.
struct ProjectionBlock {
  Lanes<Left> columns[2];

  // z[i][k]: lane's element 4c + i, column 4g + k
  GRADEX_INLINE void put(int lane, const float (&z)[4][4]) {
    GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
      GRADEX_UNROLL(4) for (int w = 0; w < 4; ++w) {
        const int i = w / 2 * 2, k = 2 * m + w % 2;
        columns[m][lane].word[w] = packed(z[i][k], z[i + 1][k]);
      }
    }
  }

  // j: of the first element; column_block: of 32 columns.
  GRADEX_INLINE void make(Distribution distribution, const RoundKeys& key, uint64_t j, uint64_t stride,
                          int column_block) {
    if (distribution == Distribution::kRademacher) return signs(key, j, stride, column_block);
    every_lane([&](int lane) {
      const auto quad = static_cast<uint32_t>(column_block * 8 + lane / 4);
      float z[4][4];
      GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const uint64_t element = j + static_cast<uint64_t>(lane % 4 * 4 + i) * stride;
        const Normals normals = exact_gaussian(element, quad, key);
        GRADEX_UNROLL(4) for (int k = 0; k < 4; ++k) z[i][k] = normals.z[k];
      }
      put(lane, z);
    });
  }

 private:
  // One call of Philox has an element's signs for all lanes of the same c: each makes one element's, and they exchange.
  GRADEX_INLINE void signs(const RoundKeys& key, uint64_t j, uint64_t stride, int column_block) {
    Lanes<uint32_t> own, words[4];
    every_lane([&](int lane) {
      const uint64_t element = j + static_cast<uint64_t>(lane % 4 * 4 + lane / 4 % 4) * stride;
      const Words w = rademacher_words(element, static_cast<uint32_t>(column_block / 4), key);
      const int index = column_block % 4;
      own[lane] = index == 0 ? w.x : index == 1 ? w.y : index == 2 ? w.z : w.w;
    });
    GRADEX_UNROLL(4)
    for (int i = 0; i < 4; ++i) words[i] = shuffled(own, [i](int lane) { return i * 4 + lane % 4; });
    every_lane([&](int lane) {
      float z[4][4];
      GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
        GRADEX_UNROLL(4)
        for (int k = 0; k < 4; ++k) z[i][k] = words[i][lane] >> (lane / 4 * 4 + k) & 1u ? -1.0f : 1.0f;
      }
      put(lane, z);
    });
  }
};

// A warp's first blocks of P, made while it waits for tokens and kept in shared memory until it multiplies by them.
struct KeptProjection {
  static constexpr int kWords = 2 * 4 * kLanes;  // of a block

  uint32_t* memory;  // of this warp: a lane reads what it wrote
  int capacity, made;

  GRADEX_INLINE Left* at(int index, int m, int lane) const {
    return reinterpret_cast<Left*>(memory + index * kWords) + m * kLanes + lane;
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

  // Make one more block ahead, if any is left and there is room.
  GRADEX_INLINE void make_ahead() {
    if (kept.made == kept.capacity || share() >= tiling.shares) return;
    const int first = first_of(share()), count = (first_of(share() + 1) - first) / kElementBlock;
    const int block = warp % tiling.column_blocks + (count == 0 ? tiling.column_blocks : kept.made / count * kWarps);
    if (block >= tiling.column_blocks) return;
    ProjectionBlock p;
    make(&p, first + kept.made % count * kElementBlock, block);
    GRADEX_UNROLL(2)
    for (int m = 0; m < 2; ++m) every_lane([&](int lane) { *kept.at(kept.made, m, lane) = p.columns[m][lane]; });
    ++kept.made;
  }

  // partial[slot, column] = (or += unless `fresh`) the share's gradients times P, for slot < samples.
  template <int Samples>
  GRADEX_INLINE void add_projected(float* partial, bool fresh, const Gradients& tile, int samples) const {
    const int first = first_of(share()), end = first_of(share() + 1);
    int index = 0;
    for (int block = warp % tiling.column_blocks; block < tiling.column_blocks; block += kWarps) {
      Lanes<Sums> sums[2][Samples / 8];
      GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
        GRADEX_UNROLL(8)
        for (int n = 0; n < Samples / 8; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
      }
      for (int element = first; element < end; element += kElementBlock) {
        ProjectionBlock p;
        take(&p, index++, element, block);
        multiply<Samples>(sums, p, tile, samples, element);
      }
      put<Samples>(partial, fresh, sums, samples, block);
    }
  }

 private:
  GRADEX_INLINE int first_of(int share) const {
    return share * (tiling.elements() / kElementBlock) / tiling.shares * kElementBlock;
  }

  GRADEX_INLINE void make(ProjectionBlock* p, int element, int block) const {
    const uint64_t line = static_cast<uint64_t>(element / tiling.columns) * elements.row_stride;
    const uint64_t column = static_cast<uint64_t>(element % tiling.columns) * elements.column_stride;
    p->make(plan.distribution, keys, elements.first + line + column, elements.column_stride, block);
  }

  GRADEX_INLINE void take(ProjectionBlock* p, int index, int element, int block) const {
    if (index >= kept.made) return make(p, element, block);
    GRADEX_UNROLL(2)
    for (int m = 0; m < 2; ++m) every_lane([&](int lane) { p->columns[m][lane] = *kept.at(index, m, lane); });
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
