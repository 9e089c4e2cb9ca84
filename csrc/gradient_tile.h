// A tile of one sample's gradient, sum_t D[t, :]^T X[t, :]: some rows (outputs) by some columns (inputs).
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "array.h"
#include "dtype.h"
#include "vector.h"

namespace gradex {
inline namespace GRADEX_ISA {

// Some columns of [tokens, stride] numbers.
template <class Number>
struct Columns {
  const Number* from;  // at the first of them
  int64_t stride, count;
};

class GradientTile {
 public:
  // out [rows, columns] = sum over the tokens of rows^T columns.
  template <class Left, class Right>
  void make(float* out, const Columns<Left>& rows, const Columns<Right>& columns, int64_t tokens) {
    if (columns.count < kVectorLanes && rows.count > columns.count) {
      turned_.resize(static_cast<size_t>(rows.count * columns.count));
      product(turned_.data(), columns, rows, tokens);
      for (int64_t o = 0; o < rows.count; ++o)
        for (int64_t c = 0; c < columns.count; ++c) out[o * columns.count + c] = turned_[c * rows.count + o];
    } else {
      product(out, rows, columns, tokens);
    }
  }

 private:
  static constexpr int64_t kTokens = 32;  // at a time: of 64 rows and 64 columns 16 KiB
  static constexpr int64_t kWorthCopies =
      2048;  // elements; strides of whole pages cost more than a copy that they share
#if defined(__AVX512F__)
  static constexpr int64_t kRows = 4, kVectors = 4;  // 16 sums, 4 + 1 operands of 32 registers
#else
  static constexpr int64_t kRows = 4, kVectors = 2;
#endif

  static int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

  template <class Left, class Right>
  void product(float* out, const Columns<Left>& rows, const Columns<Right>& columns, int64_t tokens) {
    const int64_t tall = whole(rows.count, kRows), wide = whole(columns.count, kVectorLanes);
    const bool fits = tall == rows.count && wide == columns.count;
    if (!fits) sums_.resize(static_cast<size_t>(tall * wide));
    float* sums = fits ? out : sums_.data();
    std::fill_n(sums, tall * wide, 0.0f);
    for (int64_t first = 0; first < tokens; first += kTokens) {
      const int64_t block = std::min(kTokens, tokens - first);
      const Columns<float> left = floats(&left_, tall, rows, first, block, tall * wide >= kWorthCopies);
      const Columns<float> right = floats(&right_, wide, columns, first, block, tall * wide >= kWorthCopies);
      for (int64_t row = 0; row < tall; row += kRows) {
        int64_t column = 0;
        for (; column + kVectors * kVectorLanes <= wide; column += kVectors * kVectorLanes)
          add<kVectors>(sums + row * wide + column, wide, left, row, right, column, block);
        for (; column < wide; column += kVectorLanes)
          add<1>(sums + row * wide + column, wide, left, row, right, column, block);
      }
    }
    if (fits) return;
    for (int64_t row = 0; row < rows.count; ++row)
      std::copy_n(sums + row * wide, columns.count, out + row * columns.count);
  }

  // A block of tokens as floats, `width` columns: where they are, or a copy
  // with zeros beyond the last.
  template <class Number>
  static Columns<float> floats(Array<float>* packed, int64_t width, const Columns<Number>& columns, int64_t first,
                               int64_t block, bool copy) {
    if constexpr (std::is_same_v<Number, float>) {
      if (columns.count == width && !copy) return {columns.from + first * columns.stride, columns.stride, width};
    }
    packed->resize(static_cast<size_t>(kTokens * width));
    for (int64_t t = 0; t < block; ++t) {
      const Number* __restrict from = columns.from + (first + t) * columns.stride;
      float* __restrict to = packed->data() + t * width;
      for (int64_t c = 0; c < columns.count; ++c) to[c] = to_float(from[c]);
      for (int64_t c = columns.count; c < width; ++c) to[c] = 0.0f;
    }
    return {packed->data(), width, width};
  }

  template <int Vectors>
  static void add(float* out, int64_t stride, const Columns<float>& left, int64_t row, const Columns<float>& right,
                  int64_t column, int64_t tokens) {
    Vector sums[kRows][Vectors];
    GRADEX_UNROLL(4)
    for (int64_t r = 0; r < kRows; ++r)
      GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) sums[r][v] = load(out + r * stride + v * kVectorLanes);
    const float *d = left.from + row, *x = right.from + column;
    for (int64_t t = 0; t < tokens; ++t, d += left.stride, x += right.stride) {
      Vector loaded[Vectors];
      GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) loaded[v] = load(x + v * kVectorLanes);
      GRADEX_UNROLL(4) for (int64_t r = 0; r < kRows; ++r) {
        const Vector factor = splat(d[r]);
        GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) sums[r][v] += factor * loaded[v];
      }
    }
    GRADEX_UNROLL(4)
    for (int64_t r = 0; r < kRows; ++r)
      GRADEX_UNROLL(4) for (int v = 0; v < Vectors; ++v) store(out + r * stride + v * kVectorLanes, sums[r][v]);
  }

  Array<float> left_, right_, sums_, turned_;
};

}  // namespace GRADEX_ISA
}  // namespace gradex
