// The matrix unit's product of 16 x 16 by 16 x 8 bfloat16 numbers with float32 sums (PTX mma.m16n8k16), and its host
// twin.
#pragma once
#include <cstdint>

#include "bits.h"
#include "lanes.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What a lane holds, g = lane / 4 and c = lane % 4; a word is two bfloat16 numbers, the first one low.
struct Left {  // [16, 16]: words (row g, k 2c), (g + 8, 2c), (g, 2c + 8), (g + 8, 2c + 8), each with the next k
  uint32_t word[4];
};
struct alignas(8) Right {  // [16, 8]: words (k 2c, column g), (2c + 8, g), each with the next k
  uint32_t word[2];
};
struct Sums {  // [16, 8]: (g, 2c), (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1)
  float at[4];
};

// sums += left right
GRADEX_INLINE void multiply_add(Lanes<Sums>* sums, const Lanes<Left>& left, const Lanes<Right>& right) {
#ifdef __CUDA_ARCH__
  float (&s)[4] = sums->own.at;
  const uint32_t (&a)[4] = left.own.word;
  const uint32_t (&b)[2] = right.own.word;
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  const auto number = [](uint32_t word, int k) { return bit_cast<float>(k % 2 ? word & 0xFFFF0000u : word << 16); };
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 16; ++k) {
        const uint32_t a = left[row % 8 * 4 + k % 8 / 2].word[row / 8 + k / 8 * 2];
        const uint32_t b = right[column * 4 + k % 8 / 2].word[k / 8];
        (*sums)[lane].at[i] += number(a, k) * number(b, k);
      }
    }
  }
#endif
}

}  // namespace GRADEX_ISA
}  // namespace gradex
