// The sketch on the CPU; compiled once per instruction set.
#include <algorithm>
#include <memory>

#include "array.h"
#include "gradient_tile.h"
#include "parallel.h"
#include "sketch.h"
#include "tile.h"
#include "tile_sums.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

constexpr int64_t kSamples = 128;  // whose gradients share a tile of P: 256 KiB

// What one thread works with.
struct Scratch {
  ProjectionTile projection;
  GradientTile gradient;
  Array<float> gradients;  // [samples, kTileLanes], and room for kTileSamples more

  explicit Scratch(const SketchArguments& a)
      : projection(a.distribution, a.key),
        gradients((std::min(a.samples, kSamples) + kTileSamples) * kTileLanes + kVectorLanes) {}
};

// Down the rows first: the inputs' columns stay in the cache.
struct Tile {
  int64_t row, rows, column, columns;

  Tile(const SketchArguments& a, const Tiling& t, int64_t index)
      : row(index % t.tiles_down * t.rows),
        rows(std::min(t.rows, a.out_features - row)),
        column(index / t.tiles_down * t.columns),
        columns(std::min(t.columns, a.in_features - column)) {}
};

void place(ProjectionTile* projection, const SketchArguments& a, const Tile& tile) {
  uint64_t j[kTileLanes];
  for (int64_t row = 0; row < tile.rows; ++row)
    for (int64_t c = 0; c < tile.columns; ++c)
      j[row * tile.columns + c] = a.offset + static_cast<uint64_t>((tile.row + row) * a.in_features + tile.column + c);
  projection->place(j, tile.rows * tile.columns);
}

// gradient[lane] = G_i at the tile's elements; 0 in the lanes that make it whole vectors.
template <class Input, class Grad>
void make_gradient(float* gradient, GradientTile* scratch, const SketchArguments& a, const Tile& tile, int64_t sample) {
  const int64_t tokens = a.lengths ? a.lengths[sample] : a.tokens, size = tile.rows * tile.columns;
  const auto* x = static_cast<const Input*>(a.inputs) + sample * a.tokens * a.in_features + tile.column;
  const auto* d = static_cast<const Grad*>(a.grads) + sample * a.tokens * a.out_features + tile.row;
  scratch->make(gradient, Columns<Grad>{d, a.out_features, tile.rows}, Columns<Input>{x, a.in_features, tile.columns},
                tokens);
  std::fill(gradient + size, gradient + (size + kVectorLanes - 1) / kVectorLanes * kVectorLanes, 0.0f);
}

template <class Input, class Grad>
void sketch_tile(float* partial, Scratch* scratch, const SketchArguments& a, const Tile& tile) {
  ProjectionTile& projection = scratch->projection;
  place(&projection, a, tile);
  for (int64_t first = 0; first < a.samples; first += kSamples) {
    const int64_t samples = std::min(kSamples, a.samples - first);
    float* gradients = scratch->gradients.data();
    for (int64_t s = 0; s < samples; ++s)
      make_gradient<Input, Grad>(gradients + s * kTileLanes, &scratch->gradient, a, tile, first + s);
    for (int64_t column = 0; column < a.dim; column += kTileQuad)
      add_products(partial + first * a.dim + column, a.dim, samples, std::min(kTileQuad, a.dim - column), gradients,
                   projection.columns(column / kTileQuad), projection.lanes());
  }
}

Tiling cut(const SketchArguments& a) { return tiling(a.out_features, a.in_features, kTileLanes); }

}  // namespace

int64_t sketch_cpu_workspace(const SketchArguments& a) { return cut(a).chunks * a.samples * a.dim; }

void sketch_cpu(const SketchArguments& a, int workers) {
  const Tiling t = cut(a);
  const int64_t size = a.samples * a.dim, tiles = t.tiles_down * t.tiles_across;
  Array<std::unique_ptr<Scratch>> scratch(static_cast<size_t>(workers));
  dispatch(a.inputs_type, [&](auto input) {
    dispatch(a.grads_type, [&](auto grad) {
      parallel_for_worker(t.chunks, workers, [&](int64_t chunk, int worker) {
        if (!scratch[worker]) scratch[worker] = std::make_unique<Scratch>(a);
        float* partial = a.workspace + chunk * size;
        std::fill_n(partial, size, 0.0f);
        for (int64_t index = chunk * tiles / t.chunks; index < (chunk + 1) * tiles / t.chunks; ++index)
          sketch_tile<decltype(input), decltype(grad)>(partial, scratch[worker].get(), a, Tile(a, t, index));
      });
    });
  });
  for (int64_t i = 0; i < size; ++i) {
    double total = 0.0;
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) total += a.workspace[chunk * size + i];
    a.out[i] += static_cast<float>(a.scale * total);
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
