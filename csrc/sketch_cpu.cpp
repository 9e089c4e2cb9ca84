// The sketches on the CPU; compiled once per instruction set.
#include <algorithm>

#include "sketch.h"
#include "tile_sketch.h"

namespace gradex {
inline namespace GRADEX_ISA {
namespace {

template <class Input, class Grad>
void sketch(const SketchArguments& a, int workers) {
  const auto* inputs = static_cast<const Input*>(a.inputs);
  const auto* grads = static_cast<const Grad*>(a.grads);
  sketch_tiles(
      a.plan, a.out_features, a.in_features, workers,
      [&](int64_t row) { return a.offset + static_cast<uint64_t>(row * a.in_features); },
      [&](float* gradient, GradientTile* scratch, const Tile& tile, int64_t sample) {
        const Grad* d = grads + sample * a.tokens * a.out_features + tile.row;
        const Input* x = inputs + sample * a.tokens * a.in_features + tile.column;
        scratch->make(gradient, Columns<Grad>{d, a.out_features, tile.rows},
                      Columns<Input>{x, a.in_features, tile.columns}, a.lengths ? a.lengths[sample] : a.tokens);
      });
}

// G_i[row, :] = sum of the values at sample i's tokens that looked the row up.
template <class Value>
void sketch_rows(const RowSketchArguments& a, int workers) {
  const auto* values = static_cast<const Value*>(a.values);
  sketch_tiles(
      a.plan, a.rows, a.width, workers, [&](int64_t row) { return static_cast<uint64_t>(a.row[row] * a.width); },
      [&](float* gradient, GradientTile*, const Tile& tile, int64_t sample) {
        std::fill_n(gradient, tile.rows * tile.columns, 0.0f);
        for (int64_t row = 0; row < tile.rows; ++row) {
          const int64_t *begin = a.token + a.start[tile.row + row], *end = a.token + a.start[tile.row + row + 1];
          const int64_t* token = std::lower_bound(begin, end, sample * a.tokens);
          for (; token < end && *token < (sample + 1) * a.tokens; ++token) {
            const Value* value = values + *token * a.width + tile.column;
            for (int64_t c = 0; c < tile.columns; ++c) gradient[row * tile.columns + c] += to_float(value[c]);
          }
        }
      });
}

}  // namespace

int64_t sketch_cpu_workspace(const SketchPlan& plan, int64_t out_features, int64_t in_features) {
  return cpu_tiling(out_features, in_features).chunks * plan.samples * plan.dim;
}

void sketch_cpu(const SketchArguments& a, int workers) {
  dispatch(a.inputs_type, [&](auto input) {
    dispatch(a.grads_type, [&](auto grad) { sketch<decltype(input), decltype(grad)>(a, workers); });
  });
}

void sketch_rows_cpu(const RowSketchArguments& a, int workers) {
  dispatch(a.values_type, [&](auto value) { sketch_rows<decltype(value)>(a, workers); });
}

}  // namespace GRADEX_ISA
}  // namespace gradex
