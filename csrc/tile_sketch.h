// What every sketch on the CPU does: tiles of a parameter, their samples' gradients, times P, added up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "array.h"
#include "gradient_tile.h"
#include "parallel.h"
#include "sketch.h"
#include "tile.h"
#include "tile_sums.h"
#include "tiling.h"

namespace gradex {
inline namespace GRADEX_ISA {

// A large parameter's tiles are several of P: their samples' gradients take fewer passes over the tokens. A single row
// is read once whatever its tiles are, and of small ones more samples share a tile of P.
constexpr int64_t kLargeTile = 8 * kTileLanes, kLargeParameter = kMaxChunks * kLargeTile;
constexpr int64_t kGradients = 128 * kTileLanes;  // numbers of some samples' gradients at a time: 256 KiB

inline Tiling cpu_tiling(int64_t out_features, int64_t in_features) {
  const bool large = out_features > 1 && out_features * in_features >= kLargeParameter;
  return tiling(out_features, in_features, large ? kLargeTile : kTileLanes);
}

// Down the rows first: the inputs' columns stay in the cache.
struct Tile {
  int64_t row, rows, column, columns;

  Tile(const Tiling& t, int64_t index, int64_t out_features, int64_t in_features)
      : row(index % t.tiles_down * t.rows),
        rows(std::min(t.rows, out_features - row)),
        column(index / t.tiles_down * t.columns),
        columns(std::min(t.columns, in_features - column)) {}
};

// What one thread works with.
struct SketchScratch {
  ProjectionTile projection;
  GradientTile gradient;
  int64_t stride, samples;  // of a tile's gradient; that share a tile of P
  Array<float> gradients;   // [samples, stride], and room for kTileSamples more

  SketchScratch(const SketchPlan& plan, const Tiling& t)
      : projection(plan.distribution, plan.key),
        stride(whole_lanes(t.rows * t.columns)),
        samples(std::min(plan.samples, std::max(kGradients / stride / kTileSamples, int64_t{1}) * kTileSamples)),
        gradients(static_cast<size_t>((samples + kTileSamples) * stride + kVectorLanes)) {}
};

// make(gradient [rows, columns], scratch, tile, sample) writes a sample's gradient at a tile's elements; place(lane) is
// the element at a lane of the tile.
template <class Place, class Make>
void sketch_tile(float* partial, SketchScratch* scratch, const SketchPlan& plan, const Tile& tile, const Place& place,
                 const Make& make) {
  ProjectionTile& projection = scratch->projection;
  const int64_t size = tile.rows * tile.columns, stride = scratch->stride;
  for (int64_t first = 0; first < plan.samples; first += scratch->samples) {
    const int64_t samples = std::min(scratch->samples, plan.samples - first);
    for (int64_t s = 0; s < samples; ++s) {
      float* gradient = scratch->gradients.data() + s * stride;
      make(gradient, &scratch->gradient, tile, first + s);
      std::fill(gradient + size, gradient + stride, 0.0f);
    }
    for (int64_t piece = 0; piece < size; piece += kTileLanes) {
      const int64_t lanes = std::min(kTileLanes, size - piece);
      uint64_t j[kTileLanes];
      for (int64_t lane = 0; lane < lanes; ++lane) j[lane] = place(tile, piece + lane);
      projection.place(j, lanes);
      for (int64_t column = 0; column < plan.dim; column += kTileQuad)
        add_products(partial + first * plan.dim + column, plan.dim, samples, std::min(kTileQuad, plan.dim - column),
                     scratch->gradients.data() + piece, stride, projection.columns(column / kTileQuad),
                     projection.lanes());
    }
  }
}

// first_element(row): the element index of a row's first entry.
template <class FirstElement, class Make>
void sketch_tiles(const SketchPlan& plan, int64_t out_features, int64_t in_features, int workers,
                  const FirstElement& first_element, const Make& make) {
  const Tiling t = cpu_tiling(out_features, in_features);
  const int64_t size = plan.samples * plan.dim, tiles = t.tiles_down * t.tiles_across;
  const auto place = [&](const Tile& tile, int64_t lane) {
    return first_element(tile.row + lane / tile.columns) + static_cast<uint64_t>(tile.column + lane % tile.columns);
  };
  Array<std::unique_ptr<SketchScratch>> scratch(static_cast<size_t>(workers));
  parallel_for_worker(t.chunks, workers, [&](int64_t chunk, int worker) {
    if (!scratch[worker]) scratch[worker] = std::make_unique<SketchScratch>(plan, t);
    float* partial = plan.workspace + chunk * size;
    std::fill_n(partial, size, 0.0f);
    for (int64_t index = chunk * tiles / t.chunks; index < (chunk + 1) * tiles / t.chunks; ++index)
      sketch_tile(partial, scratch[worker].get(), plan, Tile(t, index, out_features, in_features), place, make);
  });
  for (int64_t i = 0; i < size; ++i) {
    double total = 0.0;
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) total += plan.workspace[chunk * size + i];
    plan.out[i] += static_cast<float>(plan.scale * total);
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
