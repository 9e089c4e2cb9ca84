// How the CPU cuts a parameter matrix.
#pragma once
#include <cstdint>

#include "target.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A parameter matrix is cut into tiles and its tiles into chunks by its shape alone. A chunk sums in a fixed order into
// a [samples, dim] of its own and the chunks are added in order: the same bits for any number of threads and blocks.
constexpr int64_t kMaxChunks = 64, kWidestTile = 64;

struct Tiling {
  int64_t rows, columns;  // of a tile
  int64_t tiles_down, tiles_across;
  int64_t chunks;
};

// Tiles of at most `elements`.
inline Tiling tiling(int64_t out_features, int64_t in_features, int64_t elements) {
  Tiling t{};
  t.columns = in_features < kWidestTile ? in_features : kWidestTile;
  t.rows = elements / t.columns;
  if (t.rows > out_features) {  // a flat parameter: let the tile grow along the row instead
    t.rows = out_features;
    const int64_t widest = elements / t.rows;
    t.columns = in_features < widest ? in_features : widest;
  }
  t.tiles_down = (out_features + t.rows - 1) / t.rows;
  t.tiles_across = (in_features + t.columns - 1) / t.columns;
  const int64_t tiles = t.tiles_down * t.tiles_across;
  t.chunks = tiles < kMaxChunks ? tiles : kMaxChunks;
  return t;
}

}  // namespace GRADEX_ISA
}  // namespace gradex
