// P in the very registers that the matrix unit reads: every lane makes its own numbers of a block.
#pragma once
#include <cstdint>

#include "distribution.h"
#include "matrix_unit.h"
#include "parts.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Of P^T of 16 elements and 32 columns, one half of each lane's elements: 4c + 2 half and the next.
struct HalfBlock {
  Lanes<Right> columns[2];

  // j: of the block's first element; column_block: of 32 columns.
  GRADEX_INLINE void make(const RoundKeys& keys, uint64_t j, uint64_t stride, int column_block, int half) {
    every_lane([&](int lane) {
      const auto quad = static_cast<uint32_t>(column_block * 8 + lane / 4);
      const uint64_t element = j + static_cast<uint64_t>(lane % 4 * 4 + 2 * half) * stride;
      const Normals low = exact_gaussian(element, quad, keys), high = exact_gaussian(element + stride, quad, keys);
      GRADEX_UNROLL(4)
      for (int k = 0; k < 4; ++k) columns[k / 2][lane].word[k % 2] = packed(low.z[k], high.z[k]);
    });
  }
};

// P^T of 16 elements and 32 columns: the columns 4g ... 4g + 3 are rows g and g + 8 of the first, then of the second.
struct ProjectionBlock {
  Lanes<Left> columns[2];

  GRADEX_INLINE void put_half(int half, const HalfBlock& made) {
    GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
      every_lane([&](int lane) {
        GRADEX_UNROLL(2)
        for (int w = 0; w < 2; ++w) columns[m][lane].word[2 * half + w] = made.columns[m][lane].word[w];
      });
    }
  }

  GRADEX_INLINE void make(Distribution distribution, const RoundKeys& keys, uint64_t j, uint64_t stride,
                          int column_block) {
    if (distribution == Distribution::kRademacher) return signs(keys, j, stride, column_block);
    GRADEX_UNROLL(2) for (int half = 0; half < 2; ++half) {
      HalfBlock made;
      made.make(keys, j, stride, column_block, half);
      put_half(half, made);
      lanes_meet();
    }
  }

 private:
  // One call of Philox has an element's signs for all lanes of the same c: each makes one element's, and they exchange.
  GRADEX_INLINE void signs(const RoundKeys& keys, uint64_t j, uint64_t stride, int column_block) {
    Lanes<uint32_t> own, words[4];
    every_lane([&](int lane) {
      const uint64_t element = j + static_cast<uint64_t>(lane % 4 * 4 + lane / 4 % 4) * stride;
      const Words w = rademacher_words(element, static_cast<uint32_t>(column_block / 4), keys);
      const int index = column_block % 4;
      own[lane] = index == 0 ? w.x : index == 1 ? w.y : index == 2 ? w.z : w.w;
    });
    GRADEX_UNROLL(4)
    for (int i = 0; i < 4; ++i) words[i] = shuffled(own, [i](int lane) { return i * 4 + lane % 4; });
    every_lane([&](int lane) {
      const auto sign = [&](int i, int k) { return words[i][lane] >> (lane / 4 * 4 + k) & 1u ? -1.0f : 1.0f; };
      GRADEX_UNROLL(2) for (int m = 0; m < 2; ++m) {
        GRADEX_UNROLL(4) for (int w = 0; w < 4; ++w) {
          const int i = w / 2 * 2, k = 2 * m + w % 2;
          columns[m][lane].word[w] = packed(sign(i, k), sign(i + 1, k));
        }
      }
    });
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
