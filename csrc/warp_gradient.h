// A warp makes a piece of one sample's gradient, sum_t L[t, :]^T R[t, :], on the matrix unit, straight from memory: in
// which order it takes rows, columns and tokens is free, so every lane reads neighbours.
#pragma once
#include <cstdint>

#include "matrix_unit.h"
#include "parts.h"
#include "warp_tile.h"

namespace gradex {
inline namespace GRADEX_ISA {

// One side of a layer: X or D, [samples, tokens, features].
struct Factor {
  const void* data;
  int64_t features;
  uint64_t stride;  // in P, between two features
  DType type;
  bool aligned;  // pieces of neighbours can be read at once
};

// Neighbouring features of a token, an even number.
template <class Number, int Count>
struct Run {
  float x[Count];
};
template <int Count>
struct alignas(2 * Count) Run<BFloat16, Count> {
  uint32_t word[Count / 2];  // two each
};

// Features first ... first + Count - 1 of a token; 0 beyond the last feature, and where the token is not `inside`.
template <int Count>
GRADEX_INLINE void read(Run<BFloat16, Count>* run, const Factor& f, int64_t token, int64_t first, bool inside) {
  const auto* from = static_cast<const BFloat16*>(f.data) + token * f.features + first;
  *run = {};
  if (f.aligned) {
    if (inside && first < f.features) *run = *reinterpret_cast<const Run<BFloat16, Count>*>(from);
    return;
  }
  GRADEX_UNROLL(4)
  for (int i = 0; i < Count; ++i)
    if (inside && first + i < f.features) run->word[i / 2] |= static_cast<uint32_t>(from[i].bits) << (i % 2 * 16);
}

template <class Number, int Count>
GRADEX_INLINE void read_as(Run<float, Count>* run, const Factor& f, int64_t from, int64_t inside) {
  const auto* numbers = static_cast<const Number*>(f.data) + from;
  GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) run->x[i] = i < inside ? to_float(numbers[i]) : 0.0f;
}

template <int Count>
GRADEX_INLINE void read(Run<float, Count>* run, const Factor& f, int64_t token, int64_t first, bool inside) {
  const int64_t from = token * f.features + first, left = inside ? f.features - first : 0;
  if (f.type == DType::kFloat32) return read_as<float>(run, f, from, left);
  if (f.type == DType::kFloat16) return read_as<Float16>(run, f, from, left);
  return read_as<BFloat16>(run, f, from, left);
}

// Neighbour i of two tokens.
template <int Count>
GRADEX_INLINE Packed<2> pair_of(const Run<float, Count>& low, const Run<float, Count>& high, int i) {
  return in_parts(low.x[i], high.x[i]);
}

template <int Count>
GRADEX_INLINE Packed<1> pair_of(const Run<BFloat16, Count>& low, const Run<BFloat16, Count>& high, int i) {
  const uint32_t a = low.word[i / 2], b = high.word[i / 2];
  return {{i % 2 == 0 ? (a & 0xFFFFu) | b << 16 : a >> 16 | (b & 0xFFFF0000u)}};
}

// Pieces of a gradient, 16 by 8, whose tokens are read before the first is used: a warp waits for memory once for all
// of them. From sm_100 on the compiler needs the registers elsewhere.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kPiecesAhead = 2;
#else
constexpr int kPiecesAhead = 8;
#endif

// A lane g = lane / 4, c = lane % 4 has, of every 16 tokens, 4c ... 4c + 3; of every 16 rows, 2g and 2g + 1; of Columns
// columns, those from g Columns / 8 on.
template <class Number, int Rows, int Columns>
struct WarpGradient {
  static constexpr int kTall = Rows / 16, kWide = Columns / 8, kNumberParts = kParts<Number>;
  static constexpr int kPieces = kNumberParts > 1 ? kPiecesAhead : kTall * kWide;
  static constexpr int kAhead = kPieces < kPiecesAhead ? kPiecesAhead / kPieces : 1;  // sixteens of tokens
  static constexpr int kTokens = 16 * kAhead;

  Lanes<Sums> sums[kTall][kWide];

  GRADEX_INLINE WarpGradient() {
    GRADEX_UNROLL(2)
    for (int m = 0; m < kTall; ++m)
      GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
  }

  // Tokens first ... end - 1, kTokens at most; `row` and `column` are the piece's first.
  GRADEX_INLINE void add(const Factor& left, int64_t row, const Factor& right, int64_t column, int64_t first,
                         int64_t end) {
    Lanes<Tokens> tokens[kAhead];
    GRADEX_UNROLL(4)
    for (int i = 0; i < kAhead; ++i)
      every_lane([&](int lane) { tokens[i][lane].read_all(lane, left, row, right, column, first + 16 * i, end); });
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
  // What a lane has of 16 tokens.
  struct Tokens {
    Run<Number, 2> x[4][kTall];
    Run<Number, kWide> y[4];

    GRADEX_INLINE void read_all(int lane, const Factor& left, int64_t row, const Factor& right, int64_t column,
                                int64_t first, int64_t end) {
      const int g = lane / 4, c = lane % 4;
      GRADEX_UNROLL(4) for (int t = 0; t < 4; ++t) {
        const int64_t token = first + 4 * c + t;
        GRADEX_UNROLL(2)
        for (int m = 0; m < kTall; ++m) read(&x[t][m], left, token, row + 16 * m + 2 * g, token < end);
        read(&y[t], right, token, column + g * kWide, token < end);
      }
    }
  };

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
