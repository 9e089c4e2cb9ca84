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

namespace gradex {
inline namespace GRADEX_ISA {

constexpr int64_t kSamples = 128;  // whose gradients share a tile of P: 256 KiB

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
  Array<float> gradients;  // [samples, kTileLanes], and room for kTileSamples more

  explicit SketchScratch(const SketchPlan& plan)
      : projection(plan.distribution, plan.key),
        gradients((std::min(plan.samples, kSamples) + kTileSamples) * kTileLanes + kVectorLanes) {}
};

// make(gradient [rows, columns], scratch, tile, sample) writes a sample's gradient at a tile's elements.
template <class Make>
void sketch_tile(float* partial, SketchScratch* scratch, const SketchPlan& plan, const Tile& tile, const Make& make) {
  ProjectionTile& projection = scratch->projection;
  const int64_t size = tile.rows * tile.columns;
  for (int64_t first = 0; first < plan.samples; first += kSamples) {
    const int64_t samples = std::min(kSamples, plan.samples - first);
    for (int64_t s = 0; s < samples; ++s) {
      float* gradient = scratch->gradients.data() + s * kTileLanes;
      make(gradient, &scratch->gradient, tile, first + s);
      std::fill(gradient + size, gradient + projection.lanes(), 0.0f);
    }
    for (int64_t column = 0; column < plan.dim; column += kTileQuad)
      add_products(partial + first * plan.dim + column, plan.dim, samples, std::min(kTileQuad, plan.dim - column),
                   scratch->gradients.data(), projection.columns(column / kTileQuad), projection.lanes());
  }
}

// place(row) is the element index of a row's first entry.
template <class Place, class Make>
void sketch_tiles(const SketchPlan& plan, int64_t out_features, int64_t in_features, int workers, const Place& place,
                  const Make& make) {
  const Tiling t = tiling(out_features, in_features, kTileLanes);
  const int64_t size = plan.samples * plan.dim, tiles = t.tiles_down * t.tiles_across;
  Array<std::unique_ptr<SketchScratch>> scratch(static_cast<size_t>(workers));
  parallel_for_worker(t.chunks, workers, [&](int64_t chunk, int worker) {
    if (!scratch[worker]) scratch[worker] = std::make_unique<SketchScratch>(plan);
    float* partial = plan.workspace + chunk * size;
    std::fill_n(partial, size, 0.0f);
    for (int64_t index = chunk * tiles / t.chunks; index < (chunk + 1) * tiles / t.chunks; ++index) {
      const Tile tile(t, index, out_features, in_features);
      uint64_t j[kTileLanes];
      for (int64_t row = 0; row < tile.rows; ++row)
        for (int64_t c = 0; c < tile.columns; ++c)
          j[row * tile.columns + c] = place(tile.row + row) + static_cast<uint64_t>(tile.column + c);
      scratch[worker]->projection.place(j, tile.rows * tile.columns);
      sketch_tile(partial, scratch[worker].get(), plan, tile, make);
    }
  });
  for (int64_t i = 0; i < size; ++i) {
    double total = 0.0;
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) total += plan.workspace[chunk * size + i];
    plan.out[i] += static_cast<float>(plan.scale * total);
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
