// The sketch on the CPU; compiled once per instruction set.
#include "parallel.h"
#include "sketch.h"
#include "tile.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

constexpr int64_t kColumnBlock = 32;  // columns of P in one tile: 256 x 32 floats, 32 KiB
constexpr int64_t kPatch = 4;         // samples x columns held in registers by one product

struct Tile {
  int64_t row, rows, column, columns, lanes;
  uint64_t j[kTileElements];
};

Tile make_tile(const SketchArguments& a, const Tiling& t, int64_t index) {
  Tile tile;
  tile.row = index / t.tiles_across * t.rows;
  tile.column = index % t.tiles_across * t.columns;
  tile.rows = t.rows < a.out_features - tile.row ? t.rows : a.out_features - tile.row;
  tile.columns = t.columns < a.in_features - tile.column ? t.columns : a.in_features - tile.column;
  tile.lanes = round_up(tile.rows * tile.columns, kLanes);
  for (int64_t lane = 0; lane < tile.lanes; ++lane) {
    const int64_t o = tile.row + lane / tile.columns, c = tile.column + lane % tile.columns;
    tile.j[lane] = a.offset + static_cast<uint64_t>(o * a.in_features + c);
  }
  return tile;
}

// gradient[lane] = G_i at the tile's elements; zero in the padding lanes.
template <class Input, class Grad>
void gradient_tile(float* __restrict gradient, const SketchArguments& a, const Tile& tile, int64_t sample) {
  const int64_t tokens = a.lengths ? a.lengths[sample] : a.tokens;
  const auto* x = static_cast<const Input*>(a.inputs) + sample * a.tokens * a.in_features + tile.column;
  const auto* d = static_cast<const Grad*>(a.grads) + sample * a.tokens * a.out_features + tile.row;
  for (int64_t lane = 0; lane < tile.lanes; ++lane) gradient[lane] = 0.0f;
  for (int64_t t = 0; t < tokens; ++t, x += a.in_features, d += a.out_features) {
    for (int64_t row = 0; row < tile.rows; ++row) {
      const float weight = to_float(d[row]);
      float* __restrict g = gradient + row * tile.columns;
      for (int64_t c = 0; c < tile.columns; ++c) g[c] += weight * to_float(x[c]);
    }
  }
}

// out[s * out_stride + k] += sum_lane gradients[s, lane] projection[k, lane], at most kPatch samples and columns.
void product_patch(float* __restrict out, int64_t out_stride, const float* __restrict gradients,
                   const float* __restrict projection, int64_t lanes, int64_t samples, int64_t columns) {
  float sum[kPatch][kPatch][kLanes] = {};
  for (int64_t lane = 0; lane < lanes; lane += kLanes)
    for (int64_t s = 0; s < samples; ++s)
      for (int64_t k = 0; k < columns; ++k)
        for (int64_t l = 0; l < kLanes; ++l)
          sum[s][k][l] += gradients[s * kTileElements + lane + l] * projection[k * kTileElements + lane + l];
  for (int64_t s = 0; s < samples; ++s) {
    for (int64_t k = 0; k < columns; ++k) {
      float total = 0.0f;
      for (int64_t l = 0; l < kLanes; ++l) total += sum[s][k][l];
      out[s * out_stride + k] += total;
    }
  }
}

// partial[samples, dim] += gradients . P for one tile, P made in blocks of columns.
void project_tile(float* partial, const SketchArguments& a, const Tile& tile, const float* gradients,
                  float* projection) {
  for (int64_t block = 0; block < a.dim; block += kColumnBlock) {
    const int64_t columns = kColumnBlock < a.dim - block ? kColumnBlock : a.dim - block;
    gaussian_tile(projection, kTileElements, tile.j, tile.lanes, static_cast<uint32_t>(block / 4), (columns + 3) / 4,
                  a.key);
    for (int64_t s = 0; s < a.samples; s += kPatch) {
      for (int64_t k = 0; k < columns; k += kPatch) {
        float* out = partial + s * a.dim + block + k;
        const float *g = gradients + s * kTileElements, *p = projection + k * kTileElements;
        if (a.samples - s >= kPatch && columns - k >= kPatch) {
          product_patch(out, a.dim, g, p, tile.lanes, kPatch, kPatch);
        } else {
          product_patch(out, a.dim, g, p, tile.lanes, a.samples - s < kPatch ? a.samples - s : kPatch,
                        columns - k < kPatch ? columns - k : kPatch);
        }
      }
    }
  }
}

template <class Input, class Grad>
void sketch_chunk(float* partial, float* scratch, const SketchArguments& a, const Tiling& t, int64_t chunk) {
  float *gradients = scratch, *projection = scratch + a.samples * kTileElements;
  for (int64_t i = 0; i < a.samples * a.dim; ++i) partial[i] = 0.0f;
  const int64_t tiles = t.tiles_down * t.tiles_across;
  for (int64_t index = chunk * tiles / t.chunks; index < (chunk + 1) * tiles / t.chunks; ++index) {
    const Tile tile = make_tile(a, t, index);
    for (int64_t s = 0; s < a.samples; ++s) gradient_tile<Input, Grad>(gradients + s * kTileElements, a, tile, s);
    project_tile(partial, a, tile, gradients, projection);
  }
}

int64_t scratch_size(const SketchArguments& a) { return (a.samples + kColumnBlock) * kTileElements; }

}  // namespace

int64_t sketch_cpu_workspace(const SketchArguments& a, int workers) {
  return tiling(a.out_features, a.in_features).chunks * a.samples * a.dim + workers * scratch_size(a);
}

void sketch_cpu(const SketchArguments& a, int workers) {
  const Tiling t = tiling(a.out_features, a.in_features);
  const int64_t partial = a.samples * a.dim;
  float* scratch = a.workspace + t.chunks * partial;
  dispatch(a.inputs_type, [&](auto input) {
    dispatch(a.grads_type, [&](auto grad) {
      parallel_for_worker(t.chunks, workers, [&](int64_t chunk, int worker) {
        sketch_chunk<decltype(input), decltype(grad)>(a.workspace + chunk * partial, scratch + worker * scratch_size(a),
                                                      a, t, chunk);
      });
    });
  });
  for (int64_t i = 0; i < partial; ++i) {
    double total = 0.0;
    for (int64_t chunk = 0; chunk < t.chunks; ++chunk) total += a.workspace[chunk * partial + i];
    a.out[i] += static_cast<float>(a.scale * total);
  }
}

}  // namespace GRADEX_ISA
}  // namespace gradex
