// How the GPU cuts a parameter's gradient: left features by right features, the narrow side left. Which side is the
// layer's output matters no more: an element's index is offset + left * left.stride + right * right.stride.
#pragma once
#include <cstdint>

#include "lanes.h"
#include "sketch.h"

namespace gradex {
inline namespace GRADEX_ISA {

// What a warp makes of a sample's gradient at once, kRows x kColumns; how much of a gradient a block has, kElements,
// and of how many samples. A warp reads kRows + kColumns numbers of a token for kRows kColumns products, so square
// layers want square pieces; P is made once for every kSamples; a small layer needs small tiles to occupy the whole
// GPU.
template <int Rows, int Columns, int Elements, int Samples>
struct Shape {
  static constexpr int kRows = Rows, kColumns = Columns, kElements = Elements, kSamples = Samples;
  // Whether warps make P while they wait for tokens. A square tile's tokens are few for its P.
  static constexpr bool kMakesAhead = Rows <= 16;
};
using SmallFew = Shape<16, 16, 256, 16>;
using SmallMany = Shape<16, 16, 256, 64>;
using NarrowFew = Shape<16, 32, 512, 16>;
using SquareFew = Shape<32, 32, 1024, 16>;
using Lines = Shape<16, 16, 256, 32>;  // of a parameter that is looked up

constexpr int64_t kSmall = 1 << 17, kSquareSide = 64;  // elements; left features

// body(shape). Signs cost so little that they are made again for every few samples; of normals, what a small tile needs
// is made while its warps wait for memory.
template <class Body>
void dispatch_shape(const SketchPlan& plan, int64_t left, int64_t right, const Body& body) {
  const bool normals = plan.distribution == Distribution::kGaussian || left == 1;
  if (normals && plan.samples > SmallFew::kSamples) return body(SmallMany{});
  if (left * right < kSmall || left == 1) return body(SmallFew{});
  if (left < kSquareSide) return body(NarrowFew{});
  return body(SquareFew{});
}

constexpr int kColumnBlock = 32;   // columns of P that a warp makes at once
constexpr int kElementBlock = 16;  // elements
constexpr int64_t kMaxDeviceChunks = 512;

GRADEX_INLINE constexpr int64_t ratio_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A parameter in tiles, and the chunks (a block of threads each) that share them out: by shape alone.
struct BlockTiling {
  int rows, columns;          // of a tile; columns are whole pieces of a warp's, made up by gradients of 0
  int column_blocks, shares;  // of P; of a tile's elements, where there are more warps than column blocks
  int64_t down, across;       // tiles
  int64_t chunks;             // chunk c has the tiles c, c + chunks, ...

  template <class S>
  static BlockTiling of(S, int64_t left, int64_t right, int64_t dim, int64_t most_rows = S::kRows) {
    BlockTiling t{};
    const int64_t rows = ratio_up(left, ratio_up(left, most_rows));
    const int64_t wide = S::kElements / rows / S::kColumns * S::kColumns;
    const int64_t whole = ratio_up(right, S::kColumns) * S::kColumns;
    t.rows = static_cast<int>(rows);
    t.columns = static_cast<int>(wide < whole ? wide : whole);
    t.column_blocks = static_cast<int>(ratio_up(dim, kColumnBlock));
    t.shares = t.column_blocks < kWarps ? kWarps / t.column_blocks : 1;
    t.down = ratio_up(left, rows);
    t.across = ratio_up(right, t.columns);
    t.chunks = t.tiles() < kMaxDeviceChunks ? t.tiles() : kMaxDeviceChunks;
    return t;
  }

  GRADEX_INLINE int elements() const { return rows * columns; }
  GRADEX_INLINE int64_t tiles() const { return down * across; }
  // In 32 bits: a parameter of 2^40 elements does not exist, and the GPU has no instruction for a longer division.
  GRADEX_INLINE uint32_t down_of(int64_t tile) const {
    return static_cast<uint32_t>(tile) % static_cast<uint32_t>(down);
  }
  GRADEX_INLINE uint32_t across_of(int64_t tile) const {
    return static_cast<uint32_t>(tile) / static_cast<uint32_t>(down);
  }
  // Floats: every chunk and share has a [samples, dim] of its own.
  GRADEX_INLINE int64_t workspace(const SketchPlan& plan) const { return chunks * shares * plan.samples * plan.dim; }
};

// Where the elements of a tile are in P.
struct TileElements {
  uint64_t first, row_stride, column_stride;
};

// A tile of the gradients of some samples, as sums of two bfloat16 parts, two elements a word: [part, slot, element].
struct Gradients {
  static constexpr int kParts = 2;
  static constexpr int kPadding = 8;  // words after a sample: the reads of neighbours fall in different banks

  uint32_t* memory;
  int slots, stride;  // samples, made up to eights; words

  GRADEX_INLINE Gradients(uint32_t* words, int samples, int elements)
      : memory(words), slots((samples + 7) / 8 * 8), stride(elements / 2 + kPadding) {}

  GRADEX_INLINE int words() const { return kParts * slots * stride; }
  // The word of an even element and the next.
  GRADEX_INLINE uint32_t* at(int part, int slot, int element) const {
    return memory + (part * slots + slot) * stride + element / 2;
  }
};

}  // namespace GRADEX_ISA
}  // namespace gradex
