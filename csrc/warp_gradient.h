// A warp makes a piece of one sample's gradient, sum_t L[t, :]^T R[t, :], on the matrix unit, straight from memory: in
// which order it takes rows, columns and tokens is free, so every lane reads neighbours.
#pragma once
#include <cstdint>

#include "matrix_unit.h"
#include "parts.h"
#include "warp_tile.h"
#include "warp_tokens.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Neighbour i of two tokens.
template <int Count>
GRADEX_INLINE Packed<2> pair_of(const Run<float, Count>& low, const Run<float, Count>& high, int i) {
  return in_parts(low.x[i], high.x[i]);
}

template <int Count>
GRADEX_INLINE Packed<1> pair_of(const Run<BFloat16, Count>& low, const Run<BFloat16, Count>& high, int i) {
  const uint32_t a = low.word[i / 2], b = high.word[i / 2];
#ifdef __CUDA_ARCH__
  return {{__byte_perm(a, b, i % 2 == 0 ? 0x5410 : 0x7632)}};
#else
  return {{i % 2 == 0 ? (a & 0xFFFFu) | b << 16 : a >> 16 | (b & 0xFFFF0000u)}};
#endif
}

// Pieces of a gradient, 16 by 8, whose tokens are read before the first is used: a warp waits for memory once for all
// of them. From sm_100 on the compiler needs the registers elsewhere.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kPiecesAhead = 2;
#else
constexpr int kPiecesAhead = 8;
#endif

template <class Number, int Rows, int Columns>
struct WarpGradient {
  static constexpr int kTall = Rows / 16, kWide = Columns / 8, kNumberParts = kParts<Number>;
  static constexpr int kPieces = kNumberParts > 1 ? kPiecesAhead : kTall * kWide;
  static constexpr int kAhead = kPieces < kPiecesAhead ? kPiecesAhead / kPieces : 1;  // sixteens of tokens
  static constexpr int kTokens = 16 * kAhead;
  using Tokens = LaneTokens<Number, kTall, kWide>;

  Lanes<Sums> sums[kTall][kWide];

  GRADEX_INLINE WarpGradient() {
    GRADEX_UNROLL(2)
    for (int m = 0; m < kTall; ++m)
      GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
  }

  // Tokens p.first ... p.end - 1, kTokens at most. `meanwhile` is called between the reads and their first use. Sums
  // of features beyond the last one are undefined.
  template <class Meanwhile>
  GRADEX_INLINE void add(const Place& p, const Meanwhile& meanwhile) {
    Lanes<Tokens> tokens[kAhead];
    const bool aligned = p.left.aligned && p.right.aligned, all = p.first + kTokens <= p.end;
    const auto each = [&](const auto& read) {
      GRADEX_UNROLL(4) for (int i = 0; i < kAhead; ++i) {
        every_lane([&](int lane) { read(&tokens[i][lane], lane, 16 * i); });
      }
    };
    if (!aligned)
      each([&](Tokens* own, int lane, int after) { own->read_any(lane, p, after); });
    else if (all)
      each([&](Tokens* own, int lane, int after) { own->template read_whole_runs<true>(lane, p, after); });
    else
      each([&](Tokens* own, int lane, int after) { own->template read_whole_runs<false>(lane, p, after); });
    meanwhile();
    GRADEX_UNROLL(4) for (int i = 0; i < kAhead; ++i) add_sixteen(tokens[i]);
  }

  // put(row, column, x): x [kWide] of a row of the piece, from `column` on.
  template <class Put>
  GRADEX_INLINE void each_run(const Put& put) {
    every_lane([&](int lane) {
      const int g = lane / 4, c = lane % 4;
      GRADEX_UNROLL(2) for (int m = 0; m < kTall; ++m) {
        GRADEX_UNROLL(4) for (int i = 0; i < 4; ++i) {
          float x[kWide];
          GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) x[n] = sums[m][n][lane].at[i];
          put(16 * m + 2 * g + i / 2, (2 * c + i % 2) * kWide, x);
        }
      }
    });
  }

 private:
  GRADEX_INLINE void add_sixteen(const Lanes<Tokens>& tokens) {
    Lanes<Left> a[kNumberParts][kTall];
    Lanes<Right> b[kNumberParts][kWide];
    every_lane([&](int lane) {
      const Tokens& own = tokens[lane];
      GRADEX_UNROLL(2) for (int pair = 0; pair < 2; ++pair) {
        const int t = 2 * pair;
        GRADEX_UNROLL(2) for (int m = 0; m < kTall; ++m) {
          GRADEX_UNROLL(2) for (int half = 0; half < 2; ++half) {
            const auto word = pair_of(own.x[t][m], own.x[t + 1][m], half);
            GRADEX_UNROLL(2) for (int p = 0; p < kNumberParts; ++p) a[p][m][lane].word[half + t] = word.part[p];
          }
        }
        GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) {
          const auto word = pair_of(own.y[t], own.y[t + 1], n);
          GRADEX_UNROLL(2) for (int p = 0; p < kNumberParts; ++p) b[p][n][lane].word[pair] = word.part[p];
        }
      }
    });
    GRADEX_UNROLL(2) for (int m = 0; m < kTall; ++m) {
      GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) {
        // The product of two low parts is below what two parts keep.
        GRADEX_UNROLL(2) for (int p = 0; p < kNumberParts; ++p) multiply_add(&sums[m][n], a[p][m], b[0][n]);
        if constexpr (kNumberParts > 1) multiply_add(&sums[m][n], a[0][m], b[1][n]);
      }
    }
  }
};

// Neighbours of a sample's gradient, an even number from an even element on, in parts.
template <int Count>
GRADEX_INLINE void store(const Gradients& out, int slot, int element, const float (&x)[Count]) {
  GRADEX_UNROLL(2) for (int i = 0; i < Count; i += 2) {
    const Packed<2> word = in_parts(x[i], x[i + 1]);
    GRADEX_UNROLL(2) for (int p = 0; p < 2; ++p) * out.at(p, slot, element + i) = word.part[p];
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
