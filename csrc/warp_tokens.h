// What a lane reads of 16 tokens for a piece of a gradient: runs of neighbouring features, straight from memory.
#pragma once
#include <cstdint>

#include "dtype.h"
#include "parts.h"
#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

// One side of a layer: X or D, [samples, tokens, features].
struct Factor {
  const void* data;
  int64_t features;
  uint64_t stride;  // in P, between two features
  DType type;
  bool aligned;  // a Run of it can be read at once
};

// Neighbouring features of a token, an even number.
template <class Number, int Count>
struct alignas(4 * Count) Run {
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

// Which tokens and features: from token `first` on, before `end`; a piece's, from `row` of the left factor and from
// `column` of the right one on.
struct Place {
  const Factor &left, &right;
  int64_t row, column, first, end;
};

// A lane g = lane / 4, c = lane % 4 has, of every 16 tokens, 4c ... 4c + 3; of every 16 rows, 2g and 2g + 1; of 8 Wide
// columns, those from g Wide on.
template <class Number, int Tall, int Wide>
struct LaneTokens {
  Run<Number, 2> x[4][Tall];
  Run<Number, Wide> y[4];

  // Tokens p.first + after ... + 15 of aligned factors; all: none of them is p.end or beyond. A lane beyond the last
  // feature reads the first ones. In 32 bits where it can be: a pointer is then one instruction.
  template <bool all>
  GRADEX_INLINE void read_whole_runs(int lane, const Place& p, int after) {
    const int g = lane / 4, c = lane % 4;
    const int64_t token = p.first + 4 * c;
    const auto left = static_cast<int>(p.end - token) - after;
    const char* from = at(p.right, token, p.column + g * Wide);
    const char* rows[Tall];
    GRADEX_UNROLL(2) for (int m = 0; m < Tall; ++m) rows[m] = at(p.left, token, p.row + 16 * m + 2 * g);
    GRADEX_UNROLL(4) for (int t = 0; t < 4; ++t) {
      if (!all && t >= left) {
        y[t] = {};
        GRADEX_UNROLL(2) for (int m = 0; m < Tall; ++m) x[t][m] = {};
        continue;
      }
      y[t] = *reinterpret_cast<const Run<Number, Wide>*>(from + step(p.right, after + t));
      GRADEX_UNROLL(2) for (int m = 0; m < Tall; ++m) {
        x[t][m] = *reinterpret_cast<const Run<Number, 2>*>(rows[m] + step(p.left, after + t));
      }
    }
  }

  GRADEX_INLINE void read_any(int lane, const Place& p, int after) {
    const int g = lane / 4, c = lane % 4;
    GRADEX_UNROLL(4) for (int t = 0; t < 4; ++t) {
      const int64_t token = p.first + after + 4 * c + t;
      GRADEX_UNROLL(2)
      for (int m = 0; m < Tall; ++m) read(&x[t][m], p.left, token, p.row + 16 * m + 2 * g, token < p.end);
      read(&y[t], p.right, token, p.column + g * Wide, token < p.end);
    }
  }

 private:
  static GRADEX_INLINE const char* at(const Factor& f, int64_t token, int64_t first) {
    return reinterpret_cast<const char*>(static_cast<const Number*>(f.data) + token * f.features +
                                         (first < f.features ? first : 0));
  }

  static GRADEX_INLINE uint64_t step(const Factor& f, int tokens) {
    return static_cast<uint64_t>(static_cast<uint32_t>(f.features) * static_cast<uint32_t>(sizeof(Number))) *
           static_cast<uint32_t>(tokens);
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
