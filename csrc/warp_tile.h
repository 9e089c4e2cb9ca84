// How the GPU cuts a parameter's gradient: left features by right features, the narrow side left. Which side is the
// layer's output matters no more: an element's index is offset + left * left.stride + right * right.stride.
#pragma once
#include <cstdint>

#include "lanes.h"
#include "sketch.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What a warp makes of a sample's gradient at once, kRows x kColumns; how much of a gradient a block has, kElements, and
// of how many samples. A warp reads kRows + kColumns numbers of a token for kRows kColumns products, so square layers
// want square pieces; P is made once for every kSamples; a small layer needs small tiles to occupy the whole GPU.
template <int Rows, int Columns, int Elements, int Samples>
struct Shape {
  static constexpr int kRows = Rows, kColumns = Columns, kElements = Elements, kSamples = Samples;
};
using SmallFew = Shape<16, 16, 256, 16>;
using SmallMany = Shape<16, 16, 256, 64>;
using NarrowFew = Shape<16, 32, 512, 16>;
using SquareFew = Shape<32, 32, 1024, 16>;

constexpr int64_t kSmall = 1 << 17, kSquareSide = 64;  // elements; left features

// body(shape). Signs cost so little that they are made again for every few samples.
template <class Body>
void dispatch_shape(const SketchPlan& plan, int64_t left, int64_t right, const Body& body) {
  if (plan.samples > SmallFew::kSamples && plan.distribution == Distribution::kGaussian) return body(SmallMany{});
  if (left * right < kSmall) return body(SmallFew{});
  if (left < kSquareSide) return body(NarrowFew{});
  return body(SquareFew{});
}

constexpr int64_t kColumnBlock = 32;          // columns of P that a warp makes at once
constexpr int64_t kElementBlock = 16;         // elements
constexpr int64_t kMaxDeviceChunks = 1024;

GRADEX_INLINE constexpr int64_t ratio_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A parameter in tiles, and the chunks (a block of threads each) that share them out: by shape alone.
struct BlockTiling {
  int64_t rows, columns;          // of a tile; columns are whole pieces of a warp's, made up by gradients of 0
  int64_t down, across;           // tiles
  int64_t chunks;                 // chunk c has the tiles c, c + chunks, ...
  int64_t column_blocks, shares;  // of P; of a tile's elements, where there are more warps than column blocks

  template <class S>
  static BlockTiling of(S, int64_t left, int64_t right, int64_t dim) {
    BlockTiling t{};
    t.rows = ratio_up(left, ratio_up(left, S::kRows));
    const int64_t wide = S::kElements / t.rows / S::kColumns * S::kColumns;
    const int64_t whole = ratio_up(right, S::kColumns) * S::kColumns;
    t.columns = wide < whole ? wide : whole;
    t.down = ratio_up(left, t.rows);
    t.across = ratio_up(right, t.columns);
    t.chunks = t.tiles() < kMaxDeviceChunks ? t.tiles() : kMaxDeviceChunks;
    t.column_blocks = ratio_up(dim, kColumnBlock);
    t.shares = t.column_blocks < kWarps ? kWarps / t.column_blocks : 1;
    return t;
  }

  GRADEX_INLINE int64_t elements() const { return rows * columns; }
  GRADEX_INLINE int64_t tiles() const { return down * across; }
  // Floats: every chunk and share has a [samples, dim] of its own.
  GRADEX_INLINE int64_t workspace(const SketchPlan& plan) const { return chunks * shares * plan.samples * plan.dim; }
};

// Where the elements of a tile are in P.
struct TileElements {
  uint64_t first, row_stride, column_stride;
};

// A tile of the gradients of some samples, as sums of two bfloat16 parts: [part, slot, stride].
struct Gradients {
  static constexpr int64_t kParts = 2, kPadding = 16;  // numbers after a sample: eight of them fall in different banks

  uint16_t* parts;
  int64_t slots, stride;

  GRADEX_INLINE Gradients(uint16_t* memory, int64_t samples, int64_t elements)
      : parts(memory), slots(ratio_up(samples, 8) * 8), stride(elements + kPadding) {}

  GRADEX_INLINE int64_t bytes() const { return kParts * slots * stride * static_cast<int64_t>(sizeof(uint16_t)); }
  GRADEX_INLINE uint16_t* at(int64_t part, int64_t slot, int64_t element) const {
    return parts + (part * slots + slot) * stride + element;
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
