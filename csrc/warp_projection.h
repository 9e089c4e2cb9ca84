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
  GRADEX_INLINE void make(const SketchPlan& plan, uint64_t j, uint64_t stride, int column_block) {
    if (plan.distribution == Distribution::kRademacher) return signs(plan.key, j, stride, column_block);
    every_lane([&](int lane) {
      const auto quad = static_cast<uint32_t>(column_block * 8 + lane / 4);
      float z[4][4];
      GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
        const uint64_t element = j + static_cast<uint64_t>(lane % 4 * 4 + i) * stride;
        const Normals normals = exact_gaussian(element, quad, plan.key);
        GRADEX_UNROLL(4) for (int k = 0; k < 4; ++k) z[i][k] = normals.z[k];
      }
      put(lane, z);
    });
  }

 private:
  // One call of Philox has an element's signs for all lanes of the same c: each makes one element's, and they exchange.
  GRADEX_INLINE void signs(uint64_t key, uint64_t j, uint64_t stride, int column_block) {
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

// partial[slot, column] += sum over a share of the tile's elements of a sample's gradient times P, for slot < samples.
template <int Samples>
GRADEX_INLINE void add_projected(float* partial, const SketchPlan& plan, const BlockTiling& t, const Gradients& tile,
                                 const TileElements& elements, int samples, int column_block, int share) {
  constexpr int kGroups = Samples / 8;
  Lanes<Sums> sums[2][kGroups];
  GRADEX_UNROLL(2)
  for (int m = 0; m < 2; ++m)
    GRADEX_UNROLL(8) for (int n = 0; n < kGroups; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
  const int blocks = t.elements() / kElementBlock, end = (share + 1) * blocks / t.shares * kElementBlock;
  int element = share * blocks / t.shares * kElementBlock, column = element % t.columns;
  uint64_t line = elements.first + static_cast<uint64_t>(element / t.columns) * elements.row_stride;
  for (; element < end; element += kElementBlock) {
    ProjectionBlock p;
    p.make(plan, line + static_cast<uint64_t>(column) * elements.column_stride, elements.column_stride, column_block);
    GRADEX_UNROLL(8) for (int n = 0; n < kGroups; ++n) {
      if (8 * n >= samples) break;
      GRADEX_UNROLL(2) for (int part = 0; part < 2; ++part) {
        Lanes<Right> g;
        every_lane([&](int lane) {
          g[lane] = *reinterpret_cast<const Right*>(tile.at(part, 8 * n + lane / 4, element + lane % 4 * 4));
        });
        GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) multiply_add(&sums[m][n], p.columns[m], g);
      }
    }
    column += kElementBlock;
    if (column == t.columns) {
      column = 0;
      line += elements.row_stride;
    }
  }
  every_lane([&](int lane) {
    const int64_t first = column_block * kColumnBlock + lane / 4 * 4;
    GRADEX_UNROLL(8) for (int n = 0; n < kGroups; ++n) {
      GRADEX_UNROLL(2) for (int which = 0; which < 2; ++which) {
        const int slot = 8 * n + lane % 4 * 2 + which;
        if (slot >= samples) continue;
        GRADEX_UNROLL(4) for (int k = 0; k < 4; ++k) {
          if (first + k < plan.dim) partial[slot * plan.dim + first + k] += sums[k / 2][n][lane].at[k % 2 * 2 + which];
        }
      }
    }
  });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
