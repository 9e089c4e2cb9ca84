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

template <int Count>
struct alignas(2 * Count) Run {
  BFloat16 x[Count];
};

// Features first ... first + Count - 1 of a token; 0 beyond the last feature, and where the token is not `inside`.
template <int Count>
GRADEX_INLINE void read(BFloat16 (&x)[Count], const Factor& f, int64_t token, int64_t first, bool inside) {
  const auto* from = static_cast<const BFloat16*>(f.data) + token * f.features + first;
  if (f.aligned) {
    Run<Count> run{};
    if (inside && first < f.features) run = *reinterpret_cast<const Run<Count>*>(from);
    GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) x[i] = run.x[i];
  } else {
    GRADEX_UNROLL(4)
    for (int i = 0; i < Count; ++i) x[i] = inside && first + i < f.features ? from[i] : BFloat16{};
  }
}

template <class Number, int Count>
GRADEX_INLINE void read_as(float (&x)[Count], const Factor& f, int64_t from, int64_t inside) {
  const auto* numbers = static_cast<const Number*>(f.data) + from;
  GRADEX_UNROLL(4) for (int i = 0; i < Count; ++i) x[i] = i < inside ? to_float(numbers[i]) : 0.0f;
}

template <int Count>
GRADEX_INLINE void read(float (&x)[Count], const Factor& f, int64_t token, int64_t first, bool inside) {
  const int64_t from = token * f.features + first, left = inside ? f.features - first : 0;
  if (f.type == DType::kFloat32) return read_as<float>(x, f, from, left);
  if (f.type == DType::kFloat16) return read_as<Float16>(x, f, from, left);
  return read_as<BFloat16>(x, f, from, left);
}

// A lane g = lane / 4, c = lane % 4 has, of every 16 tokens, 4c ... 4c + 3; of every 16 rows, 2g and 2g + 1; of Columns
// columns, those from g Columns / 8 on.
template <class Number, int Rows, int Columns>
struct WarpGradient {
  static constexpr int kTall = Rows / 16, kWide = Columns / 8, kNumberParts = kParts<Number>;

  Lanes<Sums> sums[kTall][kWide];

  GRADEX_INLINE WarpGradient() {
    GRADEX_UNROLL(2)
    for (int m = 0; m < kTall; ++m)
      GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) every_lane([&](int lane) { sums[m][n][lane] = Sums{}; });
  }

  // Tokens first ... end - 1, 16 at most; `row` and `column` are the piece's first.
  GRADEX_INLINE void add(const Factor& left, int64_t row, const Factor& right, int64_t column, int64_t first,
                         int64_t end) {
    Lanes<Left> a[kNumberParts][kTall];
    Lanes<Right> b[kNumberParts][kWide];
    every_lane([&](int lane) {
      const int g = lane / 4, c = lane % 4;
      Number x[4][kTall][2], y[4][kWide];
      GRADEX_UNROLL(4) for (int t = 0; t < 4; ++t) {
        const int64_t token = first + 4 * c + t;
        GRADEX_UNROLL(2)
        for (int m = 0; m < kTall; ++m) read(x[t][m], left, token, row + 16 * m + 2 * g, token < end);
        read(y[t], right, token, column + g * kWide, token < end);
      }
      GRADEX_UNROLL(2) for (int pair = 0; pair < 2; ++pair) {
        const int t = 2 * pair;
        GRADEX_UNROLL(2) for (int m = 0; m < kTall; ++m) {
          GRADEX_UNROLL(2) for (int half = 0; half < 2; ++half) {
            const auto word = in_parts(x[t][m][half], x[t + 1][m][half]);
            GRADEX_UNROLL(2) for (int p = 0; p < kNumberParts; ++p) a[p][m][lane].word[half + t] = word.part[p];
          }
        }
        GRADEX_UNROLL(4) for (int n = 0; n < kWide; ++n) {
          const auto word = in_parts(y[t][n], y[t + 1][n]);
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
